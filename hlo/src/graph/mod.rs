//! The program under construction. [`Graph`] owns the nodes; [`Tensor`] is a small `Copy` handle to
//! one.
//!
//! Operators and methods on tensors add nodes. Shapes are inferred at each call; the first mistake
//! is kept with its location in the source, building goes on with a placeholder, and
//! [`Graph::finish`] returns it.
//!
//! Bodies of loops and branches are built by closures. While one runs, new nodes go to its own
//! function; a tensor from outside that is used inside becomes a parameter of that function by
//! itself.

mod building;
mod custom_vjp;

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Error;
use crate::ir::{Function, NodeId, Op};
use crate::literal::Literal;
use crate::shape::{DType, Shape};
use crate::sharding::{AxisError, AxisName, LogicalAxisRules, Mesh, Sharding, ShardingForm};

use building::out_of_reach;
pub(crate) use building::shapes;
use custom_vjp::VjpRule;

/// A tensor program under construction.
pub struct Graph {
    state: RefCell<State>,
}

struct State {
    /// The functions being built, outermost first.
    frames: Vec<Frame>,
    next_frame: u32,
    error: Option<Error>,
    /// What new nodes are attributed to, the innermost last, each until its guard is dropped.
    scopes: Vec<(u64, Attribution)>,
    next_scope: u64,
    /// The layer that follows from `scopes`.
    scope: Rc<str>,
    /// The source location that `scopes` gives new nodes in place of the caller's. A derivative's
    /// nodes have that of the operation they are the derivative of.
    location: Option<&'static Location<'static>>,
    rules: Option<LogicalAxisRules>,
    vjp_rules: Vec<Rc<dyn VjpRule>>,
    /// The mesh of the rules, or of the first sharding.
    mesh: Option<Arc<Mesh>>,
}

/// What a [`Scope`] attributes new nodes to.
enum Attribution {
    /// A layer, below the one in force.
    Layer(Rc<str>),
    /// This scope and location, whatever is in force.
    Fixed {
        scope: Rc<str>,
        location: Option<&'static Location<'static>>,
    },
}

struct Frame {
    id: u32,
    function: Function,
    /// What came from outside: the outer node and the parameter that stands for it.
    captures: Vec<(Reference, NodeId)>,
    captured: HashMap<Reference, NodeId>,
}

/// A node by frame and index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Reference {
    frame: u32,
    node: NodeId,
}

/// The value of one node: an array of known element type and dimensions.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Graph,
    reference: Reference,
}

/// A function built by a closure, with the outer tensors it uses; they follow the declared
/// parameters, in this order.
pub(crate) struct Closure<'g> {
    pub function: Function,
    pub captures: Vec<Tensor<'g>>,
}

/// A whole program, ready to be lowered.
pub(crate) struct Program {
    pub function: Function,
    pub mesh: Option<Arc<Mesh>>,
    /// The form that the rules give shardings, if there are rules.
    pub form: Option<ShardingForm>,
}

/// A guard: while it lives, new nodes get a layer's name. Guards may be dropped in any order; each
/// takes back its own name. One that is made in the body of a loop or branch ends with the body at
/// the latest.
#[must_use = "the name is taken back when the guard is dropped"]
pub struct Scope<'g> {
    graph: &'g Graph,
    id: u64,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let mut state = self.graph.state.borrow_mut();
        state.scopes.retain(|(id, _)| *id != self.id);
        state.attribute();
    }
}

impl Default for Graph {
    fn default() -> Self {
        Graph::new("main")
    }
}

impl Graph {
    /// An empty program called `name`.
    pub fn new(name: &str) -> Graph {
        let frame = Frame::new(0, name);
        let state = State {
            frames: vec![frame],
            next_frame: 1,
            error: None,
            scopes: vec![],
            next_scope: 0,
            scope: "".into(),
            location: None,
            rules: None,
            vjp_rules: vec![],
            mesh: None,
        };
        Graph {
            state: RefCell::new(state),
        }
    }

    /// Maps the logical axes given to [`Tensor::with_logical_axes`] onto a mesh from here on. A
    /// program has one mesh.
    #[track_caller]
    pub fn set_logical_axis_rules(&self, rules: LogicalAxisRules) {
        match self.on_mesh(rules.mesh()) {
            Ok(()) => self.state.borrow_mut().rules = Some(rules),
            Err(error) => {
                self.refuse("logical_axis_rules", error.to_string());
            }
        }
    }

