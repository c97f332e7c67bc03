//! What a training step will need and take on a slice that need not be here: the step is built and compiled as for
//! training, and what the compiler says of it is put in a reader's terms. docs/design/plan.md has the argument.

mod arrays;
mod collectives;
pub mod compile;
mod estimate;
mod fit;
mod flops;
mod memory;
mod profile;
mod render;
mod scope;
pub mod search;
#[cfg(test)]
mod tests;
mod walk;

use ankh_hlo::{Module, ShardingForm};
use serde::Serialize;

pub use arrays::{Placed, Role};
pub use collectives::{Collective, CollectiveKind, collectives};
pub use estimate::Estimate;
pub use fit::too_big;
pub use flops::{Flops, model_flops};
pub use memory::Memory;
pub use profile::{Place, Profile};

use crate::config::{Config, MeshAxis, Remat};
use crate::layout::{self, LayoutError};
use crate::slice::{MeshShape, Slice};
use crate::train::program::Programs;
use compile::{Compilation, Facts};

/// Why a step cannot be planned before any compiler is asked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The mesh or the rules do not fit the slice or the arrays.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The step cannot be built.
    #[error(transparent)]
    Program(#[from] ankh_hlo::Error),
}

/// A step, built for a slice and not yet compiled.
pub struct Draft<'c> {
    config: &'c Config,
    slice: Slice,
    mesh: MeshShape,
    module: Module,
    arrays: Vec<Placed>,
    unsplit: Vec<Unsplit>,
    flops: Flops,
    model_flops: f64,
}

/// All that is known of a step on a slice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The slice.
    pub slice: SliceFacts,
    /// The mesh.
    pub mesh: MeshFacts,
    /// The step.
    pub step: StepFacts,
    /// What the step takes, and where each array lies.
    pub arrays: Vec<Placed>,
    /// Large arrays that stay whole, with the reason.
    pub unsplit: Vec<Unsplit>,
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
    /// Where the time goes; only libtpu says.
    pub profile: Option<Profile>,
    /// How long it takes; only libtpu says.
    pub estimate: Option<Estimate>,
    /// What was compiled, and by what.
    pub compiled: Facts,
}

/// A slice in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceFacts {
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
pub struct MeshFacts {
    /// Copies.
    pub data: usize,
    /// Devices that share the weights.
    pub fsdp: usize,
    /// Devices that share each layer.
    pub model: usize,
}

/// What a step computes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepFacts {
    /// Weights.
    pub parameters: u64,
    /// The element type of matrix products.
    pub compute: String,
    /// What layers keep.
    pub remat: Remat,
    /// Sequences.
    pub batch_size: usize,
    /// Sequences that one device computes at once.
    pub device_batch_size: usize,
    /// Parts that the batch is computed in.
    pub accumulation: usize,
    /// Encoder positions.
    pub input_length: usize,
    /// Decoder positions.
    pub target_length: usize,
}

/// A large array that every device has whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unsplit {
    /// The array.
    pub array: String,
    /// Why.
    pub reason: String,
}

impl<'c> Draft<'c> {
    /// Builds the configured step for a slice.
    pub fn new(config: &'c Config, slice: Slice) -> Result<Draft<'c>, PlanError> {
        let mesh = layout::mesh_shape(config, slice.devices())?;
        let layout = layout::layout(config, mesh, ShardingForm::Shardy)?;
        let platform = slice.platform().to_string();
        let module = Programs::of(config, &platform, layout.as_ref()).step()?;
        let unsplit = layout.as_ref().map_or_else(Vec::new, |layout| {
            let found = layout::unsplit(config, layout).into_iter();
            found
                .map(|(array, reason)| Unsplit { array, reason })
                .collect()
        });
        Ok(Draft {
            arrays: Placed::all(config, &module),
            flops: Flops::of(module.proto()),
            model_flops: model_flops(config)?,
            config,
            slice,
            mesh,
            module,
            unsplit,
        })
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshShape {
        self.mesh
    }

    /// What the step takes.
    pub fn arrays(&self) -> &[Placed] {
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
        let collectives = collectives(optimized, &layout::mesh(self.mesh));
        let profile = self.slice.generation().and_then(|_| Profile::of(optimized));
        let estimate = self.slice.generation().zip(profile.as_ref());
        let estimate = estimate.map(|(generation, profile)| {
            let chips = self.slice.chips();
            Estimate::of(
                self.config,
                generation,
                chips,
                profile.cycles,
                self.model_flops,
                &collectives,
            )
        });
        let limit = self.slice.generation().map(fit::usable);
        Plan {
            slice: SliceFacts::of(self.slice),
            mesh: MeshFacts {
                data: self.mesh.data,
                fsdp: self.mesh.fsdp,
                model: self.mesh.model,
            },
            step: self.step_facts(),
            memory: Memory::of(&self.arrays, &compilation.facts, optimized, limit),
            arrays: self.arrays.clone(),
            unsplit: self.unsplit.clone(),
            flops: self.flops,
            model_flops: self.model_flops,
            total_flops: self.flops.total(),
            collectives,
            profile,
            estimate,
            compiled: compilation.facts.clone(),
        }
    }

    fn step_facts(&self) -> StepFacts {
        let train = &self.config.train;
        let platform = self.slice.platform().to_string();
        let compute = crate::train::program::compute_type(train.compute, &platform);
        StepFacts {
            parameters: self.config.model.parameters(),
            compute: compute.name().into(),
            remat: train.remat,
            batch_size: train.batch_size,
            device_batch_size: self.device_batch_size(),
            accumulation: train.accumulation,
            input_length: self.config.data.input_length,
            target_length: self.config.data.target_length,
        }
    }

    /// Sequences that one device computes at once.
    fn device_batch_size(&self) -> usize {
        let part = self.config.train.batch_size / self.config.train.accumulation;
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

impl SliceFacts {
    fn of(slice: Slice) -> SliceFacts {
        let chip = slice.chip();
        SliceFacts {
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
