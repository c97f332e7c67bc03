//! The one table of names: the model's stacked parameters beside Hugging Face's tensors, used in
//! both directions.
//!
//! Ours are stacked over layers and stored [in, out]; theirs are one per layer and, for linear
//! layers, stored [out, in].

use crate::config::Model;
use crate::model::Weights;

use Orientation::{AsIs, Transposed};

/// How their matrix relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    AsIs,
    Transposed,
}

struct Row(&'static str, &'static str, Orientation);

/// Ours, theirs (`#` is the layer, `.weight` follows), how stored. A model has some of them, in the
/// shapes it gives them.
#[rustfmt::skip]
const TABLE: [Row; 31] = [
    Row("shared", "shared", AsIs),
    Row("encoder.relative_bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", AsIs),
    Row("encoder.layers.attention_norm", "encoder.block.#.layer.0.layer_norm", AsIs),
    Row("encoder.layers.attention.q", "encoder.block.#.layer.0.SelfAttention.q", Transposed),
    Row("encoder.layers.attention.k", "encoder.block.#.layer.0.SelfAttention.k", Transposed),
    Row("encoder.layers.attention.v", "encoder.block.#.layer.0.SelfAttention.v", Transposed),
    Row("encoder.layers.attention.o", "encoder.block.#.layer.0.SelfAttention.o", Transposed),
    Row("encoder.layers.mlp_norm", "encoder.block.#.layer.1.layer_norm", AsIs),
    Row("encoder.layers.mlp.wi", "encoder.block.#.layer.1.DenseReluDense.wi", Transposed),
    Row("encoder.layers.mlp.wi_0", "encoder.block.#.layer.1.DenseReluDense.wi_0", Transposed),
    Row("encoder.layers.mlp.wi_1", "encoder.block.#.layer.1.DenseReluDense.wi_1", Transposed),
    Row("encoder.layers.mlp.wo", "encoder.block.#.layer.1.DenseReluDense.wo", Transposed),
    Row("encoder.final_norm", "encoder.final_layer_norm", AsIs),
    Row("decoder.relative_bias", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias", AsIs),
    Row("decoder.layers.attention_norm", "decoder.block.#.layer.0.layer_norm", AsIs),
    Row("decoder.layers.attention.q", "decoder.block.#.layer.0.SelfAttention.q", Transposed),
    Row("decoder.layers.attention.k", "decoder.block.#.layer.0.SelfAttention.k", Transposed),
    Row("decoder.layers.attention.v", "decoder.block.#.layer.0.SelfAttention.v", Transposed),
    Row("decoder.layers.attention.o", "decoder.block.#.layer.0.SelfAttention.o", Transposed),
    Row("decoder.layers.cross_norm", "decoder.block.#.layer.1.layer_norm", AsIs),
    Row("decoder.layers.cross.q", "decoder.block.#.layer.1.EncDecAttention.q", Transposed),
    Row("decoder.layers.cross.k", "decoder.block.#.layer.1.EncDecAttention.k", Transposed),
    Row("decoder.layers.cross.v", "decoder.block.#.layer.1.EncDecAttention.v", Transposed),
    Row("decoder.layers.cross.o", "decoder.block.#.layer.1.EncDecAttention.o", Transposed),
    Row("decoder.layers.mlp_norm", "decoder.block.#.layer.2.layer_norm", AsIs),
    Row("decoder.layers.mlp.wi", "decoder.block.#.layer.2.DenseReluDense.wi", Transposed),
    Row("decoder.layers.mlp.wi_0", "decoder.block.#.layer.2.DenseReluDense.wi_0", Transposed),
    Row("decoder.layers.mlp.wi_1", "decoder.block.#.layer.2.DenseReluDense.wi_1", Transposed),
    Row("decoder.layers.mlp.wo", "decoder.block.#.layer.2.DenseReluDense.wo", Transposed),
    Row("decoder.final_norm", "decoder.final_layer_norm", AsIs),
    Row("lm_head", "lm_head", Transposed),
];

/// The embedding table's names in Hugging Face files: its own, and those of its tied copies, which
/// some files also hold.
pub(super) const EMBEDDING: &str = "shared.weight";
pub(super) const EMBEDDING_COPIES: [&str; 2] =
    ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
/// The output projection, a copy of the embedding table where the model ties them.
pub(super) const OUTPUT: &str = "lm_head.weight";
/// A tensor of the first T5's files that is part of no model: cross-attention has no bias.
/// `transformers` leaves it out by this name.
pub(super) const UNUSED: &str =
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

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
    let ours = Weights::of(model).leaves();
    let parameter = |Row(name, theirs, orientation): &Row| {
        let ours = ours.iter().find(|p| p.name == *name)?;
        let stacked = ours.is_stacked();
        let shape: Vec<usize> = ours.dims.iter().map(|&size| size as usize).collect();
        let layers = if stacked { shape[0] } else { 1 };
        let their_name =
            |layer: usize| format!("{}.weight", theirs.replace('#', &layer.to_string()));
        Some(Parameter {
            name,
            theirs: (0..layers).map(their_name).collect(),
            orientation: *orientation,
            shape,
            stacked,
        })
    };
    TABLE.iter().filter_map(parameter).collect()
}
