//! One computation under construction.

use std::collections::HashMap;
use std::ops::Range;

use ankh_proto::xla;
use prost::Message;

use super::liveness::Liveness;
use super::operation::Values;
use super::{ArraySpec, Lowering, instruction, shape_proto, tuple_proto};
use crate::ir::Function;
use crate::shape::{DType, Shape};
use crate::sharding::Sharding;

pub(super) struct Block<'l> {
    pub lowering: &'l mut Lowering,
    instructions: Vec<xla::HloInstructionProto>,
    parameters: Vec<xla::ShapeProto>,
    shapes: HashMap<i64, xla::ShapeProto>,
    /// Instructions without their names, so that the same one is not added twice.
    seen: HashMap<Vec<u8>, i64>,
    metadata: Option<xla::OpMetadata>,
}

impl<'l> Block<'l> {
    pub fn new(lowering: &'l mut Lowering) -> Block<'l> {
        Block {
            lowering,
            instructions: vec![],
            parameters: vec![],
            shapes: HashMap::new(),
            seen: HashMap::new(),
            metadata: None,
        }
    }

    /// Ends the computation and adds it to the module; gives its id.
    pub fn finish(self, name: &str, root: i64) -> i64 {
        let id = self.lowering.id();
        let result = self.shapes[&root].clone();
        self.lowering.computations.push(xla::HloComputationProto {
            name: format!("{}.{id}", instruction::identifier(name)),
            program_shape: Some(xla::ProgramShapeProto {
                parameter_names: (0..self.parameters.len())
                    .map(|i| format!("p{i}"))
                    .collect(),
                parameters: self.parameters,
                result: Some(result),
            }),
            instructions: self.instructions,
            id,
            root_id: root,
            ..Default::default()
        });
        id
    }

    pub fn parameter(
        &mut self,
        number: usize,
        name: &str,
        shape: &Shape,
        sharding: Option<&Sharding>,
    ) -> i64 {
        let mut i = instruction::new("parameter", shape_proto(shape), vec![]);
        i.sharding = sharding.map(|s| instruction::sharding(s, self.lowering.form));
        self.add_parameter(number, name, i)
    }

    /// The one parameter of a loop's body.
    pub fn tuple_parameter(&mut self, shapes: Vec<xla::ShapeProto>) -> i64 {
        let i = instruction::new("parameter", tuple_proto(shapes), vec![]);
        self.add_parameter(0, "state", i)
    }

    fn add_parameter(&mut self, number: usize, name: &str, mut i: xla::HloInstructionProto) -> i64 {
        i.parameter_number = number as i64;
        self.parameters
            .push(i.shape.clone().expect("instructions have shapes"));
        i.name = instruction::identifier(name);
        self.push(i)
    }

    /// Adds an instruction, or finds the one already there that computes the same.
    pub fn add(&mut self, i: xla::HloInstructionProto) -> i64 {
        let key = i.encode_to_vec();
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        let id = self.push(i);
        self.seen.insert(key, id);
        id
    }

    fn push(&mut self, mut i: xla::HloInstructionProto) -> i64 {
        i.id = self.lowering.id();
        i.name = format!(
            "{}.{}",
            if i.name.is_empty() {
                &i.opcode
            } else {
                &i.name
            },
            i.id
        );
        i.metadata = self.metadata.clone();
        self.shapes
            .insert(i.id, i.shape.clone().expect("instructions have shapes"));
        let id = i.id;
        self.instructions.push(i);
        id
    }

    pub fn shape(&self, id: i64) -> xla::ShapeProto {
        self.shapes[&id].clone()
    }

    /// The program's results, with where each lies on the mesh.
    pub fn results(&mut self, parts: &[i64], specs: &[ArraySpec]) -> i64 {
        let shapes = parts.iter().map(|p| self.shape(*p)).collect();
        let mut i = instruction::new("tuple", tuple_proto(shapes), parts.to_vec());
        let form = self.lowering.form;
        let shardings: Option<Vec<xla::OpSharding>> = specs
            .iter()
            .map(|p| Some(instruction::sharding(p.sharding.as_ref()?, form)))
            .collect();
        i.sharding = shardings
            .filter(|s| !s.is_empty())
            .map(|tuple_shardings| xla::OpSharding {
                r#type: xla::op_sharding::Type::Tuple as i32,
                tuple_shardings,
                ..Default::default()
            });
        self.push(i)
    }

    pub fn tuple(&mut self, parts: &[i64]) -> i64 {
        let shapes = parts.iter().map(|p| self.shape(*p)).collect();
        self.add(instruction::new(
            "tuple",
            tuple_proto(shapes),
            parts.to_vec(),
        ))
    }

    pub fn get_tuple_element(&mut self, tuple: i64, index: usize) -> i64 {
        let shape = self.shapes[&tuple].tuple_shapes[index].clone();
        let mut i = instruction::new("get-tuple-element", shape, vec![tuple]);
        i.tuple_index = index as i64;
        self.add(i)
    }

    pub fn get_tuple_elements(&mut self, tuple: i64, indices: Range<usize>) -> Vec<i64> {
        indices.map(|i| self.get_tuple_element(tuple, i)).collect()
    }

    pub fn scalar(&mut self, dtype: DType, value: f64) -> i64 {
        self.add(instruction::constant(&crate::Literal::scalar(dtype, value)))
    }

    /// Lowers what `function`'s outputs depend on, with `arguments` for its parameters; gives the
    /// outputs.
    pub fn inline(&mut self, function: &Function, arguments: &[i64]) -> Vec<i64> {
        let liveness = Liveness::new(function);
        let mut values = Values::of(function, arguments);
        for (id, node) in function.nodes.iter().enumerate() {
            if liveness.live[id] && !values.has(id) {
                self.metadata = Some(instruction::metadata(node));
                let value = self.operation(id, node, &liveness, &values);
                values.set(id, value);
            }
        }
        self.metadata = None;
        function.outputs.iter().map(|&o| values.array(o)).collect()
    }
}
