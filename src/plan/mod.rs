//! What a training step needs and takes on a slice that need not be present: the step is built and
//! compiled as for training, and this module reports the compiler's memory and time estimates. The
//! argument is in `docs/design/plan.md`.

mod arrays;
mod collectives;
pub mod compile;
mod estimate;
mod fit;
mod flops;
mod kernels;
mod memory;
mod profile;
mod render;
mod scope;
pub mod search;
#[cfg(test)]
mod tests;
mod walk;

use ankh_data::RowFill;
use ankh_hlo::Module;
use serde::Serialize;

pub use arrays::{Role, StepArray};
pub use collectives::{Collective, CollectiveKind, collectives};
pub use estimate::Estimate;
pub use fit::{MemoryShortfall, Remedy};
pub use flops::Flops;
pub use kernels::{KernelCycles, Schedule, Schedules};
use memory::Hosts;
pub use memory::Memory;
pub use profile::{Profile, ScopeCycles};
pub use scope::Pass;

use crate::config::{Config, MeshAxis, Remat};
use crate::mesh::slice::Slice;
use crate::mesh_shape::MeshShape;
use crate::programs::sharding::{self, ReplicatedArray, ShardingError};
use crate::programs::{self, NoKernel, Programs};
use crate::row_fill::{LengthSource, row_fill};
use compile::{Compilation, CompileStats};

/// Why a step cannot be planned before any compiler is asked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The mesh or the rules do not fit the slice or the arrays.
    #[error(transparent)]
    Sharding(#[from] ShardingError),
    /// The step cannot be built.
    #[error(transparent)]
    Program(#[from] ankh_hlo::Error),
    /// What rows hold cannot be told.
    #[error(transparent)]
    Data(#[from] ankh_data::Error),
}

/// A step, built for a slice and not yet compiled.
pub struct LoweredStep<'c> {
    config: &'c Config,
    slice: Slice,
    mesh: MeshShape,
    module: Module,
    arrays: Vec<StepArray>,
    replicated: Vec<ReplicatedArray>,
    flops: Flops,
    model_flops: f64,
    attention: String,
    fill: RowFill,
    lengths: LengthSource,
}

/// All that is known of a step on a slice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The slice.
    pub slice: SliceSummary,
    /// The mesh.
    pub mesh: MeshSummary,
    /// The step.
    pub step: StepSummary,
    /// The arrays that the step takes, with their shardings.
    pub arrays: Vec<StepArray>,
    /// Large arrays that stay whole, with the reason.
    pub replicated: Vec<ReplicatedArray>,
    /// One chip's memory.
    pub memory: Memory,
    /// The matrix products of all chips together.
    pub flops: Flops,
    /// The model's own operations.
    pub model_flops: f64,
    /// What the chips compute.
    pub total_flops: f64,
    /// What chips send one another.
    pub collectives: Vec<Collective>,
    /// Where the time goes; only libtpu reports it.
    pub profile: Option<Profile>,
    /// How long it takes; only libtpu reports it.
    pub estimate: Option<Estimate>,
    /// What was compiled, and by what.
    pub compiled: CompileStats,
}

/// A slice in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceSummary {
    /// Its name.
    pub name: String,
    /// Its chips.
    pub chips: usize,
    /// Its machines.
    pub hosts: usize,
    /// Its torus.
    pub torus: Option<String>,
    /// bfloat16 operations of a chip in a second.
    pub peak_flops: Option<f64>,
    /// Memory of a chip.
    pub memory_bytes: Option<u64>,
    /// Bytes that a chip's memory moves in a second.
    pub memory_bandwidth: Option<f64>,
    /// Cycles of a second.
    pub clock_hz: Option<f64>,
}

/// The axes of the mesh.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeshSummary {
    /// Copies.
    pub data: usize,
    /// Devices that share the weights.
    pub fsdp: usize,
    /// Devices that share each layer.
    pub model: usize,
}

/// What a step computes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSummary {
    /// Weights.
    pub parameters: u64,
    /// The element type of matrix products.
    pub compute: String,
    /// What layers keep.
    pub remat: Remat,
    /// How attention is computed, and why by the formula where kernels could have been.
    pub attention: String,
    /// Rows of a batch.
    pub rows: usize,
    /// Rows that one device computes at once.
    pub device_rows: usize,
    /// What a row holds, on average.
    pub fill: RowFill,
    /// By which lengths of sequences.
    pub lengths: LengthSource,
    /// Parts that the batch is computed in.
    pub gradient_accumulation: usize,
    /// Encoder positions.
    pub input_length: usize,
    /// Decoder positions.
    pub target_length: usize,
}

