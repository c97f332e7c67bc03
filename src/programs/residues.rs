//! What a model expects at a masked residue: the encoder reads the sequence with `<extra_id_0>` in
//! the residue's place, and the decoder, told `<extra_id_0>`, says what stands there.

use ankh_data::tokenizer::PAD;
use ankh_hlo::{DType, Error, Module, Shape};

use super::forward::network;
use super::{Programs, declare, inputs, parameters};
use crate::model::Tokens;

/// Decoder positions of [`Programs::residues`].
pub const DECODER_LENGTH: usize = 2;

impl Programs<'_> {
    /// Parameters and [`inputs`] to the logarithm of the probability, in nats, of each id behind
    /// the decoder's input `[0, <extra_id_0>]`: float32 `[rows, vocabulary]`. Each row's
    /// probabilities sum to 1 over all ids, those that are no residue included.
    pub fn residues(&self) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("residues");
        let (specs, values) = parameters(&g, config);
        let [input_ids, attention_mask] = declare(&g, &inputs(size))[..] else {
            unreachable!("`inputs` lists two arrays")
        };
        let sentinel = config.tokenizer().sentinel(0);
        let sentinel = sentinel.expect("every vocabulary has sentinels");
        let column = |id: u8| g.full(&Shape::new(DType::S32, [size.rows as i64, 1]), id.into());
        let decoder_input_ids = g.concatenate(&[column(PAD), column(sentinel)], 1);
        let tokens = Tokens::Padded { attention_mask };
        let states = network(self, &specs, &values).forward(input_ids, decoder_input_ids, tokens);
        let last = states.logits.slice_dim(1, 1, DECODER_LENGTH as i64);
        let last = last.reshape(&[size.rows as i64, last.dim(2)]);
        g.finish(&[last.log_softmax()], &[])
    }
}
