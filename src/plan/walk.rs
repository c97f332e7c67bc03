//! A walk over the instructions of a module in execution order, with how often each is executed.

use std::collections::HashMap;

use ankh_proto::xla::{HloComputationProto, HloInstructionProto, HloModuleProto, ShapeProto};

/// An instruction, met on the way through a module.
pub(super) struct Occurrence<'m> {
    /// The instruction.
    pub instruction: &'m HloInstructionProto,
    /// The computation that it is in.
    pub computation: &'m HloComputationProto,
    /// How often one run of the program executes it.
    pub times: u64,
}

/// Which of the computations that an instruction calls are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// Those that run as programs of their own: bodies of loops, branches, calls.
    ControlFlow,
    /// Also what a fusion or an asynchronous operation is made of.
    Everything,
}

/// A module, ready to be walked.
pub(super) struct Walk<'m> {
    entry: i64,
    devices: u64,
    computations: HashMap<i64, &'m HloComputationProto>,
}

impl<'m> Walk<'m> {
    /// Prepares a module.
    pub fn new(module: &'m HloModuleProto) -> Walk<'m> {
        Walk {
            entry: module.entry_computation_id,
            devices: 1,
            computations: module.computations.iter().map(|c| (c.id, c)).collect(),
        }
    }

    /// Counts what each of so many devices does for itself, as often as there are devices: the
    /// manual computations of a module that is not partitioned yet.
    pub fn on_devices(self, devices: usize) -> Walk<'m> {
        Walk {
            devices: devices as u64,
            ..self
        }
    }

    /// Shows `see` each instruction that a run executes, callers before what they call. Of a
    /// branch's computations all are shown, because what a run decides cannot be known: a bound
    /// from above.
    pub fn each(&self, into: Into, mut see: impl FnMut(Occurrence<'m>)) {
        self.enter(self.entry, 1, into, &mut see);
    }

    fn enter(
        &self,
        computation: i64,
        times: u64,
        into: Into,
        see: &mut impl FnMut(Occurrence<'m>),
    ) {
        let Some(&computation) = self.computations.get(&computation) else {
            return;
        };
        for instruction in &computation.instructions {
            see(Occurrence {
                instruction,
                computation,
                times,
            });
            let called = &instruction.called_computation_ids;
            match instruction.opcode.as_str() {
                "while" => {
                    if let Some(&body) = called.first() {
                        let trips = self.loop_trips(instruction);
                        self.enter(body, times.saturating_mul(trips), into, see);
                    }
                }
                "call" | "conditional" => {
                    for &callee in called {
                        let each = match self.is_manual(callee) {
                            true => times.saturating_mul(self.devices),
                            false => times,
                        };
                        self.enter(callee, each, into, see);
                    }
                }
                "fusion" | "async-start" | "custom-call" if into == Into::Everything => {
                    for &callee in called {
                        self.enter(callee, times, into, see);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a computation is written for one device.
    fn is_manual(&self, computation: i64) -> bool {
        let computation = self.computations.get(&computation);
        computation.is_some_and(|c| c.name.starts_with(ankh_hlo::MANUAL_COMPUTATION))
    }

    /// How often a loop runs: the largest integer that its condition, or a fusion in it, compares
    /// with; once if there is none.
    pub fn loop_trips(&self, instruction: &HloInstructionProto) -> u64 {
        let condition = instruction.called_computation_ids.get(1);
        let Some(condition) = condition.and_then(|id| self.computations.get(id)) else {
            return 1;
        };
        let fused = condition
            .instructions
            .iter()
            .flat_map(|i| &i.called_computation_ids)
            .filter_map(|id| self.computations.get(id))
            .flat_map(|c| &c.instructions);
        let bounds = condition
            .instructions
            .iter()
            .chain(fused)
            .filter_map(integer);
        bounds.max().unwrap_or(1)
    }
}

/// The value of a scalar 32-bit constant.
fn integer(i: &HloInstructionProto) -> Option<u64> {
    let literal = i.literal.as_ref().filter(|_| i.opcode == "constant")?;
    let scalar = i.shape.as_ref()?.dimensions.is_empty();
    match (scalar, literal.s32s.as_slice(), literal.u32s.as_slice()) {
        (true, &[value], _) => u64::try_from(value).ok(),
        (true, _, &[value]) => Some(value.into()),
        _ => None,
    }
}

/// The shape of each instruction, by its id.
pub(super) fn shapes(module: &HloModuleProto) -> HashMap<i64, &ShapeProto> {
    let instructions = module.computations.iter().flat_map(|c| &c.instructions);
    instructions
        .filter_map(|i| Some((i.id, i.shape.as_ref()?)))
        .collect()
}
