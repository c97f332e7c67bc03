//! The configuration of a run: what the model is, what it learns from, and how.
//!
//! A [`Config`] is complete and typed: every section has a value for every setting, and a setting that can only be one of a few things is an enum.
//! It is resolved from layers (the defaults, a preset or file with the chain it extends, `--set` arguments), each checked against the
//! settings that exist before it is laid over the others; see [`resolve`]. What no type can say, [`Config::validate`] checks once. Nothing
//! here knows what a graph, a file of sequences or a device is.

mod error;
mod keys;
mod mixture;
mod paths;
mod presets;
mod resolve;
mod sharding;
mod size;
#[cfg(test)]
mod tests;
mod tie;
mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use ankh_data::{Location, LongSequences, Objective, Rows, Vocabulary};
pub use error::{ConfigError, Origin, Problem};
pub use mixture::{Component, Part};
pub use presets::preset_names;
pub use resolve::{RESOLVED_HEADER, Versions, resolve, resolve_file, resolve_over};
pub use sharding::{Compiler, GradientType, MeshAxis, Rules, Sharding};
pub use size::Size;
pub use tie::TieEmbeddings;

/// A complete configuration: what `config.toml` in a run directory holds. The defaults are those of `ankh-base`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// How arrays are split over the devices of a slice.
    pub sharding: Sharding,
    /// What the compiler is told.
    pub compiler: Compiler,
}

/// The shape of the encoder-decoder: T5 v1.1 as Hugging Face builds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Rows of the embedding table: the tokenizer's ids, and no fewer.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the feed-forward layers.
    pub d_ff: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of one head's queries, keys and values.
    pub d_kv: usize,
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Buckets of the relative-attention bias (in the encoder: both directions together).
    pub relative_buckets: usize,
    /// The distance from which on all keys share the last bucket.
    pub relative_max_distance: usize,
    /// The non-linearity of the feed-forward layers.
    pub activation: Activation,
    /// Whether the output projection is the embedding table.
    pub tie_embeddings: TieEmbeddings,
    /// What RMSNorm adds to the mean square.
    pub norm_epsilon: f64,
    /// Whose standard deviations the first weights are drawn with.
    pub initialization: Initialization,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            vocabulary: 144,
            d_model: 768,
            d_ff: 3072,
            heads: 12,
            d_kv: 64,
            encoder_layers: 48,
            decoder_layers: 24,
            relative_buckets: 64,
            relative_max_distance: 128,
            activation: Activation::GatedGelu,
            tie_embeddings: TieEmbeddings::Untied,
            norm_epsilon: 1e-6,
            initialization: Initialization::Flax,
        }
    }
}

impl Model {
    /// The width of all heads together; need not be `d_model`.
    pub fn inner(&self) -> usize {
        self.heads * self.d_kv
    }

    /// How many numbers training adjusts.
    pub fn parameters(&self) -> u64 {
        let attention = 4 * self.d_model * self.inner();
        let mlp = (if self.activation.is_gated() { 3 } else { 2 }) * self.d_model * self.d_ff;
        let encoder = self.encoder_layers * (attention + mlp + 2 * self.d_model);
        let decoder = self.decoder_layers * (2 * attention + mlp + 3 * self.d_model);
        let tables = match self.tie_embeddings {
            TieEmbeddings::Untied => 2,
            TieEmbeddings::Scaled | TieEmbeddings::Unscaled => 1,
        } * self.vocabulary
            * self.d_model;
        let biases = 2 * self.relative_buckets * self.heads;
        (encoder + decoder + tables + biases + 2 * self.d_model) as u64
    }
}

/// The non-linearity of a feed-forward layer; a gated one multiplies it with a second, linear projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU (tanh approximation) times a linear gate: Ankh.
    GatedGelu,
    /// SiLU times a linear gate: Ankh2 and Ankh3.
    GatedSilu,
    /// max(x, 0), ungated: the first T5, and one of the paper's experiments.
    Relu,
    /// GELU (tanh approximation), ungated.
    Gelu,
    /// SiLU, ungated.
    Silu,
}

