//! The configuration of a run: what the model is, what it learns from, and how.
//!
//! A [`Config`] is complete and typed: every section has a value for every setting, and a setting
//! with a few possible values is an enum. It is resolved from layers (the defaults, a preset or
//! file with the chain that it extends, `--set` arguments); each layer is checked against the
//! existing settings before it is applied; see [`resolve`]. What types cannot express,
//! [`Config::validate`] checks once. This module does not know graphs, files of sequences or
//! devices.

mod amounts;
mod commented;
mod compilation_cache;
mod error;
mod keys;
mod layout;
mod layouts;
mod mixture;
mod objective;
mod paths;
mod presets;
pub mod reference;
mod renamed;
mod resolve;
mod sharding;
mod size;
mod telemetry;
#[cfg(test)]
mod tests;
mod validate;

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::step_flops;

pub use crate::model::{Activation, Initialization, LogicalAxis, Loss, Model, TieEmbeddings};
pub use crate::optim::{Adafactor, AdamW, Optimizer, Schedule, ScheduleKind};
pub use crate::validation::Problem;
pub use amounts::{BatchSize, InvalidAmount, TargetLength};
pub use ankh_data::{LongSequences, Objective, Packing, Vocabulary};
pub use ankh_storage::Location;
pub use compilation_cache::CompilationCache;
pub use error::{ConfigError, Origin};
pub use layout::Layout;
pub use layouts::{KnownLayout, Layouts};
pub use mixture::{Component, Part};
pub use objective::setting_name;
pub use presets::preset_names;
pub use resolve::{RESOLVED_HEADER, Versions, resolve, resolve_over};
pub(crate) use resolve::{recorded_in_json, resolve_recorded};
pub use sharding::{Compiler, GradientType, MeshAxis, Rules, Sharding};
pub use size::{InvalidSize, Size};
pub use telemetry::{InvalidAddress, InvalidSteps, ListenAddress, StepRange, Telemetry};

/// A complete configuration: what `config.toml` in a run directory holds. The defaults are those of
/// `ankh-base`.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The network.
    pub model: Model,
    /// How a sequence becomes an input and a target.
    pub objective: Objective,
    /// Which sequences, how long, in which order.
    pub data: Data,
    /// Several data sets or objectives at once, by name.
    pub mixture: mixture::Parts,
    /// The update rule.
    pub optimizer: Optimizer,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// What is minimised beside the cross-entropy.
    pub loss: Loss,
    /// The loop.
    pub train: Train,
    /// Evaluation on the held-out split during training.
    pub evaluation: Evaluation,
    /// When the state is saved, and how many saved states are kept.
    pub checkpoint: Checkpoint,
    /// What a run does about losses, gradients and states that are not finite.
    pub recovery: Recovery,
    /// How the hosts of a run wait for each other.
    pub cluster: Cluster,
    /// How arrays are split over the devices of a slice.
    pub sharding: Sharding,
    /// What the compiler is told.
    pub compiler: Compiler,
    /// What the run tells of itself beside its lines of metrics.
    pub telemetry: Telemetry,
}

impl Config {
    /// Floating-point operations of the model's matrix products in one training step.
    pub fn step_flops(&self) -> f64 {
        step_flops(
            &self.model,
            self.batch_rows(),
            self.data.input_length,
            self.target_length(),
        )
    }

    /// Rows in one update, over all devices. A number of sequences counts as one a row until
    /// [`Config::settle_batch_size`] knows better.
    pub fn batch_rows(&self) -> usize {
        self.train.batch_size.rows(1.0)
    }

    /// Replaces a number of sequences in an update by rows, of which each holds `per_row` sequences
    /// on average.
    pub fn settle_batch_size(&mut self, per_row: f64) {
        self.train.batch_size = BatchSize::Rows(self.train.batch_size.rows(per_row));
    }

    /// Decoder positions a row.
    pub fn target_length(&self) -> usize {
        match self.data.target_length {
            TargetLength::Tokens(tokens) => tokens,
            TargetLength::Auto => self.largest_target_room().next_multiple_of(TARGET_UNIT),
        }
    }

    /// The room that any of the objectives needs for a target, in tokens, where a target may be as
    /// long as an input.
    fn largest_target_room(&self) -> usize {
        let room = |objective: &Objective| {
            let length = self.data.input_length;
            self.target_room(objective, objective.window(length, length))
        };
        let components = self.components().into_iter();
        let components = components.map(|component| room(&component.objective));
        // What evaluation uses, and training too if there is no mixture.
        components.fold(room(&self.objective), usize::max)
    }

