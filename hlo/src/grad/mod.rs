//! Reverse-mode differentiation.
//!
//! One backward pass, from the last node to the first, serves a program and the bodies of its loops
//! and branches alike. Each operation has a VJP (vector-Jacobian product) in `rules`: it turns the
//! cotangent of the node's output into cotangents of its inputs. It is applied at each node between
//! a wanted input and the result. Cotangents of one value from several users are added.
//!
//! A rule asks a [`VjpContext`] for primal values, those of the forward pass. In the program itself
//! they are there. In a body they may not be: the backward pass then runs in another function, and
//! `primal_body` decides for each value whether the forward pass saves it or the backward pass
//! computes it again.

mod bodies;
mod dot;
mod primal_body;
mod rules;

use std::collections::BTreeMap;
use std::panic::Location;

use crate::graph::{Graph, Tensor};
use crate::ir::{Node, NodeId, Op, Scan};
use crate::shape::{Shape, Type};

use primal_body::PrimalBody;

impl Graph {
    /// The derivative of `loss`, a floating-point scalar, with respect to each of `inputs`, of
    /// their shapes. An input that the loss does not depend on has zeros.
    ///
    /// Within a body what was computed outside is constant: it carries gradients to an input only
    /// if it is that input.
    #[track_caller]
    pub fn gradients<'g>(&'g self, loss: Tensor<'g>, inputs: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let shape = loss.shape();
        if shape.rank() != 0 || !shape.dtype.is_float() {
            let bad = self.refuse(
                "gradients",
                format!("the derivative of {shape}; it has to be a floating-point scalar"),
            );
            return vec![bad; inputs.len()];
        }
        let location = Location::caller();
        let wanted: Vec<NodeId> = inputs.iter().map(|t| self.local(*t, location)).collect();
        let loss = self.local(loss, location);
        let primal = Primal::Here {
            graph: self,
            nodes: self.nodes_here(),
        };
        let one = self.scalar(shape.dtype, 1.0);
        let found = backward_pass(&primal, &[(loss, one)], &wanted);
        wanted
            .iter()
            .zip(inputs)
            .map(|(w, t)| found.get(w).copied().unwrap_or_else(|| t.zeros_like()))
            .collect()
    }
}

/// The computation that is being differentiated.
enum Primal<'g, 'b> {
    /// The function being built, whose first `nodes` nodes are the primal ones: cotangents go to
    /// its end.
    Here { graph: &'g Graph, nodes: usize },
    /// A loop's or a branch's body; the function being built is its derivative.
    Body(&'b PrimalBody<'g>),
}

impl<'g> Primal<'g, '_> {
    fn graph(&self) -> &'g Graph {
        match self {
            Primal::Here { graph, .. } => graph,
            Primal::Body(b) => b.graph,
        }
    }

    fn len(&self) -> usize {
        match self {
            Primal::Here { nodes, .. } => *nodes,
            Primal::Body(b) => b.len(),
        }
    }

    fn node(&self, id: NodeId) -> Node {
        match self {
            Primal::Here { graph, .. } => graph.node(graph.here(id)),
            Primal::Body(b) => b.node(id),
        }
    }

    /// The value of a primal node, in the function being built.
    fn value(&self, id: NodeId) -> Tensor<'g> {
        match self {
            Primal::Here { graph, .. } => graph.here(id),
            Primal::Body(b) => b.value(id),
        }
    }

    /// Replaces a scan by one with more results and gives the values of the results `indices`.
    fn extend_scan(&self, id: NodeId, scan: Scan, indices: &[usize]) -> Vec<Tensor<'g>> {
        let ty = Type::Tuple(scan.result_shapes());
        if let Some(problem) = ty.problem() {
            refuse_at(self.graph(), "scan", problem, self.node(id).location);
        }
        match self {
            Primal::Here { graph, .. } => {
                graph.replace_here(id, Op::Scan(scan), ty);
                indices
                    .iter()
                    .map(|&i| graph.get_tuple_element(graph.here(id), i))
                    .collect()
            }
            Primal::Body(b) => b.extend_scan(id, scan, ty, indices),
        }
    }
}

/// The node at which a VJP is applied.
struct VjpContext<'g, 'f, 'b> {
    primal: &'f Primal<'g, 'b>,
    id: NodeId,
    node: Node,
    /// Whether each input's cotangent is wanted.
    wanted: Vec<bool>,
}

