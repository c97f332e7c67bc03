//! Examples among which the order is exact: all of the data, or one window of it.

use std::ops::Range;

use super::Permutation;
use super::examples::Examples;
use crate::packing::{ClassIndex, Packing, Sizes};
use crate::random::Key;
use crate::threads;

/// Examples that are put in order together, in rows of one or packed.
#[derive(Debug)]
pub(crate) struct Section {
    /// Runs of examples: the number within the section at which each begins, and its first example.
    runs: Vec<(u64, u64)>,
    examples: u64,
    packed: Option<Packed>,
}

#[derive(Debug)]
struct Packed {
    packing: Packing,
    index: ClassIndex,
}

/// How the rows of a section are drawn in one epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Draw {
    /// As they are stored.
    Stored,
    /// By permutations: of rows under one key, of the sequences of each class under another.
    Shuffled { rows: Key, classes: Key },
}

/// What a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub sequences: u64,
    pub residues: u64,
}

impl Held {
    /// What two rows hold together.
    pub(crate) fn and(self, other: Held) -> Held {
        Held {
            sequences: self.sequences + other.sequences,
            residues: self.residues + other.residues,
        }
    }
}

impl Section {
    /// The examples of those rows of the data, one a row, or packed if there are sizes to pack by;
    /// then they are fewer than 2^32.
    pub(crate) fn new(
        examples: &Examples,
        rows: &[Range<u64>],
        sizes: Option<&Sizes>,
        threads: usize,
    ) -> Section {
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
                packing: Packing::new(sizes, &histogram),
                index,
            }
        });
        Section {
            runs,
            examples: count,
            packed,
        }
    }

    /// The number of rows of batches that the section makes.
    pub(crate) fn rows(&self) -> u64 {
        match &self.packed {
            None => self.examples,
            Some(packed) => packed.packing.rows(),
        }
    }

    /// The permutation of rows that a draw means.
    pub(crate) fn permutation(&self, draw: Draw) -> Option<Permutation> {
        match draw {
            Draw::Stored => None,
            Draw::Shuffled { rows, .. } => Some(Permutation::new(self.rows(), rows)),
        }
    }

    /// Appends the examples of row `stored`, as numbered before any permutation.
    pub(crate) fn examples(&self, stored: u64, draw: Draw, into: &mut Vec<u64>) {
        let Some(packed) = &self.packed else {
            return into.push(self.example(stored));
        };
        for (class, number) in packed.packing.row(stored) {
            let number = match draw {
                Draw::Stored => number,
                Draw::Shuffled { classes, .. } => {
                    let key = classes.with(class as u64);
                    Permutation::new(packed.index.count(class), key).at(number)
                }
            };
            into.push(self.example(packed.index.at(class, number)));
        }
    }

    /// What row `stored` holds, from lengths alone.
    pub(crate) fn held(&self, stored: u64, examples: &Examples) -> Held {
        match &self.packed {
            None => Held {
                sequences: 1,
                residues: examples.shown(self.example(stored)) as u64,
            },
            // A class is the residues it shows.
            Some(packed) => packed
                .packing
                .row(stored)
                .fold(Held::default(), |held, (class, _)| Held {
                    sequences: held.sequences + 1,
                    residues: held.residues + class as u64,
                }),
        }
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        let packed = |p: &Packed| p.packing.bytes() + p.index.bytes();
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
