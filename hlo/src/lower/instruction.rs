//! Single instructions.

use ankh_proto::xla;
use ankh_proto::xla::named_sharding_proto::DimensionSharding;

use crate::ir::{Node, RngAlgorithm};
use crate::literal::Literal;
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

/// A gather of whole rows of `rest` dimensions by an array of `indices` dimensions.
pub(super) fn gather_dims(rest: usize, indices: usize) -> xla::GatherDimensionNumbers {
    xla::GatherDimensionNumbers {
        offset_dims: (indices..indices + rest).map(|d| d as i64).collect(),
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0],
        index_vector_dim: indices as i64,
        ..Default::default()
    }
}

/// A scatter of whole rows into a table of `rank` dimensions by an array of `indices` dimensions.
pub(super) fn scatter_dims(rank: usize, indices: usize) -> xla::ScatterDimensionNumbers {
    xla::ScatterDimensionNumbers {
        update_window_dims: (indices..indices + rank - 1).map(|d| d as i64).collect(),
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: indices as i64,
        ..Default::default()
    }
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
                name: name.to_string(),
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

/// GSPMD's form: a grid of tiles, one for each dimension's parts, and the devices in it: the mesh
/// transposed so that the axes that split come first, in the order of the dimensions. What the
/// other axes count are copies.
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
