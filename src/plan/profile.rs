//! Where the time of a compiled step goes, by the compiler's estimate.
//!
//! libtpu records with each instruction how many cycles it expects. Their sum, with loop bodies
//! multiplied by their trip counts, is its estimate of the step. Collectives have no cycle
//! estimate: see [`collectives`](super::collectives).

use std::collections::BTreeMap;

use ankh_proto::xla::{HloInstructionProto, HloModuleProto};
use serde::{Deserialize, Serialize};

use super::kernels::{self, KernelCycles, Schedules};
use super::scope::{Pass, scope};
use super::walk::{Into, Walk};
use crate::mesh::slice::Chip;

/// The compiler's estimate of one run of a program on one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// All cycles.
    pub cycles: u64,
    /// The same by scope, most first.
    pub scopes: Vec<ScopeCycles>,
    /// Those of kernels, which the scopes hold too, most first.
    pub kernels: Vec<KernelCycles>,
}

/// The cycles of one part of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScopeCycles {
    /// `encoder/attention` for example.
    pub name: String,
    /// Computing it.
    pub forward: u64,
    /// Computing it again for the derivative.
    pub recompute: u64,
    /// Computing its derivative.
    pub gradient: u64,
}

impl ScopeCycles {
    /// All of it.
    pub fn cycles(&self) -> u64 {
        self.forward + self.recompute + self.gradient
    }
}

impl Profile {
    /// Reads an optimized module with the schedules of its kernels; `None` where its compiler
    /// leaves no estimates.
    pub fn of(module: &HloModuleProto, schedules: &Schedules, chip: &Chip) -> Option<Profile> {
        let mut scopes: BTreeMap<String, ScopeCycles> = BTreeMap::new();
        let mut add = |pass: Pass, name: String, cycles: u64| {
            let place = scopes.entry(name).or_default();
            match pass {
                Pass::Forward => place.forward += cycles,
                Pass::Recompute => place.recompute += cycles,
                Pass::Gradient => place.gradient += cycles,
            }
        };
        Walk::new(module).each(Into::ControlFlow, |visit| {
            let Some(cycles) = estimated_cycles(visit.instruction) else {
                return;
            };
            let cycles = cycles.saturating_mul(visit.times);
            let (pass, name) = scope(visit.instruction);
            add(pass, name, cycles);
        });
        let mut kernels = kernels::of(module, schedules, chip);
        for kernel in &kernels {
            add(kernel.pass, kernel.scope.clone(), kernel.cycles);
        }
        kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.cycles));
        let mut scopes: Vec<ScopeCycles> = scopes
            .into_iter()
            .map(|(name, place)| ScopeCycles { name, ..place })
            .collect();
        scopes.sort_by_key(|place| std::cmp::Reverse(place.cycles()));
        let cycles = scopes.iter().map(ScopeCycles::cycles).sum();
        (cycles > 0).then_some(Profile {
            cycles,
            scopes,
            kernels,
        })
    }
}

/// What the compiler notes in the JSON of the backend's configuration.
fn estimated_cycles(instruction: &HloInstructionProto) -> Option<u64> {
    #[derive(Deserialize)]
    struct Backend {
        window_config: Option<Window>,
    }
    #[derive(Deserialize)]
    struct Window {
        estimated_cycles: Option<String>,
    }
    // Most instructions have none, and their configuration need not be read.
    let config = std::str::from_utf8(&instruction.backend_config).ok()?;
    if !config.contains("\"estimated_cycles\"") {
        return None;
    }
    let backend: Backend = serde_json::from_str(config).ok()?;
    backend.window_config?.estimated_cycles?.parse().ok()
}
