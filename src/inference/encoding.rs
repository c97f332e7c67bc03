//! Batches of sequences through a model's encoder.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ankh_hlo::ShardingForm;
use ankh_pjrt::HostTensor;

use super::{
    BatchSize, EncoderBatch, EncoderLayout, Error, Lengths, LoadedModel, PackedRows, Place,
    Program, RowLengths,
};
use crate::mesh::ShardedArray;
use crate::model::encoder_flops;
use crate::programs::Pooling;

/// Operations that two cores do while they compile a program, 0.3 s.
const PROGRAM_FLOPS_CPU: f64 = 3e10;
/// And what a TPU or a GPU does while the host compiles one, 10 to 30 s.
const PROGRAM_FLOPS: f64 = 1e15;

/// A batch that the devices are at work on.
struct Started<'m, 'b> {
    batch: &'b EncoderBatch,
    pooling: Pooling,
    program: Program<'m>,
    states: Vec<ShardedArray>,
}

/// The encoder's states of a batch.
pub struct EncodedBatch<'b> {
    /// The batch.
    pub batch: &'b EncoderBatch,
    pooling: Pooling,
    states: HostTensor,
}

impl LoadedModel {
    /// Positions of the encoder's batches: `tokens`; without, 2048 for each device on a CPU and
    /// 32,768 elsewhere.
    pub fn encoder_tokens(&self, tokens: Option<usize>) -> usize {
        let of_each = match self.is_on_cpu() {
            true => 1 << 11,
            false => 1 << 15,
        };
        tokens.unwrap_or(of_each * self.devices().1)
    }

    /// Operations that the devices do while the host compiles a small program.
    pub fn program_flops(&self) -> f64 {
        match self.is_on_cpu() {
            true => PROGRAM_FLOPS_CPU,
            false => PROGRAM_FLOPS,
        }
    }

    /// The lengths that suit the encoder where a row has one sequence.
    pub fn lengths_of_rows(&self) -> Lengths {
        match self.is_on_cpu() {
            true => Lengths::default(),
            // What the kernels of a TPU take.
            false => Lengths { step: 128 },
        }
    }

    /// How so many sequences of each number of tokens, `</s>` included, lie in batches of about
    /// `tokens` positions.
    pub fn encoder_layout(&self, sequences: &BTreeMap<usize, u64>, tokens: usize) -> EncoderLayout {
        let devices = self.devices().1;
        let rules = self.mesh().rules();
        let gspmd = rules.is_some_and(|rules| rules.form() == ShardingForm::Gspmd);
        // On one device, products of long rows keep more of the cores at work.
        if self.is_on_cpu() && devices > 1 && !gspmd {
            let of_each = tokens.div_ceil(devices);
            return EncoderLayout::Packed(PackedRows::choose(of_each, devices, sequences));
        }
        let flops = |length| encoder_flops(self.model(), length);
        let lengths = self.lengths_of_rows();
        EncoderLayout::Padded {
            lengths: RowLengths::choose(lengths, sequences, flops, self.program_flops()),
            size: BatchSize::Tokens { tokens, devices },
        }
    }

    /// Puts batches through the encoder, and gives the states of each to `each`, in their order,
    /// until it breaks. The next batch is started before the states of the last are fetched.
    /// `input` makes the tokens of a sequence, which end with `</s>`.
    pub fn encode<T: AsRef<[u8]>, E: From<Error>>(
        &self,
        batches: &[EncoderBatch],
        pooling: Pooling,
        input: impl Fn(usize) -> T,
        each: &mut dyn FnMut(EncodedBatch<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut started: Option<Started<'_, '_>> = None;
        for batch in batches.iter().map(Some).chain([None]) {
            let next = batch.map(|batch| self.start(batch, pooling, &input));
            if let Some(last) = std::mem::replace(&mut started, next.transpose()?)
                && each(last.wait()?)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn is_on_cpu(&self) -> bool {
        self.devices().0.starts_with("cpu")
    }

    fn start<'m, 'b, T: AsRef<[u8]>>(
        &'m self,
        batch: &'b EncoderBatch,
        pooling: Pooling,
        input: &impl Fn(usize) -> T,
    ) -> Result<Started<'m, 'b>, Error> {
        let inputs = batch.places.iter().map(|place| input(place.sequence));
        let inputs: Vec<T> = inputs.collect();
        let key = format!("encoder {pooling:?}");
        let program = self.program(&key, batch.size, |programs| programs.encoder(pooling))?;
        let states = program.start(&batch.arrays(&inputs))?;
        Ok(Started {
            batch,
            pooling,
            program,
            states,
        })
    }
}

impl<'b> Started<'_, 'b> {
    fn wait(self) -> Result<EncodedBatch<'b>, Error> {
        Ok(EncodedBatch {
            batch: self.batch,
            pooling: self.pooling,
            states: self.program.to_host(&self.states[0])?,
        })
    }
}

impl EncodedBatch<'_> {
    /// The states of a sequence of so many residues, or their mean: float32, little-endian.
    pub fn of(&self, place: &Place, residues: usize) -> &[u8] {
        let (first, count) = match self.pooling {
            Pooling::None => (place.start, residues),
            Pooling::Mean => (place.before, 1),
        };
        let [_, of_row, values] = self.states.dims[..] else {
            unreachable!("the encoder's results have three dimensions")
        };
        let first = place.row * of_row as usize + first;
        let width = values as usize * size_of::<f32>();
        &self.states.bytes[first * width..(first + count) * width]
    }
}
