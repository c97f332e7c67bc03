//! The encoder alone: what embeds sequences.

use ankh_data::Packing;
use ankh_data::tokenizer::EOS;
use ankh_hlo::{DType, Error, Graph, Literal, Module, Shape, Tensor};

use super::forward::network;
use super::{Array, Programs, batch, declare};
use crate::config::Config;
use crate::model::LogicalAxis::{Batch, Embed, Length};
use crate::model::{AttentionImplementation, Network, Parameter, Tokens, Weights};

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
    /// The parameters of the encoder ([`is_of_encoder`]), in their order, and inputs to the
    /// encoder's states: float32 `[rows, input length, d_model]`.
    ///
    /// Padded rows are given as s32 `input_ids` and `attention_mask`, `[rows, input length]`,
    /// packed rows as `input_ids` and `input_segments`. The length of those is a multiple of
    /// [`BLOCK`](crate::model::attention::BLOCK), and their sequences, at most [`most_segments`],
    /// have ascending numbers. Pooled, the result is `[rows, segments, d_model]`: of 1 segment, or
    /// of as many as there may be.
    pub fn encoder(&self, pooling: Pooling) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("encoder");
        let (specs, values) = encoder_parameters(&g, config);
        let [input_ids, segments] = declare(&g, &batch(size)[..2])[..] else {
            unreachable!("two arrays")
        };
        let network = network(self, &specs, &values);
        let (attention, tokens, most) = match size.packing {
            Packing::Padded => {
                let tokens = Tokens::Padded {
                    attention_mask: segments,
                };
                (network.attention, tokens, 1)
            }
            Packing::Packed => {
                let tokens = Tokens::Packed {
                    input_segments: segments,
                    // There are no targets, and the encoder does not look.
                    target_segments: segments,
                };
                let most = most_segments(size.input);
                (AttentionImplementation::Blocks, tokens, most)
            }
        };
        let network = Network {
            attention,
            ..network
        };
        let states = network.encode(input_ids, tokens).convert(DType::F32);
        let out = match pooling {
            Pooling::None => states,
            Pooling::Mean => means(states, input_ids, segments, most),
        };
        let out = out.with_logical_axes(&[Batch, Length, Embed]);
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

/// How many sequences a packed row of so many positions has at most. Only peptides of fewer than 15
/// residues leave room for more.
pub fn most_segments(length: usize) -> usize {
    (length / 16).max(1)
}

/// The means of the states of residues, of all tokens but `</s>`, for the segments 1, 2, ..., of
/// each row: `[rows, segments, d_model]`. Zeros where there are none.
fn means<'g>(states: Tensor<'g>, ids: Tensor<'g>, segments: Tensor<'g>, most: usize) -> Tensor<'g> {
    let g = states.graph();
    let [rows, length] = [ids.dim(0), ids.dim(1)];
    let grid = Shape::new(DType::S32, [rows, most as i64, length]);
    let number = g.iota(grid, 1) + g.literal(Literal::scalar(DType::S32, 1.0));
    let is_residue = ids.not_equal(ids.full_like(EOS.into()));
    let is_own = segments.expand_dims(&[1]).equal(number);
    let weights = (is_own & is_residue.expand_dims(&[1])).convert(DType::F32);
    let sums = g.einsum("bsl,bld->bsd", weights, states);
    let residues = weights.sum(&[2]).expand_dims(&[2]);
    sums / residues.maximum(residues.full_like(1.0))
}
