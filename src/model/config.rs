//! The settings of a model: `model` and `loss` in a configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TieEmbeddings;

/// The shape of the encoder-decoder: T5 v1.1 as Hugging Face builds it.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
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
    /// The distance, in tokens, from which on all keys share the last bucket.
    pub relative_max_distance: usize,
    /// The non-linearity of the feed-forward layers.
    pub activation: Activation,
    /// Whether the output projection is the embedding table.
    pub tie_embeddings: TieEmbeddings,
    /// What RMSNorm adds to the mean square.
    pub norm_epsilon: f64,
    /// Whose standard deviations the initial weights have.
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
}

/// The non-linearity of a feed-forward layer; a gated one multiplies it with a second, linear
/// projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU (tanh approximation) times a linear gate: Ankh.
    GatedGelu,
    /// SiLU times a linear gate: Ankh2 and Ankh3.
    GatedSilu,
    /// `max(x, 0)`, ungated: the first T5, and one of the paper's experiments.
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

/// The two libraries draw T5's first attention weights with different standard deviations when the
/// inner width is not `d_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialization {
    /// As `transformers`' Flax T5, which trained Ankh.
    Flax,
    /// As `transformers`' PyTorch T5.
    Pytorch,
}

/// Terms beside the cross-entropy; both 0 for Ankh.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Weight of the squared logarithm of the softmax's denominator.
    pub z_loss: f64,
    /// Probability spread evenly over the vocabulary instead of given to the right token.
    pub label_smoothing: f64,
}