impl Activation {
    /// Whether the layer has two input projections (`wi_0`, `wi_1`) rather than one (`wi`).
    pub fn is_gated(self) -> bool {
        matches!(self, Self::GatedGelu | Self::GatedSilu)
    }
}

/// The two libraries draw T5's first attention weights with different standard deviations when the inner width is not `d_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// As `transformers`' Flax T5, which trained Ankh.
    Flax,
    /// As `transformers`' PyTorch T5.
    Pytorch,
}

/// Which sequences are seen, and in which shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What `pretrain prepare` wrote: a directory, or a `gs://` or `s3://` URL; `--data` gives it on the command line.
    pub dir: Option<Location>,
    /// The ids the sequences were prepared with.
    pub tokenizer: Vocabulary,
    /// Encoder positions a row, the closing `</s>` included.
    pub input_length: usize,
    /// Decoder positions a row, the closing `</s>` included.
    pub target_length: usize,
    /// Whether a row of a batch holds one sequence or as many as fit.
    pub rows: Rows,
    /// What becomes of a sequence that does not fit `input_length`.
    pub long_sequences: LongSequences,
    /// Seeds the order of the rows and the masks.
    pub seed: u64,
    /// Memory for sequences. Data that fits is read when the run starts and shuffled as a whole; other data is read when it is
    /// needed, and shuffled in windows of half this size. So it says more than how fast a run is, and does not depend on the machine.
    pub memory: Size,
    /// A local directory that keeps what was read from afar.
    pub cache: Option<PathBuf>,
    /// What the cache may hold.
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
            target_length: 256,
            rows: Rows::Padded,
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

/// The update rule and its numbers; `name` in the file says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Optimizer {
    /// Factored second moments, updates scaled by the size of the tensor: what trained Ankh.
    Adafactor(Adafactor),
    /// Adam with decoupled weight decay.
    Adamw(AdamW),
}

impl Optimizer {
    /// The bound on the global norm of the gradients, where one is set.
    pub fn clip_norm(&self) -> Option<f64> {
        match self {
            Self::Adafactor(rule) => rule.clip_norm,
            Self::Adamw(rule) => rule.clip_norm,
        }
    }

    /// Whether what `other` kept of a model can be gone on with: it is of the same kind and keeps arrays of the same shapes.
    pub fn continues(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Adafactor(a), Self::Adafactor(b)) => {
                a.min_dim_size_to_factor == b.min_dim_size_to_factor
            }
            (Self::Adamw(_), Self::Adamw(_)) => true,
            (Self::Adafactor(_), Self::Adamw(_)) | (Self::Adamw(_), Self::Adafactor(_)) => false,
        }
    }

    /// One of each kind, with its defaults.
    pub(crate) fn kinds() -> [Self; 2] {
        [
            Self::Adafactor(Adafactor::default()),
            Self::Adamw(AdamW::default()),
        ]
    }

    /// The same kind with its defaults.
    pub(crate) fn defaults(&self) -> Self {
        match self {
            Self::Adafactor(_) => Self::Adafactor(Adafactor::default()),
            Self::Adamw(_) => Self::Adamw(AdamW::default()),
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adafactor(Adafactor::default())
    }
}

/// `optax.adafactor` as it is when only the learning rate is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adafactor {
    /// Second moments are factored where the two largest dimensions of a matrix are at least this.
    pub min_dim_size_to_factor: usize,
    /// Exponent of the decay of the second moments: `1 - step^-decay_rate`.
    pub decay_rate: f64,
    /// Bound on the root mean square of one tensor's update.
    pub clipping_threshold: f64,
    /// Whether an update is scaled by the root mean square of its tensor (at least 1e-3).
    pub multiply_by_parameter_scale: bool,
    /// Added to the squared gradient.
    pub epsilon: f64,
    /// Share of a weight removed each step, whatever the learning rate, as in optax.
    pub weight_decay: f64,
    /// Bound on the norm of all gradients together; unset, they are used as they are.
    pub clip_norm: Option<f64>,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            min_dim_size_to_factor: 128,
            decay_rate: 0.8,
            clipping_threshold: 1.0,
            multiply_by_parameter_scale: true,
            epsilon: 1e-30,
            weight_decay: 0.0,
            clip_norm: None,
        }
    }
}

