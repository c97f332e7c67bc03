//! VJPs of loops, branches and calls: their bodies are differentiated into new bodies.
//!
//! The derivative of a scan is a scan in the opposite direction. Its carries are the cotangents of
//! the carries and, accumulated, those of the constants. It scans over the cotangents of the
//! results and over the residuals of the forward pass. Which residuals these are is known once the
//! rules have run. Each value that a rule asks for is taken from the slices and constants, or
//! becomes a residual (the forward scan gets one more result), or is computed again from other
//! values, as the scan's [`Remat`] policy says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::rules::Cotangents;
use super::{Primal, ResultCotangents, VjpContext, activity, backward_pass};
use crate::graph::{Graph, Tensor};
use crate::ir::{Function, Node, NodeId, Op, Remat, Scan};
use crate::shape::{Shape, Type};

/// Where the backward body finds a parameter of the primal body.
enum BodyInput<'g> {
    /// It is a value of the backward body.
    Value(Tensor<'g>),
    /// It is a slice of the scan's input of this number.
    Slice(usize),
    /// The forward pass has to save it.
    Residual,
}

/// A primal body while its derivative is built.
pub(super) struct PrimalBody<'g> {
    pub graph: &'g Graph,
    function: RefCell<Function>,
    length: usize,
    remat: Remat,
    /// Values that a saved name was given to, and the node of that name.
    named: HashMap<NodeId, NodeId>,
    body_inputs: HashMap<NodeId, BodyInput<'g>>,
    known: RefCell<HashMap<NodeId, Tensor<'g>>>,
    /// Slices of the scan's inputs that turned out to be needed: which, and the parameter.
    slices: RefCell<Vec<(usize, Tensor<'g>)>>,
    /// Values the forward pass has to save: which, and the parameter.
    residuals: RefCell<Vec<(NodeId, Tensor<'g>)>>,
}

impl<'g> PrimalBody<'g> {
    fn new(
        graph: &'g Graph,
        function: &Function,
        remat: Remat,
        body_inputs: HashMap<NodeId, BodyInput<'g>>,
    ) -> PrimalBody<'g> {
        let name = |(id, node): (NodeId, &Node)| match (&node.op, &remat) {
            (Op::CheckpointName { name }, Remat::Named(names)) => {
                names.contains(name).then(|| (node.inputs[0], id))
            }
            _ => None,
        };
        PrimalBody {
            graph,
            length: function.nodes.len(),
            function: RefCell::new(function.clone()),
            named: function.nodes.iter().enumerate().filter_map(name).collect(),
            remat,
            body_inputs,
            known: RefCell::default(),
            slices: RefCell::default(),
            residuals: RefCell::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn node(&self, id: NodeId) -> Node {
        self.function.borrow().nodes[id].clone()
    }

    /// The value of a primal node in the backward body.
    pub fn value(&self, id: NodeId) -> Tensor<'g> {
        if let Some(t) = self.known.borrow().get(&id) {
            return *t;
        }
        let value = self.find(id);
        self.known.borrow_mut().insert(id, value);
        value
    }

    fn find(&self, id: NodeId) -> Tensor<'g> {
        let node = self.node(id);
        match self.body_inputs.get(&id) {
            Some(BodyInput::Value(t)) => return *t,
            Some(BodyInput::Slice(x)) => {
                let slice = self.graph.body_parameter(node.ty.array());
                self.slices.borrow_mut().push((*x, slice));
                return slice;
            }
            Some(BodyInput::Residual) => return self.residual(id, &node),
            None => {}
        }
        if self.is_saved(&node) {
            return self.residual(id, &node);
        }
        if let Some(&name) = self.named.get(&id) {
            return self.value(name);
        }
        match node.op {
            Op::CheckpointName { .. } | Op::CustomVjp { .. } => self.value(node.inputs[0]),
            op => {
                let inputs: Vec<Tensor<'g>> = node.inputs.iter().map(|i| self.value(*i)).collect();
                let scope = format!("recompute/{}", node.scope).into();
                self.graph
                    .emit_node(op, &inputs, node.ty, node.location, scope)
            }
        }
    }

    fn residual(&self, id: NodeId, node: &Node) -> Tensor<'g> {
        let value = self.graph.body_parameter(node.ty.array());
        self.residuals.borrow_mut().push((id, value));
        value
    }

    fn is_saved(&self, node: &Node) -> bool {
        match (&self.remat, &node.op) {
            (Remat::SaveNothing, _) => false,
            (Remat::Named(names), Op::CheckpointName { name }) => {
                names.contains(name) && !self.body_inputs.contains_key(&node.inputs[0])
            }
            (Remat::Named(_), _) => false,
            (Remat::SaveAll, _) => matches!(node.ty, Type::Array(_)) && !self.is_cheap(node),
        }
    }

    /// Whether computing the node again costs less than reading it from memory would.
    fn is_cheap(&self, node: &Node) -> bool {
        match &node.op {
            Op::Constant(_)
            | Op::Iota { .. }
            | Op::Broadcast { .. }
            | Op::Reshape
            | Op::Transpose { .. } => true,
            Op::Slice { .. }
            | Op::CheckpointName { .. }
            | Op::ShardingConstraint { .. }
            | Op::StopGradient => true,
            Op::CustomVjp { .. } => true,
            Op::Convert => {
                let from = self.node(node.inputs[0]);
                from.ty.array().dtype.byte_width() < node.ty.array().dtype.byte_width()
                    || self.is_free(&from)
            }
            _ => false,
        }
    }

    /// Whether the node only rearranges slices, constants and literals.
    fn is_free(&self, node: &Node) -> bool {
        match &node.op {
            Op::Parameter { .. } => false,
            Op::Constant(_) | Op::Iota { .. } => true,
            Op::Broadcast { .. }
            | Op::Reshape
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Convert => {
                let input = node.inputs[0];
                matches!(
                    self.body_inputs.get(&input),
                    Some(BodyInput::Value(_) | BodyInput::Slice(_))
                ) || self.is_free(&self.node(input))
            }
            _ => false,
        }
    }

    /// See [`Primal::extend_scan`].
    pub fn extend_scan(
        &self,
        id: NodeId,
        scan: Scan,
        ty: Type,
        indices: &[usize],
    ) -> Vec<Tensor<'g>> {
        let elements: Vec<NodeId> = {
            let mut function = self.function.borrow_mut();
            let shapes = scan.result_shapes();
            function.nodes[id].op = Op::Scan(scan);
            function.nodes[id].ty = ty;
            indices
                .iter()
                .map(|&index| {
                    let node = Node {
                        op: Op::GetTupleElement { index },
                        inputs: vec![id],
                        ty: Type::Array(shapes[index].clone()),
                        ..function.nodes[id].clone()
                    };
                    function.nodes.push(node);
                    function.nodes.len() - 1
                })
                .collect()
        };
        // A copy made before gets the new results too, so that the loop runs once.
        let copy = self.known.borrow().get(&id).copied();
        if let Some(copy) = copy {
            let node = self.node(id);
            let here = self.graph.local(copy, node.location);
            self.graph.replace_here(here, node.op, node.ty);
        }
        elements.into_iter().map(|e| self.value(e)).collect()
    }
}

