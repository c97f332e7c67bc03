//! The encoder alone: what embeds sequences.

use ankh_data::Packing;
use ankh_data::tokenizer::EOS;
use ankh_hlo::{DType, Error, Graph, Module, Precision, Shape, Tensor};

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
    /// The mean of the states of residues: of all tokens but `</s>`.
    Mean,
}

/// The most sequences that a row of an encoder's program may hold: one for each eight positions,
/// so that their means are few beside their states.
pub fn sequences_per_row(length: usize) -> usize {
    (length / 8).max(1)
}

/// Whether a program of the encoder takes a parameter.
pub fn is_of_encoder(name: &str) -> bool {
    name == "shared" || name.starts_with("encoder.")
}

impl Programs<'_> {
    /// The parameters of the encoder ([`is_of_encoder`]), in their order, and packed rows (s32
    /// `input_ids` and `input_segments`, `[rows, input length]`) to the encoder's states: float32
    /// `[rows, input length, d_model]`. Where they are pooled, `[rows, n, d_model]`, n as
    /// [`sequences_per_row`] says: the mean of segment 1, 2, ...; zeros where a row has fewer.
    pub fn encoder(&self, pooling: Pooling) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("encoder");
        let (specs, values) = encoder_parameters(&g, config);
        let packed = BatchShape {
            packing: Packing::Packed,
            ..size
        };
        let [input_ids, segments] = declare(&g, &batch(packed)[..2])[..] else {
            unreachable!("two arrays")
        };
        let tokens = Tokens::Packed {
            input_segments: segments,
            target_segments: segments,
        };
        let states = network(self, &specs, &values).encode(input_ids, tokens);
        let states = states.convert(DType::F32);
        let states = match pooling {
            Pooling::None => states,
            Pooling::Mean => means(states, input_ids, segments),
        };
        g.finish(&[states.with_logical_axes(&[Batch, Length, Embed])], &[])
    }
}

/// The encoder's parameters, declared, in a tree of all. `shared` stands in for those of the
/// decoder, which no program of the encoder reads.
fn encoder_parameters<'g>(g: &'g Graph, config: &Config) -> (Weights<Parameter>, Vec<Tensor<'g>>) {
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

/// The mean of the states of each segment's residues.
fn means<'g>(states: Tensor<'g>, ids: Tensor<'g>, segments: Tensor<'g>) -> Tensor<'g> {
    let g = states.graph();
    let (rows, length) = (ids.dim(0), ids.dim(1));
    let count = sequences_per_row(length as usize) as i64;
    let number = g.iota(Shape::new(DType::S32, [rows, count, length]), 1) + 1.0;
    let own = number.equal(segments.expand_dims(&[1]));
    let is_residue = ids.not_equal(ids.full_like(EOS.into()));
    let weights = (own & is_residue.expand_dims(&[1])).convert(DType::F32);
    // As precise as the states are: the default on a TPU rounds them to bfloat16.
    let sums = g.einsum_with("bsl,bld->bsd", weights, states, Precision::Highest, None);
    let residues = weights.sum(&[2]).expand_dims(&[2]);
    sums / residues.maximum(residues.full_like(1.0))
}
