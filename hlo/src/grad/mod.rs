//! Reverse-mode derivatives.
//!
//! One walk, from the last node back to the first, serves a program and the bodies of its loops and branches alike. At each
//! node that lies between a wanted input and the result, a rule (`rules`, one a operation) turns the gradient of the
//! node's output into gradients of its inputs; gradients of one value from several users are added.
//!
//! A rule asks a [`Site`] for the values of the forward pass. In the program itself these are at hand. In a body they
//! may not be: the walk then runs in another function, and `bodies` decides for each value whether the forward pass
//! saves it or the backward pass computes it again.

mod bodies;
mod rules;

use std::collections::BTreeMap;
use std::panic::Location;

use crate::function::{Node, NodeId};
use crate::graph::{Graph, Tensor};
use crate::op::{Op, Scan};
use crate::shape::{Shape, Type};

use bodies::Body;

/// A hand-written derivative: `(operands, output, dy)` to one gradient an input. See [`Tensor::custom_gradient`].
pub(crate) trait Derivative {
    fn apply<'g>(
        &self,
        operands: &[Tensor<'g>],
        output: Tensor<'g>,
        dy: Tensor<'g>,
    ) -> Vec<Tensor<'g>>;
}

impl<F: for<'a> Fn(&[Tensor<'a>], Tensor<'a>, Tensor<'a>) -> Vec<Tensor<'a>>> Derivative for F {
    fn apply<'g>(
        &self,
        operands: &[Tensor<'g>],
        output: Tensor<'g>,
        dy: Tensor<'g>,
    ) -> Vec<Tensor<'g>> {
        self(operands, output, dy)
    }
}

impl Graph {
    /// The derivative of `loss`, a floating-point scalar, with respect to each of `inputs`, of their shapes. An input that
    /// the loss does not depend on has zeros.
    ///
    /// Within a body what was computed outside is constant: it carries gradients to an input only if it is that input.
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
        let place = Location::caller();
        let wanted: Vec<NodeId> = inputs.iter().map(|t| self.local(*t, place)).collect();
        let loss = self.local(loss, place);
        let forward = Forward::Here {
            graph: self,
            nodes: self.nodes_here(),
        };
        let one = self.scalar(shape.dtype, 1.0);
        let found = walk(&forward, &[(loss, one)], &wanted);
        wanted
            .iter()
            .zip(inputs)
            .map(|(w, t)| found.get(w).copied().unwrap_or_else(|| t.zeros_like()))
            .collect()
    }
}

/// The forward pass that is being differentiated.
enum Forward<'g, 'b> {
    /// The function being built, whose first `nodes` nodes are the forward pass: gradients go to its end.
    Here { graph: &'g Graph, nodes: usize },
    /// A loop's or a branch's body; the function being built is its derivative.
    Body(&'b Body<'g>),
}

impl<'g> Forward<'g, '_> {
    fn graph(&self) -> &'g Graph {
        match self {
            Forward::Here { graph, .. } => graph,
            Forward::Body(b) => b.graph,
        }
    }

    fn len(&self) -> usize {
        match self {
            Forward::Here { nodes, .. } => *nodes,
            Forward::Body(b) => b.len(),
        }
    }

    fn node(&self, id: NodeId) -> Node {
        match self {
            Forward::Here { graph, .. } => graph.node(graph.here(id)),
            Forward::Body(b) => b.node(id),
        }
    }

    /// The value of a forward node, in the function being built.
    fn value(&self, id: NodeId) -> Tensor<'g> {
        match self {
            Forward::Here { graph, .. } => graph.here(id),
            Forward::Body(b) => b.value(id),
        }
    }

    /// Replaces a scan by one with more results and gives the values of the results `indices`.
    fn extend_scan(&self, id: NodeId, scan: Scan, indices: &[usize]) -> Vec<Tensor<'g>> {
        let ty = Type::Tuple(scan.result_shapes());
        if let Some(problem) = ty.problem() {
            refuse_at(self.graph(), "scan", problem, self.node(id).place);
        }
        match self {
            Forward::Here { graph, .. } => {
                graph.replace_here(id, Op::Scan(scan), ty);
                indices
                    .iter()
                    .map(|&i| graph.element(graph.here(id), i))
                    .collect()
            }
            Forward::Body(b) => b.extend_scan(id, scan, ty, indices),
        }
    }
}

