//! Which examples a head is trained on, which choose its best epoch, and which it is measured on.
//!
//! What a file leaves open is drawn by a seed that is the same for every model, so that models are
//! compared on the same examples.

use std::collections::BTreeMap;

use ankh_data::Key;

use super::Error;
use super::dataset::{Dataset, Split};

/// The seed of what files leave open.
const SPLIT_SEED: u64 = 7;

/// The examples of one training, by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The head learns from them.
    pub train: Vec<usize>,
    /// The best epoch is the one that is best on them.
    pub validation: Vec<usize>,
    /// By the name of the set.
    pub tests: BTreeMap<String, Vec<usize>>,
}

/// The trainings that measure a dataset: one where it says what is tested, else `folds`, in each of
/// which another part of the examples is. Without a validation set a tenth of what is learnt from
/// becomes one.
pub fn folds(dataset: &Dataset, folds: usize) -> Result<Vec<Fold>, Error> {
    let all = 0..dataset.examples.len();
    let of = |split: &Split| -> Vec<usize> {
        let is_of = |&i: &usize| dataset.examples[i].split.as_ref() == Some(split);
        all.clone().filter(is_of).collect()
    };
    let mut tests = BTreeMap::<String, Vec<usize>>::new();
    for example in all.clone() {
        if let Some(Split::Test(name)) = &dataset.examples[example].split {
            tests.entry(name.clone()).or_default().push(example);
        }
    }
    let open: Vec<usize> = all
        .clone()
        .filter(|&i| dataset.examples[i].split.is_none())
        .collect();
    if tests.is_empty() {
        // What a file marks for training only is not measured.
        let left = match open.is_empty() {
            true => of(&Split::Train),
            false => open,
        };
        return cross_validation(left, of(&Split::Validation), folds);
    }
    let train: Vec<usize> = of(&Split::Train).into_iter().chain(open).collect();
    let (train, validation) = with_validation(train, of(&Split::Validation), SPLIT_SEED)?;
    Ok(vec![Fold {
        train,
        validation,
        tests,
    }])
}

fn cross_validation(
    examples: Vec<usize>,
    validation: Vec<usize>,
    folds: usize,
) -> Result<Vec<Fold>, Error> {
    if folds < 2 || folds > examples.len() {
        let examples = examples.len();
        return Err(Error::NoTest { folds, examples });
    }
    let order = shuffled(&examples, Key::new(SPLIT_SEED).with(0));
    (0..folds)
        .map(|fold| {
            let is_tested = |place: usize| place % folds == fold;
            let part = |tested: bool| -> Vec<usize> {
                let places = (0..order.len()).filter(|&place| is_tested(place) == tested);
                places.map(|place| order[place]).collect()
            };
            let seed = SPLIT_SEED + fold as u64;
            let (train, validation) = with_validation(part(false), validation.clone(), seed)?;
            Ok(Fold {
                train,
                validation,
                tests: [("test".to_owned(), part(true))].into(),
            })
        })
        .collect()
}

fn with_validation(
    train: Vec<usize>,
    validation: Vec<usize>,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>), Error> {
    if train.is_empty() || (validation.is_empty() && train.len() < 2) {
        return Err(Error::NoTraining);
    }
    if !validation.is_empty() {
        return Ok((train, validation));
    }
    let order = shuffled(&train, Key::new(seed).with(1));
    let (validation, train) = order.split_at((train.len() / 10).max(1));
    let sorted = |part: &[usize]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part
    };
    Ok((sorted(train), sorted(validation)))
}

/// The items in an order that `key` tells: Fisher and Yates' shuffle.
pub fn shuffled(items: &[usize], key: Key) -> Vec<usize> {
    let (mut items, mut drawn) = (items.to_vec(), key.stream());
    for last in (1..items.len()).rev() {
        items.swap(last, drawn.below(last + 1));
    }
    items
}
