//! Derivatives of loops, branches and calls: their bodies are differentiated into new bodies.
//!
//! The derivative of a scan is a scan the other way round. Its carries are the gradients of the carries and, summed up,
//! those of the constants; it is fed the gradients of the results, and what it needs of the forward pass. Which that is
//! turns out while the rules run: each value that a rule asks for is taken from the slices and constants, or is saved (the
//! forward scan gets one more result), or is computed again from other values, as the scan's [`Remat`] says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::rules::Gradients;
use super::{Forward, Results, Site, activity, walk};
use crate::function::{Function, Node, NodeId};
use crate::graph::{Graph, Tensor};
use crate::op::{Op, Scan};
use crate::ops::Remat;
use crate::shape::{Shape, Type};

/// Where the backward body finds a parameter of the forward body.
enum Given<'g> {
    /// At hand.
    Value(Tensor<'g>),
    /// As a slice of the scan's input of this number.
    Slice(usize),
    /// Nowhere, so that the forward pass has to save it.
    Saved,
}

/// A forward body while its derivative is built.
pub(super) struct Body<'g> {
    pub graph: &'g Graph,
    function: RefCell<Function>,
    length: usize,
    remat: Remat,
    /// Values that a saved name was given to, and the node of that name.
    named: HashMap<NodeId, NodeId>,
    given: HashMap<NodeId, Given<'g>>,
    known: RefCell<HashMap<NodeId, Tensor<'g>>>,
    /// Slices of the scan's inputs that turned out to be needed: which, and the parameter.
    slices: RefCell<Vec<(usize, Tensor<'g>)>>,
    /// Values the forward pass has to save: which, and the parameter.
    saved: RefCell<Vec<(NodeId, Tensor<'g>)>>,
}

impl<'g> Body<'g> {
    fn new(
        graph: &'g Graph,
        function: &Function,
        remat: Remat,
        given: HashMap<NodeId, Given<'g>>,
    ) -> Body<'g> {
        let name = |(id, node): (NodeId, &Node)| match (&node.op, &remat) {
            (Op::Name { name }, Remat::Named(names)) => {
                names.contains(name).then(|| (node.inputs[0], id))
            }
            _ => None,
        };
        Body {
            graph,
            length: function.nodes.len(),
            function: RefCell::new(function.clone()),
            named: function.nodes.iter().enumerate().filter_map(name).collect(),
            remat,
            given,
            known: RefCell::default(),
            slices: RefCell::default(),
            saved: RefCell::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn node(&self, id: NodeId) -> Node {
        self.function.borrow().nodes[id].clone()
    }

    /// The value of a forward node in the backward body.
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
        match self.given.get(&id) {
            Some(Given::Value(t)) => return *t,
            Some(Given::Slice(x)) => {
                let slice = self.graph.body_parameter(node.ty.array());
                self.slices.borrow_mut().push((*x, slice));
                return slice;
            }
            Some(Given::Saved) => return self.save(id, &node),
            None => {}
        }
        if self.is_saved(&node) {
            return self.save(id, &node);
        }
        if let Some(&name) = self.named.get(&id) {
            return self.value(name);
        }
        match node.op {
            Op::Name { .. } | Op::CustomGradient { .. } => self.value(node.inputs[0]),
            op => {
                let inputs: Vec<Tensor<'g>> = node.inputs.iter().map(|i| self.value(*i)).collect();
                let scope = format!("recompute/{}", node.scope).into();
                self.graph
                    .emit_node(op, &inputs, node.ty, node.place, scope)
            }
        }
    }

    fn save(&self, id: NodeId, node: &Node) -> Tensor<'g> {
        let value = self.graph.body_parameter(node.ty.array());
        self.saved.borrow_mut().push((id, value));
        value
    }

    fn is_saved(&self, node: &Node) -> bool {
        match (&self.remat, &node.op) {
            (Remat::SaveNothing, _) => false,
            (Remat::Named(names), Op::Name { name }) => {
                names.contains(name) && !self.given.contains_key(&node.inputs[0])
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
            Op::Slice { .. } | Op::Name { .. } | Op::Constrain { .. } | Op::StopGradient => true,
            Op::CustomGradient { .. } => true,
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
                    self.given.get(&input),
                    Some(Given::Value(_) | Given::Slice(_))
                ) || self.is_free(&self.node(input))
            }
            _ => false,
        }
    }

    /// See [`Forward::extend_scan`].
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
                        op: Op::Element { index },
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
            let here = self.graph.local(copy, node.place);
            self.graph.replace_here(here, node.op, node.ty);
        }
        elements.into_iter().map(|e| self.value(e)).collect()
    }
}

