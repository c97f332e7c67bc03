//! A benchmark from its labels to its figures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Error;
use super::dataset::{Dataset, Kind, Target};
use super::head::HeadTrainer;
use super::measures::{Figure, Prediction, figures};
use super::nearest::nearest;
use super::saved::SavedFile;
use super::splits::{Fold, folds};
use super::states::States;
use super::training::{HeadTraining, Material, Trained};
use super::unfinished::Finished;
use crate::inference::{Journal, Lengths, LoadedModel, RowLengths, Unfinished};
use crate::model::encoder_flops;
use crate::model::lora::Lora;
use crate::programs::head::{Head, HeadKind};

/// What a head sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Features {
    /// The states of the model's encoder.
    States,
    /// The same, of an encoder with adapters that are trained together with the head.
    Adapted(Lora),
    /// Which residue is where, and no more.
    Letters,
}

/// What makes predictions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predictor {
    /// A ConvBERT layer and a linear one, trained.
    ConvBert,
    /// What is known of the nearest neighbour.
    Nearest,
}

/// How a benchmark is run.
#[derive(Clone, Debug)]
pub struct BenchmarkOptions {
    /// Where the figures go.
    pub output: PathBuf,
    /// What a head sees.
    pub features: Features,
    /// What predicts.
    pub predictor: Predictor,
    /// The training of heads.
    pub training: HeadTraining,
    /// One training for each.
    pub seeds: Vec<u64>,
    /// Parts of the examples that are tested in turn, where the data have no test set.
    pub folds: usize,
    /// What is done with work that another command began.
    pub unfinished: Unfinished,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Examples whose states are known, of all.
    States(usize, usize),
    /// Steps of trainings, of all.
    Steps(u64, u64),
}

/// The figures of a test set.
#[derive(Clone, Debug, Serialize)]
pub struct TestFigures {
    /// Its examples, by their index; their number in JSON.
    #[serde(rename = "examples", serialize_with = "number_of")]
    pub tested: Vec<usize>,
    /// What was found of them.
    pub figures: Vec<Figure>,
}

fn number_of<S: Serializer>(examples: &[usize], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(examples.len() as u64)
}

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

/// What came of a benchmark.
#[derive(Clone, Debug)]
pub struct Results {
    /// By the name of the test set.
    pub tests: BTreeMap<String, TestFigures>,
    /// Examples that were trained on, in the first fold.
    pub train: usize,
    /// Examples that chose the epoch, in the first fold.
    pub validation: usize,
    /// By seed and fold.
    pub trainings: Vec<Training>,
}

/// Runs a benchmark, or goes on with it. `description` is all that the figures follow from but for
/// the data and these options. `each` hears how far it is; nothing where it breaks, and what is
/// done is kept beside the output. The caller writes the output, and then ends the
/// unfinished work by [`Finished::remove`].
pub fn benchmark(
    model: &LoadedModel,
    dataset: &Dataset,
    options: &BenchmarkOptions,
    description: Map<String, Value>,
    each: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<(Results, Finished)>, Error> {
    check(model, dataset, options)?;
    let folds = folds(dataset, options.folds)?;
    let described = describe(options, dataset, description);
    let mut journal = Journal::open(&options.output, &described, options.unfinished)?;
    let finished = Finished::of(&options.output);
    if options.unfinished == Unfinished::Discard {
        finished.forget()?;
    }
    let identity = Value::Object(described).to_string();
    let examples = &dataset.examples;
    let states = match options.features {
        Features::Letters => States::of_letters(examples),
        Features::Adapted(_) => States::of_tokens(model, examples),
        Features::States => {
            let mut each = |done| each(Progress::States(done, examples.len()));
            let kept = (finished.states.as_path(), identity.as_str());
            match States::of_encoder(model, examples, kept, &mut each)? {
                Some(states) => states,
                None => return Ok(None),
            }
        }
    };
    let work = Work {
        model,
        dataset,
        options,
        states: &states,
        lengths: lengths(model, options, &folds, &states),
        epochs: &finished.epochs,
        identity,
        trainer: RefCell::default(),
    };
    let Some(trainings) = work.trainings(&folds, &mut journal, each)? else {
        return Ok(None);
    };
    let mut tests = BTreeMap::new();
    let names = folds.iter().flat_map(|fold| fold.tests.keys());
    for name in names {
        // Every example is tested in one fold.
        let tested = folds.iter().filter_map(|fold| fold.tests.get(name));
        let tested: Vec<usize> = tested.flatten().copied().collect();
        let of_seed = |seed: &u64| -> BTreeMap<usize, Prediction> {
            let own = trainings.iter().filter(|training| training.seed == *seed);
            own.flat_map(|training| training.trained.predictions.clone())
                .collect()
        };
        let predictions: Vec<_> = options.seeds.iter().map(of_seed).collect();
        let predictions: Vec<&BTreeMap<usize, Prediction>> = predictions.iter().collect();
        let figures = figures(dataset, &tested, &predictions);
        tests.insert(name.clone(), TestFigures { tested, figures });
    }
    let finished = finished.with(journal);
    let results = Results {
        tests,
        train: folds[0].train.len(),
        validation: folds[0].validation.len(),
        trainings,
    };
    Ok(Some((results, finished)))
}

/// What can be told before any work.
fn check(model: &LoadedModel, dataset: &Dataset, options: &BenchmarkOptions) -> Result<(), Error> {
    let width = model.model().d_model;
    match (options.predictor, options.features, dataset.kind) {
        (Predictor::Nearest, Features::Adapted(_), _) => Err(Error::NearestAdapted),
        (Predictor::Nearest, _, Kind::ResidueClasses | Kind::Contacts) => {
            Err(Error::NearestOfResidues)
        }
        (Predictor::ConvBert, Features::States | Features::Adapted(_), _)
            if !width.is_multiple_of(4) =>
        {
            Err(Error::Width(width))
        }
        _ => Ok(()),
    }
}

/// What the figures of a dataset follow from: `description`, the data and these options. The
/// journal tells whose work it is by that.
pub fn describe(
    options: &BenchmarkOptions,
    dataset: &Dataset,
    mut description: Map<String, Value>,
) -> Map<String, Value> {
    let mut digest = 0;
    for example in &dataset.examples {
        let labelled = format!(
            "{} {:?} {:?}",
            example.sequence, example.split, example.target
        );
        digest = crc32c::crc32c_append(digest, labelled.as_bytes());
    }
    let training = &options.training;
    for (key, value) in [
        ("data", json!(format!("{digest:08x}"))),
        ("features", json!(options.features)),
        ("head", json!(options.predictor)),
        ("seeds", json!(options.seeds)),
        ("--folds", json!(options.folds)),
        ("--epochs", json!(training.epochs)),
        ("--batch", json!(training.batch)),
        ("--learning-rate", json!(training.learning_rate)),
        ("dropout", json!(training.dropout)),
        ("warm-up", json!(training.warm_up)),
    ] {
        description.insert(key.into(), value);
    }
    description
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

/// The trainings of a benchmark.
struct Work<'a> {
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

impl Work<'_> {
    /// All trainings, by seed and fold. Those that are in the journal are taken from it.
    fn trainings(
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
