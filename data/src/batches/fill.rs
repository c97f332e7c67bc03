//! How much rows hold on average, from a histogram of lengths: no sequence is read.

use serde::{Deserialize, Serialize};

use super::config::{BatchConfig, Packing};
use super::objective::Objective;
use super::order::{LongSequences, RowPiece};
use super::packing::{Patterns, Sizes};
use crate::error::Result;
use crate::format::LengthBin;
use crate::random::Key;
use crate::synthetic::Records;
use crate::tokenizer::Tokenizer;

/// What a row of an epoch holds, on average over all rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowFill {
    /// Sequences, or pieces of them.
    pub sequences: f64,
    /// The share of the encoder's positions that hold a token.
    pub input: f64,
    /// The share of the decoder's positions that hold a token.
    pub target: f64,
}

impl RowFill {
    /// That of the training rows of data with these lengths. Lengths within a bin are taken to be
    /// equally frequent. Tokens of inputs and targets are counted on made-up sequences.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] where rows are too long to be packed.
    pub fn of(
        lengths: &[LengthBin],
        objective: &Objective,
        tokenizer: Tokenizer,
        config: &BatchConfig,
    ) -> Result<RowFill> {
        let window = objective.window(config.input_length, config.target_length);
        let counts = shown(lengths, window, config.long_sequences);
        // Without any, a row counts as one that holds one.
        let sequences = counts.iter().sum::<u64>().max(1) as f64;
        let rows = match config.packing {
            Packing::Padded => sequences,
            Packing::Packed => {
                let row = (config.input_length, config.target_length);
                let sizes = Sizes::new(objective, tokenizer, window, row)?;
                Patterns::count(&sizes, &counts).max(1) as f64
            }
        };
        let (mut input, mut target) = (0.0, 0.0);
        for (residues, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let tokens = mean_tokens(objective, tokenizer, residues);
            input += count as f64 * tokens.0.min(config.input_length as f64);
            target += count as f64 * tokens.1.min(config.target_length as f64);
        }
        Ok(RowFill {
            sequences: sequences / rows,
            input: input / (rows * config.input_length as f64),
            target: target / (rows * config.target_length as f64),
        })
    }

    /// That of rows of which each given share is filled in its own way. The shares add up to 1.
    pub fn mixed(parts: impl IntoIterator<Item = (f64, RowFill)>) -> RowFill {
        let none = RowFill {
            sequences: 0.0,
            input: 0.0,
            target: 0.0,
        };
        parts.into_iter().fold(none, |sum, (share, part)| RowFill {
            sequences: sum.sequences + share * part.sequences,
            input: sum.input + share * part.input,
            target: sum.target + share * part.target,
        })
    }
}

/// How many examples of an epoch show each number of residues, up to `window`.
fn shown(lengths: &[LengthBin], window: usize, long: LongSequences) -> Vec<u64> {
    let mut counts = vec![0; window + 1];
    for bin in lengths {
        let width = bin.to - bin.from + 1;
        for (place, length) in (bin.from..=bin.to).enumerate() {
            // The first of a bin take what does not divide.
            let rows = bin.rows / width + u64::from((place as u64) < bin.rows % width);
            let length = length as usize;
            if long != LongSequences::Split || length <= window {
                counts[length.min(window)] += rows;
                continue;
            }
            let pieces = length.div_ceil(window) as u64;
            for piece in 0..pieces {
                let piece = RowPiece {
                    row: 0,
                    piece,
                    pieces,
                };
                counts[piece.range(length).len()] += rows;
            }
        }
    }
    counts
}

/// Sequences of each length that tokens are counted on.
const DRAWS: u64 = 8;

/// The tokens of input and target of a sequence, on average over its masks.
fn mean_tokens(objective: &Objective, tokenizer: Tokenizer, residues: usize) -> (f64, f64) {
    let key = Key::new(residues as u64);
    let records = Records::new(0);
    let (mut input, mut target) = (0, 0);
    for draw in 0..DRAWS {
        let letters = records.of_length(draw, residues);
        let tokens = tokenizer.encode(&letters);
        let example = objective.apply(tokenizer, &tokens, key.with(draw));
        input += example.input.len();
        target += example.target.len();
    }
    let mean = |tokens: usize| tokens as f64 / DRAWS as f64;
    (mean(input), mean(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::{Batches, HostShard, Mixture};
    use crate::synthetic;
    use crate::{Dataset, Vocabulary};

    /// The histogram that `prepare` writes: eight bins from one power of two to the next.
    fn coarse(lengths: &[u32]) -> Vec<LengthBin> {
        let edges: Vec<u64> = (0..12u32)
            .flat_map(|octave| (8..16).map(move |eighth| eighth << octave))
            .collect();
        let bins = edges.windows(2).map(|edge| LengthBin {
            from: edge[0],
            to: edge[1] - 1,
            rows: lengths
                .iter()
                .filter(|&&l| (edge[0]..edge[1]).contains(&u64::from(l)))
                .count() as u64,
        });
        bins.collect()
    }

    #[test]
    fn rows_hold_what_their_batches_do() {
        let tokenizer = Tokenizer::of(Vocabulary::Ankh);
        let lengths: Vec<u32> = synthetic::lengths(3).take(20_000).collect();
        let records = Records::new(3);
        let sequences = lengths.iter().enumerate();
        let sequences: Vec<Vec<u8>> = sequences
            .map(|(number, &length)| records.of_length(number as u64, length as usize))
            .collect();
        let data = Dataset::from_sequences(tokenizer, &sequences);
        for (packing, long_sequences, target_length) in [
            (Packing::Padded, LongSequences::Crop, 256),
            (Packing::Packed, LongSequences::Crop, 256),
            (Packing::Packed, LongSequences::Truncate, 208),
            (Packing::Packed, LongSequences::Split, 208),
        ] {
            let config = BatchConfig {
                packing,
                long_sequences,
                target_length,
                global_batch: 400,
                ..BatchConfig::default()
            };
            let objective = Objective::default();
            let fill = RowFill::of(&coarse(&lengths), &objective, tokenizer, &config).unwrap();
            let mixture = Mixture::one(data.clone(), objective);
            let batches = Batches::new(mixture, config.clone(), HostShard::all(), 1).unwrap();
            let batch = batches.batch(0).unwrap();
            let share =
                |padding: usize, length| 1.0 - padding as f64 / (batch.rows * length) as f64;
            let tokens = |ids: &[i32]| ids.iter().filter(|&&id| id == 0).count();
            let labels = batch
                .labels
                .iter()
                .filter(|&&l| l == crate::IGNORED)
                .count();
            for (what, expected, found) in [
                (
                    "sequences",
                    fill.sequences,
                    batch.whole.sequences as f64 / batch.rows as f64,
                ),
                (
                    "input",
                    fill.input,
                    share(tokens(&batch.input_ids), config.input_length),
                ),
                ("target", fill.target, share(labels, target_length)),
            ] {
                // A batch of 400 rows is a sample: three standard errors are some 6 %.
                let off = (found / expected - 1.0).abs();
                assert!(off < 0.06, "{packing:?} {what}: {expected}, found {found}");
            }
        }
    }
}
