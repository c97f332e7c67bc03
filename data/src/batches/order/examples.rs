//! Rows of a data set, or pieces of them, as the examples of an epoch.

use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batches::dataset::Lengths;

/// Rows between two stored numbers of examples.
const STRIDE: u64 = 64;

/// What is done with sequences that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
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

/// The examples of one epoch, numbered in the order of rows. Every row is one, or as many as its
/// pieces.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    lengths: Arc<Lengths>,
    /// The residues one shows at most.
    window: u32,
    /// The first example of rows 0, 64, 128, ..., if rows are split.
    starts: Option<Vec<u64>>,
    count: u64,
}

/// A piece of a row: number `piece` of `pieces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowPiece {
    pub row: u64,
    pub piece: u64,
    pub pieces: u64,
}

impl Examples {
    /// The examples of rows of those lengths, given how many residues one shows.
    pub(crate) fn new(lengths: Arc<Lengths>, window: usize, long: LongSequences) -> Examples {
        let mut examples = Examples {
            count: lengths.rows(),
            lengths,
            window: u32::try_from(window).unwrap_or(u32::MAX).max(1),
            starts: None,
        };
        if long == LongSequences::Split {
            let mut starts = Vec::new();
            let mut end = 0;
            for rows in examples.lengths.as_slice().chunks(STRIDE as usize) {
                starts.push(end);
                end += rows.iter().map(|&l| examples.pieces(l)).sum::<u64>();
            }
            examples.starts = Some(starts);
            examples.count = end;
        }
        examples
    }

    /// The number of examples.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The most residues that one shows.
    pub(crate) fn window(&self) -> usize {
        self.window as usize
    }

    /// The first example of a row, or the number of examples for what is beyond the last row.
    pub(crate) fn first_of(&self, row: u64) -> u64 {
        let Some(starts) = &self.starts else {
            return row.min(self.count);
        };
        match starts.get((row / STRIDE) as usize) {
            Some(start) => {
                let stored = row / STRIDE * STRIDE;
                start
                    + self
                        .lengths_of(stored..row)
                        .map(|l| self.pieces(l))
                        .sum::<u64>()
            }
            None => self.count,
        }
    }

    /// Which part of which row an example is. Examples beyond the last are of rows beyond the last.
    pub(crate) fn piece(&self, example: u64) -> RowPiece {
        let Some(starts) = &self.starts else {
            return RowPiece {
                row: example,
                piece: 0,
                pieces: 1,
            };
        };
        let stored = starts.partition_point(|&start| start <= example).max(1) - 1;
        let mut row = stored as u64 * STRIDE;
        let mut piece = example - starts.get(stored).copied().unwrap_or(0);
        for length in self.lengths_of(row..row + STRIDE) {
            let pieces = self.pieces(length);
            if piece < pieces {
                return RowPiece { row, piece, pieces };
            }
            piece -= pieces;
            row += 1;
        }
        RowPiece {
            row,
            piece,
            pieces: 1,
        }
    }

    /// How many residues an example shows.
    pub(crate) fn shown(&self, example: u64) -> usize {
        let piece = self.piece(example);
        let length = self.lengths.of(piece.row).unwrap_or(0) as usize;
        piece.range(length).len().min(self.window())
    }

    /// The residues that each example of some rows shows, in order.
    pub(crate) fn for_each_shown(&self, rows: Range<u64>, visit: &mut dyn FnMut(u32)) {
        if self.starts.is_none() {
            return self
                .lengths_of(rows)
                .for_each(|l| visit(l.min(self.window)));
        }
        for (row, length) in (rows.start..).zip(self.lengths_of(rows)) {
            let pieces = self.pieces(length);
            for piece in 0..pieces {
                let piece = RowPiece { row, piece, pieces };
                visit(piece.range(length as usize).len() as u32); // part of a length
            }
        }
    }

    /// Their number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.lengths.rows()
    }

    /// The residues of all rows before one.
    pub(crate) fn residues_before(&self, row: u64) -> u64 {
        match self.lengths.bounds(row) {
            Some(bounds) => bounds.start,
            None => self.lengths.total(),
        }
    }

    /// The bytes of memory this takes beside the lengths.
    pub(crate) fn bytes(&self) -> usize {
        self.starts
            .as_ref()
            .map_or(0, |s| s.capacity() * size_of::<u64>())
    }

    fn pieces(&self, length: u32) -> u64 {
        match length <= self.window {
            true => 1,
            false => u64::from(length.div_ceil(self.window)),
        }
    }

    fn lengths_of(&self, rows: Range<u64>) -> impl Iterator<Item = u32> + '_ {
        let all = self.lengths.as_slice();
        let end = (rows.end as usize).min(all.len());
        let start = (rows.start as usize).min(end);
        all[start..end].iter().copied()
    }
}

impl RowPiece {
    /// Which residues of a row of some length this piece holds. Pieces differ by one at
    /// most, so none is a mere tail.
    pub(crate) fn range(&self, length: usize) -> Range<usize> {
        let cut = |i: u64| {
            // At most `length`, so it fits.
            (u128::from(i) * length as u128 / u128::from(self.pieces.max(1))) as usize
        };
        match self.pieces {
            1 => 0..length,
            _ => cut(self.piece)..cut(self.piece + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_numbered_in_the_order_of_rows(
            lengths in prop::collection::vec(0u32..40, 1..300), window in 1usize..20,
        ) {
            let all = Arc::new(lengths.iter().copied().collect::<Lengths>());
            let examples = Examples::new(all, window, LongSequences::Split);
            let mut next = 0;
            let mut shown = Vec::new();
            for (row, &length) in (0u64..).zip(&lengths) {
                prop_assert_eq!(examples.first_of(row), next);
                let pieces = u64::from(length).div_ceil(window as u64).max(1);
                let mut end = 0;
                for piece in 0..pieces {
                    let found = examples.piece(next);
                    prop_assert_eq!(found, RowPiece { row, piece, pieces });
                    let range = found.range(length as usize);
                    prop_assert_eq!(range.start, end);
                    end = range.end;
                    prop_assert_eq!(examples.shown(next), range.len());
                    prop_assert!(range.len() <= window);
                    shown.push(range.len() as u32);
                    next += 1;
                }
                prop_assert_eq!(end, length as usize);
            }
            prop_assert_eq!(examples.count(), next);
            prop_assert_eq!(examples.first_of(lengths.len() as u64), next);
            let mut visited = Vec::new();
            examples.for_each_shown(0..lengths.len() as u64, &mut |l| visited.push(l));
            prop_assert_eq!(visited, shown);
        }
    }
}
