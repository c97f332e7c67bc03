//! Batches of sequences through a model's encoder.

use std::collections::BTreeMap;

use ankh_data::Packing;
use ankh_pjrt::HostTensor;

use super::{Error, Lengths, LoadedModel, Program, RowLengths, SortedBatch, input_batch};
use crate::mesh::ShardedArray;
use crate::model::encoder_flops;
use crate::programs::{BatchShape, Pooling};

/// Operations that two cores do while they compile a program, 0.3 s.
const PROGRAM_FLOPS_CPU: f64 = 3e10;
/// And what a TPU or a GPU does while the host compiles one, 10 to 30 s.
const PROGRAM_FLOPS: f64 = 1e15;

/// A batch that the devices are at work on.
pub struct EncodedBatch<'m> {
    program: Program<'m>,
    states: Vec<ShardedArray>,
}

impl LoadedModel {
    /// Positions of the encoder's batches: `tokens`; without, 2048 on a CPU and 32,768 on each
    /// other device.
    pub fn encoder_tokens(&self, tokens: Option<usize>) -> usize {
        let (platform, devices) = self.devices();
        let of_each = match platform.starts_with("cpu") {
            true => 2048usize.div_ceil(devices),
            false => 1 << 15,
        };
        tokens.unwrap_or(of_each * devices)
    }

    /// Operations that the devices do while the host compiles a small program.
    pub fn program_flops(&self) -> f64 {
        match self.devices().0.starts_with("cpu") {
            true => PROGRAM_FLOPS_CPU,
            false => PROGRAM_FLOPS,
        }
    }

    /// The lengths of the encoder's rows for so many sequences of each number of tokens, `</s>`
    /// included.
    pub fn encoder_lengths(&self, sequences: &BTreeMap<usize, u64>) -> RowLengths {
        let flops = |length| encoder_flops(self.model(), length);
        let lengths = self.lengths_of_rows();
        RowLengths::choose(lengths, sequences, flops, self.program_flops())
    }

    /// The lengths that suit the encoder.
    pub fn lengths_of_rows(&self) -> Lengths {
        match self.devices().0.starts_with("cpu") {
            true => Lengths::default(),
            // What the kernels of a TPU take.
            false => Lengths { step: 128 },
        }
    }

    /// Starts the encoder on the inputs of a batch, which end with `</s>`.
    pub fn encode(
        &self,
        batch: &SortedBatch,
        inputs: &[impl AsRef<[u8]>],
        pooling: Pooling,
    ) -> Result<EncodedBatch<'_>, Error> {
        let (rows, length) = (batch.rows, batch.length);
        let size = BatchShape {
            rows,
            input: length,
            target: length,
            packing: Packing::Padded,
        };
        let key = format!("encoder {pooling:?}");
        let program = self.program(&key, size, |programs| programs.encoder(pooling))?;
        let states = program.start(&input_batch(inputs, rows, length))?;
        Ok(EncodedBatch { program, states })
    }
}

impl EncodedBatch<'_> {
    /// Waits for the states, as [`Programs::encoder`](crate::programs::Programs::encoder) gives
    /// them.
    pub fn wait(self) -> Result<HostTensor, Error> {
        self.program.to_host(&self.states[0])
    }
}
