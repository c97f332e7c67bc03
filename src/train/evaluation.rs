//! The loss and accuracy on held-out sequences during a run.

use std::ops::ControlFlow;
use std::time::Duration;

use ankh_data::{Split, Tokenizer};

use super::TrainError;
use super::data_loader::DataLoader;
use crate::confusion::{Confusion, ResidueAccuracy};
use crate::mesh::{DeviceError, DeviceMesh, Input, LoadedExecutable, ShardedArray};
use crate::programs::{EvaluationSums, Programs};
use crate::supervision::{Phase, Pulse};
use crate::telemetry::{Validation, ValidationResidues};

/// The program of an evaluation, and the sequences it is run on.
pub(super) struct Evaluation {
    program: LoadedExecutable,
    tokenizer: Tokenizer,
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
        let module = match config.evaluation.residues {
            true => programs.confusion()?,
            false => programs.evaluation()?,
        };
        Ok(Evaluation {
            program: mesh.compile(&module)?,
            tokenizer: config.tokenizer(),
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
        let mut confusion = None;
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
            let numbers = |place: usize| -> Result<Vec<f32>, TrainError> {
                let array = outputs[place].addressable_shards()[0].to_host();
                let numbers = array.and_then(|array| array.to_vec::<f32>());
                Ok(numbers.map_err(DeviceError::from)?)
            };
            let of_batch = EvaluationSums::from_slice(&numbers(0)?);
            Pulse::phase(Phase::Evaluating);
            sums.add(of_batch.expect("an evaluation's first result is its sums"));
            // The others are the matrices of confusions.
            if outputs.len() > 1 {
                let confusion = confusion.get_or_insert_with(|| Confusion::new(self.tokenizer));
                confusion.add(self.tokenizer, &numbers(1)?, &numbers(2)?);
            }
        }
        let EvaluationSums {
            cross_entropy,
            correct,
            tokens,
        } = sums;
        let validation = Validation::new(cross_entropy / tokens, correct / tokens);
        Ok(Some(Validation {
            validation_residues: confusion.as_ref().map(residues),
            ..validation
        }))
    }
}

fn residues(confusion: &Confusion) -> ValidationResidues {
    let accuracy = |residue: ResidueAccuracy| {
        let share = residue.correct as f64 / residue.count as f64;
        (residue.residue.to_string(), share)
    };
    ValidationResidues {
        accuracy: confusion.accuracies().into_iter().map(accuracy).collect(),
        blosum62: confusion.blosum62_agreement().spearman,
    }
}
