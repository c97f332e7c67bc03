//! Which sequences go through the encoder together, and how long their rows are.
//!
//! A row holds one sequence. Sequences are taken from the longest to the shortest, so that those of
//! a batch are about as long, and little is padding. Rows have one of a few lengths, each of which
//! is a program to compile: more of them pad less. [`RowLengths::choose`] weighs both. The batches
//! are a function of the lengths alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Lengths;

/// The lengths of rows that there are programs for, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLengths(Vec<usize>);

/// Sequences that are computed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedBatch {
    /// Positions of each row.
    pub length: usize,
    /// Rows, of which those beyond the sequences are padding.
    pub rows: usize,
    /// The sequences of the first rows, by their index.
    pub sequences: Vec<usize>,
}

/// How large batches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// About so many positions.
    Tokens {
        /// Of all devices together.
        tokens: usize,
        /// Rows are a multiple of it: what splits them.
        devices: usize,
    },
    /// So many rows, whatever their length.
    Rows(usize),
}

impl BatchSize {
    /// Rows of a length.
    fn rows(self, length: usize) -> usize {
        match self {
            BatchSize::Tokens { tokens, devices } => (tokens / length / devices).max(1) * devices,
            BatchSize::Rows(rows) => rows,
        }
    }
}

impl RowLengths {
    /// The lengths, among those of `lengths`, with which sequences take least time: `sequences` of
    /// each number of tokens, `</s>` included; `cost` of a row of so many positions; and `program`,
    /// what compiling takes, in the same unit.
    ///
    /// Each length serves the sequences down to the next smaller one. So the best lengths up to a
    /// certain one follow from those up to each smaller one (dynamic programming).
    pub fn choose(
        lengths: Lengths,
        sequences: &BTreeMap<usize, u64>,
        cost: impl Fn(usize) -> f64,
        program: f64,
    ) -> RowLengths {
        let mut rows = BTreeMap::<usize, u64>::new();
        for (&tokens, count) in sequences {
            *rows.entry(lengths.of(tokens)).or_default() += count;
        }
        let (rows, counts): (Vec<usize>, Vec<u64>) = rows.into_iter().unzip();
        // The least cost of all sequences of the first lengths, and how many of those the last one
        // chosen leaves to smaller ones.
        let mut best = vec![(0.0, 0)];
        for (last, &length) in rows.iter().enumerate() {
            let mut served = 0;
            let choices = (0..=last).rev().map(|first| {
                served += counts[first];
                (
                    best[first].0 + program + served as f64 * cost(length),
                    first,
                )
            });
            let least = choices.min_by(|(a, _), (b, _)| a.total_cmp(b));
            best.push(least.expect("one choice at least"));
        }
        let mut chosen = Vec::new();
        let mut left = rows.len();
        while left > 0 {
            chosen.push(rows[left - 1]);
            left = best[left].1;
        }
        chosen.reverse();
        RowLengths(chosen)
    }

    /// The length of the row of a sequence of `tokens` tokens.
    ///
    /// # Panics
    /// Where it is longer than all that the lengths were chosen for.
    pub fn of(&self, tokens: usize) -> usize {
        let longer = self.0.iter().find(|&&length| length >= tokens);
        *longer.expect("the lengths were chosen for it")
    }
}

/// The batches of sequences with these numbers of tokens, `</s>` included.
pub fn sorted_batches(tokens: &[usize], lengths: &RowLengths, size: BatchSize) -> Vec<SortedBatch> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&sequence| (Reverse(tokens[sequence]), sequence));
    let mut left = &order[..];
    let mut batches = Vec::new();
    while let Some(&longest) = left.first() {
        let length = lengths.of(tokens[longest]);
        let rows = size.rows(length);
        let (now, later) = left.split_at(rows.min(left.len()));
        left = later;
        batches.push(SortedBatch {
            length,
            rows,
            sequences: now.to_vec(),
        });
    }
    batches
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Lengths as those of proteins are spread, 42 to some thousands.
    pub fn tokens(count: usize) -> Vec<usize> {
        let spread = |i: usize| (i * 7919 + 104_729) % 1000;
        let length = |i: usize| (40.0 * (spread(i) as f64 / 230.0).exp()) as usize + 2;
        (0..count).map(length).collect()
    }

    pub fn counted(tokens: &[usize]) -> BTreeMap<usize, u64> {
        let mut counts = BTreeMap::new();
        tokens
            .iter()
            .for_each(|&n| *counts.entry(n).or_default() += 1);
        counts
    }

    /// A row's positions and the pairs of them.
    fn cost(length: usize) -> f64 {
        (length * (1000 + length)) as f64
    }

    #[test]
    fn every_sequence_has_one_row_that_is_long_enough() {
        for (count, size, devices) in [(1, 4096, 1), (700, 4096, 1), (700, 4096, 8), (60, 64, 3)] {
            let tokens = tokens(count);
            let lengths = RowLengths::choose(Lengths::default(), &counted(&tokens), cost, 1e6);
            let size = BatchSize::Tokens {
                tokens: size,
                devices,
            };
            let mut rows = vec![0; count];
            for batch in sorted_batches(&tokens, &lengths, size) {
                assert_eq!(batch.rows % devices, 0);
                assert!(batch.sequences.len() <= batch.rows);
                for sequence in batch.sequences {
                    assert!(tokens[sequence] <= batch.length);
                    rows[sequence] += 1;
                }
            }
            assert!(rows.iter().all(|&times| times == 1));
        }
    }

    /// Of all subsets of the lengths none costs less.
    #[test]
    fn no_other_lengths_cost_less() {
        let tokens: Vec<usize> = (0..60).map(|i| 2 + i * i * 37 % 150).collect();
        let counts = counted(&tokens);
        let all: std::collections::BTreeSet<usize> =
            tokens.iter().map(|&n| Lengths::default().of(n)).collect();
        let all: Vec<usize> = all.into_iter().collect();
        let total = |lengths: &RowLengths, program: f64| {
            let rows = tokens.iter().map(|&n| cost(lengths.of(n)));
            rows.sum::<f64>() + program * lengths.0.len() as f64
        };
        let mut numbers = Vec::new();
        for program in [0.0, 1e5, 1e6, 1e9] {
            let chosen = RowLengths::choose(Lengths::default(), &counts, cost, program);
            let subsets = (0..1 << (all.len() - 1)).map(|chosen: usize| {
                let smaller = (0..all.len() - 1).filter(|i| chosen >> i & 1 == 1);
                let mut lengths: Vec<usize> = smaller.map(|i| all[i]).collect();
                lengths.push(all[all.len() - 1]);
                total(&RowLengths(lengths), program)
            });
            let least = subsets.min_by(f64::total_cmp).unwrap();
            assert!((total(&chosen, program) - least).abs() <= 1e-9 * least);
            numbers.push(chosen.0.len());
        }
        assert_eq!((numbers[0], numbers[3]), (all.len(), 1));
        assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
    }

    #[test]
    fn little_is_padding() {
        let tokens = tokens(3000);
        let lengths = RowLengths::choose(Lengths::default(), &counted(&tokens), cost, 1e7);
        let size = BatchSize::Tokens {
            tokens: 4096,
            devices: 1,
        };
        let batches = sorted_batches(&tokens, &lengths, size);
        let positions: usize = batches.iter().map(|b| b.length * b.rows).sum();
        let fill = tokens.iter().sum::<usize>() as f64 / positions as f64;
        assert!(fill > 0.9, "{fill}");
        assert!(lengths.0.len() <= 30, "{lengths:?}");
    }
}