/// `optax.adamw`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the first moment.
    pub b1: f64,
    /// Decay of the second moment.
    pub b2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of a weight removed each step, times the learning rate.
    pub weight_decay: f64,
    /// Bound on the norm of all gradients together; unset, they are used as they are.
    pub clip_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            b1: 0.9,
            b2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            clip_norm: None,
        }
    }
}

/// The learning rate: a linear warm-up from 0 to the peak, then `kind` until the last step. A resumed run can be given another
/// length, or a schedule of its own that begins where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The rate at the end of the warm-up.
    pub peak_learning_rate: f64,
    /// Steps from 0 to the peak.
    pub warmup_steps: u64,
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// The step that the warm-up begins at. It is 0, but for a run that is warmed up anew.
    pub start_step: u64,
    /// The step at which the rate reaches 0; `train.steps` where none is given.
    pub steps: Option<u64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            peak_learning_rate: 4e-3,
            warmup_steps: 10_000,
            kind: ScheduleKind::Linear,
            start_step: 0,
            steps: None,
        }
    }
}

impl Schedule {
    /// The step at which the rate reaches 0, in a run of `steps`.
    pub fn horizon(&self, steps: u64) -> u64 {
        self.steps.unwrap_or(steps)
    }

    /// The steps from the end of the warm-up to the horizon, in a run of `steps`; 0 where the rate never leaves the warm-up.
    pub fn decay_steps(&self, steps: u64) -> u64 {
        let warm = self.start_step.saturating_add(self.warmup_steps);
        self.horizon(steps).saturating_sub(warm)
    }
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// A straight line to 0 at `schedule.steps`: Ankh.
    Linear,
    /// The peak, kept.
    Constant,
    /// Half a cosine to 0 at `schedule.steps`.
    Cosine,
}

/// Terms beside the cross-entropy; both 0 for Ankh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Weight of the squared logarithm of the softmax's denominator.
    pub z_loss: f64,
    /// Probability spread evenly over the vocabulary instead of given to the right token.
    pub label_smoothing: f64,
}

/// The loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// The last step.
    pub steps: u64,
    /// Rows in one update, over all devices.
    pub batch_size: usize,
    /// Parts a batch is computed in, one after the other, to save memory. Saved states of earlier
    /// versions have it under the alias.
    #[serde(alias = "accumulation")]
    pub gradient_accumulation: usize,
    /// Seeds the first weights.
    pub seed: u64,
    /// Steps between two lines of metrics.
    pub log_every: u64,
    /// The number format of matrix products and activations; the weights are always float32.
    pub compute: Compute,
    /// What the forward pass keeps for the backward pass.
    pub remat: Remat,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: 1_992_000,
            batch_size: 1536,
            gradient_accumulation: 1,
            seed: 0,
            log_every: 10,
            compute: Compute::Auto,
            remat: Remat::Full,
        }
    }
}

/// The number format of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// bfloat16 on TPU and GPU, float32 on the CPU.
    Auto,
    /// IEEE single precision.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
}

/// What a layer's forward pass keeps for its backward pass; the rest is computed again. From least memory to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Keep everything.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// Steps between two evaluations; 0 for none.
    pub every: u64,
    /// Batches at most in one; 0 for the whole split.
    pub batches: usize,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every: 5000,
            batches: 0,
        }
    }
}

/// Saving the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Steps between two saves; the last step is always saved.
    pub every: u64,
    /// Saved steps kept, the newest first; 0 keeps all.
    pub keep: usize,
    /// What SIGUSR1 asks for, which batch systems send before a time limit.
    pub on_sigusr1: OnSigusr1,
}

/// What a run does when it gets SIGUSR1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            every: 5000,
            keep: 3,
            on_sigusr1: OnSigusr1::Save,
        }
    }
}
