//! What the kernels of a compiled program cost. The compiler notes no estimate with a custom call;
//! what one place on a kernel's grid takes is in its final schedule, whose length is in cycles.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ankh_mosaic::KernelCall;
use ankh_proto::xla::{HloComputationProto, HloInstructionProto, HloModuleProto};
use prost::Message;
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
    /// The one that takes longer.
    fn longer(self, other: Schedule) -> Schedule {
        std::cmp::max_by_key(self, other, |s| (s.bundles, s.bundles - s.body))
    }

    /// The cycles of a call that passes over so many places. The grid is a pipeline: while a place
    /// is computed, the blocks of the next one come and those of the one before leave. So it takes
    /// two more rounds than it has places, in which nothing is computed.
    fn cycles(self, places: u64) -> u64 {
        places * self.bundles + 2 * (self.bundles - self.body)
    }
}

/// The schedules of kernels, with what is fused into their reads, by the names of instructions.
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
    let computations = Computations::of(module);
    let mut kernels = vec![];
    Walk::new(module).each(Into::ControlFlow, |visit| {
        let instruction = visit.instruction;
        let call = computations.kernel(instruction).and_then(KernelCall::of);
        let Some((call, &schedule)) = call.zip(schedules.get(&instruction.name)) else {
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

/// A module's computations, by their numbers.
struct Computations<'m> {
    module: &'m HloModuleProto,
    by_id: HashMap<i64, &'m HloComputationProto>,
}

impl<'m> Computations<'m> {
    fn of(module: &'m HloModuleProto) -> Computations<'m> {
        let by_id = module.computations.iter().map(|c| (c.id, c));
        Computations {
            module,
            by_id: by_id.collect(),
        }
    }

    /// The call of a kernel that an instruction is, or that it is a fusion with.
    fn kernel(&self, instruction: &'m HloInstructionProto) -> Option<&'m HloInstructionProto> {
        if KernelCall::is_call(instruction) {
            return Some(instruction);
        }
        let fused = self.fused(instruction);
        let mut instructions = fused.iter().flat_map(|c| &c.instructions);
        instructions.find(|i| KernelCall::is_call(i))
    }

    /// The computations that a fusion is made of, callees first.
    fn fused(&self, instruction: &HloInstructionProto) -> Vec<&'m HloComputationProto> {
        if instruction.opcode != "fusion" {
            return vec![];
        }
        let called = instruction.called_computation_ids.iter();
        let called = called.filter_map(|id| self.by_id.get(id).copied());
        let each = called.flat_map(|computation| {
            let inner = computation.instructions.iter();
            let inner = inner.flat_map(|i| self.fused(i));
            inner.chain([computation]).collect::<Vec<_>>()
        });
        each.collect()
    }

    /// What a kernel is compiled from: its operands, its result and what is fused with it, each by
    /// its operation, its shape with layout and memory space, and what a kernel's call is given. Of
    /// kernels that have the same, libtpu compiles one, and writes down its schedule alone.
    fn code(&self, kernel: &Kernel) -> Vec<u8> {
        let operands = &kernel.instruction.operand_ids;
        let siblings = kernel.computation.instructions.iter();
        let operands = operands
            .iter()
            .filter_map(|id| siblings.clone().find(|i| i.id == *id));
        let mut code = vec![];
        for shape in operands.filter_map(|i| i.shape.as_ref()) {
            code.extend(shape.encode_length_delimited_to_vec());
        }
        let fused = self.fused(kernel.instruction);
        let fused = fused.iter().flat_map(|c| &c.instructions);
        for instruction in [kernel.instruction].into_iter().chain(fused) {
            code.extend(instruction.opcode.bytes());
            if let Some(shape) = &instruction.shape {
                code.extend(shape.encode_length_delimited_to_vec());
            }
            if KernelCall::is_call(instruction) {
                code.extend(&instruction.backend_config);
            }
        }
        code
    }

    /// The kernels, and the fusions with one.
    fn kernels(&self) -> impl Iterator<Item = Kernel<'m>> {
        let computations = &self.module.computations;
        let all = computations.iter().flat_map(|c| &c.instructions);
        let inside: BTreeSet<i64> = all.flat_map(|i| self.fused(i)).map(|c| c.id).collect();
        let outside = computations.iter().filter(move |c| !inside.contains(&c.id));
        outside.flat_map(move |computation| {
            let instructions = computation.instructions.iter();
            instructions.filter_map(move |instruction| {
                let call = self.kernel(instruction)?;
                Some(Kernel {
                    instruction,
                    call,
                    computation,
                })
            })
        })
    }
}

/// Those of `written`, the schedules that the compiler has written down, that are of kernels.
///
/// # Errors
/// A kernel that has no schedule, or of which nothing is known. It would count as free.
pub(super) fn schedules(module: &HloModuleProto, written: &Schedules) -> Result<Schedules, String> {
    let computations = Computations::of(module);
    let kernels: Vec<Kernel> = computations.kernels().collect();
    let mut compiled: HashMap<Vec<u8>, Schedule> = HashMap::new();
    for kernel in &kernels {
        if let Some(&schedule) = written.get(&kernel.instruction.name) {
            let code = computations.code(kernel);
            let longest = compiled.entry(code).or_insert(schedule);
            *longest = schedule.longer(*longest);
        }
    }
    let counted = kernels.iter().map(|kernel| {
        let name = &kernel.instruction.name;
        let own = written.get(name).copied();
        let schedule = own.or_else(|| compiled.get(&computations.code(kernel)).copied());
        let known = KernelCall::of(kernel.call).and(schedule);
        let schedule = known.ok_or_else(|| name.clone())?;
        Ok((name.clone(), schedule))
    });
    counted.collect()
}

/// An instruction that is a kernel, or a fusion with one.
struct Kernel<'m> {
    instruction: &'m HloInstructionProto,
    /// The kernel's call.
    call: &'m HloInstructionProto,
    /// Where the instruction stands.
    computation: &'m HloComputationProto,
}
