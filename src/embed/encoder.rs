//! Windows of sequences through the encoder, batch by batch.

use half::f16;

use super::parts::Part;
use super::records::{Flow, Sequence};
use super::{Error, Store};
use crate::inference::{
    BatchSize, EncodedBatch, LoadedModel, RowLengths, SortedBatch, sorted_batches,
};
use crate::programs::Pooling;

/// A model's encoder, and how it is used.
pub struct Encoder<'m> {
    model: &'m LoadedModel,
    pooling: Pooling,
    lengths: RowLengths,
    size: BatchSize,
    store: Store,
}

/// A batch that the devices are at work on.
struct Started<'m, 'b> {
    batch: &'b SortedBatch,
    states: EncodedBatch<'m>,
}

impl<'m> Encoder<'m> {
    pub fn new(
        model: &'m LoadedModel,
        pooling: Pooling,
        (lengths, size): (RowLengths, BatchSize),
        store: Store,
    ) -> Self {
        Encoder {
            model,
            pooling,
            lengths,
            size,
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

    /// Embeds what is left of a window into its part. The next batch is started before the last one
    /// is fetched. `done` is told the sequences and residues of each batch, and whether they were
    /// computed now; `stop` is asked between two.
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
        let batches = sorted_batches(&lengths, &self.lengths, self.size);
        let mut tell = |batch: &SortedBatch, computed| {
            let residues = batch.sequences.iter().map(|&i| lengths[i] - 1);
            done(residues.clone().count(), residues.sum(), computed);
        };
        let before = part.batches().min(batches.len());
        batches[..before]
            .iter()
            .for_each(|batch| tell(batch, false));
        let mut flow = Flow::GoOn;
        let mut started: Option<Started<'_, '_>> = None;
        for batch in &batches[before..] {
            if stop() {
                flow = Flow::End;
                break;
            }
            let next = self.start(sequences, batch)?;
            if let Some(last) = started.replace(next) {
                let batch = last.batch;
                self.finish(last, &lengths, &offsets, part)?;
                tell(batch, true);
            }
        }
        if let Some(last) = started {
            let batch = last.batch;
            self.finish(last, &lengths, &offsets, part)?;
            tell(batch, true);
        }
        if flow == Flow::End {
            part.save()?;
        }
        Ok(flow)
    }

    fn start<'b>(
        &self,
        sequences: &[Sequence],
        batch: &'b SortedBatch,
    ) -> Result<Started<'m, 'b>, Error> {
        let inputs = batch.sequences.iter().map(|&i| &sequences[i].tokens);
        let inputs: Vec<&Vec<u8>> = inputs.collect();
        let states = self.model.encode(batch, &inputs, self.pooling)?;
        Ok(Started { batch, states })
    }

    /// Waits for a batch, and writes each sequence's values to their place.
    fn finish(
        &self,
        started: Started<'_, '_>,
        lengths: &[usize],
        offsets: &[u64],
        part: &mut Part,
    ) -> Result<(), Error> {
        let batch = started.batch;
        let states = started.states.wait()?;
        let width = self.model.model().d_model * size_of::<f32>();
        let length = batch.length;
        for (row, &sequence) in batch.sequences.iter().enumerate() {
            let (first, count) = match self.pooling {
                Pooling::Mean => (row, 1),
                Pooling::None => (row * length, lengths[sequence] - 1),
            };
            let values = &states.bytes[first * width..(first + count) * width];
            match self.store {
                Store::Float32 => part.write(offsets[sequence], values)?,
                Store::Float16 => part.write(offsets[sequence], &halved(values))?,
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
