//! The program under construction. [`Graph`] owns the nodes; [`Tensor`] is a small `Copy` handle to one.
//!
//! Operators and methods on tensors add nodes. Shapes are inferred at each call; the first mistake is kept with its place
//! in the source, building goes on with a placeholder, and [`Graph::finish`] returns it.
//!
//! Bodies of loops and branches are built by closures. While one runs, new nodes go to its own function; a tensor from
//! outside that is used inside becomes a parameter of that function by itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;

use crate::error::Error;
use crate::function::{Function, Node, NodeId};
use crate::literal::Literal;
use crate::lower::{self, Module};
use crate::op::Op;
use crate::shape::{DType, Shape, Type};
use crate::sharding::{Layout, Sharding};

/// A tensor program under construction.
pub struct Graph {
    state: RefCell<State>,
}

struct State {
    /// The functions being built, outermost first.
    frames: Vec<Frame>,
    next_frame: u32,
    error: Option<Error>,
    scope: Rc<str>,
    /// Where new nodes are said to come from, if not from the caller: a derivative's, from the line it derives.
    place: Option<&'static Location<'static>>,
    layout: Option<Layout>,
}

struct Frame {
    id: u32,
    function: Function,
    /// What came from outside: the outer node and the parameter that stands for it.
    captures: Vec<(Reference, NodeId)>,
    captured: HashMap<Reference, NodeId>,
}

/// A node by frame and place.
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
pub(crate) struct Closed<'g> {
    pub function: Function,
    pub captures: Vec<Tensor<'g>>,
}

