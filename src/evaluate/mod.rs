//! What weights are worth on prepared data: loss and accuracy on masked batches, residue by
//! residue, and the likelihood of sequences of which each residue is masked in turn.
//!
//! Every sequence of a split is seen once, in stored order, with masks that are the same every time
//! and at every size of a batch: those of an evaluation during training. This module reads prepared
//! data and runs programs. It prints nothing.

mod error;
mod likelihood;

use ankh_data::{
    Batch, BatchConfig, Batches, Dataset, HostShard, Objective, Packing, ReadOptions, Split,
};
use ankh_pjrt::HostTensor;
use ankh_storage::Location;

pub use error::Error;
pub use likelihood::{Likelihood, likelihood};

use crate::confusion::Confusion;
use crate::inference::LoadedModel;
use crate::programs::{BatchShape, EvaluationSums};

/// What the masked batches are made of.
#[derive(Clone, Debug)]
pub struct MaskedData {
    /// What `prepare` wrote.
    pub location: Location,
    /// How it is read.
    pub read: ReadOptions,
    /// What is asked of each sequence.
    pub objective: Objective,
    /// Lengths and the seed of masks. The number of rows changes no result.
    pub batch: BatchConfig,
}

/// Sums over masked batches.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Batches.
    pub batches: u64,
    /// Sequences.
    pub sequences: u64,
    /// Sums over all target tokens, sentinels and `</s>` included.
    pub sums: EvaluationSums<f64>,
    /// Predictions of residues.
    pub confusion: Confusion,
}

impl Evaluation {
    /// The mean cross-entropy of the target tokens, in nats.
    pub fn loss(&self) -> f64 {
        self.sums.cross_entropy / self.sums.tokens
    }

    /// The share of the target tokens predicted first.
    pub fn accuracy(&self) -> f64 {
        self.sums.correct / self.sums.tokens
    }
}

impl MaskedData {
    /// Some splits, each for the model. Of several, those without sequences are left out, unless
    /// all are.
    fn open(&self, model: &LoadedModel, splits: &[Split]) -> Result<Vec<Dataset>, Error> {
        let mut found = Vec::new();
        let mut empty = None;
        for &split in splits {
            match Dataset::open(self.location.clone(), split, &self.read) {
                Ok(dataset) => found.push(dataset.expecting(model.tokenizer())?),
                Err(error @ ankh_data::Error::EmptySplit { .. }) => empty = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        match empty.filter(|_| found.is_empty()) {
            Some(empty) => Err(empty.into()),
            None => Ok(found),
        }
    }
}

/// Evaluates on the masked batches of some splits, at most `limit` of each. `each` hears how many
/// batches are done, of how many.
pub fn evaluate(
    model: &LoadedModel,
    data: &MaskedData,
    splits: &[Split],
    limit: u64,
    mut each: impl FnMut(u64, u64),
) -> Result<Evaluation, Error> {
    let tokenizer = model.tokenizer();
    let config = BatchConfig {
        global_batch: model.rows(data.batch.global_batch),
        packing: Packing::Padded,
        ..data.batch.clone()
    };
    let batches = |dataset: Dataset| {
        let (objective, config) = (data.objective.clone(), config.clone());
        Batches::evaluation(dataset, objective, config, HostShard::all(), 0)
    };
    let opened = data.open(model, splits)?.into_iter().map(batches);
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let steps = |batches: &Batches| batches.steps().unwrap_or(u64::MAX).min(limit);
    let total = opened.iter().map(steps).sum();
    let size = BatchShape {
        rows: config.global_batch,
        input: config.input_length,
        target: config.target_length,
        packing: Packing::Padded,
    };
    let program = model.program("confusion", size, |programs| programs.confusion())?;
    let mut found = Evaluation {
        batches: 0,
        sequences: 0,
        sums: EvaluationSums::default(),
        confusion: Confusion::new(tokenizer),
    };
    for batches in &opened {
        for step in 0..steps(batches) {
            let batch = batches.batch(step)?;
            let results = program.run(&arrays(&batch))?;
            let numbers = |place: usize| -> Vec<f32> {
                let values = results[place].to_vec();
                values.expect("the program's results are float32")
            };
            let sums = EvaluationSums::from_slice(&numbers(0));
            found
                .sums
                .add(sums.expect("an evaluation's first result is its sums"));
            found.confusion.add(tokenizer, &numbers(1), &numbers(2));
            found.sequences += batch.examples.len() as u64;
            found.batches += 1;
            each(found.batches, total);
        }
    }
    match found.sums.tokens > 0.0 {
        true => Ok(found),
        false => Err(Error::NoTargets),
    }
}

/// The arrays of a padded batch, in the order that programs take them.
fn arrays(batch: &Batch) -> [HostTensor; 4] {
    let array = |length: usize, values: &[i32]| {
        HostTensor::new::<i32>([batch.rows as i64, length as i64], values)
    };
    let (inputs, targets) = (batch.input_length, batch.target_length);
    [
        array(inputs, &batch.input_ids),
        array(inputs, &batch.attention_mask()),
        array(targets, &batch.decoder_input_ids),
        array(targets, &batch.labels),
    ]
}
