//! The encoder alone: what embeds sequences.

use ankh_data::tokenizer::EOS;
use ankh_hlo::{DType, Error, Module, Tensor};

use super::forward::network;
use super::{Programs, declare, inputs, parameters};
use crate::model::Tokens;

/// What an encoder's program gives for each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The state of each position.
    None,
    /// The mean of the states of residues: of all tokens but `</s>`.
    Mean,
}

impl Programs<'_> {
    /// Parameters and [`inputs`] to the encoder's states: float32 `[rows, input length, d_model]`,
    /// or `[rows, d_model]` where they are pooled. A row without residues gives zeros there.
    pub fn encoder(&self, pooling: Pooling) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("encoder");
        let (specs, values) = parameters(&g, config);
        let [input_ids, attention_mask] = declare(&g, &inputs(size))[..] else {
            unreachable!("`inputs` lists two arrays")
        };
        let network = network(self, &specs, &values);
        let states = network.encode(input_ids, Tokens::Padded { attention_mask });
        let states = states.convert(DType::F32);
        let states = match pooling {
            Pooling::None => states,
            Pooling::Mean => mean(states, input_ids, attention_mask),
        };
        g.finish(&[states], &[])
    }
}

fn mean<'g>(states: Tensor<'g>, ids: Tensor<'g>, attention_mask: Tensor<'g>) -> Tensor<'g> {
    let is_residue = ids.not_equal(ids.full_like(EOS.into())).convert(DType::S32);
    let weights = (attention_mask * is_residue).convert(DType::F32);
    let count = weights.sum(&[1]).expand_dims(&[1]);
    let sum = (states * weights.expand_dims(&[2])).sum(&[1]);
    sum / count.maximum(count.full_like(1.0))
}