    /// The decoder positions that the target of so many residues needs in a row of its own or, in
    /// packed rows, what is kept for it.
    fn target_room(&self, objective: &Objective, residues: usize) -> usize {
        match self.data.packing {
            Packing::Padded => objective.longest_target(self.tokenizer(), residues),
            Packing::Packed => objective.target_allotment(self.tokenizer(), residues),
        }
    }
}

/// Target lengths that follow the objective are multiples of this: the rows of a bfloat16 tile of a
/// TPU's memory.
const TARGET_UNIT: usize = 16;

/// Which sequences are seen, and in which shape.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What `pretrain prepare` wrote: a directory, or a `gs://` or `s3://` URL; `--data` gives it
    /// on the command line.
    #[schemars(with = "Option<String>")]
    pub dir: Option<Location>,
    /// The ids the sequences were prepared with.
    pub tokenizer: Vocabulary,
    /// Encoder positions a row, the closing `</s>` included.
    pub input_length: usize,
    /// Decoder positions a row, the closing `</s>` included. `"auto"` is what the longest target
    /// of the objective takes, or in packed rows what is kept for it, up to a multiple of 16.
    pub target_length: TargetLength,
    /// Whether a row of a batch holds one sequence or as many as fit.
    pub packing: Packing,
    /// What becomes of a sequence that does not fit `input_length`.
    pub long_sequences: LongSequences,
    /// Seeds the order of the rows and the masks.
    pub seed: u64,
    /// Memory for sequences. Data that fits is read when the run starts and shuffled as a whole;
    /// other data is read when it is needed, and shuffled in windows of half this size. So it
    /// decides the order of the data, whatever memory the machine has.
    pub memory: Size,
    /// A local directory that keeps what was read over the network.
    pub cache: Option<PathBuf>,
    /// The most that the cache may hold.
    pub cache_size: Size,
    /// Threads that read and mask; 0 means as many as the machine has processors.
    pub threads: usize,
    /// Batches made ahead of the step that uses them.
    pub prefetch: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dir: None,
            tokenizer: Vocabulary::Ankh,
            input_length: 512,
            target_length: TargetLength::Auto,
            packing: Packing::Padded,
            long_sequences: LongSequences::Crop,
            seed: 0,
            memory: Size::gib(8),
            cache: None,
            cache_size: Size::gib(64),
            threads: 0,
            prefetch: 4,
        }
    }
}

/// The loop.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// The last step.
    pub steps: u64,
    /// What one update sees, over all devices: so many rows, or as many rows as hold about so many
    /// sequences.
    pub batch_size: BatchSize,
    /// Parts a batch is computed in, one after the other, to save memory.
    pub gradient_accumulation: usize,
    /// Seeds the first weights.
    pub seed: u64,
    /// Weights to begin with instead of those that the seed draws, with a fresh optimizer: a
    /// Hugging Face directory, a checkpoint or a run directory; `--initialize-from` gives it on the
    /// command line.
    #[schemars(with = "Option<String>")]
    pub initialize_from: Option<Location>,
    /// Which weights stay as they are: they have no gradient, and the optimizer passes them by.
    pub freeze: Freeze,
    /// Steps between two lines of metrics.
    pub log_every: u64,
    /// The number format of matrix products and activations; the weights are always float32.
    pub compute: Compute,
    /// What the forward pass keeps for the backward pass.
    pub remat: Remat,
    /// How attention is computed.
    pub attention: Attention,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 1_992_000,
            batch_size: BatchSize::Rows(1536),
            gradient_accumulation: 1,
            seed: 0,
            initialize_from: None,
            freeze: Freeze::None,
            log_every: 10,
            compute: Compute::Auto,
            remat: Remat::Full,
            attention: Attention::Auto,
        }
    }
}

/// Which weights a run does not train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// All are trained.
    None,
    /// The encoder and the embedding stay as they are. The decoder reads the same embedding, and a
    /// tied head is that embedding too.
    Encoder,
}

/// The number format of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// bfloat16 on TPU and GPU, float32 on the CPU.
    Auto,
    /// IEEE single precision, in matrix products too, which takes a TPU several passes.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
}

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// By kernels on a TPU where they suit the model's sizes, elsewhere by the formula.
    Auto,
    /// By kernels. Other devices than TPUs compute these in loops, slowly and to the same results.
    Kernel,
    /// By operations on whole arrays of scores.
    Formula,
}