/// Keeps a layer's name on the nodes made while it lives.
pub struct Scope<'g> {
    graph: &'g Graph,
    outer: Rc<str>,
    outer_place: Option<&'static Location<'static>>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let mut state = self.graph.state.borrow_mut();
        state.scope = self.outer.clone();
        state.place = self.outer_place;
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
            scope: "".into(),
            place: None,
            layout: None,
        };
        Graph {
            state: RefCell::new(state),
        }
    }

    /// Maps the dimension names given to [`Tensor::named`] onto a mesh from here on.
    pub fn set_layout(&self, layout: Layout) {
        self.state.borrow_mut().layout = Some(layout);
    }

    /// Gives the nodes made until the guard is dropped a layer's name, below the names already in force.
    pub fn scope(&self, name: &str) -> Scope<'_> {
        let (inner, place) = {
            let state = self.state.borrow();
            let inner = match &*state.scope {
                "" => name.into(),
                outer => format!("{outer}/{name}").into(),
            };
            (inner, state.place)
        };
        self.attribute(inner, place)
    }

    /// The next input of the program.
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: Shape) -> Tensor<'_> {
        self.add_parameter(name, shape, None)
    }

    /// The next input of the program, its dimensions called `names` so that the layout can split them.
    #[track_caller]
    pub fn named_parameter(&self, name: &str, shape: Shape, names: &[&str]) -> Tensor<'_> {
        if names.len() != shape.rank() {
            return self.refuse("parameter", format!("{} names for {shape}", names.len()));
        }
        let sharding = self.sharding(names, &shape.dims);
        self.add_parameter(name, shape, sharding)
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

    /// Ends the program: checks it and lowers it.
    ///
    /// `outputs` are its results in order. `donations` pairs an output with the parameter whose buffer it may take over
    /// (both by position).
    ///
    /// # Errors
    /// The first mistake made while building, or a donation that cannot be.
    #[track_caller]
    pub fn finish(
        &self,
        outputs: &[Tensor<'_>],
        donations: &[(usize, usize)],
    ) -> Result<Module, Error> {
        let place = Location::caller();
        let outputs: Vec<NodeId> = outputs.iter().map(|t| self.local(*t, place)).collect();
        let mut function = self.state.borrow().frames[0].function.clone();
        function.outputs = outputs;
        if let Some(problem) = misfit(&function, donations) {
            self.refuse_at("donation", problem, place);
        }
        match self.error() {
            Some(error) => Err(error),
            None => Ok(lower::module(&function, donations)),
        }
    }

    /// The first mistake made so far.
    pub fn error(&self) -> Option<Error> {
        self.state.borrow().error.clone()
    }

    /// Notes a mistake at the caller's place and returns a placeholder.
    #[track_caller]
    pub(crate) fn refuse(&self, operation: &'static str, problem: String) -> Tensor<'_> {
        self.refuse_at(operation, problem, self.site(Location::caller()).0);
        self.invalid()
    }

    /// The placeholder for what was refused.
    #[track_caller]
    pub(crate) fn invalid(&self) -> Tensor<'_> {
        self.emit(Op::Invalid, &[], Shape::new(DType::F32, []))
    }

    /// Notes a mistake at `place`.
    pub(crate) fn refuse_at(
        &self,
        operation: &'static str,
        problem: String,
        place: &'static Location<'static>,
    ) {
        self.state.borrow_mut().error.get_or_insert(Error {
            operation,
            problem,
            place,
        });
    }

    /// Adds a node with one result to the function being built.
    #[track_caller]
    pub(crate) fn emit(&self, op: Op, inputs: &[Tensor<'_>], shape: Shape) -> Tensor<'_> {
        self.emit_type(op, inputs, Type::Array(shape))
    }

    /// Adds a node with several results and returns those.
    #[track_caller]
    pub(crate) fn emit_tuple(
        &self,
        op: Op,
        inputs: &[Tensor<'_>],
        shapes: Vec<Shape>,
    ) -> Vec<Tensor<'_>> {
        let tuple = self.emit_type(op, inputs, Type::Tuple(shapes.clone()));
        let (place, scope) = self.site(Location::caller());
        let element = |(index, shape)| {
            let op = Op::Element { index };
            self.emit_node(op, &[tuple], Type::Array(shape), place, scope.clone())
        };
        shapes.into_iter().enumerate().map(element).collect()
    }

    /// Result `index` of a node with several.
    #[track_caller]
    pub(crate) fn element<'g>(&'g self, tuple: Tensor<'g>, index: usize) -> Tensor<'g> {
        match self.node(tuple).ty {
            Type::Tuple(shapes) if index < shapes.len() => {
                self.emit(Op::Element { index }, &[tuple], shapes[index].clone())
            }
            _ => self.refuse("get-tuple-element", format!("there is no result {index}")),
        }
    }

    #[track_caller]
    pub(crate) fn emit_type(&self, op: Op, inputs: &[Tensor<'_>], ty: Type) -> Tensor<'_> {
        let (place, scope) = self.site(Location::caller());
        if let Type::Array(shape) = &ty
            && shape.dims.iter().any(|d| *d < 0)
        {
            return self.refuse(op.name(), format!("{shape} has a negative dimension"));
        }
        self.emit_node(op, inputs, ty, place, scope)
    }

    /// The place and the scope of a node that is added by a call at `caller`.
    fn site(&self, caller: &'static Location<'static>) -> (&'static Location<'static>, Rc<str>) {
        let state = self.state.borrow();
        (state.place.unwrap_or(caller), state.scope.clone())
    }

    /// Adds a node that keeps another's place in the source and in the model.
    pub(crate) fn emit_node(
        &self,
        op: Op,
        inputs: &[Tensor<'_>],
        ty: Type,
        place: &'static Location<'static>,
        scope: Rc<str>,
    ) -> Tensor<'_> {
        let inputs = inputs.iter().map(|t| self.local(*t, place)).collect();
        let mut state = self.state.borrow_mut();
        let frame = state.top();
        let node = frame.push(Node {
            op,
            inputs,
            ty,
            place,
            scope,
        });
        let reference = Reference {
            frame: frame.id,
            node,
        };
        drop(state);
        Tensor {
            graph: self,
            reference,
        }
    }

    /// The node of the function being built that holds `tensor`'s value; an outer one is captured. `place` is where it is
    /// used.
    pub(crate) fn local(&self, tensor: Tensor<'_>, place: &'static Location<'static>) -> NodeId {
        let mut state = self.state.borrow_mut();
        let level = state.frames.len() - 1;
        let found = if std::ptr::eq(tensor.graph, self) {
            state.lift(level, tensor.reference)
        } else {
            None
        };
        match found {
            Some(id) => id,
            None => {
                state.error.get_or_insert_with(|| out_of_reach(place));
                let scope = state.scope.clone();
                let ty = Type::Array(Shape::new(DType::F32, []));
                state.top().push(Node {
                    op: Op::Invalid,
                    inputs: vec![],
                    ty,
                    place,
                    scope,
                })
            }
        }
    }

    /// The tensor of a node of the function being built.
    pub(crate) fn here(&self, node: NodeId) -> Tensor<'_> {
        let state = self.state.borrow();
        let frame = state
            .frames
            .last()
            .expect("the outermost frame is never closed")
            .id;
        Tensor {
            graph: self,
            reference: Reference { frame, node },
        }
    }

    /// A copy of the node behind a tensor.
    pub(crate) fn node(&self, tensor: Tensor<'_>) -> Node {
        let state = self.state.borrow();
        match state.frames.iter().find(|f| f.id == tensor.reference.frame) {
            Some(f) => f.function.nodes[tensor.reference.node].clone(),
            None => Node {
                op: Op::Invalid,
                inputs: vec![],
                ty: Type::Array(Shape::new(DType::F32, [])),
                place: Location::caller(),
                scope: "".into(),
            },
        }
    }

    /// How many nodes the function being built has.
    pub(crate) fn nodes_here(&self) -> usize {
        self.state.borrow_mut().top().function.nodes.len()
    }

    /// Replaces the operation and type of a node of the function being built, keeping its users.
    pub(crate) fn replace_here(&self, node: NodeId, op: Op, ty: Type) {
        let mut state = self.state.borrow_mut();
        let node = &mut state.top().function.nodes[node];
        node.op = op;
        node.ty = ty;
    }

    /// Adds a parameter to the function being built, which must be a body.
    #[track_caller]
    pub(crate) fn body_parameter(&self, shape: Shape) -> Tensor<'_> {
        self.emit(
            Op::Parameter {
                name: "".into(),
                sharding: None,
            },
            &[],
            shape,
        )
    }

    /// Builds a body. `build` returns its parameters in order and its outputs.
    #[track_caller]
    pub(crate) fn body<'g>(
        &'g self,
        name: &str,
        build: impl FnOnce() -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>),
    ) -> Closed<'g> {
        {
            let mut state = self.state.borrow_mut();
            let id = state.next_frame;
            state.next_frame += 1;
            state.frames.push(Frame::new(id, name));
        }
        let place = Location::caller();
        let (parameters, outputs) = build();
        let local = |t: &Tensor<'g>| self.local(*t, place);
        let parameters: Vec<NodeId> = parameters.iter().map(local).collect();
        let outputs: Vec<NodeId> = outputs.iter().map(local).collect();
        let frame = self
            .state
            .borrow_mut()
            .frames
            .pop()
            .expect("this call pushed it");
        let mut function = frame.function;
        function.parameters = parameters;
        function.outputs = outputs;
        let mut captures = Vec::with_capacity(frame.captures.len());
        for (reference, node) in frame.captures {
            captures.push(Tensor {
                graph: self,
                reference,
            });
            function.parameters.push(node);
        }
        Closed { function, captures }
    }

    /// The layer that new nodes belong to.
    pub(crate) fn scope_here(&self) -> Rc<str> {
        self.state.borrow().scope.clone()
    }

    pub(crate) fn sharding(&self, names: &[&str], dims: &[i64]) -> Option<Sharding> {
        self.state
            .borrow()
            .layout
            .as_ref()
            .map(|l| l.sharding(names, dims))
    }

    /// Attributes the nodes made until the guard is dropped to `scope` and, if given, to `place` in place of their callers.
    pub(crate) fn attribute(
        &self,
        scope: Rc<str>,
        place: Option<&'static Location<'static>>,
    ) -> Scope<'_> {
        let mut state = self.state.borrow_mut();
        Scope {
            graph: self,
            outer: std::mem::replace(&mut state.scope, scope),
            outer_place: std::mem::replace(&mut state.place, place),
        }
    }
}