impl<'c> LoweredStep<'c> {
    /// Builds the configured step, whose batch is given in rows, for a slice.
    pub fn new(config: &'c Config, slice: Slice) -> Result<LoweredStep<'c>, PlanError> {
        let mesh = sharding::mesh_shape(config, slice.devices())?;
        let rules = sharding::logical_axis_rules(config, mesh)?;
        let platform = slice.platform().to_string();
        let programs = Programs::of(config, &platform, rules.as_ref());
        let module = programs.step()?;
        let attention = attention_in_words(&programs, &platform);
        let replicated = rules.as_ref();
        let replicated = replicated.map(|rules| sharding::replicated(config, rules));
        let (fill, lengths) = row_fill(config)?;
        Ok(LoweredStep {
            arrays: StepArray::all(config, &module),
            flops: Flops::of(module.proto(), mesh.devices()),
            model_flops: config.step_flops(),
            config,
            slice,
            mesh,
            module,
            replicated: replicated.unwrap_or_default(),
            attention,
            fill,
            lengths,
        })
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshShape {
        self.mesh
    }

    /// What the step takes.
    pub fn arrays(&self) -> &[StepArray] {
        &self.arrays
    }

    /// The matrix products of all devices together.
    pub fn flops(&self) -> Flops {
        self.flops
    }

    /// The step before compilation.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The plan, once the step is compiled.
    pub fn plan(&self, compilation: &Compilation) -> Plan {
        let optimized = &compilation.optimized;
        let collectives = collectives(optimized, &sharding::mesh(self.mesh));
        let schedules = &compilation.stats.kernels;
        let profile = self
            .slice
            .generation()
            .and_then(|generation| Profile::of(optimized, schedules, generation.chip()));
        let estimate = self.slice.generation().zip(profile.as_ref());
        let estimate = estimate.map(|(generation, profile)| {
            let chips = self.slice.chips();
            Estimate::of(
                self.config,
                &self.fill,
                generation,
                chips,
                profile.cycles,
                self.model_flops,
                &collectives,
            )
        });
        let limit = self.slice.generation().map(fit::usable);
        Plan {
            slice: SliceSummary::of(self.slice),
            mesh: MeshSummary {
                data: self.mesh.data,
                fsdp: self.mesh.fsdp,
                model: self.mesh.model,
            },
            step: self.step_summary(),
            memory: Memory::of(
                &self.arrays,
                &compilation.stats,
                optimized,
                limit,
                Hosts {
                    chips: self.slice.devices_per_host(),
                    are_several: self.slice.devices() > self.slice.devices_per_host(),
                    save_locally: self.config.checkpoint.local_minutes > 0.0,
                },
            ),
            arrays: self.arrays.clone(),
            replicated: self.replicated.clone(),
            flops: self.flops,
            model_flops: self.model_flops,
            total_flops: self.flops.total(),
            collectives,
            profile,
            estimate,
            compiled: compilation.stats.clone(),
        }
    }

    fn step_summary(&self) -> StepSummary {
        let train = &self.config.train;
        let platform = self.slice.platform().to_string();
        let compute = crate::programs::compute_type(train.compute, &platform);
        StepSummary {
            parameters: self.config.model.parameters(),
            compute: compute.name().into(),
            remat: train.remat,
            attention: self.attention.clone(),
            rows: self.config.batch_rows(),
            device_rows: self.device_rows(),
            fill: self.fill,
            lengths: self.lengths.clone(),
            gradient_accumulation: train.gradient_accumulation,
            input_length: self.config.data.input_length,
            target_length: self.config.target_length(),
        }
    }

    /// Rows that one device computes at once.
    fn device_rows(&self) -> usize {
        let part = self.config.batch_rows() / self.config.train.gradient_accumulation;
        let split = self
            .config
            .sharding
            .rules
            .batch
            .iter()
            .map(|axis| match axis {
                MeshAxis::Data => self.mesh.data,
                MeshAxis::Fsdp => self.mesh.fsdp,
                MeshAxis::Model => self.mesh.model,
            });
        part / split.product::<usize>().max(1)
    }
}

/// How a step computes attention.
fn attention_in_words(programs: &Programs<'_>, platform: &str) -> String {
    let rules = programs.rules.as_ref();
    let (config, size, compute) = (programs.config, programs.size, programs.compute);
    match programs::attention(config, size, compute, platform, rules) {
        Ok(_) => "by kernels".into(),
        Err(NoKernel::Configured) => "by the formula, as configured".into(),
        Err(reason) => format!("by the formula: {reason}"),
    }
}

impl SliceSummary {
    fn of(slice: Slice) -> SliceSummary {
        let chip = slice.chip();
        SliceSummary {
            name: slice.to_string(),
            chips: slice.chips(),
            hosts: slice.hosts(),
            torus: slice.torus().map(|torus| torus.to_string()),
            peak_flops: chip.map(|chip| chip.peak_flops),
            memory_bytes: chip.map(|chip| chip.memory_bytes),
            memory_bandwidth: chip.map(|chip| chip.memory_bandwidth),
            clock_hz: chip.map(|chip| chip.clock_hz),
        }
    }
}
