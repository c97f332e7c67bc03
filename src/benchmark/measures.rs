//! How good predictions are, and how sure that is.
//!
//! A figure's interval is that of the percentile bootstrap (Efron, 1979) over proteins: residues of
//! one protein are no independent observations. Where a head was trained with several seeds, the
//! figure is the mean over them, and so is that of every resample.

use std::collections::BTreeMap;

use ankh_data::Key;
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, Example, Kind, Target};
use crate::statistics::{auc, mcc, quantile, spearman};

/// Resamples of a bootstrap.
const RESAMPLES: u64 = 1000;
/// The interval holds this share of them.
const LEVEL: f64 = 0.95;

/// What a head gives for one example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prediction {
    /// The class of each residue, with or without a label.
    Residues(Vec<u16>),
    /// The class.
    Class {
        /// The index of the likeliest.
        class: u16,
        /// Where there are two, the logit of the second less that of the first.
        score: f32,
    },
    /// A number.
    Value(f32),
    /// The likeliest pairs `(i, j)` with `i < j`, the likeliest first, as many as there are
    /// residues: of those resolved and not near each other in the sequence.
    Contacts(Vec<(u32, u32)>),
}

/// An example and what is predicted for it.
pub type Predicted<'a> = (&'a Example, &'a Prediction);

/// What predictions are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Measure {
    /// The share of residues (Q3, Q8) or of proteins whose class is right.
    #[serde(rename = "accuracy")]
    Accuracy,
    /// Matthews' correlation, of two classes.
    #[serde(rename = "MCC")]
    Mcc,
    /// The area under the ROC curve, of two classes.
    #[serde(rename = "AUC")]
    Auc,
    /// The correlation of ranks.
    #[serde(rename = "Spearman")]
    Spearman,
    /// The share of contacts among as many pairs as there are residues: the mean over proteins.
    #[serde(rename = "precision at L")]
    PrecisionAtL,
    /// The same for a fifth as many.
    #[serde(rename = "precision at L/5")]
    PrecisionAtL5,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub measure: Measure,
    /// The mean over the seeds.
    pub value: f64,
    /// The interval of that, by resampling proteins; none where a resample leaves it undefined.
    pub interval: Option<[f64; 2]>,
    /// Of each seed.
    pub seeds: Vec<f64>,
}

impl Measure {
    /// What a dataset is measured by; the best epoch is chosen by the first.
    pub fn all_of(dataset: &Dataset) -> &'static [Measure] {
        match (dataset.kind, dataset.classes.len()) {
            (Kind::SequenceClasses, 2) => &[Measure::Accuracy, Measure::Mcc, Measure::Auc],
            (Kind::ResidueClasses | Kind::SequenceClasses, _) => &[Measure::Accuracy],
            (Kind::SequenceValue, _) => &[Measure::Spearman],
            (Kind::Contacts, _) => &[Measure::PrecisionAtL, Measure::PrecisionAtL5],
        }
    }

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Accuracy => "accuracy",
            Measure::Mcc => "MCC",
            Measure::Auc => "AUC",
            Measure::Spearman => "Spearman",
            Measure::PrecisionAtL => "precision at L",
            Measure::PrecisionAtL5 => "precision at L/5",
        }
    }

    /// Its value; none where the predictions leave it undefined.
    pub fn of(self, all: &[Predicted<'_>]) -> Option<f64> {
        match self {
            Measure::Accuracy => share(all.iter().map(right)),
            Measure::Mcc | Measure::Auc => {
                let truth: Vec<bool> = all.iter().map(|(e, _)| class_of(e) == Some(1)).collect();
                let (classes, scores): (Vec<bool>, Vec<f64>) = all.iter().map(second).unzip();
                match self {
                    Measure::Auc => auc(&truth, &scores),
                    _ => Some(mcc(&truth, &classes)),
                }
            }
            Measure::Spearman => {
                let (labels, values): (Vec<f64>, Vec<f64>) = all.iter().map(numbers).unzip();
                spearman(&labels, &values)
            }
            Measure::PrecisionAtL => share(all.iter().map(|of| precision(of, 1))),
            Measure::PrecisionAtL5 => share(all.iter().map(|of| precision(of, 5))),
        }
    }
}

