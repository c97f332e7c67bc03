//! One training of a head: epochs, the best of them by the validation set, predictions of the
//! tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ankh_data::Key;
use ankh_pjrt::HostTensor;
use serde::{Deserialize, Serialize};

use super::Error;
use super::batches::{arrays, batch_of, epoch, predictions};
use super::dataset::Dataset;
use super::head::HeadTrainer;
use super::measures::{Measure, Prediction};
use super::saved::{Saved, SavedFile};
use super::splits::Fold;
use super::states::States;
use crate::inference::{BatchSize, RowLengths, SortedBatch, sorted_batches};

/// Examples that are predicted at once.
const PREDICTED_TOGETHER: usize = 16;

/// How heads are trained. The defaults are those of the authors of Ankh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadTraining {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples of a step.
    pub batch: usize,
    /// The learning rate after the warm-up.
    pub learning_rate: f64,
    /// Steps of the warm-up; at most a fifth of all.
    pub warm_up: usize,
    /// The share of units that are dropped.
    pub dropout: f64,
}

impl Default for HeadTraining {
    fn default() -> HeadTraining {
        HeadTraining {
            epochs: 5,
            batch: 16,
            learning_rate: 1e-3,
            warm_up: 1000,
            dropout: 0.2,
        }
    }
}

impl HeadTraining {
    /// The learning rate of a step, from 0, of so many: up to its full height, and down to 0, both
    /// in a straight line.
    fn learning_rate(&self, step: usize, steps: usize) -> f64 {
        let warm_up = self.warm_up.min(steps / 5).max(1);
        let rising = (step + 1) as f64 / warm_up as f64;
        let falling = (steps - step) as f64 / (steps - warm_up).max(1) as f64;
        self.learning_rate * rising.min(falling).min(1.0)
    }
}

/// An epoch of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The mean loss of its steps.
    pub loss: f64,
    /// The first measure on the validation set; none where that is undefined.
    pub validation: Option<f64>,
}

/// What came of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Of each, in order.
    pub epochs: Vec<Epoch>,
    /// Of the tests' examples, by the best epoch.
    pub predictions: BTreeMap<usize, Prediction>,
}

/// What heads are trained on.
pub struct Material<'a> {
    /// The labels.
    pub dataset: &'a Dataset,
    /// What the head sees.
    pub states: &'a States,
    /// The lengths of rows.
    pub lengths: &'a RowLengths,
    /// Rows are a multiple of it.
    pub devices: usize,
}

