//! Examples as a head takes them, and what it gives as predictions.

use ankh_data::Key;
use ankh_pjrt::HostTensor;

use super::Error;
use super::dataset::{Contacts, Dataset, Kind, Target};
use super::head::HeadBatch;
use super::measures::Prediction;
use super::splits::shuffled;
use super::states::States;
use crate::inference::{RowLengths, SortedBatch};
use crate::programs::head::LEAST_SEPARATION;

/// So many batches are sorted by length together.
const SORTED_TOGETHER: usize = 8;

/// The batches of an epoch, of `rows` examples each but for the last. Every example is in one.
///
/// The order is a function of `key`. Examples of about the same length go together, so that little
/// is padding: some batches' worth of shuffled examples are sorted, cut, and shuffled again.
pub fn epoch(
    examples: &[usize],
    length: impl Fn(usize) -> usize,
    rows: usize,
    key: Key,
) -> Vec<Vec<usize>> {
    let shuffled_examples = shuffled(examples, key.with(0));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for together in shuffled_examples.chunks(rows * SORTED_TOGETHER) {
        let mut together = together.to_vec();
        together.sort_by_key(|&example| length(example));
        batches.extend(together.chunks(rows).map(<[usize]>::to_vec));
    }
    let numbers: Vec<usize> = (0..batches.len()).collect();
    let order = shuffled(&numbers, key.with(1)).into_iter();
    order
        .map(|batch| std::mem::take(&mut batches[batch]))
        .collect()
}

/// The batch of some examples.
pub fn batch_of(
    examples: &[usize],
    states: &States,
    rows: usize,
    lengths: &RowLengths,
) -> SortedBatch {
    let longest = examples.iter().map(|&i| states.positions(i));
    SortedBatch {
        length: lengths.of(longest.max().unwrap_or(1)),
        rows,
        sequences: examples.to_vec(),
    }
}

/// The arrays of a batch.
pub fn arrays(batch: &SortedBatch, dataset: &Dataset, states: &States) -> Result<HeadBatch, Error> {
    let (rows, length) = (batch.rows, batch.length);
    let mut mask = vec![0i32; rows * length];
    let mut numbers = vec![0i32; rows];
    for (row, &example) in batch.sequences.iter().enumerate() {
        let residues = dataset.examples[example].sequence.len();
        mask[row * length..row * length + residues].fill(1);
        numbers[row] = example as i32;
    }
    Ok(HeadBatch {
        examples: HostTensor::new::<i32>([rows as i64], &numbers),
        features: states.features(batch)?,
        mask: HostTensor::new::<i32>([rows as i64, length as i64], &mask),
        labels: labels(batch, dataset),
    })
}

fn labels(batch: &SortedBatch, dataset: &Dataset) -> HostTensor {
    let (rows, length) = (batch.rows, batch.length);
    let targets = batch.sequences.iter().map(|&i| &dataset.examples[i].target);
    let targets = targets.enumerate();
    let (r, l) = (rows as i64, length as i64);
    match dataset.kind {
        Kind::SequenceValue => {
            let mut labels = vec![0f32; rows];
            for (row, target) in targets {
                if let Target::Value(value) = target {
                    labels[row] = *value as f32;
                }
            }
            HostTensor::new::<f32>([r], &labels)
        }
        Kind::SequenceClasses => {
            let mut labels = vec![-1i32; rows];
            for (row, target) in targets {
                if let Target::Class(class) = target {
                    labels[row] = (*class).into();
                }
            }
            HostTensor::new::<i32>([r], &labels)
        }
        Kind::ResidueClasses => {
            let mut labels = vec![-1i32; rows * length];
            for (row, target) in targets {
                let Target::ResidueClasses(classes) = target else {
                    continue;
                };
                for (place, class) in classes.iter().enumerate() {
                    labels[row * length + place] = class.map_or(-1, i32::from);
                }
            }
            HostTensor::new::<i32>([r, l], &labels)
        }
        Kind::Contacts => {
            let mut labels = vec![-1i32; rows * length * length];
            for (row, target) in targets {
                let Target::Contacts(Contacts { resolved, pairs }) = target else {
                    continue;
                };
                let own = &mut labels[row * length * length..][..length * length];
                let known: Vec<usize> = (0..resolved.len()).filter(|&i| resolved[i]).collect();
                for &i in &known {
                    for &j in &known {
                        own[i * length + j] = 0;
                    }
                }
                for &(i, j) in pairs {
                    let (i, j) = (i as usize, j as usize);
                    own[i * length + j] = 1;
                    own[j * length + i] = 1;
                }
            }
            HostTensor::new::<i32>([r, l, l], &labels)
        }
    }
}

/// What the head's outputs say of each example of a batch.
pub fn predictions(
    batch: &SortedBatch,
    dataset: &Dataset,
    outputs: &HostTensor,
) -> Vec<(usize, Prediction)> {
    let outputs: Vec<f32> = outputs.to_vec().expect("a head gives float32");
    let each = outputs.len() / batch.rows;
    let of = |(row, &example): (usize, &usize)| {
        let own = &outputs[row * each..(row + 1) * each];
        let example_of = &dataset.examples[example];
        let prediction = match &example_of.target {
            Target::Value(_) => Prediction::Value(own[0]),
            Target::Class(_) => Prediction::Class {
                class: largest(own),
                score: match own {
                    [first, second] => second - first,
                    _ => 0.0,
                },
            },
            Target::ResidueClasses(labels) => {
                let residues = own.chunks(dataset.classes.len()).take(labels.len());
                Prediction::Residues(residues.map(largest).collect())
            }
            Target::Contacts(contacts) => {
                Prediction::Contacts(likeliest(&contacts.resolved, own, batch.length))
            }
        };
        (example, prediction)
    };
    batch.sequences.iter().enumerate().map(of).collect()
}

/// The first of the largest.
fn largest(logits: &[f32]) -> u16 {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best as u16
}

/// As many pairs as residues, the likeliest first, of those resolved and not near each other in the
/// sequence.
fn likeliest(resolved: &[bool], logits: &[f32], length: usize) -> Vec<(u32, u32)> {
    let residues = resolved.len();
    let mut likely = Vec::new();
    for i in 0..residues {
        for j in i + LEAST_SEPARATION..residues {
            if resolved[i] && resolved[j] {
                likely.push((logits[i * length + j], (i as u32, j as u32)));
            }
        }
    }
    likely.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    likely.truncate(residues);
    likely.into_iter().map(|(_, pair)| pair).collect()
}
