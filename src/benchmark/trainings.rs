//! The trainings of a benchmark: one for each seed and fold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::Error;
use super::dataset::{Dataset, Kind, Target};
use super::head::HeadTrainer;
use super::nearest::nearest;
use super::options::{BenchmarkOptions, Features, Predictor, Progress};
use super::saved::SavedFile;
use super::splits::Fold;
use super::states::States;
use super::training::{HeadTraining, Material, Trained};
use crate::inference::{Journal, Lengths, LoadedModel, RowLengths};
use crate::model::encoder_flops;
use crate::programs::head::{Head, HeadKind};

/// One training.
#[derive(Clone, Debug)]
pub struct Training {
    /// Its seed.
    pub seed: u64,
    /// Its fold, from 0.
    pub fold: usize,
    /// What came of it.
    pub trained: Trained,
}

/// The trainings of a benchmark.
pub struct Trainings<'a> {
    model: &'a LoadedModel,
    dataset: &'a Dataset,
    options: &'a BenchmarkOptions,
    states: &'a States,
    lengths: RowLengths,
    epochs: &'a Path,
    identity: String,
    /// That of the last training.
    trainer: RefCell<Option<HeadTrainer<'a>>>,
}

impl<'a> Trainings<'a> {
    /// Those of a dataset. The epochs of the one that is under way are kept in a file, with the
    /// `identity` of what they follow from.
    pub fn of(
        (model, dataset, options): (&'a LoadedModel, &'a Dataset, &'a BenchmarkOptions),
        states: &'a States,
        folds: &[Fold],
        (epochs, identity): (&'a Path, String),
    ) -> Trainings<'a> {
        Trainings {
            model,
            dataset,
            options,
            states,
            lengths: lengths(model, options, folds, states),
            epochs,
            identity,
            trainer: RefCell::default(),
        }
    }

    /// All of them done, by seed and fold; nothing where `each` breaks. Those that are in the
    /// journal are taken from it.
    pub fn done(
        &self,
        folds: &[Fold],
        journal: &mut Journal,
        each: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Vec<Training>>, Error> {
        let HeadTraining { epochs, batch, .. } = self.options.training;
        let steps_of = |fold: &Fold| (epochs * fold.train.len().div_ceil(batch)) as u64;
        let seeds = self.options.seeds.len() as u64;
        let all = seeds * folds.iter().map(steps_of).sum::<u64>();
        let mut before = 0;
        let mut found = Vec::new();
        for &seed in &self.options.seeds {
            for (number, fold) in folds.iter().enumerate() {
                let mut each = |step: usize, _: usize| {
                    let done = before + step as u64;
                    each(Progress::Steps(done, all))
                };
                let trained = match journal.next_kept() {
                    Some(kept) => serde_json::from_slice(&kept).expect("as it was written"),
                    None => {
                        let Some(trained) = self.training(fold, (seed, number), &mut each)? else {
                            return Ok(None);
                        };
                        journal.append(&serde_json::to_vec(&trained).expect("numbers"))?;
                        trained
                    }
                };
                before += steps_of(fold);
                found.push(Training {
                    seed,
                    fold: number,
                    trained,
                });
            }
        }
        Ok(Some(found))
    }

    fn training(
        &self,
        fold: &Fold,
        run: (u64, usize),
        each: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Trained>, Error> {
        match self.options.predictor {
            Predictor::ConvBert => self.train(fold, run, each),
            Predictor::Nearest => Ok(Some(Trained {
                epochs: vec![],
                predictions: nearest(self.dataset, self.states, fold)?,
            })),
        }
    }

    fn train(
        &self,
        fold: &Fold,
        (seed, number): (u64, usize),
        each: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Trained>, Error> {
        let head = Head {
            width: self.states.width(),
            kind: self.kind(&fold.train),
            dropout: self.options.training.dropout,
        };
        let seed_of_fold = seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        // Folds and seeds have the same programs, but for regressions, which begin at their mean.
        let mut kept = self.trainer.borrow_mut();
        let trainer = match &mut *kept {
            Some(trainer) if *trainer.head() == head => {
                trainer.restart(seed_of_fold)?;
                trainer
            }
            kept => kept.insert(match self.options.features {
                Features::Adapted(lora) => {
                    HeadTrainer::adapting(self.model, lora, head, seed_of_fold)?
                }
                _ => HeadTrainer::new(self.model.mesh(), head, seed_of_fold)?,
            }),
        };
        let material = Material {
            dataset: self.dataset,
            states: self.states,
            lengths: &self.lengths,
            devices: self.model.devices().1,
        };
        let mut file = SavedFile {
            path: self.epochs,
            identity: format!("{} {seed} {number}", self.identity),
        };
        let training = (&self.options.training, seed_of_fold);
        material.train(trainer, fold, training, &mut file, each)
    }

    /// The head of the dataset, for a training set.
    fn kind(&self, train: &[usize]) -> HeadKind {
        let classes = self.dataset.classes.len();
        match self.dataset.kind {
            Kind::ResidueClasses => HeadKind::Residues { classes },
            Kind::SequenceClasses => HeadKind::Sequence { classes },
            Kind::Contacts => HeadKind::Pairs,
            Kind::SequenceValue => {
                let labels = train
                    .iter()
                    .map(|&i| match self.dataset.examples[i].target {
                        Target::Value(value) => value,
                        _ => 0.0,
                    });
                HeadKind::Value {
                    mean: labels.sum::<f64>() / train.len() as f64,
                }
            }
        }
    }
}

/// The lengths of rows with which the trainings take least time. A program is compiled for a step
/// and for a prediction.
fn lengths(
    model: &LoadedModel,
    options: &BenchmarkOptions,
    folds: &[Fold],
    states: &States,
) -> RowLengths {
    let mut counts = BTreeMap::new();
    for example in 0..states.count() {
        *counts.entry(states.positions(example)).or_default() += 1;
    }
    let passes = options.training.epochs * options.seeds.len() * folds.len();
    let width = states.width() as f64;
    // A ConvBERT layer has 4.5 weights for each pair of its units, each multiplied twice in the
    // backward pass. Attention has two products of half the units.
    let of_head =
        |length: f64| 3.0 * (9.0 * length * width * width + 2.0 * length * length * width);
    // An encoder that is adapted goes forward twice, and backward to its input alone.
    let (of_encoder, possible) = match options.features {
        Features::Adapted(_) => (3.0, model.lengths_of_rows()),
        _ => (0.0, Lengths::default()),
    };
    let flops = |length: usize| {
        let of_encoder = of_encoder * encoder_flops(model.model(), length);
        (of_head(length as f64) + of_encoder) * passes as f64
    };
    // A step with its derivatives compiles as long as some encoders do.
    RowLengths::choose(possible, &counts, flops, 4.0 * model.program_flops())
}
