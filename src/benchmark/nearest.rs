//! The nearest neighbour: what is known of the protein most like one (Littmann et al., 2021).

use std::collections::BTreeMap;

use super::Error;
use super::dataset::{Dataset, Target};
use super::measures::Prediction;
use super::splits::Fold;
use super::states::States;

/// The target of the training example whose mean state is nearest, by Euclid's distance, for each
/// example that is tested. The first of those equally near. Two classes are scored by how much
/// nearer the nearest of the second is.
pub fn nearest(
    dataset: &Dataset,
    states: &States,
    fold: &Fold,
) -> Result<BTreeMap<usize, Prediction>, Error> {
    // There is no epoch to choose, so what would choose it is learnt from too.
    let known = fold.train.iter().chain(&fold.validation).copied();
    let known: Vec<(usize, Vec<f32>)> = known
        .map(|example| Ok((example, states.mean_of(example)?)))
        .collect::<Result<_, Error>>()?;
    let tested = fold.tests.values().flatten();
    tested
        .map(|&example| {
            let mean = states.mean_of(example)?;
            Ok((example, of_nearest(dataset, &known, &mean)?))
        })
        .collect()
}

fn of_nearest(
    dataset: &Dataset,
    known: &[(usize, Vec<f32>)],
    mean: &[f32],
) -> Result<Prediction, Error> {
    let mut best = f32::INFINITY;
    let mut found = known.first().map_or(0, |(example, _)| *example);
    let mut of_class = [f32::INFINITY; 2];
    for (example, other) in known {
        let distance = distance(mean, other);
        if distance < best {
            (best, found) = (distance, *example);
        }
        if let Target::Class(class @ (0 | 1)) = dataset.examples[*example].target {
            let nearest = &mut of_class[usize::from(class)];
            *nearest = nearest.min(distance);
        }
    }
    match &dataset.examples[found].target {
        Target::Class(class) => Ok(Prediction::Class {
            class: *class,
            score: match dataset.classes.len() {
                2 => of_class[0] - of_class[1],
                _ => 0.0,
            },
        }),
        Target::Value(value) => Ok(Prediction::Value(*value as f32)),
        Target::ResidueClasses(_) | Target::Contacts(_) => Err(Error::NearestOfResidues),
    }
}

/// The square of Euclid's.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
