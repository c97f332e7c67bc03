//! The intermediate representation: operations, nodes, and functions of them.
//!
//! A function is a closed piece of a program: nodes in an order in which inputs come first,
//! parameters and outputs. Bodies of loops, branches and calls are functions. So, at the end, is
//! the whole program.

mod op;

use std::panic::Location;
use std::rc::Rc;

use crate::shape::{Shape, Type};

pub use op::{
    Binary, Comparison, CustomCall, DotDims, PadDim, Reduction, Remat, RngAlgorithm, Unary,
};
pub(crate) use op::{ManualComputation, Op, Scan, VjpRuleId};

/// A node's index in its function.
pub(crate) type NodeId = usize;

/// One operation, its inputs, and what it produces.
#[derive(Clone)]
pub(crate) struct Node {
    pub op: Op,
    pub inputs: Vec<NodeId>,
    pub ty: Type,
    /// The call that made it.
    pub location: &'static Location<'static>,
    /// The layer it belongs to, `encoder/attention` for example.
    pub scope: Rc<str>,
}

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Function {
    pub name: Rc<str>,
    pub nodes: Vec<Node>,
    pub parameters: Vec<NodeId>,
    pub outputs: Vec<NodeId>,
}

impl Function {
    /// The shapes of the outputs.
    pub(crate) fn output_shapes(&self) -> Vec<Shape> {
        self.outputs
            .iter()
            .map(|&o| self.nodes[o].ty.array())
            .collect()
    }
}