impl Material<'_> {
    /// The first measure of the head on some examples.
    fn validation(&self, head: &HeadTrainer<'_>, examples: &[usize]) -> Result<Option<f64>, Error> {
        let found = self.predict(head, examples)?;
        let pairs = found.iter().map(|(i, p)| (&self.dataset.examples[*i], p));
        let measure = Measure::all_of(self.dataset)[0];
        Ok(measure.of(&pairs.collect::<Vec<_>>()))
    }

    fn predict(
        &self,
        head: &HeadTrainer<'_>,
        examples: &[usize],
    ) -> Result<BTreeMap<usize, Prediction>, Error> {
        let positions = examples.iter().map(|&i| self.states.positions(i));
        let positions: Vec<usize> = positions.collect();
        let rows = PREDICTED_TOGETHER.next_multiple_of(self.devices);
        let mut found = BTreeMap::new();
        // As many rows in each batch, so that a length is one program.
        for batch in sorted_batches(&positions, self.lengths, BatchSize::Rows(rows)) {
            let batch = SortedBatch {
                sequences: batch.sequences.iter().map(|&i| examples[i]).collect(),
                ..batch
            };
            let arrays = arrays(&batch, self.dataset, self.states)?;
            let outputs = head.predict(&arrays.features, &arrays.mask)?;
            found.extend(predictions(&batch, self.dataset, &outputs));
        }
        Ok(found)
    }

    /// Trains a head and predicts what is tested. An earlier process's epochs are taken from
    /// `file`. `each` hears of every step, with the steps done and all; nothing where it breaks,
    /// and the last epoch is in the file then.
    pub fn train(
        &self,
        head: &mut HeadTrainer<'_>,
        fold: &Fold,
        (training, seed): (&HeadTraining, u64),
        file: &mut SavedFile<'_>,
        each: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Trained>, Error> {
        let rows = training.batch.next_multiple_of(self.devices);
        let steps_of_epoch = fold.train.len().div_ceil(training.batch);
        let steps = steps_of_epoch * training.epochs;
        let mut saved = file.read()?.unwrap_or_default();
        if !saved.now.is_empty() {
            head.restore(&saved.now)?;
        }
        for number in saved.epochs.len()..training.epochs {
            let length = |i: usize| self.states.positions(i);
            let key = Key::new(seed).with(number as u64);
            let mut losses = 0.0;
            let batches = epoch(&fold.train, length, training.batch, key);
            for (i, examples) in batches.iter().enumerate() {
                let step = number * steps_of_epoch + i;
                let batch = batch_of(examples, self.states, rows, self.lengths);
                let arrays = arrays(&batch, self.dataset, self.states)?;
                let loss = head.step(&arrays, training.learning_rate(step, steps) as f32)?;
                if !loss.is_finite() {
                    let epoch = number + 1;
                    return Err(Error::NotFinite { loss, epoch });
                }
                losses += f64::from(loss);
                if each(step + 1, steps).is_break() {
                    return Ok(None);
                }
            }
            let validation = self.validation(head, &fold.validation)?;
            saved.take(
                Epoch {
                    loss: losses / batches.len() as f64,
                    validation,
                },
                head.state()?,
            );
            file.write(&saved)?;
        }
        head.restore(saved.best())?;
        let tested: Vec<usize> = fold.tests.values().flatten().copied().collect();
        Ok(Some(Trained {
            epochs: saved.epochs,
            predictions: self.predict(head, &tested)?,
        }))
    }
}

impl Saved {
    /// Adds an epoch. A later one is the best where it is better, or as good where all are
    /// undefined.
    fn take(&mut self, epoch: Epoch, state: Vec<HostTensor>) {
        let before = self.epochs.iter().filter_map(|epoch| epoch.validation);
        let before = before.max_by(f64::total_cmp);
        self.epochs.push(epoch);
        match (epoch.validation, before) {
            (Some(now), Some(before)) if now <= before => self.best = Some(self.best().to_vec()),
            (None, Some(_)) => self.best = Some(self.best().to_vec()),
            _ => self.best = None,
        }
        self.now = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_and_falls_in_straight_lines() {
        let training = HeadTraining::default();
        let of = |step| training.learning_rate(step, 6000);
        assert!((of(499) - 0.5e-3).abs() < 1e-12);
        assert!((of(999) - 1e-3).abs() < 1e-12);
        assert!((of(3500) - 0.5e-3).abs() < 1e-12);
        assert!(of(5999) > 0.0 && of(5999) < 1e-6);
        // A short training has a short warm-up.
        assert!((training.learning_rate(9, 50) - 1e-3).abs() < 1e-12);
        assert!(training.learning_rate(0, 1) > 0.0);
    }

    #[test]
    fn the_best_epoch_is_kept() {
        let state = |value: f32| vec![HostTensor::scalar(value)];
        let mut saved = Saved::default();
        let validations = [Some(0.5), Some(0.7), Some(0.6), None, Some(0.7), Some(0.8)];
        let best = [0, 1, 1, 1, 1, 5];
        for (number, (validation, best)) in validations.into_iter().zip(best).enumerate() {
            let epoch = Epoch {
                loss: 1.0,
                validation,
            };
            saved.take(epoch, state(number as f32));
            assert_eq!(saved.best(), state(best as f32), "{number}");
        }
    }
}
