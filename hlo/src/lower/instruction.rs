//! Single instructions.

use ankh_proto::xla;
use ankh_proto::xla::hlo_instruction_proto::SliceDimensions;
use ankh_proto::xla::named_sharding_proto::DimensionSharding;
use ankh_proto::xla::padding_config::PaddingConfigDimension;
use ankh_proto::xla::precision_config;

use crate::function::Node;
use crate::literal::Literal;
use crate::op::{Op, Precision, RngAlgorithm};
use crate::shape::{DType, Shape};
use crate::sharding::{Sharding, ShardingForm};

use super::shape_proto;

/// An instruction without attributes.
pub(super) fn new(
    opcode: &str,
    shape: xla::ShapeProto,
    operand_ids: Vec<i64>,
) -> xla::HloInstructionProto {
    xla::HloInstructionProto {
        opcode: opcode.into(),
        shape: Some(shape),
        operand_ids,
        ..Default::default()
    }
}

/// Letters, digits, `_`, `.` and `-`: what names may hold.
pub(super) fn identifier(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// Where the node stands in the model and in the source.
pub(super) fn metadata(node: &Node) -> xla::OpMetadata {
    let op = node.op.name();
    xla::OpMetadata {
        op_type: op.into(),
        op_name: if node.scope.is_empty() {
            op.into()
        } else {
            format!("{}/{op}", node.scope)
        },
        source_file: node.location.file().into(),
        source_line: node.location.line() as i32,
        ..Default::default()
    }
}

pub(super) fn array_proto(element_type: i32, dims: &[i64]) -> xla::ShapeProto {
    let any = shape_proto(&Shape::new(DType::F32, dims));
    xla::ShapeProto {
        element_type,
        ..any
    }
}

pub(super) fn compare(direction: &str, x: i64, y: i64) -> xla::HloInstructionProto {
    let mut i = new(
        "compare",
        shape_proto(&Shape::new(DType::Pred, [])),
        vec![x, y],
    );
    i.comparison_direction = direction.into();
    i
}

/// An instruction whose attributes follow from the node alone. Every operation is named here, so that one that is added cannot
/// lose its attributes without a word.
pub(super) fn simple(
    node: &Node,
    shape: xla::ShapeProto,
    operands: Vec<i64>,
    form: ShardingForm,
) -> xla::HloInstructionProto {
    let mut i = new(node.op.name(), shape, operands);
    match &node.op {
        Op::Constant(literal) => return constant(literal),
        Op::Iota { dim } => i.dimensions = vec![*dim],
        Op::Compare(c) => i.comparison_direction = c.direction().into(),
        Op::Broadcast { dims } | Op::Reverse { dims } => i.dimensions = dims.clone(),
        Op::Transpose { permutation } => i.dimensions = permutation.clone(),
        Op::Concatenate { dim } => i.dimensions = vec![*dim],
        Op::DynamicSlice { sizes } => i.dynamic_slice_sizes = sizes.clone(),
        Op::Slice {
            start,
            limit,
            stride,
        } => {
            let dims = start.iter().zip(limit).zip(stride);
            i.slice_dimensions = dims
                .map(|((&start, &limit), &stride)| SliceDimensions {
                    start,
                    limit,
                    stride,
                })
                .collect();
        }
        Op::Pad { dims } => {
            let dimensions = dims.iter().map(|d| PaddingConfigDimension {
                edge_padding_low: d.low,
                edge_padding_high: d.high,
                interior_padding: d.interior,
            });
            i.padding_config = Some(xla::PaddingConfig {
                dimensions: dimensions.collect(),
            });
        }
        Op::Dot { dims, precision } => {
            i.dot_dimension_numbers = Some(xla::DotDimensionNumbers {
                lhs_contracting_dimensions: dims.lhs_contract.clone(),
                rhs_contracting_dimensions: dims.rhs_contract.clone(),
                lhs_batch_dimensions: dims.lhs_batch.clone(),
                rhs_batch_dimensions: dims.rhs_batch.clone(),
            });
            let precision = match precision {
                Precision::Default => precision_config::Precision::Default,
                Precision::Highest => precision_config::Precision::Highest,
            };
            i.precision_config = Some(xla::PrecisionConfig {
                operand_precision: vec![precision as i32; 2],
                ..Default::default()
            });
        }
        Op::ShardingConstraint { sharding: s } => {
            i.opcode = "custom-call".into();
            i.custom_call_target = "Sharding".into();
            i.custom_call_api_version = xla::CustomCallApiVersion::ApiVersionOriginal as i32;
            i.sharding = Some(sharding(s, form));
        }
        // Operands and shape say all.
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Convert
        | Op::Reshape
        | Op::DynamicUpdateSlice => {}
        Op::Invalid => unreachable!("a graph with a mistake is not lowered"),
        Op::Parameter { .. }
        | Op::GetTupleElement { .. }
        | Op::Scan(_)
        | Op::CheckpointName { .. }
        | Op::StopGradient
        | Op::CustomVjp { .. } => unreachable!("`Block::inline` has lowered it"),
        Op::Call { .. }
        | Op::Conditional { .. }
        | Op::While { .. }
        | Op::OptimizationBarrier
        | Op::RngBits { .. }
        | Op::Reduce { .. }
        | Op::ScatterAddRows
        | Op::GatherRows => unreachable!("`Block::node` has lowered it"),
    }
    i
}

pub(super) fn constant(literal: &Literal) -> xla::HloInstructionProto {
    let mut i = new("constant", shape_proto(literal.shape()), vec![]);
    i.literal = Some(literal_proto(literal));
    i
}

fn literal_proto(literal: &Literal) -> xla::LiteralProto {
    let bytes = literal.bytes();
    let mut p = xla::LiteralProto {
        shape: Some(shape_proto(literal.shape())),
        ..Default::default()
    };
    match literal.shape().dtype {
        DType::Pred => p.preds = bytes.iter().map(|&b| b != 0).collect(),
        DType::U8 => p.u8s = bytes.to_vec(),
        DType::Bf16 => p.bf16s = bytes.to_vec(),
        DType::F16 => p.f16s = bytes.to_vec(),
        DType::S32 => p.s32s = words(bytes, i32::from_le_bytes),
        DType::U32 => p.u32s = words(bytes, u32::from_le_bytes),
        DType::S64 => p.s64s = words(bytes, i64::from_le_bytes),
        DType::U64 => p.u64s = words(bytes, u64::from_le_bytes),
        DType::F32 => p.f32s = words(bytes, f32::from_le_bytes),
        DType::F64 => p.f64s = words(bytes, f64::from_le_bytes),
    }
    p
}

fn words<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|c| read(*c)).collect()
}