/// The cotangents of a scan's carries, sliced arrays and constants.
pub(super) fn scan<'g>(
    n: &VjpContext<'g, '_, '_>,
    scan: &Scan,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let graph = n.graph();
    let f = &*scan.body;
    let (carries, xs) = (scan.carries, scan.xs);
    let body_inputs = f.parameters.iter().enumerate().map(|(i, &p)| {
        let input = if i < carries {
            BodyInput::Residual
        } else if i < carries + xs {
            BodyInput::Slice(i)
        } else {
            BodyInput::Value(n.input(i))
        };
        (p, input)
    });
    let body = PrimalBody::new(graph, f, scan.remat.clone(), body_inputs.collect());
    let primal = Primal::Body(&body);
    let wanted = wanted_parameters(n, scan, &primal);
    let shape = |i: usize| f.nodes[f.parameters[i]].ty.array();
    let of_carries: Vec<usize> = (0..carries).filter(|&i| wanted[i]).collect();
    let of_constants: Vec<usize> = (carries + xs..f.parameters.len())
        .filter(|&i| wanted[i])
        .collect();
    let of_slices: Vec<usize> = (carries..carries + xs).filter(|&i| wanted[i]).collect();
    let of_results: Vec<usize> = results.keys().copied().filter(|&r| r >= carries).collect();

    let closed = graph.body("scan_gradient", || {
        let dcarries: Vec<Tensor<'g>> = of_carries
            .iter()
            .map(|&i| graph.body_parameter(shape(i)))
            .collect();
        let sums: Vec<Tensor<'g>> = of_constants
            .iter()
            .map(|&i| graph.body_parameter(shape(i)))
            .collect();
        let dys: Vec<Tensor<'g>> = of_results
            .iter()
            .map(|&r| graph.body_parameter(f.nodes[f.outputs[r]].ty.array()))
            .collect();
        let seeds: Vec<(NodeId, Tensor<'g>)> = of_carries
            .iter()
            .zip(&dcarries)
            .chain(of_results.iter().zip(&dys))
            .map(|(&output, &dy)| (f.outputs[output], dy))
            .collect();
        let nodes: Vec<NodeId> = (0..wanted.len())
            .filter(|&i| wanted[i])
            .map(|i| f.parameters[i])
            .collect();
        let found = backward_pass(&primal, &seeds, &nodes);
        let gradient = |i: usize| found.get(&f.parameters[i]).copied();
        let mut out: Vec<Tensor<'g>> = Vec::new();
        out.extend(
            of_carries
                .iter()
                .map(|&i| gradient(i).unwrap_or_else(|| graph.zeros(&shape(i)))),
        );
        out.extend(
            of_constants
                .iter()
                .zip(&sums)
                .map(|(&i, &sum)| gradient(i).map_or(sum, |d| sum + d)),
        );
        out.extend(
            of_slices
                .iter()
                .map(|&i| gradient(i).unwrap_or_else(|| graph.zeros(&shape(i)))),
        );
        let parameters = dcarries
            .into_iter()
            .chain(sums)
            .chain(dys)
            .chain(body.slices.borrow().iter().map(|s| s.1))
            .chain(body.residuals.borrow().iter().map(|s| s.1))
            .collect();
        (parameters, out)
    });

    let PrimalBody {
        function,
        slices,
        residuals,
        ..
    } = body;
    let residuals = save_residuals(n, scan, function.into_inner(), &residuals.into_inner());
    let zeros = |i: usize| graph.zeros(&shape(i));
    let mut inputs: Vec<Tensor<'g>> = Vec::new();
    inputs.extend(
        of_carries
            .iter()
            .map(|&i| results.get(&i).copied().unwrap_or_else(|| zeros(i))),
    );
    inputs.extend(of_constants.iter().map(|&i| zeros(i)));
    let backward_carries = inputs.len();
    inputs.extend(of_results.iter().map(|r| results[r]));
    inputs.extend(slices.into_inner().iter().map(|s| n.input(s.0)));
    inputs.extend(residuals);
    let backward = Scan {
        carries: backward_carries,
        xs: inputs.len() - backward_carries,
        body: Rc::new(closed.function),
        length: scan.length,
        reverse: !scan.reverse,
        remat: scan.remat.clone(),
    };
    inputs.extend(closed.captures);
    let gradients = graph.emit_scan(backward, &inputs);
    let mut out = vec![None; f.parameters.len()];
    let inputs_with_gradient = of_carries.iter().chain(&of_constants).chain(&of_slices);
    for (&input, gradient) in inputs_with_gradient.zip(gradients) {
        out[input] = Some(gradient);
    }
    out
}

