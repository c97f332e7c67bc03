//! What the kernels of a compiled program cost. The compiler notes no estimate with a custom call;
//! what one place on a kernel's grid takes is in its final schedule, whose length is in cycles.

use std::collections::{BTreeMap, BTreeSet};

use ankh_mosaic::KernelCall;
use ankh_proto::xla::{
    HloComputationProto, HloInstructionProto, HloModuleProto, PrimitiveType, ProgramShapeProto,
    ShapeProto,
};
use serde::{Deserialize, Serialize};

use super::scope::{Pass, scope};
use super::walk::{Into, Walk};
use crate::mesh::slice::Chip;

/// The compiler's final schedule of a kernel, in bundles of instructions: one a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Of a round: what is computed at a place, and what moves blocks and counts.
    pub bundles: u64,
    /// Of these, what is computed at a place.
    pub body: u64,
}

impl Schedule {
    /// The cycles of a call that passes over so many places. The grid is a pipeline: while a place
    /// is computed, the blocks of the next one come and those of the one before leave. So it takes
    /// two more rounds than it has places, in which nothing is computed.
    fn cycles(self, places: u64) -> u64 {
        places * self.bundles + 2 * (self.bundles - self.body)
    }
}

/// The schedules of kernels, by their names.
pub type Schedules = BTreeMap<String, Schedule>;

/// One kernel of a step, all its calls together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelCycles {
    /// Its name.
    pub name: String,
    /// The part of the model that it computes.
    pub scope: String,
    /// How often a step calls it.
    pub calls: u64,
    /// The compiler's schedule of a place on its grid.
    pub schedule: Schedule,
    /// The places that the busiest core passes over in a call.
    pub places: u64,
    /// The bytes that one place moves between HBM and VMEM, on average.
    pub bytes: u64,
    /// The cycles that moving them takes at the pace of the HBM, of which each core has its share.
    pub memory_cycles: u64,
    /// All cycles of all calls, at whichever pace is slower.
    pub cycles: u64,
    /// Whether it is of the forward pass, of the forward pass again, or of the derivative.
    pub pass: Pass,
}

/// The kernels of a module. Their calls lie in loops; each runs as often as its loop does.
pub(super) fn of(module: &HloModuleProto, schedules: &Schedules, chip: &Chip) -> Vec<KernelCycles> {
    let mut kernels = vec![];
    Walk::new(module).each(Into::Everything, |visit| {
        let instruction = visit.instruction;
            let call = KernelCall::of(instruction);
        let Some(call) = call else {
            return;
        };
        let Some(&schedule) = schedules.get(&call.name) else {
            return;
        };
        let (pass, scope) = scope(instruction);
        let places = call.places_of_a_core(chip.cores).max(1) as u64;
        let all: i64 = call.grid.iter().product();
        let bytes = call.cost.bytes as u64 / (all.max(1) as u64);
        let pace = chip.memory_bandwidth / chip.clock_hz / chip.cores as f64;
        let memory_cycles = (bytes as f64 / pace) as u64;
        kernels.push(KernelCycles {
            name: call.name,
            scope,
            calls: visit.times,
            schedule,
            places,
            bytes,
            memory_cycles,
            cycles: visit.times * schedule.cycles(places).max(places * memory_cycles),
            pass,
        });
    });
    kernels
}

/// The schedules of a module's kernels, among all that the compiler has written down, by the names
/// of instructions.
///
/// # Errors
/// The first kernel that has no schedule, or of which nothing is known. It would count as free.
pub(super) fn schedules(
    module: &HloModuleProto,
    all: &BTreeMap<String, Schedule>,
) -> Result<Schedules, String> {
    let counted = calls(module).map(|(i, call)| {
        let known = call.zip(all.get(&i.name));
        let (call, &schedule) = known.ok_or_else(|| i.name.clone())?;
        Ok((call.name, schedule))
    });
    counted.collect()
}

/// A program of each kernel of a module, called once, for one device; `None` if there are none.
pub(super) fn program(module: &HloModuleProto) -> Option<HloModuleProto> {
    let mut seen = BTreeSet::new();
    let mut entry = HloComputationProto {
        name: "kernels".into(),
        id: 1,
        ..Default::default()
    };
    let mut shape = ProgramShapeProto::default();
    let mut results = vec![];
    let mut next = 1..;
    let mut id = || next.next().expect("the range has no end");
    for (call, known) in calls(module) {
        if known.is_some_and(|known| !seen.insert(known.name)) {
            continue;
        }
        let mut operands = vec![];
        for operand in &call.operand_shapes_with_layout {
            let parameter = HloInstructionProto {
                id: id(),
                name: format!("p{}", shape.parameters.len()),
                opcode: "parameter".into(),
                parameter_number: shape.parameters.len() as i64,
                shape: Some(operand.clone()),
                ..Default::default()
            };
            operands.push(parameter.id);
            shape.parameter_names.push(parameter.name.clone());
            shape.parameters.push(operand.clone());
            entry.instructions.push(parameter);
        }
        let alone = HloInstructionProto {
            id: id(),
            operand_ids: operands,
            control_predecessor_ids: vec![],
            sharding: None,
            ..call.clone()
        };
        let parts = alone.shape.iter().flat_map(|shape| &shape.tuple_shapes);
        let parts = parts.cloned().enumerate();
        let parts = parts.map(|(index, part)| HloInstructionProto {
            id: id(),
            name: format!("{}.{index}", alone.name),
            opcode: "get-tuple-element".into(),
            operand_ids: vec![alone.id],
            tuple_index: index as i64,
            shape: Some(part),
            ..Default::default()
        });
        let parts: Vec<HloInstructionProto> = parts.collect();
        entry.instructions.push(alone);
        results.extend(parts.iter().map(|part| (part.id, part.shape.clone())));
        entry.instructions.extend(parts);
    }
    if results.is_empty() {
        return None;
    }
    let (operands, shapes): (Vec<i64>, Vec<Option<ShapeProto>>) = results.into_iter().unzip();
    let result = ShapeProto {
        element_type: PrimitiveType::Tuple.into(),
        tuple_shapes: shapes.into_iter().flatten().collect(),
        ..Default::default()
    };
    let root = HloInstructionProto {
        id: id(),
        name: "results".into(),
        opcode: "tuple".into(),
        shape: Some(result.clone()),
        operand_ids: operands,
        ..Default::default()
    };
    shape.result = Some(result);
    entry.root_id = root.id;
    entry.instructions.push(root);
    entry.program_shape = Some(shape.clone());
    Some(HloModuleProto {
        name: "kernels".into(),
        entry_computation_name: "kernels".into(),
        entry_computation_id: 1,
        host_program_shape: Some(shape),
        computations: vec![entry],
        ..Default::default()
    })
}

/// The calls of kernels, with what is known of each.
fn calls(
    module: &HloModuleProto,
) -> impl Iterator<Item = (&HloInstructionProto, Option<KernelCall>)> {
    let instructions = module.computations.iter().flat_map(|c| &c.instructions);
    let calls = instructions.filter(|i| KernelCall::is_call(i));
    calls.map(|i| (i, KernelCall::of(i)))
}