/// The sum of the first over the sum of the second.
fn share(parts: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let sums = parts.fold((0.0, 0.0), |sums, part| (sums.0 + part.0, sums.1 + part.1));
    (sums.1 > 0.0).then(|| sums.0 / sums.1)
}

fn class_of(example: &Example) -> Option<u16> {
    match example.target {
        Target::Class(class) => Some(class),
        _ => None,
    }
}

/// How much is right of how much.
fn right((example, prediction): &Predicted<'_>) -> (f64, f64) {
    match prediction {
        Prediction::Residues(classes) => {
            let Target::ResidueClasses(labels) = &example.target else {
                return (0.0, 0.0);
            };
            let labelled = labels.iter().zip(classes).filter(|(l, _)| l.is_some());
            let right = labelled.clone().filter(|(l, class)| **l == Some(**class));
            (right.count() as f64, labelled.count() as f64)
        }
        Prediction::Class { class, .. } => {
            (f64::from(u8::from(class_of(example) == Some(*class))), 1.0)
        }
        _ => (0.0, 0.0),
    }
}

/// The share of contacts among the likeliest pairs of a protein, as many as its residues over
/// `over`, and 1; zeros where no pair may touch.
fn precision((example, prediction): &Predicted<'_>, over: usize) -> (f64, f64) {
    let (Target::Contacts(contacts), Prediction::Contacts(likely)) = (&example.target, prediction)
    else {
        return (0.0, 0.0);
    };
    let first = (contacts.resolved.len() / over).max(1).min(likely.len());
    let touches = |pair: &&(u32, u32)| contacts.pairs.binary_search(pair).is_ok();
    let touching = likely[..first].iter().filter(touches).count();
    match first {
        0 => (0.0, 0.0),
        _ => (touching as f64 / first as f64, 1.0),
    }
}

/// Whether it is of the second class, and how likely.
fn second((_, prediction): &Predicted<'_>) -> (bool, f64) {
    match prediction {
        Prediction::Class { class, score } => (*class == 1, f64::from(*score)),
        _ => (false, 0.0),
    }
}

/// The label and the prediction.
fn numbers((example, prediction): &Predicted<'_>) -> (f64, f64) {
    match (&example.target, prediction) {
        (Target::Value(label), Prediction::Value(value)) => (*label, f64::from(*value)),
        _ => (0.0, 0.0),
    }
}