/// A node at which a rule is applied.
struct Site<'g, 'f, 'b> {
    forward: &'f Forward<'g, 'b>,
    id: NodeId,
    node: Node,
    /// Whether each input's gradient is wanted.
    wanted: Vec<bool>,
}

impl<'g> Site<'g, '_, '_> {
    fn graph(&self) -> &'g Graph {
        self.forward.graph()
    }

    /// The value of input `i`.
    fn input(&self, i: usize) -> Tensor<'g> {
        self.forward.value(self.node.inputs[i])
    }

    /// The shape of input `i`, for which its value need not exist.
    fn input_shape(&self, i: usize) -> Shape {
        self.forward.node(self.node.inputs[i]).ty.array()
    }

    /// The value of the node itself.
    fn output(&self) -> Tensor<'g> {
        self.forward.value(self.id)
    }
}

/// Gradients of one node's results; most have one.
type Results<'g> = BTreeMap<usize, Tensor<'g>>;

/// Carries the gradients in `seeds` back to the `wanted` nodes, where they are gathered.
fn walk<'g>(
    forward: &Forward<'g, '_>,
    seeds: &[(NodeId, Tensor<'g>)],
    wanted: &[NodeId],
) -> BTreeMap<NodeId, Tensor<'g>> {
    let graph = forward.graph();
    let active = activity(forward, wanted);
    let mut gradients: BTreeMap<NodeId, Results<'g>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for &(id, dy) in seeds {
        if active[id] {
            accumulate(&mut gradients, id, 0, dy);
        }
    }
    while let Some((id, results)) = gradients.pop_last() {
        if wanted.contains(&id) {
            found.insert(id, results[&0]);
        }
        let node = forward.node(id);
        if node.inputs.is_empty() {
            continue;
        }
        if let Op::Element { index } = node.op {
            accumulate(&mut gradients, node.inputs[0], index, results[&0]);
            continue;
        }
        let scope = if node.scope.is_empty() {
            "gradient".into()
        } else {
            format!("gradient/{}", node.scope).into()
        };
        let _site = graph.attribute(scope, Some(node.place));
        let wanted = node.inputs.iter().map(|i| active[*i]).collect();
        let site = Site {
            forward,
            id,
            node,
            wanted,
        };
        let inputs = match rules::apply(&site, &results) {
            Ok(inputs) => inputs,
            Err(problem) => {
                refuse_at(graph, site.node.op.name(), problem, site.node.place);
                continue;
            }
        };
        for (i, dx) in inputs.into_iter().enumerate() {
            let Some(dx) = dx.filter(|_| site.wanted[i]) else {
                continue;
            };
            let expected = site.input_shape(i);
            if dx.shape() != expected {
                let problem = format!(
                    "the gradient of input {i} is {} and should be {expected}",
                    dx.shape()
                );
                refuse_at(graph, site.node.op.name(), problem, site.node.place);
                continue;
            }
            accumulate(&mut gradients, site.node.inputs[i], 0, dx);
        }
    }
    found
}

fn accumulate<'g>(
    gradients: &mut BTreeMap<NodeId, Results<'g>>,
    id: NodeId,
    index: usize,
    dy: Tensor<'g>,
) {
    let results = gradients.entry(id).or_default();
    let sum = results.get(&index).map_or(dy, |before| *before + dy);
    results.insert(index, sum);
}

/// For each forward node, whether its derivative with respect to a wanted one can differ from zero.
fn activity(forward: &Forward<'_, '_>, wanted: &[NodeId]) -> Vec<bool> {
    let mut active = vec![false; forward.len()];
    for id in 0..active.len() {
        let node = forward.node(id);
        active[id] = wanted.contains(&id)
            || (match &node.op {
                Op::StopGradient | Op::Compare(_) | Op::Invalid | Op::RngBits { .. } => false,
                // The output itself is computed from the inputs; only the rule's inputs carry gradients.
                Op::CustomGradient { inputs, .. } => {
                    node.inputs[1..=*inputs].iter().any(|i| active[*i])
                }
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
    place: &'static Location<'static>,
) {
    graph.refuse_at(operation, format!("derivative: {problem}"), place);
}