/// The shapes of several tensors.
#[track_caller]
pub(crate) fn shapes(tensors: &[Tensor<'_>]) -> Vec<Shape> {
    let mut shapes = Vec::with_capacity(tensors.len());
    // A loop, because a closure would hide the caller's place.
    for t in tensors {
        shapes.push(t.shape());
    }
    shapes
}

fn out_of_reach(place: &'static Location<'static>) -> Error {
    Error {
        operation: "capture",
        problem: "a tensor is used outside the loop, branch or graph that made it".into(),
        place,
    }
}

/// What is wrong with the first donation that cannot be: both positions exist, the shapes agree, and no result or input is
/// named twice.
fn misfit(function: &Function, donations: &[(usize, usize)]) -> Option<String> {
    let shape = |nodes: &[NodeId], i: usize| nodes.get(i).map(|&n| function.nodes[n].ty.array());
    donations
        .iter()
        .enumerate()
        .find_map(|(i, &(output, parameter))| {
            let twice = donations[..i]
                .iter()
                .any(|d| d.0 == output || d.1 == parameter);
            let result = shape(&function.outputs, output);
            let input = shape(&function.parameters, parameter);
            match (result, input) {
                (Some(result), Some(input)) if result != input => Some(format!(
                    "result {output} is {result} and cannot take over input {parameter}, {input}"
                )),
                (Some(_), Some(_)) => twice.then(|| {
                    format!("result {output} or input {parameter} is in an earlier donation too")
                }),
                _ => Some(format!(
                    "there is no result {output} or no input {parameter}"
                )),
            }
        })
}

impl State {
    fn top(&mut self) -> &mut Frame {
        self.frames
            .last_mut()
            .expect("the outermost frame is never closed")
    }

    /// The node of frame `level` that holds an outer node's value.
    fn lift(&mut self, level: usize, reference: Reference) -> Option<NodeId> {
        if self.frames[level].id == reference.frame {
            return Some(reference.node);
        }
        if let Some(&id) = self.frames[level].captured.get(&reference) {
            return Some(id);
        }
        let outer = self.lift(level.checked_sub(1)?, reference)?;
        let frame = &self.frames[level - 1];
        let source = Reference {
            frame: frame.id,
            node: outer,
        };
        let node = frame.function.nodes[outer].clone();
        let frame = &mut self.frames[level];
        // A constant is cheaper to write again than to carry through a loop.
        let id = if let Op::Constant(_) = node.op {
            frame.push(node)
        } else {
            let id = frame.push(Node {
                op: Op::Parameter {
                    name: "".into(),
                    sharding: None,
                },
                inputs: vec![],
                ..node
            });
            frame.captures.push((source, id));
            id
        };
        frame.captured.insert(reference, id);
        Some(id)
    }
}

impl Frame {
    fn new(id: u32, name: &str) -> Frame {
        let function = Function {
            name: name.into(),
            nodes: vec![],
            parameters: vec![],
            outputs: vec![],
        };
        Frame {
            id,
            function,
            captures: vec![],
            captured: HashMap::new(),
        }
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.function.nodes.push(node);
        self.function.nodes.len() - 1
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
                let place = state.place.unwrap_or(Location::caller());
                state.error.get_or_insert_with(|| out_of_reach(place));
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