/// All figures of a test set that are defined: `predictions` of each seed, by example.
pub fn figures(
    dataset: &Dataset,
    tested: &[usize],
    predictions: &[&BTreeMap<usize, Prediction>],
) -> Vec<Figure> {
    let of = |measure: Measure, examples: &[usize]| -> Option<Vec<f64>> {
        let of_seed = |predictions: &&BTreeMap<usize, Prediction>| {
            let pairs = examples
                .iter()
                .map(|i| (&dataset.examples[*i], &predictions[i]));
            measure.of(&pairs.collect::<Vec<_>>())
        };
        predictions.iter().map(of_seed).collect()
    };
    let mean = |seeds: &[f64]| seeds.iter().sum::<f64>() / seeds.len() as f64;
    let figure = |&measure: &Measure| {
        let seeds = of(measure, tested)?;
        let resample = |number: u64| {
            let mut drawn = Key::new(0).with(number).stream();
            let examples = (0..tested.len()).map(|_| tested[drawn.below(tested.len())]);
            of(measure, &examples.collect::<Vec<_>>()).map(|seeds| mean(&seeds))
        };
        let resampled: Option<Vec<f64>> = (0..RESAMPLES).map(resample).collect();
        let interval = resampled.and_then(|values| {
            let outside = (1.0 - LEVEL) / 2.0;
            Some([
                quantile(&values, outside)?,
                quantile(&values, 1.0 - outside)?,
            ])
        });
        Some(Figure {
            measure,
            value: mean(&seeds),
            interval,
            seeds,
        })
    };
    Measure::all_of(dataset).iter().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::Value;

    use super::super::dataset::{Contacts, Place};
    use super::*;

    /// Labels, predictions and what scikit-learn and SciPy find of them: `make goldens`.
    fn golden(kind: &str) -> Value {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/measures.json");
        let mut golden: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        golden[kind].take()
    }

    /// A list, number by number or list by list.
    fn list<T: serde::de::DeserializeOwned>(values: &Value) -> Vec<T> {
        serde_json::from_value(values.clone()).unwrap()
    }

    /// Every measure of a golden kind equals ours.
    fn check(golden: &Value, kind: Kind, classes: usize, pairs: Vec<(Target, Prediction)>) {
        let place = Place {
            file: Arc::default(),
            line: 1,
        };
        let example = |target| Example {
            id: String::new(),
            sequence: String::new(),
            split: None,
            target,
            place: place.clone(),
        };
        let (targets, predictions): (Vec<Target>, Vec<Prediction>) = pairs.into_iter().unzip();
        let dataset = Dataset {
            kind,
            classes: (0..classes).map(|class| class.to_string()).collect(),
            examples: targets.into_iter().map(example).collect(),
        };
        let tested: Vec<usize> = (0..dataset.examples.len()).collect();
        let predictions = predictions.into_iter().enumerate().collect();
        let found = figures(&dataset, &tested, &[&predictions]);
        let expected = golden["measures"].as_object().unwrap();
        assert_eq!(found.len(), expected.len());
        for figure in found {
            let expected = expected[figure.measure.name()].as_f64().unwrap();
            let value = figure.value;
            // Sums of some hundred numbers in another order.
            assert!(
                (value - expected).abs() < 1e-12,
                "{:?} {value} {expected}",
                figure.measure
            );
        }
    }

    #[test]
    fn residues_are_measured_as_by_scikit_learn() {
        let golden = golden("residues");
        let labels: Vec<Vec<i32>> = list(&golden["labels"]);
        let found: Vec<Vec<u16>> = list(&golden["predictions"]);
        let known = |own: Vec<i32>| own.into_iter().map(|l| u16::try_from(l).ok()).collect();
        let labels = labels
            .into_iter()
            .map(|own| Target::ResidueClasses(known(own)));
        let pairs = labels.zip(found.into_iter().map(Prediction::Residues));
        check(&golden, Kind::ResidueClasses, 3, pairs.collect());
    }

    #[test]
    fn two_classes_are_measured_as_by_scikit_learn() {
        let golden = golden("classes");
        let labels: Vec<u16> = list(&golden["labels"]);
        let classes: Vec<u16> = list(&golden["predictions"]);
        let scores: Vec<f32> = list(&golden["scores"]);
        let found = classes.into_iter().zip(scores);
        let found = found.map(|(class, score)| Prediction::Class { class, score });
        let pairs = labels.into_iter().map(Target::Class).zip(found);
        check(&golden, Kind::SequenceClasses, 2, pairs.collect());
    }

    #[test]
    fn numbers_are_measured_as_by_scipy() {
        let golden = golden("values");
        let labels: Vec<f64> = list(&golden["labels"]);
        let found: Vec<f32> = list(&golden["predictions"]);
        let pairs = labels.into_iter().map(Target::Value);
        let pairs = pairs.zip(found.into_iter().map(Prediction::Value));
        check(&golden, Kind::SequenceValue, 0, pairs.collect());
    }

    #[test]
    fn contacts_are_measured_as_by_scikit_learn() {
        let golden = golden("contacts");
        let pair = |protein: &Value| {
            let contacts = Contacts {
                resolved: vec![true; protein["residues"].as_u64().unwrap() as usize],
                pairs: list(&protein["labels"]),
            };
            let found = Prediction::Contacts(list(&protein["predictions"]));
            (Target::Contacts(contacts), found)
        };
        let proteins = golden["proteins"].as_array().unwrap();
        check(
            &golden,
            Kind::Contacts,
            0,
            proteins.iter().map(pair).collect(),
        );
    }
}
