//! The file of predictions: what figures are made of, for whoever measures otherwise.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::dataset::{Dataset, Target};
use super::measures::Prediction;
use super::run::Results;
use crate::programs::head::LEAST_SEPARATION;

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    test: &'a str,
    seed: u64,
    fold: usize,
    /// Residues: a class each, or null where it has none. Contacts: those that count.
    label: Value,
    /// Residues: a class each. Contacts: the likeliest pairs, the likeliest first.
    prediction: Value,
    /// Of two classes: the logit of the second less that of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// Writes all predictions of the tests as JSON Lines: by test, seed and protein.
pub fn write(dataset: &Dataset, results: &Results, to: &mut dyn Write) -> io::Result<()> {
    for (test, of_test) in &results.tests {
        for training in &results.trainings {
            let predictions = &training.trained.predictions;
            for example in &of_test.tested {
                let Some(prediction) = predictions.get(example) else {
                    // Another fold tests it.
                    continue;
                };
                let (label, prediction, score) = texts(dataset, *example, prediction);
                let line = Line {
                    id: &dataset.examples[*example].id,
                    test,
                    seed: training.seed,
                    fold: training.fold,
                    label,
                    prediction,
                    score,
                };
                serde_json::to_writer(&mut *to, &line)?;
                to.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

fn texts(
    dataset: &Dataset,
    example: usize,
    prediction: &Prediction,
) -> (Value, Value, Option<f32>) {
    let name = |class: u16| dataset.classes[usize::from(class)].as_str();
    let label = match &dataset.examples[example].target {
        Target::Value(value) => json!(value),
        Target::Class(class) => json!(name(*class)),
        Target::ResidueClasses(classes) => {
            let names = classes.iter().map(|class| class.map(name));
            json!(names.collect::<Vec<_>>())
        }
        Target::Contacts(contacts) => {
            let far = |pair: &&(u32, u32)| (pair.1 - pair.0) as usize >= LEAST_SEPARATION;
            json!(contacts.pairs.iter().filter(far).collect::<Vec<_>>())
        }
    };
    match prediction {
        Prediction::Value(value) => (label, json!(value), None),
        Prediction::Class { class, score } => {
            let score = (dataset.classes.len() == 2).then_some(*score);
            (label, json!(name(*class)), score)
        }
        Prediction::Residues(classes) => {
            let names = classes.iter().map(|class| name(*class));
            (label, json!(names.collect::<Vec<_>>()), None)
        }
        Prediction::Contacts(pairs) => (label, json!(pairs), None),
    }
}