impl<'g> VjpContext<'g, '_, '_> {
    fn graph(&self) -> &'g Graph {
        self.primal.graph()
    }

    /// The value of input `i`.
    fn input(&self, i: usize) -> Tensor<'g> {
        self.primal.value(self.node.inputs[i])
    }

    /// The values of the inputs from `first` on.
    fn inputs_from(&self, first: usize) -> Vec<Tensor<'g>> {
        (first..self.node.inputs.len())
            .map(|i| self.input(i))
            .collect()
    }

    /// The shape of input `i`, for which its value need not exist.
    fn input_shape(&self, i: usize) -> Shape {
        self.primal.node(self.node.inputs[i]).ty.array()
    }

    /// The value of the node itself.
    fn output(&self) -> Tensor<'g> {
        self.primal.value(self.id)
    }
}

/// Cotangents of one node's results; most have one.
type ResultCotangents<'g> = BTreeMap<usize, Tensor<'g>>;

/// Carries the cotangents in `seeds` back to the `wanted` nodes, where they are gathered.
fn backward_pass<'g>(
    primal: &Primal<'g, '_>,
    seeds: &[(NodeId, Tensor<'g>)],
    wanted: &[NodeId],
) -> BTreeMap<NodeId, Tensor<'g>> {
    let graph = primal.graph();
    let active = activity(primal, wanted);
    let mut cotangents: BTreeMap<NodeId, ResultCotangents<'g>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for &(id, dy) in seeds {
        if active[id] {
            accumulate(&mut cotangents, id, 0, dy);
        }
    }
    while let Some((id, results)) = cotangents.pop_last() {
        if wanted.contains(&id) {
            found.insert(id, results[&0]);
        }
        let node = primal.node(id);
        if node.inputs.is_empty() {
            continue;
        }
        if let Op::GetTupleElement { index } = node.op {
            accumulate(&mut cotangents, node.inputs[0], index, results[&0]);
            continue;
        }
        let scope = if node.scope.is_empty() {
            "gradient".into()
        } else {
            format!("gradient/{}", node.scope).into()
        };
        let _attribution = graph.attribute(scope, Some(node.location));
        let wanted = node.inputs.iter().map(|i| active[*i]).collect();
        let context = VjpContext {
            primal,
            id,
            node,
            wanted,
        };
        let inputs = match rules::apply(&context, &results) {
            Ok(inputs) => inputs,
            Err(error) => {
                refuse_at(
                    graph,
                    context.node.op.name(),
                    error.to_string(),
                    context.node.location,
                );
                continue;
            }
        };
        for (i, dx) in inputs.into_iter().enumerate() {
            let Some(dx) = dx.filter(|_| context.wanted[i]) else {
                continue;
            };
            let expected = context.input_shape(i);
            if dx.shape() != expected {
                let problem = format!(
                    "the gradient of input {i} is {} and should be {expected}",
                    dx.shape()
                );
                refuse_at(
                    graph,
                    context.node.op.name(),
                    problem,
                    context.node.location,
                );
                continue;
            }
            accumulate(&mut cotangents, context.node.inputs[i], 0, dx);
        }
    }
    found
}

fn accumulate<'g>(
    cotangents: &mut BTreeMap<NodeId, ResultCotangents<'g>>,
    id: NodeId,
    index: usize,
    dy: Tensor<'g>,
) {
    let results = cotangents.entry(id).or_default();
    let sum = results.get(&index).map_or(dy, |before| *before + dy);
    results.insert(index, sum);
}

/// For each primal node, whether its derivative with respect to a wanted one can differ from zero.
fn activity(primal: &Primal<'_, '_>, wanted: &[NodeId]) -> Vec<bool> {
    let mut active = vec![false; primal.len()];
    for id in 0..active.len() {
        let node = primal.node(id);
        active[id] = wanted.contains(&id)
            || (match &node.op {
                Op::StopGradient | Op::Compare(_) | Op::Invalid | Op::RngBits { .. } => false,
                // The output itself is computed from the inputs; only the rule's inputs carry
                // gradients.
                Op::CustomVjp { inputs, .. } => node.inputs[1..=*inputs].iter().any(|i| active[*i]),
                _ => node.inputs.iter().any(|i| active[*i]),
            } && match &node.ty {
                Type::Array(s) => s.dtype.is_float(),
                Type::Tuple(_) => true,
            });
    }
    active
}

fn refuse_at(
    graph: &Graph,
    operation: &'static str,
    problem: String,
    location: &'static Location<'static>,
) {
    graph.refuse_at(operation, format!("derivative: {problem}"), location);
}
