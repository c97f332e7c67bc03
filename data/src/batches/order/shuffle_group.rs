//! Examples among which the order is exact: all of the data, or one window of it.

use std::ops::Range;

use serde::Serialize;

use super::Permutation;
use super::examples::Examples;
use crate::batches::packing::{ClassIndex, Patterns, Sizes};
use crate::random::Key;
use crate::threads;

/// Examples that are put in order together, in rows of one or packed.
#[derive(Debug)]
pub(crate) struct ShuffleGroup {
    /// Runs of examples: the number within the group at which each begins, and its first example.
    runs: Vec<(u64, u64)>,
    examples: u64,
    packed: Option<Packed>,
}

#[derive(Debug)]
struct Packed {
    patterns: Patterns,
    index: ClassIndex,
}

/// In which order the rows of a group come in one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowOrder {
    /// As they are stored.
    Stored,
    /// By permutations: of rows under one key, of the sequences of each class under another.
    Shuffled { rows: Key, classes: Key },
}

/// How much one row shows, or several together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct RowCounts {
    /// Sequences, or pieces of them.
    pub sequences: u64,
    /// Their residues, masked ones included.
    pub residues: u64,
}

impl RowCounts {
    /// What two rows hold together.
    pub(crate) fn and(self, other: RowCounts) -> RowCounts {
        RowCounts {
            sequences: self.sequences + other.sequences,
            residues: self.residues + other.residues,
        }
    }
}

impl ShuffleGroup {
    /// The examples of those rows of the data, one a row, or packed if there are sizes to pack by;
    /// then they are fewer than 2^32.
    pub(crate) fn new(
        examples: &Examples,
        rows: &[Range<u64>],
        sizes: Option<&Sizes>,
        threads: usize,
    ) -> ShuffleGroup {
        let mut runs = Vec::with_capacity(rows.len());
        let mut count = 0;
        for rows in rows {
            let first = examples.first_of(rows.start);
            runs.push((count, first));
            count += examples.first_of(rows.end) - first;
        }
        let packed = sizes.map(|sizes| {
            let histogram = histogram(examples, rows, sizes, threads);
            let classes = |visit: &mut dyn FnMut(u32)| {
                for rows in rows {
                    examples.for_each_shown(rows.clone(), visit);
                }
            };
            let index = ClassIndex::new(&histogram, classes, threads);
            Packed {
                patterns: Patterns::new(sizes, &histogram),
                index,
            }
        });
        ShuffleGroup {
            runs,
            examples: count,
            packed,
        }
    }

    /// The number of rows of batches that the group makes.
    pub(crate) fn rows(&self) -> u64 {
        match &self.packed {
            None => self.examples,
            Some(packed) => packed.patterns.rows(),
        }
    }

    /// The permutation of rows in this order.
    pub(crate) fn permutation(&self, row_order: RowOrder) -> Option<Permutation> {
        match row_order {
            RowOrder::Stored => None,
            RowOrder::Shuffled { rows, .. } => Some(Permutation::new(self.rows(), rows)),
        }
    }

    /// Appends the examples of row `stored`, as numbered before any permutation.
    pub(crate) fn examples(&self, stored: u64, row_order: RowOrder, into: &mut Vec<u64>) {
        let Some(packed) = &self.packed else {
            return into.push(self.example(stored));
        };
        for (class, number) in packed.patterns.row(stored) {
            let number = match row_order {
                RowOrder::Stored => number,
                RowOrder::Shuffled { classes, .. } => {
                    let key = classes.with(class as u64);
                    Permutation::new(packed.index.count(class), key).at(number)
                }
            };
            into.push(self.example(packed.index.at(class, number)));
        }
    }

    /// What row `stored` holds, from lengths alone.
    pub(crate) fn counts(&self, stored: u64, examples: &Examples) -> RowCounts {
        match &self.packed {
            None => RowCounts {
                sequences: 1,
                residues: examples.shown(self.example(stored)) as u64,
            },
            // A class is the residues it shows.
            Some(packed) => {
                packed
                    .patterns
                    .row(stored)
                    .fold(RowCounts::default(), |counts, (class, _)| RowCounts {
                        sequences: counts.sequences + 1,
                        residues: counts.residues + class as u64,
                    })
            }
        }
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        let packed = |p: &Packed| p.patterns.bytes() + p.index.bytes();
        self.runs.capacity() * size_of::<(u64, u64)>() + self.packed.as_ref().map_or(0, packed)
    }

    fn example(&self, number: u64) -> u64 {
        // The first run begins at 0, so there is one before.
        let run = self.runs.partition_point(|run| run.0 <= number).max(1) - 1;
        match self.runs.get(run) {
            Some((start, first)) => first + (number - start),
            None => number,
        }
    }
}

/// Rows that one thread counts at a time.
const PART: u64 = 1 << 18;

/// How many examples of some rows there are of each class.
fn histogram(examples: &Examples, rows: &[Range<u64>], sizes: &Sizes, threads: usize) -> Vec<u64> {
    let part = |rows: &Range<u64>| {
        let (starts, end) = (rows.clone().step_by(PART as usize), rows.end);
        starts.map(move |start| start..end.min(start + PART))
    };
    let parts: Vec<Range<u64>> = rows.iter().flat_map(part).collect();
    // One list of parts a thread, so that as many histograms are added up.
    let share = parts.len().div_ceil(threads.max(1)).max(1);
    let shares: Vec<&[Range<u64>]> = parts.chunks(share).collect();
    let counts = threads::map(threads, shares, |parts| {
        let mut counts = vec![0u64; sizes.classes()];
        for rows in parts {
            examples.for_each_shown(rows.clone(), &mut |class| counts[class as usize] += 1);
        }
        counts
    });
    let mut all = vec![0; sizes.classes()];
    for part in counts {
        all.iter_mut()
            .zip(part)
            .for_each(|(all, part)| *all += part);
    }
    all
}
