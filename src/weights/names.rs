//! The one table of names: our stacked parameters beside Hugging Face's tensors, used in both directions.
//!
//! Ours are stacked over layers and stored [in, out]; theirs are one per layer and, for linear layers, stored [out, in].

use crate::config::Model;

use Dimension::{Buckets, Embed, Heads, Hidden, Inner, Vocabulary};
use Layers::{Decoder, Encoder, Once};
use Orientation::{AsIs, Transposed};
use When::{Always, Gated, Ungated, Untied};

/// A logical dimension of a parameter.
#[derive(Debug, Clone, Copy)]
enum Dimension {
    Vocabulary,
    Embed,
    /// All heads together.
    Inner,
    /// The feed-forward width.
    Hidden,
    Buckets,
    Heads,
}

/// Whether there is one of a parameter, or one per layer.
#[derive(Debug, Clone, Copy)]
enum Layers {
    Once,
    Encoder,
    Decoder,
}

/// How their matrix relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    AsIs,
    Transposed,
}

/// In which models a parameter exists.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    Gated,
    Ungated,
    Untied,
}

struct Row(
    &'static str,
    &'static str,
    Layers,
    Orientation,
    &'static [Dimension],
    When,
);

/// Ours, theirs (`#` is the layer, `.weight` follows), how many, how stored, our dimensions within a layer, when.
#[rustfmt::skip]
const TABLE: [Row; 31] = [
    Row("shared", "shared", Once, AsIs, &[Vocabulary, Embed], Always),
    Row("encoder.relative_bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", Once, AsIs, &[Buckets, Heads], Always),
    Row("encoder.layers.attention_norm", "encoder.block.#.layer.0.layer_norm", Encoder, AsIs, &[Embed], Always),
    Row("encoder.layers.attention.q", "encoder.block.#.layer.0.SelfAttention.q", Encoder, Transposed, &[Embed, Inner], Always),
    Row("encoder.layers.attention.k", "encoder.block.#.layer.0.SelfAttention.k", Encoder, Transposed, &[Embed, Inner], Always),
    Row("encoder.layers.attention.v", "encoder.block.#.layer.0.SelfAttention.v", Encoder, Transposed, &[Embed, Inner], Always),
    Row("encoder.layers.attention.o", "encoder.block.#.layer.0.SelfAttention.o", Encoder, Transposed, &[Inner, Embed], Always),
    Row("encoder.layers.mlp_norm", "encoder.block.#.layer.1.layer_norm", Encoder, AsIs, &[Embed], Always),
    Row("encoder.layers.mlp.wi", "encoder.block.#.layer.1.DenseReluDense.wi", Encoder, Transposed, &[Embed, Hidden], Ungated),
    Row("encoder.layers.mlp.wi_0", "encoder.block.#.layer.1.DenseReluDense.wi_0", Encoder, Transposed, &[Embed, Hidden], Gated),
    Row("encoder.layers.mlp.wi_1", "encoder.block.#.layer.1.DenseReluDense.wi_1", Encoder, Transposed, &[Embed, Hidden], Gated),
    Row("encoder.layers.mlp.wo", "encoder.block.#.layer.1.DenseReluDense.wo", Encoder, Transposed, &[Hidden, Embed], Always),
    Row("encoder.final_norm", "encoder.final_layer_norm", Once, AsIs, &[Embed], Always),
    Row("decoder.relative_bias", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias", Once, AsIs, &[Buckets, Heads], Always),
    Row("decoder.layers.attention_norm", "decoder.block.#.layer.0.layer_norm", Decoder, AsIs, &[Embed], Always),
    Row("decoder.layers.attention.q", "decoder.block.#.layer.0.SelfAttention.q", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.attention.k", "decoder.block.#.layer.0.SelfAttention.k", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.attention.v", "decoder.block.#.layer.0.SelfAttention.v", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.attention.o", "decoder.block.#.layer.0.SelfAttention.o", Decoder, Transposed, &[Inner, Embed], Always),
    Row("decoder.layers.cross_norm", "decoder.block.#.layer.1.layer_norm", Decoder, AsIs, &[Embed], Always),
    Row("decoder.layers.cross.q", "decoder.block.#.layer.1.EncDecAttention.q", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.cross.k", "decoder.block.#.layer.1.EncDecAttention.k", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.cross.v", "decoder.block.#.layer.1.EncDecAttention.v", Decoder, Transposed, &[Embed, Inner], Always),
    Row("decoder.layers.cross.o", "decoder.block.#.layer.1.EncDecAttention.o", Decoder, Transposed, &[Inner, Embed], Always),
    Row("decoder.layers.mlp_norm", "decoder.block.#.layer.2.layer_norm", Decoder, AsIs, &[Embed], Always),
    Row("decoder.layers.mlp.wi", "decoder.block.#.layer.2.DenseReluDense.wi", Decoder, Transposed, &[Embed, Hidden], Ungated),
    Row("decoder.layers.mlp.wi_0", "decoder.block.#.layer.2.DenseReluDense.wi_0", Decoder, Transposed, &[Embed, Hidden], Gated),
    Row("decoder.layers.mlp.wi_1", "decoder.block.#.layer.2.DenseReluDense.wi_1", Decoder, Transposed, &[Embed, Hidden], Gated),
    Row("decoder.layers.mlp.wo", "decoder.block.#.layer.2.DenseReluDense.wo", Decoder, Transposed, &[Hidden, Embed], Always),
    Row("decoder.final_norm", "decoder.final_layer_norm", Once, AsIs, &[Embed], Always),
    Row("lm_head", "lm_head", Once, Transposed, &[Embed, Vocabulary], Untied),
];

/// The embedding table's names in Hugging Face files: its own, and those of its tied copies, which some files also hold.
pub(super) const EMBEDDING: &str = "shared.weight";
pub(super) const EMBEDDING_COPIES: [&str; 2] =
    ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
/// The copy that only a model with tied embeddings can have.
pub(super) const TIED_OUTPUT: &str = "lm_head.weight";

/// One parameter of a model, under both names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameter {
    /// Our name.
    pub name: &'static str,
    /// Our shape, the layers first where it has them.
    pub shape: Vec<usize>,
    /// Their tensors, one per layer.
    pub theirs: Vec<String>,
    /// How each of theirs relates to its part of ours.
    pub orientation: Orientation,
    stacked: bool,
}

impl Parameter {
    /// Our shape within a layer.
    pub fn part_shape(&self) -> &[usize] {
        &self.shape[usize::from(self.stacked)..]
    }

    /// The shape of each of their tensors.
    pub fn their_shape(&self) -> Vec<usize> {
        let mut shape = self.part_shape().to_vec();
        if self.orientation == Transposed {
            shape.reverse();
        }
        shape
    }
}

/// All parameters of `model`, in the table's order.
pub(super) fn parameters(model: &Model) -> Vec<Parameter> {
    let exists = |row: &&Row| match row.5 {
        Always => true,
        Gated => model.activation.is_gated(),
        Ungated => !model.activation.is_gated(),
        Untied => !model.tie_embeddings,
    };
    let size = |dimension: &Dimension| match dimension {
        Vocabulary => model.vocabulary,
        Embed => model.d_model,
        Inner => model.inner(),
        Hidden => model.d_ff,
        Buckets => model.relative_buckets,
        Heads => model.heads,
    };
    let parameter = |Row(name, theirs, layers, orientation, dimensions, _): &Row| {
        let layers = match layers {
            Once => None,
            Encoder => Some(model.encoder_layers),
            Decoder => Some(model.decoder_layers),
        };
        let their_name =
            |layer: usize| format!("{}.weight", theirs.replace('#', &layer.to_string()));
        Parameter {
            name,
            shape: layers
                .into_iter()
                .chain(dimensions.iter().map(size))
                .collect(),
            theirs: (0..layers.unwrap_or(1)).map(their_name).collect(),
            orientation: *orientation,
            stacked: layers.is_some(),
        }
    };
    TABLE.iter().filter(exists).map(parameter).collect()
}
