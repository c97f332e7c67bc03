//! What a step keeps in the memory of each chip, by purpose.

use std::collections::HashMap;

use ankh_proto::xla::{HloComputationProto, HloInstructionProto, HloModuleProto, ShapeProto};
use serde::{Deserialize, Serialize};

use super::arrays::{Role, StepArray};
use super::collectives::bytes;
use super::compile::CompileStats;
use super::scope::{Pass, scope};
use super::walk::{Into, Walk};

/// The memory of one chip during a step, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The weights.
    pub parameters: u64,
    /// What the optimizer keeps.
    pub optimizer: u64,
    /// The batch and the number of steps done.
    pub batch: u64,
    /// What the compiler counts for these three, padding included.
    pub arguments: u64,
    /// What layers keep for their derivative.
    pub activations: u64,
    /// The derivatives of the weights, as far as loops collect them.
    pub gradients: u64,
    /// All temporary arrays; activations and gradients among them.
    pub temporary: u64,
    /// Results that take over no argument's memory.
    pub outputs: u64,
    /// The program.
    pub code: u64,
    /// The most held at once, by the compiler's count.
    pub peak: u64,
    /// What there is, where that is known.
    pub limit: Option<u64>,
    /// The most that a save takes of a host's memory: what the host's chips hold of the state.
    pub host_save: u64,
    /// The most that local saves take of it; 0 where there are none.
    pub host_local: u64,
}

/// What the memory of a host depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hosts {
    /// The chips of each.
    pub chips: usize,
    /// There are others.
    pub are_several: bool,
    pub save_locally: bool,
}

impl Hosts {
    /// How often a local save has what the host's chips hold: on its way, in the newest state and
    /// in the one before, and these two of another host too.
    fn local_copies(self) -> usize {
        match (self.save_locally, self.are_several) {
            (false, _) => 0,
            (true, false) => 3,
            (true, true) => 5,
        }
    }
}

impl Memory {
    pub(super) fn of(
        arrays: &[StepArray],
        stats: &CompileStats,
        optimized: &HloModuleProto,
        limit: Option<u64>,
        hosts: Hosts,
    ) -> Memory {
        let sum = |role: Role| {
            arrays
                .iter()
                .filter(|a| a.role == role)
                .map(|a| a.shard().bytes())
                .sum()
        };
        let stacks = Stacks::of(optimized);
        // Loops may share memory for what they keep; the compiler's own total is the bound.
        let total = |shapes: &[&ShapeProto]| shapes.iter().map(|shape| bytes(shape)).sum::<u64>();
        let activations = total(&stacks.activations).min(stats.temporary);
        let gradients = total(&stacks.gradients).min(stats.temporary - activations);
        let (parameters, optimizer) = (sum(Role::Parameter), sum(Role::Optimizer));
        Memory {
            parameters,
            optimizer,
            batch: sum(Role::Batch),
            arguments: stats.arguments,
            activations,
            gradients,
            temporary: stats.temporary,
            outputs: stats.outputs.saturating_sub(stats.aliased),
            code: stats.code,
            peak: stats.peak,
            limit,
            host_save: (parameters + optimizer) * hosts.chips as u64,
            host_local: (parameters + optimizer) * (hosts.chips * hosts.local_copies()) as u64,
        }
    }

    /// Temporary arrays that are neither activations nor gradients.
    pub fn others(&self) -> u64 {
        self.temporary - self.activations - self.gradients
    }
}

/// What loops over layers leave behind, one slice for each layer.
#[derive(Default)]
pub(super) struct Stacks<'m> {
    /// What layers keep for their derivative.
    pub activations: Vec<&'m ShapeProto>,
    /// The derivatives of the layers' weights.
    pub gradients: Vec<&'m ShapeProto>,
}

impl<'m> Stacks<'m> {
    pub fn of(module: &'m HloModuleProto) -> Stacks<'m> {
        let mut stacks = Stacks::default();
        let walk = Walk::new(module);
        walk.each(Into::ControlFlow, |visit| {
            if visit.instruction.opcode != "while" {
                return;
            }
            let trips = walk.loop_trips(visit.instruction);
            let of_gradients = scope(visit.instruction).0 == Pass::Gradient;
            for shape in written(visit.instruction, visit.computation) {
                let stacked = shape
                    .dimensions
                    .first()
                    .is_some_and(|&d| d.unsigned_abs() == trips);
                if !stacked || shape.dimensions.len() < 2 {
                    continue;
                }
                match of_gradients {
                    true => stacks.gradients.push(shape),
                    false => stacks.activations.push(shape),
                }
            }
        });
        stacks
    }
}

/// The arrays of a loop's state that start as a constant, so that the loop itself writes what is in
/// them.
fn written<'m>(
    i: &'m HloInstructionProto,
    computation: &'m HloComputationProto,
) -> Vec<&'m ShapeProto> {
    let by_id: HashMap<i64, &HloInstructionProto> =
        computation.instructions.iter().map(|i| (i.id, i)).collect();
    let state = i.operand_ids.first().and_then(|id| by_id.get(id));
    let Some(state) = state.filter(|state| state.opcode == "tuple") else {
        return vec![];
    };
    let elements = state.operand_ids.iter().filter_map(|id| by_id.get(id));
    elements
        .filter(|element| starts_constant(element, &by_id))
        .filter_map(|element| element.shape.as_ref())
        .collect()
}

fn starts_constant(i: &HloInstructionProto, by_id: &HashMap<i64, &HloInstructionProto>) -> bool {
    match i.opcode.as_str() {
        "constant" | "broadcast" => true,
        // An array that is only allocated.
        "custom-call" => i.custom_call_target == "AllocateBuffer",
        "copy" | "bitcast" | "fusion" | "copy-start" | "copy-done" => i
            .operand_ids
            .iter()
            .all(|id| by_id.get(id).is_some_and(|i| starts_constant(i, by_id))),
        _ => false,
    }
}
