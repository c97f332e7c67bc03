//! A benchmark from its labels to its figures.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::Error;
use super::dataset::{Dataset, Kind};
use super::measures::{Figure, Prediction, figures};
use super::options::{BenchmarkOptions, Features, Predictor, Progress};
use super::splits::folds;
use super::states::States;
use super::trainings::{Training, Trainings};
use super::unfinished::Finished;
use crate::inference::{Journal, LoadedModel, Unfinished};

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
    let kept = (finished.epochs.as_path(), identity);
    let work = Trainings::of((model, dataset, options), &states, &folds, kept);
    let Some(trainings) = work.done(&folds, &mut journal, each)? else {
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
