//! Inside the graph: nodes, the functions they go to, and what a body captures from outside.

use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use super::{Attribution, Closure, Frame, Graph, Program, Reference, Scope, State, Tensor};
use crate::error::Error;
use crate::ir::{Function, Node, NodeId, Op};
use crate::shape::{DType, Shape, Type};
use crate::sharding::{AxisError, AxisName, Mesh, Sharding, ShardingForm};

impl Graph {
    /// Records a mistake at the caller's location, which [`Graph::finish`] returns if it is the
    /// first, and gives a placeholder. What is built on this crate refuses with it too.
    #[track_caller]
    pub fn refuse(&self, operation: &'static str, problem: String) -> Tensor<'_> {
        self.refuse_at(
            operation,
            problem,
            self.source_location(Location::caller()).0,
        );
        self.invalid()
    }

    /// The placeholder for what was refused.
    #[track_caller]
    pub(crate) fn invalid(&self) -> Tensor<'_> {
        self.emit(Op::Invalid, &[], Shape::new(DType::F32, []))
    }

    /// Records a mistake at `location`.
    pub(crate) fn refuse_at(
        &self,
        operation: &'static str,
        problem: String,
        location: &'static Location<'static>,
    ) {
        self.state.borrow_mut().error.get_or_insert(Error {
            operation,
            problem,
            location,
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
        let ty = Type::Tuple(shapes.clone());
        if let Some(problem) = ty.problem() {
            return vec![self.refuse(op.name(), problem); shapes.len()];
        }
        let tuple = self.emit_type(op, inputs, ty);
        let (location, scope) = self.source_location(Location::caller());
        let element = |(index, shape)| {
            let op = Op::GetTupleElement { index };
            self.emit_node(op, &[tuple], Type::Array(shape), location, scope.clone())
        };
        shapes.into_iter().enumerate().map(element).collect()
    }

    /// Result `index` of a node with several.
    #[track_caller]
    pub(crate) fn get_tuple_element<'g>(&'g self, tuple: Tensor<'g>, index: usize) -> Tensor<'g> {
        match self.node(tuple).ty {
            Type::Tuple(shapes) if index < shapes.len() => self.emit(
                Op::GetTupleElement { index },
                &[tuple],
                shapes[index].clone(),
            ),
            _ => self.refuse("get-tuple-element", format!("there is no result {index}")),
        }
    }

    #[track_caller]
    pub(crate) fn emit_type(&self, op: Op, inputs: &[Tensor<'_>], ty: Type) -> Tensor<'_> {
        let (location, scope) = self.source_location(Location::caller());
        if let Some(problem) = ty.problem() {
            return self.refuse(op.name(), problem);
        }
        self.emit_node(op, inputs, ty, location, scope)
    }

    /// The location and the scope of a node that is added by a call at `caller`.
    fn source_location(
        &self,
        caller: &'static Location<'static>,
    ) -> (&'static Location<'static>, Rc<str>) {
        let state = self.state.borrow();
        (state.location.unwrap_or(caller), state.scope.clone())
    }

    /// Adds a node that keeps another's location in the source and in the model.
    pub(crate) fn emit_node(
        &self,
        op: Op,
        inputs: &[Tensor<'_>],
        ty: Type,
        location: &'static Location<'static>,
        scope: Rc<str>,
    ) -> Tensor<'_> {
        let inputs = inputs.iter().map(|t| self.local(*t, location)).collect();
        let mut state = self.state.borrow_mut();
        let frame = state.top();
        let node = frame.push(Node {
            op,
            inputs,
            ty,
            location,
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

    /// The node of the function being built that holds `tensor`'s value; an outer one is captured.
    /// `location` is where it is used.
    pub(crate) fn local(&self, tensor: Tensor<'_>, location: &'static Location<'static>) -> NodeId {
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
                state.error.get_or_insert_with(|| out_of_reach(location));
                let scope = state.scope.clone();
                let ty = Type::Array(Shape::new(DType::F32, []));
                state.top().push(Node {
                    op: Op::Invalid,
                    inputs: vec![],
                    ty,
                    location,
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
                location: Location::caller(),
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

    /// Adds a parameter of each shape.
    #[track_caller]
    pub(crate) fn body_parameters(&self, shapes: &[Shape]) -> Vec<Tensor<'_>> {
        let mut parameters = Vec::with_capacity(shapes.len());
        // A loop, because a closure would hide the caller's location.
        for shape in shapes {
            parameters.push(self.body_parameter(shape.clone()));
        }
        parameters
    }

    /// Builds a body. `build` returns its parameters in order and its outputs.
    #[track_caller]
    pub(crate) fn body<'g>(
        &'g self,
        name: &str,
        build: impl FnOnce() -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>),
    ) -> Closure<'g> {
        let first_scope = {
            let mut state = self.state.borrow_mut();
            let id = state.next_frame;
            state.next_frame += 1;
            state.frames.push(Frame::new(id, name));
            state.next_scope
        };
        let location = Location::caller();
        let (parameters, outputs) = build();
        // A scope that was entered within the body does not outlive it, whatever became of its
        // guard.
        let mut state = self.state.borrow_mut();
        state.scopes.retain(|(id, _)| *id < first_scope);
        state.attribute();
        drop(state);
        let local = |t: &Tensor<'g>| self.local(*t, location);
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
        Closure { function, captures }
    }

    /// The whole program, which gives `outputs`, if no mistake was made. `location` is where it
    /// ends.
    pub(crate) fn program(
        &self,
        outputs: &[Tensor<'_>],
        location: &'static Location<'static>,
    ) -> Result<Program, Error> {
        if self.state.borrow().frames.len() > 1 {
            let problem = "a program ends outside its loops and branches".into();
            self.refuse_at("finish", problem, location);
        }
        let outputs: Vec<NodeId> = outputs.iter().map(|t| self.local(*t, location)).collect();
        if let Some(error) = self.error() {
            return Err(error);
        }
        let state = self.state.borrow();
        let function = Function {
            outputs,
            ..state.frames[0].function.clone()
        };
        Ok(Program {
            function,
            mesh: state.mesh.clone(),
            form: state.rules.as_ref().map(|rules| rules.form()),
        })
    }

    /// The layer that new nodes belong to.
    pub(crate) fn scope_here(&self) -> Rc<str> {
        self.state.borrow().scope.clone()
    }

    /// The sharding that the rules give an array of `dims`, except over the mesh axes of `taken`;
    /// `None` without rules.
    pub(crate) fn sharding(
        &self,
        taken: &[AxisName],
        axes: &[AxisName],
        dims: &[i64],
    ) -> Result<Option<Sharding>, AxisError> {
        let state = self.state.borrow();
        let rules = state.rules.as_ref();
        rules
            .map(|rules| rules.sharding_except(taken, axes, dims))
            .transpose()
    }

    /// The form in which the rules write shardings; `None` without rules.
    pub fn sharding_form(&self) -> Option<ShardingForm> {
        self.state.borrow().rules.as_ref().map(|rules| rules.form())
    }

    /// Whether the rules, if there are any, split a dimension of this logical axis and size into
    /// equal parts. An axis without a rule is a mistake.
    #[track_caller]
    pub fn splits_evenly(&self, axis: impl Into<AxisName>, size: i64) -> bool {
        match self.sharding(&[], &[axis.into()], &[size]) {
            Ok(_) => true,
            Err(AxisError::IndivisibleDim(_)) => false,
            Err(error) => {
                self.refuse("splits_evenly", error.to_string());
                false
            }
        }
    }

    /// Attributes the nodes made until the guard is dropped to `scope` and, if given, to `location`
    /// instead of their callers.
    pub(crate) fn attribute(
        &self,
        scope: Rc<str>,
        location: Option<&'static Location<'static>>,
    ) -> Scope<'_> {
        self.enter(Attribution::Fixed { scope, location })
    }

    pub(super) fn enter(&self, attribution: Attribution) -> Scope<'_> {
        let mut state = self.state.borrow_mut();
        let id = state.next_scope;
        state.next_scope += 1;
        state.scopes.push((id, attribution));
        state.attribute();
        Scope { graph: self, id }
    }

    /// Records the mesh of a sharding; all shardings of a program are over one.
    pub(crate) fn on_mesh(&self, mesh: &Arc<Mesh>) -> Result<(), AxisError> {
        let mut state = self.state.borrow_mut();
        let expected = state.mesh.get_or_insert_with(|| mesh.clone());
        match **expected == **mesh {
            true => Ok(()),
            false => Err(AxisError::OtherMesh {
                found: (**mesh).clone(),
                expected: (**expected).clone(),
            }),
        }
    }
}

/// The shapes of several tensors.
#[track_caller]
pub(crate) fn shapes(tensors: &[Tensor<'_>]) -> Vec<Shape> {
    let mut shapes = Vec::with_capacity(tensors.len());
    // A loop, because a closure would hide the caller's location.
    for t in tensors {
        shapes.push(t.shape());
    }
    shapes
}

/// The mistake of using a tensor outside the function that made it.
pub(super) fn out_of_reach(location: &'static Location<'static>) -> Error {
    Error {
        operation: "capture",
        problem: "a tensor is used outside the loop, branch or graph that made it".into(),
        location,
    }
}

impl State {
    /// Sets scope and location from the attributions in force.
    pub(super) fn attribute(&mut self) {
        let (mut scope, mut location): (Rc<str>, _) = (Rc::from(""), None);
        for (_, attribution) in &self.scopes {
            match attribution {
                Attribution::Layer(name) if scope.is_empty() => scope = name.clone(),
                Attribution::Layer(name) => scope = format!("{scope}/{name}").into(),
                Attribution::Fixed {
                    scope: s,
                    location: p,
                } => (scope, location) = (s.clone(), *p),
            }
        }
        (self.scope, self.location) = (scope, location);
    }

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
    pub(super) fn new(id: u32, name: &str) -> Frame {
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
