//! A primal body while its derivative is built: where the backward body finds each of its values.
//!
//! A value is at hand as a parameter, or it becomes a residual (the forward pass saves it), or the
//! backward body computes it again from other values. The [`Remat`] policy decides between the last
//! two.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::graph::{Graph, Tensor};
use crate::ir::{Function, Node, NodeId, Op, Remat, Scan};
use crate::shape::Type;

/// Where the backward body finds a parameter of the primal body.
pub(super) enum BodyInput<'g> {
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
    pub function: RefCell<Function>,
    length: usize,
    remat: Remat,
    /// Values that a saved name was given to, and the node of that name.
    named: HashMap<NodeId, NodeId>,
    body_inputs: HashMap<NodeId, BodyInput<'g>>,
    known: RefCell<HashMap<NodeId, Tensor<'g>>>,
    /// Slices of the scan's inputs that turned out to be needed: which, and the parameter.
    pub slices: RefCell<Vec<(usize, Tensor<'g>)>>,
    /// Values the forward pass has to save: which, and the parameter.
    pub residuals: RefCell<Vec<(NodeId, Tensor<'g>)>>,
}

impl<'g> PrimalBody<'g> {
    pub fn new(
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
