//! The collectives of a compiled step: how many there are, how many bytes they send, and which mesh
//! axes they cross.

use std::collections::{BTreeMap, BTreeSet};

use ankh_hlo::Mesh;
use ankh_proto::xla::hlo_instruction_proto::ReplicaGroupList;
use ankh_proto::xla::{
    HloInstructionProto, HloModuleProto, IotaReplicaGroupListProto, PrimitiveType, ShapeProto,
};
use serde::{Deserialize, Serialize};

use super::walk::{Into, Walk, shapes};

/// The kinds of exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectiveKind {
    /// All get the sum of all.
    AllReduce,
    /// All get the parts of all.
    AllGather,
    /// Each gets its part of the sum of all.
    ReduceScatter,
    /// Each gets its part of each.
    AllToAll,
    /// Each gets what another one has.
    CollectivePermute,
}

impl CollectiveKind {
    /// The name of the instruction.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all-reduce",
            Self::AllGather => "all-gather",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllToAll => "all-to-all",
            Self::CollectivePermute => "collective-permute",
        }
    }

    /// The kind that an instruction begins, if it is one: `all-reduce` and `all-reduce-start`
    /// alike.
    fn of(opcode: &str) -> Option<CollectiveKind> {
        let opcode = opcode.strip_suffix("-start").unwrap_or(opcode);
        [
            Self::AllReduce,
            Self::AllGather,
            Self::ReduceScatter,
            Self::AllToAll,
            Self::CollectivePermute,
        ]
        .into_iter()
        .find(|kind| {
            kind.name() == opcode || (*kind == Self::AllToAll && opcode == "ragged-all-to-all")
        })
    }

    /// Of `bytes` that each of `devices` puts in, how many it sends at least.
    fn sent(self, bytes: f64, devices: f64) -> f64 {
        let others = devices - 1.0;
        match self {
            Self::AllReduce => 2.0 * bytes * others / devices,
            Self::AllGather => bytes * others,
            Self::ReduceScatter | Self::AllToAll => bytes * others / devices,
            Self::CollectivePermute => bytes,
        }
    }
}

/// All exchanges of one kind along the same axes and among as many chips.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collective {
    /// The kind.
    pub kind: CollectiveKind,
    /// The mesh axes along which those that exchange differ, in the mesh's order.
    pub axes: Vec<String>,
    /// How many chips exchange with one another.
    pub group: u64,
    /// How many a step makes.
    pub count: u64,
    /// What each chip puts in, in bytes a step.
    pub bytes: u64,
    /// What each chip has to send at least, in bytes a step.
    pub sent: u64,
}

/// What a compiled program exchanges in one run, most first. Devices are known by their places on
/// the mesh, as the program was compiled.
pub fn collectives(module: &HloModuleProto, mesh: &Mesh) -> Vec<Collective> {
    let shapes = shapes(module);
    let mut found: BTreeMap<(CollectiveKind, Vec<usize>, usize), Collective> = BTreeMap::new();
    // One exchange that fusions have in pieces, each with the whole written into it, counts once.
    let mut seen = BTreeSet::new();
    Walk::new(module).each(Into::Everything, |visit| {
        let i = visit.instruction;
        let Some(kind) = CollectiveKind::of(&i.opcode) else {
            return;
        };
        if visit.computation.is_fusion_computation
            && i.channel_id > 0
            && !seen.insert((kind, i.channel_id))
        {
            return;
        }
        let groups = groups(i, mesh);
        let axes = axes(&groups, mesh);
        let operands = i.operand_ids.iter().filter_map(|id| shapes.get(id));
        let bytes: u64 = operands.map(|shape| bytes(shape)).sum();
        let devices = groups.iter().map(Vec::len).max().unwrap_or(1);
        let sent = kind.sent(bytes as f64, devices as f64);
        let names = axes.iter().map(|&a| mesh.axes()[a].0.to_string()).collect();
        let entry = found
            .entry((kind, axes, devices))
            .or_insert_with(|| Collective {
                kind,
                axes: names,
                group: devices as u64,
                count: 0,
                bytes: 0,
                sent: 0,
            });
        entry.count += visit.times;
        entry.bytes += visit.times * bytes;
        entry.sent += (visit.times as f64 * sent) as u64;
    });
    let mut found: Vec<Collective> = found.into_values().collect();
    found.sort_by_key(|c| std::cmp::Reverse(c.sent));
    found
}

