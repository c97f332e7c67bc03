//! Windows of sequences through the encoder, batch by batch.

use std::ops::ControlFlow;

use half::f16;

use super::parts::Part;
use super::records::{Flow, Sequence};
use super::{Error, Store};
use crate::inference::{EncodedBatch, EncoderBatch, EncoderLayout, LoadedModel};
use crate::programs::Pooling;

/// A model's encoder, and how it is used.
pub struct Encoder<'m> {
    model: &'m LoadedModel,
    pooling: Pooling,
    layout: EncoderLayout,
    store: Store,
}

impl<'m> Encoder<'m> {
    pub fn new(
        model: &'m LoadedModel,
        pooling: Pooling,
        layout: EncoderLayout,
        store: Store,
    ) -> Self {
        Encoder {
            model,
            pooling,
            layout,
            store,
        }
    }

    /// How many bytes of values a sequence of `length` residues has.
    pub fn bytes(&self, length: usize) -> usize {
        let states = match self.pooling {
            Pooling::Mean => 1,
            Pooling::None => length,
        };
        states * self.model.model().d_model * self.store.width()
    }

    /// Embeds what is left of a window into its part. `done` is told the sequences and residues of
    /// each batch, and whether they were computed now; `stop` is asked between two.
    pub fn window(
        &self,
        sequences: &[Sequence],
        part: &mut Part,
        stop: &dyn Fn() -> bool,
        done: &mut dyn FnMut(usize, usize, bool),
    ) -> Result<Flow, Error> {
        let lengths: Vec<usize> = sequences.iter().map(|s| s.tokens.len()).collect();
        let mut end = 0;
        let offsets = lengths.iter().map(|tokens| {
            let start = end;
            end += self.bytes(tokens - 1) as u64;
            start
        });
        let offsets: Vec<u64> = offsets.collect();
        let batches = self.layout.batches(&lengths);
        let mut tell = |batch: &EncoderBatch, computed| {
            let residues = batch.places.iter().map(|place| lengths[place.sequence] - 1);
            done(residues.clone().count(), residues.sum(), computed);
        };
        let (before, left) = batches.split_at(part.batches().min(batches.len()));
        before.iter().for_each(|batch| tell(batch, false));
        let input = |sequence: usize| sequences[sequence].tokens.as_slice();
        if !stop() {
            let flow = self
                .model
                .encode(left, self.pooling, input, &mut |encoded| {
                    self.write(&encoded, &lengths, &offsets, part)?;
                    tell(encoded.batch, true);
                    Ok::<_, Error>(match stop() {
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    })
                });
            let _ = flow?;
        }
        if part.batches() >= batches.len() {
            return Ok(Flow::GoOn);
        }
        part.save()?;
        Ok(Flow::End)
    }

    /// Writes each sequence's values to their place.
    fn write(
        &self,
        encoded: &EncodedBatch<'_>,
        lengths: &[usize],
        offsets: &[u64],
        part: &mut Part,
    ) -> Result<(), Error> {
        for place in &encoded.batch.places {
            let offset = offsets[place.sequence];
            let values = encoded.of(place, lengths[place.sequence] - 1);
            match self.store {
                Store::Float32 => part.write(offset, values)?,
                Store::Float16 => part.write(offset, &halved(values))?,
            }
        }
        part.finish_batch()
    }
}

/// float32 values as float16, rounded to the nearest.
fn halved(values: &[u8]) -> Vec<u8> {
    let (values, _) = values.as_chunks::<4>();
    let halves = values
        .iter()
        .map(|&bytes| f16::from_f32(f32::from_le_bytes(bytes)));
    halves.flat_map(f16::to_le_bytes).collect()
}