/// Which parameters of the body carry cotangents: those wanted from outside, and carries that
/// become active over the steps.
fn wanted_parameters(
    n: &VjpContext<'_, '_, '_>,
    scan: &Scan,
    primal: &Primal<'_, '_>,
) -> Vec<bool> {
    let f = &*scan.body;
    let is_float = |i: usize| f.nodes[f.parameters[i]].ty.array().dtype.is_float();
    let mut wanted: Vec<bool> = (0..f.parameters.len())
        .map(|i| n.wanted[i] && is_float(i))
        .collect();
    loop {
        let nodes: Vec<NodeId> = (0..wanted.len())
            .filter(|&i| wanted[i])
            .map(|i| f.parameters[i])
            .collect();
        let active = activity(primal, &nodes);
        let more = (0..scan.carries).find(|&c| !wanted[c] && is_float(c) && active[f.outputs[c]]);
        match more {
            Some(c) => wanted[c] = true,
            None => return wanted,
        }
    }
}

/// Makes the forward scan return the residuals, and gives them stacked.
fn save_residuals<'g>(
    n: &VjpContext<'g, '_, '_>,
    scan: &Scan,
    mut function: Function,
    residuals: &[(NodeId, Tensor<'g>)],
) -> Vec<Tensor<'g>> {
    let mut indices = Vec::with_capacity(residuals.len());
    for (id, _) in residuals {
        // The loop may return the value already: as a result of its own, or for another derivative.
        let results = &function.outputs[scan.carries..];
        let found = results.iter().position(|output| output == id);
        indices.push(scan.carries + found.unwrap_or(results.len()));
        if found.is_none() {
            function.outputs.push(*id);
        }
    }
    let body = Rc::new(function);
    let scan = Scan {
        body,
        ..scan.clone()
    };
    n.primal.extend_scan(n.id, scan, &indices)
}

