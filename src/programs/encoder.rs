//! The encoder alone: what embeds sequences.

use ankh_data::Packing;
use ankh_data::tokenizer::EOS;
use ankh_hlo::{DType, Error, Graph, Module, Tensor};

use super::forward::network;
use super::{Array, BatchShape, Programs, batch, declare};
use crate::config::Config;
use crate::model::LogicalAxis::{Batch, Embed, Length};
use crate::model::{Parameter, Tokens, Weights};

/// What an encoder's program gives for each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The state of each position.
    None,
    /// The mean of the states of residues: of all tokens but `</s>`; zeros where there are none.
    Mean,
}

/// Whether a program of the encoder takes a parameter.
pub fn is_of_encoder(name: &str) -> bool {
    name == "shared" || name.starts_with("encoder.")
}

impl Programs<'_> {
    /// The parameters of the encoder ([`is_of_encoder`]), in their order, and padded rows (s32
    /// `input_ids` and `attention_mask`, `[rows, input length]`) to the encoder's states: float32
    /// `[rows, input length, d_model]`, or, where they are pooled, `[rows, d_model]`.
    pub fn encoder(&self, pooling: Pooling) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("encoder");
        let (specs, values) = encoder_parameters(&g, config);
        let padded = BatchShape {
            packing: Packing::Padded,
            ..size
        };
        let [input_ids, attention_mask] = declare(&g, &batch(padded)[..2])[..] else {
            unreachable!("two arrays")
        };
        let tokens = Tokens::Padded { attention_mask };
        let states = network(self, &specs, &values).encode(input_ids, tokens);
        let states = states.convert(DType::F32);
        let out = match pooling {
            Pooling::None => states.with_logical_axes(&[Batch, Length, Embed]),
            Pooling::Mean => {
                mean(states, input_ids, attention_mask).with_logical_axes(&[Batch, Embed])
            }
        };
        g.finish(&[out], &[])
    }
}

/// The encoder's parameters, declared, in a tree of all. `shared` stands in for those of the
/// decoder, which no program of the encoder reads.
pub(super) fn encoder_parameters<'g>(
    g: &'g Graph,
    config: &Config,
) -> (Weights<Parameter>, Vec<Tensor<'g>>) {
    let specs = Weights::of(&config.model);
    let leaves = specs.leaves();
    let wanted = leaves.iter().filter(|leaf| is_of_encoder(&leaf.name));
    let arrays: Vec<Array> = wanted.map(Array::of_parameter).collect();
    let declared = declare(g, &arrays);
    let mut next = declared.iter();
    let values = leaves.iter().map(|leaf| match is_of_encoder(&leaf.name) {
        true => *next.next().expect("as many as were declared"),
        false => declared[0],
    });
    let values = values.collect();
    (specs, values)
}

/// The mean of the states of each row's residues: of all tokens but `</s>`.
fn mean<'g>(states: Tensor<'g>, ids: Tensor<'g>, mask: Tensor<'g>) -> Tensor<'g> {
    let g = states.graph();
    let is_token = mask.not_equal(mask.zeros_like());
    let is_residue = is_token & ids.not_equal(ids.full_like(EOS.into()));
    let weights = is_residue.convert(DType::F32);
    let sums = g.einsum("bl,bld->bd", weights, states);
    let residues = weights.sum(&[1]).expand_dims(&[1]);
    sums / residues.maximum(residues.full_like(1.0))
}
