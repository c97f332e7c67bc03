//! The real CPU plugin, and tiny modules built by hand.
#![allow(dead_code, reason = "each test file uses its own part")]

use ankh_pjrt::{
    Client, CompileOptions, ElementType, Executable, NamedValue, Platform, Plugin, Program,
};
use ankh_proto::xla::hlo_input_output_alias_proto::AliasEntryProto;
use ankh_proto::xla::mesh_proto::MeshAxis;
use ankh_proto::xla::named_sharding_proto::DimensionSharding;
use ankh_proto::xla::{
    AxisRefProto, HloComputationProto, HloInputOutputAliasProto, HloInstructionProto,
    HloModuleProto, Kind, LayoutProto, MeshProto, NamedShardingProto, OpSharding, PrimitiveType,
    ProgramShapeProto, ShapeProto, op_sharding,
};

pub fn plugin() -> Plugin {
    Plugin::find(Platform::Cpu, None).expect("the tests need the CPU plugin")
}

pub fn client(devices: i64) -> Client {
    plugin()
        .create_client(&[NamedValue::int("cpu_device_count", devices)])
        .unwrap()
}

pub fn shape(element_type: ElementType, dims: &[i64]) -> ShapeProto {
    ShapeProto {
        element_type: element_type.primitive_type().into(),
        dimensions: dims.to_vec(),
        is_dynamic_dimension: vec![false; dims.len()],
        layout: Some(LayoutProto {
            minor_to_major: (0..dims.len() as i64).rev().collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A computation under construction; instructions are known by their id.
#[derive(Default)]
pub struct Computation {
    pub instructions: Vec<HloInstructionProto>,
    parameters: Vec<ShapeProto>,
}

impl Computation {
    /// Instruction ids must be unique in a module, so each computation begins at its own.
    pub fn push(&mut self, base: i64, mut instruction: HloInstructionProto) -> i64 {
        let id = base + self.instructions.len() as i64;
        instruction.id = id;
        instruction.name = format!("{}.{id}", instruction.opcode);
        self.instructions.push(instruction);
        id
    }

    pub fn parameter(&mut self, base: i64, shape: ShapeProto) -> i64 {
        let parameter_number = self.parameters.len() as i64;
        self.parameters.push(shape.clone());
        self.push(
            base,
            HloInstructionProto {
                opcode: "parameter".into(),
                shape: Some(shape),
                parameter_number,
                ..Default::default()
            },
        )
    }

    pub fn operation(
        &mut self,
        base: i64,
        opcode: &str,
        shape: ShapeProto,
        operands: &[i64],
    ) -> i64 {
        self.push(
            base,
            HloInstructionProto {
                opcode: opcode.into(),
                shape: Some(shape),
                operand_ids: operands.to_vec(),
                ..Default::default()
            },
        )
    }

    pub fn finish(self, id: i64, name: &str) -> HloComputationProto {
        let root = self
            .instructions
            .last()
            .expect("a computation has a root")
            .clone();
        HloComputationProto {
            id,
            name: name.into(),
            root_id: root.id,
            program_shape: Some(ProgramShapeProto {
                parameter_names: (0..self.parameters.len())
                    .map(|i| format!("p{i}"))
                    .collect(),
                parameters: self.parameters,
                result: root.shape,
            }),
            instructions: self.instructions,
            ..Default::default()
        }
    }
}

/// A module whose entry computation comes last.
pub fn module(name: &str, computations: Vec<HloComputationProto>) -> HloModuleProto {
    let entry = computations.last().expect("a module has an entry");
    HloModuleProto {
        name: name.into(),
        entry_computation_name: entry.name.clone(),
        entry_computation_id: entry.id,
        host_program_shape: entry.program_shape.clone(),
        computations,
        ..Default::default()
    }
}

/// `x op y`.
pub fn binary(opcode: &str, element_type: ElementType, dims: &[i64]) -> HloModuleProto {
    let shape = shape(element_type, dims);
    let mut entry = Computation::default();
    let x = entry.parameter(1, shape.clone());
    let y = entry.parameter(1, shape.clone());
    entry.operation(1, opcode, shape, &[x, y]);
    module(opcode, vec![entry.finish(1, "main")])
}

/// A training step in small: `count` pairs of arrays, of which the first of each takes over the
/// sum. Parameters are the states, then the updates.
pub fn add_all(count: i64, dims: &[i64]) -> HloModuleProto {
    let array = shape(ElementType::F32, dims);
    let mut entry = Computation::default();
    let parameters: Vec<i64> = (0..2 * count)
        .map(|_| entry.parameter(1, array.clone()))
        .collect();
    let (states, updates) = parameters.split_at(count as usize);
    let sums: Vec<i64> = states
        .iter()
        .zip(updates)
        .map(|(&state, &update)| entry.operation(1, "add", array.clone(), &[state, update]))
        .collect();
    let tuple = ShapeProto {
        element_type: PrimitiveType::Tuple.into(),
        tuple_shapes: vec![array; count as usize],
        ..Default::default()
    };
    entry.operation(1, "tuple", tuple, &sums);
    let mut module = module("add_all", vec![entry.finish(1, "main")]);
    module.input_output_alias = Some(HloInputOutputAliasProto {
        entries: (0..count)
            .map(|i| AliasEntryProto {
                output_shape_index: vec![i],
                parameter_number: i,
                parameter_shape_index: vec![],
                kind: Kind::MayAlias.into(),
            })
            .collect(),
    });
    module
}

/// `x`, as it is.
pub fn identity(element_type: ElementType, dims: &[i64]) -> HloModuleProto {
    let shape = shape(element_type, dims);
    let mut entry = Computation::default();
    let x = entry.parameter(1, shape.clone());
    entry.operation(1, "copy", shape, &[x]);
    module("identity", vec![entry.finish(1, "main")])
}

/// The sum over all of a vector, whose one parameter has this sharding.
pub fn sum(length: i64, sharding: Option<OpSharding>) -> HloModuleProto {
    let scalar = shape(ElementType::F32, &[]);
    let mut add = Computation::default();
    let a = add.parameter(100, scalar.clone());
    let b = add.parameter(100, scalar.clone());
    add.operation(100, "add", scalar.clone(), &[a, b]);

    let mut entry = Computation::default();
    let x = entry.parameter(1, shape(ElementType::F32, &[length]));
    entry.instructions[0].sharding = sharding;
    let zero = entry.push(
        1,
        HloInstructionProto {
            opcode: "constant".into(),
            shape: Some(scalar.clone()),
            literal: Some(ankh_proto::xla::LiteralProto {
                shape: Some(scalar.clone()),
                f32s: vec![0.0],
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    entry.push(
        1,
        HloInstructionProto {
            opcode: "reduce".into(),
            shape: Some(scalar),
            operand_ids: vec![x, zero],
            dimensions: vec![0],
            called_computation_ids: vec![2],
            ..Default::default()
        },
    );
    module("sum", vec![add.finish(2, "add"), entry.finish(1, "main")])
}

/// Lets the (only) output take over the memory of parameter 0.
pub fn aliasing_first(mut module: HloModuleProto, kind: Kind) -> HloModuleProto {
    module.input_output_alias = Some(HloInputOutputAliasProto {
        entries: vec![AliasEntryProto {
            output_shape_index: vec![],
            parameter_number: 0,
            parameter_shape_index: vec![],
            kind: kind.into(),
        }],
    });
    module
}

pub fn compile(client: &Client, module: &HloModuleProto) -> Executable {
    client
        .compile(&Program::hlo_module(module), &CompileOptions::new())
        .unwrap()
}

/// The first dimension split over a mesh of one axis.
pub fn split_over(axis: &str, size: i64) -> OpSharding {
    OpSharding {
        r#type: op_sharding::Type::Other.into(),
        named_sharding: Some(NamedShardingProto {
            mesh: Some(MeshProto {
                axes: vec![MeshAxis {
                    name: axis.into(),
                    size,
                }],
                ..Default::default()
            }),
            dim_shardings: vec![DimensionSharding {
                axes: vec![AxisRefProto {
                    mesh_axis_index: 0,
                    sub_axis_info: None,
                }],
                is_closed: true,
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
