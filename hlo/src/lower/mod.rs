//! From a graph to an `HloModuleProto`: one instruction for each node that something depends on,
//! equal instructions once.

mod block;
mod control;
mod instruction;
mod liveness;
mod manual;
mod operation;
mod signature;

use std::collections::HashMap;
use std::panic::Location;

use ankh_proto::xla;
use ankh_proto::xla::hlo_input_output_alias_proto::AliasEntryProto;
use prost::Message;

use crate::error::Error;
use crate::graph::{Graph, Tensor};
use crate::ir::{Function, Reduction};
use crate::shape::{DType, Shape, Type};
use crate::sharding::ShardingForm;
use crate::text;

use block::Block;
pub use manual::MANUAL_COMPUTATION;
pub use signature::ArraySpec;
pub(crate) use signature::Signature;

/// A lowered program.
#[derive(Clone, Debug)]
pub struct Module {
    proto: xla::HloModuleProto,
    parameters: Vec<ArraySpec>,
    results: Vec<ArraySpec>,
}

impl Module {
    /// The program as XLA's message.
    pub fn proto(&self) -> &xla::HloModuleProto {
        &self.proto
    }

    /// What the program takes, in order.
    pub fn parameters(&self) -> &[ArraySpec] {
        &self.parameters
    }

    /// What the program gives, in order.
    pub fn results(&self) -> &[ArraySpec] {
        &self.results
    }

    /// The serialised `HloModuleProto`, what a plugin takes as a program of format `hlo`.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// The program in HLO's text form.
    pub fn text(&self) -> String {
        text::module(&self.proto)
    }
}

impl Graph {
    /// Ends the program: checks it and lowers it. On a mesh a result lies as its own
    /// [`Tensor::with_logical_axes`] or [`Tensor::with_sharding_constraint`] says, in equal parts;
    /// without one it is replicated.
    ///
    /// `outputs` are its results in order. `donations` pairs an output with the parameter whose
    /// buffer it may take over (both by position): one of the same shape and sharding.
    ///
    /// # Errors
    /// The first mistake made while building, a result that does not divide, or a donation that
    /// cannot be.
    #[track_caller]
    pub fn finish(
        &self,
        outputs: &[Tensor<'_>],
        donations: &[(usize, usize)],
    ) -> Result<Module, Error> {
        let location = Location::caller();
        let program = self.program(outputs, location)?;
        let signature = Signature::of(&program.function, program.mesh.as_ref());
        let indivisible = || Some(("result", signature.indivisible_result()?));
        let misfit = || Some(("donation", signature.misfit(donations)?));
        match indivisible().or_else(misfit) {
            Some((operation, problem)) => {
                self.refuse_at(operation, problem.clone(), location);
                Err(Error {
                    operation,
                    problem,
                    location,
                })
            }
            None => Ok(module(
                &program.function,
                donations,
                signature,
                program.form.unwrap_or_default(),
            )),
        }
    }
}

/// Lowers a whole program. `donations` pairs outputs with parameters, by position.
fn module(
    function: &Function,
    donations: &[(usize, usize)],
    signature: Signature,
    form: ShardingForm,
) -> Module {
    let mut lowering = Lowering {
        form,
        next_id: 1,
        computations: vec![],
        reducers: HashMap::new(),
    };
    let mut block = Block::new(&mut lowering);
    let Signature {
        parameters,
        results,
    } = signature;
    let inputs: Vec<i64> = parameters
        .iter()
        .enumerate()
        .map(|(number, p)| block.parameter(number, &p.name, &p.shape, p.sharding.as_ref()))
        .collect();
    let outputs = block.inline(function, &inputs);
    let root = block.results(&outputs, &results);
    block.finish(&function.name, root);
    let entry = lowering
        .computations
        .last_mut()
        .expect("the entry was just added");
    let shape = entry
        .program_shape
        .as_mut()
        .expect("each computation has a shape");
    shape.parameter_names = parameters.iter().map(|p| p.name.clone()).collect();
    let alias = donations
        .iter()
        .map(|&(output, parameter)| AliasEntryProto {
            output_shape_index: vec![output as i64],
            parameter_number: parameter as i64,
            parameter_shape_index: vec![],
            kind: xla::Kind::MayAlias as i32,
        });
    let proto = xla::HloModuleProto {
        name: function.name.to_string(),
        entry_computation_name: entry.name.clone(),
        entry_computation_id: entry.id,
        host_program_shape: entry.program_shape.clone(),
        input_output_alias: Some(xla::HloInputOutputAliasProto {
            entries: alias.collect(),
        }),
        computations: lowering.computations,
        ..Default::default()
    };
    Module {
        proto,
        parameters,
        results,
    }
}

/// What all computations of a module share.
struct Lowering {
    form: ShardingForm,
    next_id: i64,
    /// Callees before callers, as XLA reads them.
    computations: Vec<xla::HloComputationProto>,
    reducers: HashMap<(Reduction, DType), i64>,
}

impl Lowering {
    fn id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// The id of the computation that combines two scalars.
    fn reducer(&mut self, kind: Reduction, dtype: DType) -> i64 {
        if let Some(&id) = self.reducers.get(&(kind, dtype)) {
            return id;
        }
        let opcode = match kind {
            Reduction::Sum => "add",
            Reduction::Max => "maximum",
            Reduction::Min => "minimum",
        };
        let scalar = Shape::new(dtype, []);
        let mut block = Block::new(self);
        let x = block.parameter(0, "x", &scalar, None);
        let y = block.parameter(1, "y", &scalar, None);
        let root = block.add(instruction::new(opcode, shape_proto(&scalar), vec![x, y]));
        let id = block.finish(opcode, root);
        self.reducers.insert((kind, dtype), id);
        id
    }
}

/// XLA's number for an element type.
fn primitive_type(dtype: DType) -> xla::PrimitiveType {
    match dtype {
        DType::Pred => xla::PrimitiveType::Pred,
        DType::S32 => xla::PrimitiveType::S32,
        DType::S64 => xla::PrimitiveType::S64,
        DType::U8 => xla::PrimitiveType::U8,
        DType::U32 => xla::PrimitiveType::U32,
        DType::U64 => xla::PrimitiveType::U64,
        DType::Bf16 => xla::PrimitiveType::Bf16,
        DType::F16 => xla::PrimitiveType::F16,
        DType::F32 => xla::PrimitiveType::F32,
        DType::F64 => xla::PrimitiveType::F64,
    }
}

/// A dense row-major array's shape.
fn shape_proto(shape: &Shape) -> xla::ShapeProto {
    xla::ShapeProto {
        element_type: primitive_type(shape.dtype) as i32,
        dimensions: shape.dims.clone(),
        is_dynamic_dimension: vec![false; shape.rank()],
        layout: Some(xla::LayoutProto {
            minor_to_major: (0..shape.rank() as i64).rev().collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn tuple_proto(shapes: Vec<xla::ShapeProto>) -> xla::ShapeProto {
    xla::ShapeProto {
        element_type: xla::PrimitiveType::Tuple as i32,
        tuple_shapes: shapes,
        ..Default::default()
    }
}

fn type_proto(ty: &Type) -> xla::ShapeProto {
    match ty {
        Type::Array(s) => shape_proto(s),
        Type::Tuple(s) => tuple_proto(s.iter().map(shape_proto).collect()),
    }
}