pub(super) fn rng_algorithm(algorithm: RngAlgorithm) -> xla::RandomAlgorithm {
    match algorithm {
        RngAlgorithm::ThreeFry => xla::RandomAlgorithm::RngThreeFry,
        RngAlgorithm::Philox => xla::RandomAlgorithm::RngPhilox,
    }
}

/// Rows of `operands[0]` at `operands[1]`, an array of `indices` dimensions.
pub(super) fn gather(
    shape: xla::ShapeProto,
    operands: Vec<i64>,
    indices: usize,
) -> xla::HloInstructionProto {
    let rest = shape.dimensions[indices..].to_vec();
    let mut i = new("gather", shape, operands);
    i.gather_slice_sizes = [1].into_iter().chain(rest.iter().copied()).collect();
    i.gather_dimension_numbers = Some(xla::GatherDimensionNumbers {
        offset_dims: (indices..indices + rest.len()).map(|d| d as i64).collect(),
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0],
        index_vector_dim: indices as i64,
        ..Default::default()
    });
    i
}

/// `operands[0]` with `operands[2]` combined into the rows at `operands[1]`, an array of `indices` dimensions.
pub(super) fn scatter(
    shape: xla::ShapeProto,
    operands: Vec<i64>,
    indices: usize,
    combiner: i64,
) -> xla::HloInstructionProto {
    let rest = shape.dimensions.len() - 1;
    let mut i = new("scatter", shape, operands);
    i.called_computation_ids = vec![combiner];
    i.scatter_dimension_numbers = Some(xla::ScatterDimensionNumbers {
        update_window_dims: (indices..indices + rest).map(|d| d as i64).collect(),
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: indices as i64,
        ..Default::default()
    });
    i
}

/// Where an array lies on the mesh.
pub(super) fn sharding(sharding: &Sharding, form: ShardingForm) -> xla::OpSharding {
    match form {
        ShardingForm::Shardy => named_sharding(sharding),
        ShardingForm::Gspmd => tile_sharding(sharding),
    }
}

/// Shardy's named form.
fn named_sharding(sharding: &Sharding) -> xla::OpSharding {
    let axes = |axes: &[usize]| {
        axes.iter()
            .map(|&a| xla::AxisRefProto {
                mesh_axis_index: a as i64,
                sub_axis_info: None,
            })
            .collect()
    };
    let mesh = xla::MeshProto {
        axes: sharding
            .mesh
            .axes()
            .iter()
            .map(|(name, size)| xla::mesh_proto::MeshAxis {
                name: name.clone(),
                size: *size,
            })
            .collect(),
        ..Default::default()
    };
    let dims = sharding.dims.iter().map(|d| DimensionSharding {
        axes: axes(d),
        is_closed: true,
    });
    xla::OpSharding {
        r#type: xla::op_sharding::Type::Other as i32,
        named_sharding: Some(xla::NamedShardingProto {
            mesh: Some(mesh),
            dim_shardings: dims.collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// GSPMD's form: a grid of tiles, one for each dimension's parts, and the devices in it: the mesh transposed so that the axes
/// that split come first, in the order of the dimensions. What the other axes count are copies.
fn tile_sharding(sharding: &Sharding) -> xla::OpSharding {
    if sharding.is_replicated() {
        return xla::OpSharding {
            r#type: xla::op_sharding::Type::Replicated as i32,
            ..Default::default()
        };
    }
    let axes = sharding.mesh.axes();
    let mut order: Vec<usize> = sharding.dims.iter().flatten().copied().collect();
    order.extend((0..axes.len()).filter(|axis| !sharding.dims.iter().flatten().any(|a| a == axis)));
    let mut tiles: Vec<i64> = (0..sharding.dims.len())
        .map(|dim| sharding.shards(dim))
        .collect();
    let copies = sharding.mesh.devices() / tiles.iter().product::<i64>();
    if copies > 1 {
        tiles.push(copies);
    }
    xla::OpSharding {
        r#type: xla::op_sharding::Type::Other as i32,
        tile_assignment_dimensions: tiles,
        iota_reshape_dims: axes.iter().map(|(_, size)| *size).collect(),
        iota_transpose_perm: order.into_iter().map(|axis| axis as i32).collect(),
        replicate_on_last_tile_dim: copies > 1,
        ..Default::default()
    }
}
