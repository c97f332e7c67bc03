//! The program under construction. [`Graph`] owns the nodes; [`Tensor`] is a small `Copy` handle to one.
//!
//! Operators and methods on tensors add nodes. Shapes are inferred at each call; the first mistake is kept with its location
//! in the source, building goes on with a placeholder, and [`Graph::finish`] returns it.
//!
//! Bodies of loops and branches are built by closures. While one runs, new nodes go to its own function; a tensor from
//! outside that is used inside becomes a parameter of that function by itself.

mod building;

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Error;
use crate::function::{Function, NodeId};
use crate::literal::Literal;
use crate::lower::{self, Module, Signature};
use crate::op::Op;
use crate::shape::{DType, Shape};
use crate::sharding::{LogicalAxisRules, Mesh, Sharding};

use building::out_of_reach;
pub(crate) use building::shapes;

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
    /// Where, by `scopes`, new nodes are said to come from, if not from the caller: a derivative's, from the line it derives.
    location: Option<&'static Location<'static>>,
    rules: Option<LogicalAxisRules>,
    /// The mesh of the rules, or of the first sharding.
    mesh: Option<Arc<Mesh>>,
}

/// What a [`Scope`] says of new nodes.
enum Attribution {
    /// They belong to a layer, below the one in force.
    Layer(Rc<str>),
    /// They belong elsewhere, whatever is in force.
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

/// A node by frame and location.
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

/// A function built by a closure, with the outer tensors it uses; they follow the declared parameters, in this order.
pub(crate) struct Closure<'g> {
    pub function: Function,
    pub captures: Vec<Tensor<'g>>,
}

/// Keeps a layer's name on the nodes made while it lives. Guards may be dropped in any order: each takes back its own name. One
/// that is made in the body of a loop or branch ends with it at the latest.
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
            mesh: None,
        };
        Graph {
            state: RefCell::new(state),
        }
    }

    /// Maps the dimension names given to [`Tensor::with_logical_axes`] onto a mesh from here on. A program has one mesh.
    #[track_caller]
    pub fn set_logical_axis_rules(&self, rules: LogicalAxisRules) {
        match self.on_mesh(rules.mesh()) {
            Ok(()) => self.state.borrow_mut().rules = Some(rules),
            Err(problem) => {
                self.refuse("logical_axis_rules", problem);
            }
        }
    }

    /// Gives the nodes made until the guard is dropped a layer's name, below the names already in force.
    pub fn scope(&self, name: &str) -> Scope<'_> {
        self.enter(Attribution::Layer(name.into()))
    }

    /// The next input of the program.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: Shape) -> Tensor<'_> {
        self.add_parameter(name, shape, None)
    }

    /// The next input of the program, its dimensions called `names` so that the rules can split them.
    #[track_caller]
    pub fn parameter_with_logical_axes(
        &self,
        name: &str,
        shape: Shape,
        names: &[&str],
    ) -> Tensor<'_> {
        if names.len() != shape.rank() {
            let problem = format!("`{name}`: {} names for {shape}", names.len());
            return self.refuse("parameter", problem);
        }
        match self.sharding(&[], names, &shape.dims) {
            Ok(sharding) => self.add_parameter(name, shape, sharding),
            Err(indivisible) => {
                self.refuse("parameter", format!("`{name}` {shape}: {indivisible}"))
            }
        }
    }

    /// The next input of the program, lying on the mesh as `sharding` says: in equal parts.
    #[track_caller]
    pub fn sharded_parameter(&self, name: &str, shape: Shape, sharding: Sharding) -> Tensor<'_> {
        if sharding.rank() != shape.rank() {
            let problem = format!(
                "`{name}`: a sharding of {} dimensions for {shape}",
                sharding.rank()
            );
            return self.refuse("parameter", problem);
        }
        let indivisible = sharding.divides(&shape.dims).err();
        let misplaced = self.on_mesh(&sharding.mesh).err();
        match indivisible.map(|u| u.to_string()).or(misplaced) {
            Some(problem) => self.refuse("parameter", format!("`{name}` {shape}: {problem}")),
            None => self.add_parameter(name, shape, Some(sharding)),
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

    /// Ends the program: checks it and lowers it. On a mesh, a result lies as its own [`Tensor::with_logical_axes`] or
    /// [`Tensor::with_sharding_constraint`] says, in equal parts, and is otherwise whole on every device.
    ///
    /// `outputs` are its results in order. `donations` pairs an output with the parameter whose buffer it may take over
    /// (both by position): one of the same shape, that lies on the mesh in the same way.
    ///
    /// # Errors
    /// The first mistake made while building, a result that does not divide, or a donation that cannot be.
    #[track_caller]
    pub fn finish(
        &self,
        outputs: &[Tensor<'_>],
        donations: &[(usize, usize)],
    ) -> Result<Module, Error> {
        let location = Location::caller();
        if self.state.borrow().frames.len() > 1 {
            let problem = "a program ends outside its loops and branches".into();
            self.refuse_at("finish", problem, location);
        }
        let outputs: Vec<NodeId> = outputs.iter().map(|t| self.local(*t, location)).collect();
        let mut function = self.state.borrow().frames[0].function.clone();
        function.outputs = outputs;
        if let Some(error) = self.error() {
            return Err(error);
        }
        let (rules, mesh) = {
            let state = self.state.borrow();
            (state.rules.clone(), state.mesh.clone())
        };
        let form = rules
            .as_ref()
            .map_or_else(Default::default, LogicalAxisRules::form);
        let signature = Signature::of(&function, mesh.as_ref());
        let indivisible = signature.results.iter().enumerate().find_map(|(i, spec)| {
            let indivisible = spec.sharding.as_ref()?.divides(&spec.shape.dims).err()?;
            Some((
                "result",
                format!("result {i} {}: {indivisible}", spec.shape),
            ))
        });
        let misfit = || Some(("donation", signature.misfit(donations)?));
        match indivisible.or_else(misfit) {
            Some((operation, problem)) => {
                self.refuse_at(operation, problem.clone(), location);
                Err(Error {
                    operation,
                    problem,
                    location,
                })
            }
            None => Ok(lower::module(&function, donations, signature, form)),
        }
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

    /// Element type and dimensions. Outside the loop or branch that made it a tensor has none; asking is a mistake.
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