/// The devices that exchange with one another, by their places on the mesh.
fn groups(i: &HloInstructionProto, mesh: &Mesh) -> Vec<Vec<i64>> {
    if !i.source_target_pairs.is_empty() {
        let pairs = i.source_target_pairs.iter();
        return pairs.map(|pair| vec![pair.source, pair.target]).collect();
    }
    let listed = |groups: &[ankh_proto::xla::ReplicaGroup]| -> Vec<Vec<i64>> {
        groups.iter().map(|g| g.replica_ids.clone()).collect()
    };
    let found = match &i.replica_group_list {
        Some(ReplicaGroupList::CollectiveDeviceList(list)) => listed(&list.replica_groups),
        Some(ReplicaGroupList::IotaCollectiveDeviceList(list)) => iota_groups(list),
        Some(ReplicaGroupList::MeshAxesReplicaGroupList(list)) => {
            let own = list.mesh.iter().flat_map(|mesh| &mesh.axes);
            let sizes: Vec<i64> = own.map(|axis| axis.size).collect();
            let along = list.axes.iter();
            let along = along.map(|axis| axis.mesh_axis_index as usize).collect();
            match sizes.iter().all(|&size| size > 0) {
                true => groups_along(&sizes, along),
                false => vec![],
            }
        }
        None => listed(&i.replica_groups),
    };
    // No groups are one of all devices.
    match found.iter().any(|group| !group.is_empty()) {
        true => found,
        false => vec![(0..mesh.devices()).collect()],
    }
}

/// The groups of a list in short: the numbers from 0, reshaped, transposed, and cut into as many
/// rows as there are groups.
fn iota_groups(list: &IotaReplicaGroupListProto) -> Vec<Vec<i64>> {
    let dims = &list.iota_reshape_dims;
    let permutation: Vec<usize> = match list.iota_transpose_perm.as_slice() {
        [] => (0..dims.len()).collect(),
        permutation => permutation.iter().map(|&d| d as usize).collect(),
    };
    let devices = transposed(dims, &permutation);
    let size = usize::try_from(list.num_devices_per_group).unwrap_or(0);
    devices.chunks(size.max(1)).map(<[i64]>::to_vec).collect()
}

/// Devices that differ in their places along these axes only.
fn groups_along(dims: &[i64], along: Vec<usize>) -> Vec<Vec<i64>> {
    let along: Vec<usize> = along.into_iter().filter(|&a| a < dims.len()).collect();
    let size: i64 = along.iter().map(|&a| dims[a]).product();
    let others = (0..dims.len()).filter(|a| !along.contains(a));
    let permutation: Vec<usize> = others.chain(along.iter().copied()).collect();
    let devices = transposed(dims, &permutation);
    let size = usize::try_from(size).unwrap_or(1).max(1);
    devices.chunks(size).map(<[i64]>::to_vec).collect()
}

/// The numbers from 0 as a row-major array of `dims`, in the order of the transposed array.
fn transposed(dims: &[i64], permutation: &[usize]) -> Vec<i64> {
    let strides: Vec<i64> = (0..dims.len())
        .map(|d| dims[d + 1..].iter().product())
        .collect();
    permutation.iter().fold(vec![0], |starts, &d| {
        let along = |start: i64| (0..dims[d]).map(move |i| (start, i));
        let places = starts.into_iter().flat_map(along);
        places.map(|(start, i)| start + i * strides[d]).collect()
    })
}

/// The axes along which devices of one group differ.
fn axes(groups: &[Vec<i64>], mesh: &Mesh) -> Vec<usize> {
    let sizes = mesh.axes();
    let place = |device: i64, axis: usize| {
        let stride: i64 = sizes[axis + 1..].iter().map(|a| a.1).product();
        device / stride % sizes[axis].1
    };
    (0..sizes.len())
        .filter(|&axis| {
            groups.iter().any(|group| {
                let mut places = group.iter().map(|&device| place(device, axis));
                let first = places.next();
                places.any(|place| Some(place) != first)
            })
        })
        .collect()
}

/// The bytes of an array or of all arrays of a tuple.
pub(super) fn bytes(shape: &ShapeProto) -> u64 {
    if shape.element_type == PrimitiveType::Tuple as i32 {
        return shape.tuple_shapes.iter().map(bytes).sum();
    }
    let elements: u64 = shape.dimensions.iter().map(|&d| d.unsigned_abs()).product();
    elements * bits(shape.element_type()) / 8
}

fn bits(element_type: PrimitiveType) -> u64 {
    use PrimitiveType as P;
    match element_type {
        P::S2 | P::U2 => 2,
        P::S4 | P::U4 => 4,
        P::Pred | P::S8 | P::U8 | P::F8e5m2 | P::F8e4m3fn => 8,
        P::S16 | P::U16 | P::F16 | P::Bf16 => 16,
        P::S32 | P::U32 | P::F32 => 32,
        P::S64 | P::U64 | P::F64 | P::C64 => 64,
        P::C128 => 128,
        P::Invalid | P::Tuple | P::OpaqueType | P::Token => 0,
    }
}