    /// Gives the nodes made until the guard is dropped a layer's name, below the names already in
    /// force.
    pub fn scope(&self, name: &str) -> Scope<'_> {
        self.enter(Attribution::Layer(name.into()))
    }

    /// The next input of the program.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: Shape) -> Tensor<'_> {
        self.add_parameter(name, shape, None)
    }

    /// The next input of the program, with the logical axes of its dimensions, which the rules
    /// split.
    #[track_caller]
    pub fn parameter_with_logical_axes(
        &self,
        name: &str,
        shape: Shape,
        axes: &[impl Into<AxisName> + Copy],
    ) -> Tensor<'_> {
        if axes.len() != shape.rank() {
            let problem = format!("`{name}`: {} names for {shape}", axes.len());
            return self.refuse("parameter", problem);
        }
        match self.sharding(&[], &AxisName::all(axes), &shape.dims) {
            Ok(sharding) => self.add_parameter(name, shape, sharding),
            Err(error) => self.refuse("parameter", format!("`{name}` {shape}: {error}")),
        }
    }

    /// The next input of the program, with this sharding, which has to divide it evenly.
    #[track_caller]
    pub fn sharded_parameter(&self, name: &str, shape: Shape, sharding: Sharding) -> Tensor<'_> {
        if sharding.rank() != shape.rank() {
            let problem = format!(
                "`{name}`: a sharding of {} dimensions for {shape}",
                sharding.rank()
            );
            return self.refuse("parameter", problem);
        }
        let divides = sharding.divides(&shape.dims).map_err(AxisError::from);
        match divides.and_then(|()| self.on_mesh(&sharding.mesh)) {
            Ok(()) => self.add_parameter(name, shape, Some(sharding)),
            Err(error) => self.refuse("parameter", format!("`{name}` {shape}: {error}")),
        }
    }

    #[track_caller]
    fn add_parameter(&self, name: &str, shape: Shape, sharding: Option<Sharding>) -> Tensor<'_> {
        if self.state.borrow().frames.len() > 1 {
            return self.refuse(
                "parameter",
                "the program's inputs are declared outside loops and branches".into(),
            );
        }
        let op = Op::Parameter {
            name: name.into(),
            sharding,
        };
        let tensor = self.emit(op, &[], shape);
        let mut state = self.state.borrow_mut();
        state.frames[0]
            .function
            .parameters
            .push(tensor.reference.node);
        tensor
    }

    /// A scalar constant. An integer type takes only the integers that it holds.
    #[track_caller]
    pub fn scalar(&self, dtype: DType, value: f64) -> Tensor<'_> {
        if !dtype.holds(value) {
            return self.refuse("constant", format!("{value} is no {}", dtype.name()));
        }
        self.literal(Literal::scalar(dtype, value))
    }

    /// A constant array.
    #[track_caller]
    pub fn literal(&self, literal: Literal) -> Tensor<'_> {
        let shape = literal.shape().clone();
        self.emit(Op::Constant(literal), &[], shape)
    }

    /// `value` in each element.
    #[track_caller]
    pub fn full(&self, shape: &Shape, value: f64) -> Tensor<'_> {
        self.scalar(shape.dtype, value)
            .broadcast_in_dims(&shape.dims, &[])
    }

    /// Zeros.
    #[track_caller]
    pub fn zeros(&self, shape: &Shape) -> Tensor<'_> {
        self.full(shape, 0.0)
    }

    /// The position along dimension `dim`, in each element.
    #[track_caller]
    pub fn iota(&self, shape: Shape, dim: usize) -> Tensor<'_> {
        if dim >= shape.rank() || shape.dtype == DType::Pred {
            return self.refuse("iota", format!("{shape} has no positions along {dim}"));
        }
        self.emit(Op::Iota { dim: dim as i64 }, &[], shape)
    }

    /// The first mistake made so far.
    pub fn error(&self) -> Option<Error> {
        self.state.borrow().error.clone()
    }
}

impl<'g> Tensor<'g> {
    /// The program it belongs to.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// Element type and dimensions. Outside the loop or branch that made it a tensor has none;
    /// asking is a mistake.
    #[track_caller]
    pub fn shape(self) -> Shape {
        let mut state = self.graph.state.borrow_mut();
        match state.frames.iter().find(|f| f.id == self.reference.frame) {
            Some(f) => f.function.nodes[self.reference.node].ty.array(),
            None => {
                let location = state.location.unwrap_or(Location::caller());
                state.error.get_or_insert_with(|| out_of_reach(location));
                Shape::new(DType::F32, [])
            }
        }
    }

    /// Dimensions.
    #[track_caller]
    pub fn dims(self) -> Vec<i64> {
        self.shape().dims
    }

    /// Element type.
    #[track_caller]
    pub fn dtype(self) -> DType {
        self.shape().dtype
    }

    /// The number of dimensions.
    #[track_caller]
    pub fn rank(self) -> usize {
        self.shape().rank()
    }

    /// The size of dimension `dim`; a dimension that is not there is a mistake and counts as 1.
    #[track_caller]
    pub fn dim(self, dim: usize) -> i64 {
        let shape = self.shape();
        match shape.dims.get(dim) {
            Some(&d) => d,
            None => {
                self.graph
                    .refuse("dim", format!("{shape} has no dimension {dim}"));
                1
            }
        }
    }
}
