//! What shape batches have, and which examples a run consists of.

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// What is done with sequences that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongSequences {
    /// A random window, drawn anew every epoch.
    #[default]
    Crop,
    /// The beginning.
    Truncate,
    /// Pieces of nearly equal length, each an example of its own.
    Split,
}

/// What a row of a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// One sequence, and padding behind it.
    #[default]
    Padded,
    /// As many whole sequences as fit input and target, told apart by segment numbers.
    Packed,
}

/// The shape of a run's batches. Together with the data set and the objective it determines every
/// byte of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchPlan {
    /// What order and masks are drawn from.
    pub seed: u64,
    /// Rows of a step, over all hosts.
    pub global_batch: usize,
    /// Tokens of an encoder input, `</s>` included.
    pub input_length: usize,
    /// Tokens of a target, `</s>` included.
    pub target_length: usize,
    /// What is done with sequences that do not fit.
    pub long_sequences: LongSequences,
    /// What a row of a batch holds.
    pub rows: Rows,
}

impl Default for BatchPlan {
    fn default() -> Self {
        BatchPlan {
            seed: 0,
            global_batch: 8,
            input_length: 512,
            target_length: 256,
            long_sequences: LongSequences::Crop,
            rows: Rows::Padded,
        }
    }
}

impl BatchPlan {
    /// Checks each length.
    pub fn validate(&self) -> Result<()> {
        let at_least = |name, least: usize, value: usize| match value >= least {
            true => Ok(()),
            false => Err(Error::setting(
                name,
                format!("must be at least {least}, but is {value}"),
            )),
        };
        at_least("train.batch_size", 1, self.global_batch)?;
        // A residue, a task mark and </s>.
        at_least("data.input_length", 3, self.input_length)?;
        at_least("data.target_length", 2, self.target_length)
    }
}

/// The examples of one epoch, each a row or a piece of one.
#[derive(Clone, Debug)]
pub(crate) enum Examples {
    /// Every row is one example.
    Rows(u64),
    /// Row `r` is the examples from `ends[r - 1]` up to `ends[r]`.
    Pieces { ends: Vec<u64> },
}

/// A piece of a row: number `piece` of `pieces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub row: u64,
    pub piece: u64,
    pub pieces: u64,
}

impl Examples {
    /// Counts the examples of a data set, given how many residues one holds.
    pub(crate) fn new(dataset: &Dataset, window: usize, long: LongSequences) -> Result<Self> {
        if long != LongSequences::Split {
            return Ok(Examples::Rows(dataset.rows()));
        }
        let mut end = 0;
        let mut ends = Vec::new();
        for row in 0..dataset.rows() {
            end += dataset.length(row)?.div_ceil(window).max(1) as u64;
            ends.push(end);
        }
        Ok(Examples::Pieces { ends })
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Examples::Rows(rows) => *rows,
            Examples::Pieces { ends } => ends.last().copied().unwrap_or(0),
        }
    }

    pub(crate) fn piece(&self, index: u64) -> Piece {
        match self {
            Examples::Rows(_) => Piece {
                row: index,
                piece: 0,
                pieces: 1,
            },
            Examples::Pieces { ends } => {
                let row = ends.partition_point(|&end| end <= index);
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                let end = ends.get(row).copied().unwrap_or(start);
                Piece {
                    row: row as u64,
                    piece: index.saturating_sub(start),
                    pieces: end - start,
                }
            }
        }
    }
}

impl Piece {
    /// Which residues of a row of some length this piece holds. Pieces differ by one at most, so
    /// none is a mere tail.
    pub(crate) fn range(&self, length: usize) -> std::ops::Range<usize> {
        let cut = |i: u64| {
            // At most `length`, so it fits.
            (u128::from(i) * length as u128 / u128::from(self.pieces.max(1))) as usize
        };
        cut(self.piece)..cut(self.piece + 1)
    }
}