/// The cotangents of a call's inputs: a call of the derivative, which runs the function once more.
pub(super) fn call<'g>(
    n: &VjpContext<'g, '_, '_>,
    function: &Rc<Function>,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let derivative = derivative(n, function, 0, results);
    let shapes = derivative.output_shapes();
    let inputs = inputs_and_cotangents(n, results);
    let out = n.graph().emit_tuple(
        Op::Call {
            function: Rc::new(derivative),
        },
        &inputs,
        shapes,
    );
    cotangents_from(n, 0, out)
}

/// The cotangents of what the branches use: the derivative of the branch that ran.
pub(super) fn conditional<'g>(
    n: &VjpContext<'g, '_, '_>,
    on_true: &Rc<Function>,
    on_false: &Rc<Function>,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let on_true = derivative(n, on_true, 1, results);
    let on_false = derivative(n, on_false, 1, results);
    let shapes = on_true.output_shapes();
    let inputs = inputs_and_cotangents(n, results);
    let op = Op::Conditional {
        on_true: Rc::new(on_true),
        on_false: Rc::new(on_false),
    };
    let out = n.graph().emit_tuple(op, &inputs, shapes);
    cotangents_from(n, 1, out)
}

/// The function from a function's inputs and its results' cotangents to the cotangents of its
/// wanted inputs. The node's inputs are the function's from `first` on.
fn derivative<'g>(
    n: &VjpContext<'g, '_, '_>,
    f: &Function,
    first: usize,
    results: &ResultCotangents<'g>,
) -> Function {
    let graph = n.graph();
    let shape = |p: NodeId| -> Shape { f.nodes[p].ty.array() };
    // The node's inputs are of the function being built, which within the body is another one.
    let wanted: Vec<NodeId> = wanted_inputs(n, first)
        .map(|i| f.parameters[i - first])
        .collect();
    let closed = graph.body(&format!("{}_gradient", f.name), || {
        let parameters: Vec<Tensor<'g>> = f
            .parameters
            .iter()
            .map(|&p| graph.body_parameter(shape(p)))
            .collect();
        let dys: Vec<Tensor<'g>> = results
            .keys()
            .map(|&r| graph.body_parameter(shape(f.outputs[r])))
            .collect();
        let body_inputs = f
            .parameters
            .iter()
            .zip(&parameters)
            .map(|(&p, &t)| (p, BodyInput::Value(t)))
            .collect();
        let body = PrimalBody::new(graph, f, Remat::SaveNothing, body_inputs);
        let seeds: Vec<(NodeId, Tensor<'g>)> = results
            .keys()
            .zip(&dys)
            .map(|(&r, &dy)| (f.outputs[r], dy))
            .collect();
        let found = backward_pass(&Primal::Body(&body), &seeds, &wanted);
        let out = wanted
            .iter()
            .map(|p| {
                found
                    .get(p)
                    .copied()
                    .unwrap_or_else(|| graph.zeros(&shape(*p)))
            })
            .collect();
        (parameters.into_iter().chain(dys).collect(), out)
    });
    closed.function
}

fn wanted_inputs<'a>(
    n: &'a VjpContext<'_, '_, '_>,
    first: usize,
) -> impl Iterator<Item = usize> + 'a {
    (first..n.node.inputs.len()).filter(|&i| n.wanted[i] && n.input_shape(i).dtype.is_float())
}

/// What a derivative takes: the node's inputs, then the cotangents of its results.
fn inputs_and_cotangents<'g>(
    n: &VjpContext<'g, '_, '_>,
    results: &ResultCotangents<'g>,
) -> Vec<Tensor<'g>> {
    n.inputs_from(0)
        .into_iter()
        .chain(results.values().copied())
        .collect()
}

/// Puts the cotangents of the wanted inputs, which begin at `first`, at their positions.
fn cotangents_from<'g>(
    n: &VjpContext<'g, '_, '_>,
    first: usize,
    gradients: Vec<Tensor<'g>>,
) -> Cotangents<'g> {
    let mut out = vec![None; n.node.inputs.len()];
    for (i, gradient) in wanted_inputs(n, first).zip(gradients) {
        out[i] = Some(gradient);
    }
    out
}