/// What a layer's forward pass keeps for its backward pass; the rest is computed again. From least
/// memory to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remat {
    /// Keep only what enters the layer: a third more work than keeping everything.
    Full,
    /// Keep each attention's result too, and the logarithm of its softmax's denominators.
    Attention,
    /// Keep the queries, keys and values too.
    Projections,
    /// Keep all values the model names: the outputs of the large matrix products.
    Named,
    /// Keep everything. On the CPU, stacks of up to 12 layers then run without a loop.
    None,
}

impl Remat {
    /// All of them, from least memory to most.
    pub const ALL: [Remat; 5] = [
        Remat::Full,
        Remat::Attention,
        Remat::Projections,
        Remat::Named,
        Remat::None,
    ];
}

/// Evaluation on the validation split during training.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// Steps between two evaluations; 0 for none.
    pub every: u64,
    /// Batches at most in one; 0 for the whole split.
    pub batches: usize,
    /// Adds the accuracy of each residue to an evaluation's line of metrics, and how the model's
    /// confusions agree with BLOSUM62.
    pub residues: bool,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every: 5000,
            batches: 0,
            residues: false,
        }
    }
}

/// How the processes of a run on several hosts wait for each other.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// How long the hosts that have come wait for the others before they give up.
    pub rendezvous_seconds: f64,
    /// A host that is not heard for so long counts as lost, and the run ends on all hosts.
    pub lost_after_seconds: f64,
    /// The address of the interface that host 0 listens on; otherwise the one that the slice knows
    /// it by.
    pub address: Option<IpAddr>,
    /// The port that host 0 listens on; 0 takes any that is free.
    pub port: u16,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            rendezvous_seconds: 600.0,
            lost_after_seconds: 30.0,
            address: None,
            port: 0,
        }
    }
}

/// Saving the state.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Where saved states go: a path, `gs://BUCKET/KEY` or `s3://BUCKET/KEY`, of this run alone;
    /// unset, `checkpoints` in the run directory.
    #[schemars(with = "Option<String>")]
    pub directory: Option<Location>,
    /// Steps between two saves; the last step is always saved. 0 leaves the saves to `minutes`.
    pub every: u64,
    /// Minutes between two saves, also between those by steps; 0 leaves them to `every`.
    pub minutes: f64,
    /// Saved steps kept, the newest first; 0 keeps all.
    pub keep: usize,
    /// Saved steps that are multiples of this are kept too; 0 for none.
    pub keep_every: u64,
    /// So many saved steps are kept too, those with the lowest held-out loss.
    pub keep_best: usize,
    /// Minutes between two local saves: each host keeps what its devices hold of the state in
    /// `local_directory`, and a copy of what the host before it keeps, so that a run goes on from
    /// there after a crash or the loss of a host. 0 for none.
    pub local_minutes: f64,
    /// A directory of each host for local saves, in its memory or on a disk of its own.
    pub local_directory: PathBuf,
    /// What SIGUSR1 asks for, which batch systems send before a time limit.
    pub on_sigusr1: OnSigusr1,
}

/// What a run does when it gets SIGUSR1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSigusr1 {
    /// It saves the state and goes on.
    Save,
    /// It saves the state and ends, as on SIGTERM.
    Stop,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            directory: None,
            every: 5000,
            minutes: 0.0,
            keep: 3,
            keep_every: 0,
            keep_best: 0,
            local_minutes: 0.0,
            local_directory: "/dev/shm".into(),
            on_sigusr1: OnSigusr1::Save,
        }
    }
}

/// What a run does about losses, gradients and states that are not finite, and about spikes. The
/// update of a step whose loss or gradients are not finite is always skipped, and no state that is
/// not is ever saved.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recovery {
    /// Skipped updates in a row after which the run goes back to its last saved state, and goes on
    /// with the batches behind those it has seen. It also does where a state is not finite.
    pub skipped_updates: u64,
    /// A loss of more than so many times the median of the last 100 good steps is a spike, and the
    /// update of its step is skipped; 0 where none is. Fewer than 20 good steps are no measure.
    pub loss_spike: f64,
    /// The same for the norm of the gradients.
    pub grad_norm_spike: f64,
    /// How often a run goes back before it ends with an error, without a newer state saved in
    /// between; 0 ends it at the first time.
    pub rollbacks: u64,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            skipped_updates: 10,
            loss_spike: 0.0,
            grad_norm_spike: 0.0,
            rollbacks: 3,
        }
    }
}