/// The gradients of a scan's carries, sliced arrays and constants.
pub(super) fn scan<'g>(n: &Site<'g, '_, '_>, scan: &Scan, results: &Results<'g>) -> Gradients<'g> {
    let graph = n.graph();
    let f = &*scan.body;
    let (carries, xs) = (scan.carries, scan.xs);
    let given = f.parameters.iter().enumerate().map(|(i, &p)| {
        let given = if i < carries {
            Given::Saved
        } else if i < carries + xs {
            Given::Slice(i)
        } else {
            Given::Value(n.input(i))
        };
        (p, given)
    });
    let body = Body::new(graph, f, scan.remat.clone(), given.collect());
    let forward = Forward::Body(&body);
    let wanted = wanted_parameters(n, scan, &forward);
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
        let found = walk(&forward, &seeds, &nodes);
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
            .chain(body.saved.borrow().iter().map(|s| s.1))
            .collect();
        (parameters, out)
    });

    let Body {
        function,
        slices,
        saved,
        ..
    } = body;
    let saved = save_results(n, scan, function.into_inner(), &saved.into_inner());
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
    inputs.extend(saved);
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
    let places = of_carries.iter().chain(&of_constants).chain(&of_slices);
    for (&place, gradient) in places.zip(gradients) {
        out[place] = Some(gradient);
    }
    out
}

/// Which parameters of the body carry gradients: those wanted from outside, and carries that become so over the steps.
fn wanted_parameters(n: &Site<'_, '_, '_>, scan: &Scan, forward: &Forward<'_, '_>) -> Vec<bool> {
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
        let active = activity(forward, &nodes);
        let more = (0..scan.carries).find(|&c| !wanted[c] && is_float(c) && active[f.outputs[c]]);
        match more {
            Some(c) => wanted[c] = true,
            None => return wanted,
        }
    }
}

/// Makes the forward scan return the values to be saved, and gives them stacked.
fn save_results<'g>(
    n: &Site<'g, '_, '_>,
    scan: &Scan,
    mut function: Function,
    saved: &[(NodeId, Tensor<'g>)],
) -> Vec<Tensor<'g>> {
    let mut indices = Vec::with_capacity(saved.len());
    for (id, _) in saved {
        // The loop may return the value already: as a result of its own, or for another derivative.
        let results = &function.outputs[scan.carries..];
        let place = results.iter().position(|output| output == id);
        indices.push(scan.carries + place.unwrap_or(results.len()));
        if place.is_none() {
            function.outputs.push(*id);
        }
    }
    let body = Rc::new(function);
    let scan = Scan {
        body,
        ..scan.clone()
    };
    n.forward.extend_scan(n.id, scan, &indices)
}

/// The gradients of a call's inputs: a call of the derivative, which runs the function once more.
pub(super) fn call<'g>(
    n: &Site<'g, '_, '_>,
    function: &Rc<Function>,
    results: &Results<'g>,
) -> Gradients<'g> {
    let derivative = derivative(n, function, 0, results);
    let shapes = derivative.output_shapes();
    let inputs: Vec<Tensor<'g>> = (0..n.node.inputs.len())
        .map(|i| n.input(i))
        .chain(results.values().copied())
        .collect();
    let out = n.graph().emit_tuple(
        Op::Call {
            function: Rc::new(derivative),
        },
        &inputs,
        shapes,
    );
    place(n, 0, out)
}

/// The gradients of what the branches use: the derivative of the branch that ran.
pub(super) fn conditional<'g>(
    n: &Site<'g, '_, '_>,
    on_true: &Rc<Function>,
    on_false: &Rc<Function>,
    results: &Results<'g>,
) -> Gradients<'g> {
    let on_true = derivative(n, on_true, 1, results);
    let on_false = derivative(n, on_false, 1, results);
    let shapes = on_true.output_shapes();
    let inputs: Vec<Tensor<'g>> = (0..n.node.inputs.len())
        .map(|i| n.input(i))
        .chain(results.values().copied())
        .collect();
    let op = Op::Conditional {
        on_true: Rc::new(on_true),
        on_false: Rc::new(on_false),
    };
    let out = n.graph().emit_tuple(op, &inputs, shapes);
    place(n, 1, out)
}

/// The function from a function's inputs and its results' gradients to the gradients of its wanted inputs. The node's
/// inputs are the function's from `first` on.
fn derivative<'g>(
    n: &Site<'g, '_, '_>,
    f: &Function,
    first: usize,
    results: &Results<'g>,
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
        let given = f
            .parameters
            .iter()
            .zip(&parameters)
            .map(|(&p, &t)| (p, Given::Value(t)))
            .collect();
        let body = Body::new(graph, f, Remat::SaveNothing, given);
        let seeds: Vec<(NodeId, Tensor<'g>)> = results
            .keys()
            .zip(&dys)
            .map(|(&r, &dy)| (f.outputs[r], dy))
            .collect();
        let found = walk(&Forward::Body(&body), &seeds, &wanted);
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

fn wanted_inputs<'a>(n: &'a Site<'_, '_, '_>, first: usize) -> impl Iterator<Item = usize> + 'a {
    (first..n.node.inputs.len()).filter(|&i| n.wanted[i] && n.input_shape(i).dtype.is_float())
}

fn place<'g>(n: &Site<'g, '_, '_>, first: usize, gradients: Vec<Tensor<'g>>) -> Gradients<'g> {
    let mut out = vec![None; n.node.inputs.len()];
    for (i, gradient) in wanted_inputs(n, first).zip(gradients) {
        out[i] = Some(gradient);
    }
    out
}
