//! The loss and accuracy on held-out sequences during a run.

use std::ops::ControlFlow;
use std::time::Duration;

use ankh_data::Split;

use super::TrainError;
use super::data_loader::DataLoader;
use crate::mesh::{DeviceError, DeviceMesh, Input, LoadedExecutable, ShardedArray};
use crate::programs::{EvaluationSums, Programs};
use crate::supervision::{Phase, Pulse};
use crate::telemetry::Validation;

/// The program of an evaluation, and the sequences it is run on.
pub(super) struct Evaluation {
    program: LoadedExecutable,
    loader: DataLoader,
    /// Batches at most.
    limit: usize,
    prefetch: usize,
}

/// Whether the next batch of an evaluation is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextBatch {
    /// It is still being made.
    Awaited,
    /// The program starts next.
    Here,
}

/// The held-out sequences, where the run is configured to evaluate.
pub(super) fn held_out(
    programs: &Programs<'_>,
    mesh: &DeviceMesh,
) -> Result<Option<DataLoader>, TrainError> {
    match programs.config.evaluation.every {
        0 => Ok(None),
        _ => Ok(Some(DataLoader::open(programs, Split::Validation, mesh)?)),
    }
}

impl Evaluation {
    /// Compiles the program for held-out sequences.
    pub fn compile(
        programs: &Programs<'_>,
        mesh: &DeviceMesh,
        loader: DataLoader,
    ) -> Result<Evaluation, TrainError> {
        let config = programs.config;
        Ok(Evaluation {
            program: mesh.compile(&programs.evaluation()?)?,
            loader,
            limit: match config.evaluation.batches {
                0 => usize::MAX,
                batches => batches,
            },
            prefetch: config.data.prefetch,
        })
    }

    /// The held-out sequences.
    pub fn loader(&self) -> &DataLoader {
        &self.loader
    }

    /// Gives the sequences up without waiting for threads that may be waiting for some of them.
    pub fn abandon(self) {
        self.loader.abandon();
    }

    /// Evaluates `parameters`. `poll` is called again and again while a batch is waited for, and
    /// once when it is there; no result where it breaks.
    pub fn run(
        &self,
        mesh: &DeviceMesh,
        parameters: &[ShardedArray],
        every: Duration,
        mut poll: impl FnMut(NextBatch) -> Result<ControlFlow<()>, TrainError>,
    ) -> Result<Option<Validation>, TrainError> {
        let mut batches = self.loader.after(0, self.prefetch);
        let mut sums = EvaluationSums::default();
        for _ in 0..self.limit {
            loop {
                let here = batches.wait(every);
                let batch = if here {
                    NextBatch::Here
                } else {
                    NextBatch::Awaited
                };
                if poll(batch)?.is_break() {
                    batches.abandon();
                    return Ok(None);
                }
                if here {
                    break;
                }
            }
            let Some(batch) = batches.next(mesh)? else {
                break;
            };
            let parameters = parameters.iter().map(Input::Keep);
            let arrays = batch.arrays.into_iter().map(Input::Donate);
            let outputs = self.program.execute(parameters.chain(arrays).collect())?;
            let vector = outputs[0].addressable_shards()[0].to_host();
            let vector = vector.and_then(|vector| vector.to_vec::<f32>());
            let of_batch = EvaluationSums::from_slice(&vector.map_err(DeviceError::from)?);
            Pulse::phase(Phase::Evaluating);
            sums.add(of_batch.expect("an evaluation's result is its sums"));
        }
        let EvaluationSums {
            cross_entropy,
            correct,
            tokens,
        } = sums;
        Ok(Some(Validation::new(
            cross_entropy / tokens,
            correct / tokens,
        )))
    }
}
