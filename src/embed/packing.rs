//! Which sequences go through the encoder together.
//!
//! A row of a batch holds several sequences, one after the other, so that hardly any position is
//! padding and a few programs serve all lengths. Sequences are taken from the longest to the
//! shortest. The longest left decides how long the rows of the next batch are; what room it leaves
//! goes to shorter ones (first-fit decreasing: Johnson, 1973). So every batch but the last is full,
//! and the batches are a function of the lengths alone.

use std::cmp::Reverse;

use crate::programs::sequences_per_row;

/// Lengths of rows are multiples of it, as the kernels of a TPU need. Finer ones would be more
/// programs to compile.
const STEP: usize = 128;

/// Rows of sequences that are computed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBatch {
    /// Positions of each row.
    pub length: usize,
    /// The sequences of each row, by their index, in their order in the row. Rows may be empty.
    pub rows: Vec<Vec<usize>>,
}

/// How large batches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Positions of a batch, about.
    pub tokens: usize,
    /// Rows are a multiple of it: what splits them.
    pub devices: usize,
}

/// The length of a row for a sequence of `tokens` tokens: a multiple of 128, above 1024 of an
/// eighth of the power of two above. Attention costs the square of it, so the room that longer
/// rows would leave to others is not free.
pub fn row_length(tokens: usize) -> usize {
    let tokens = tokens.max(1);
    let step = (tokens.next_power_of_two() / 8).max(STEP);
    tokens.next_multiple_of(step)
}

/// The batches of sequences with these numbers of tokens, `</s>` included.
pub fn pack(tokens: &[usize], size: BatchSize) -> Vec<PackedBatch> {
    let mut left: Vec<usize> = (0..tokens.len()).collect();
    left.sort_by_key(|&sequence| (Reverse(tokens[sequence]), sequence));
    let mut batches = Vec::new();
    while let Some(&longest) = left.first() {
        let length = row_length(tokens[longest]);
        let rows = (size.tokens / length / size.devices).max(1) * size.devices;
        let mut batch = PackedBatch {
            length,
            rows: vec![Vec::new(); rows],
        };
        let mut room = vec![length; rows];
        let mut widest = length;
        left.retain(|&sequence| {
            let needed = tokens[sequence];
            if needed > widest {
                return true;
            }
            let fits = |&row: &usize| room[row] >= needed;
            let Some(row) = (0..rows).find(fits) else {
                return true;
            };
            batch.rows[row].push(sequence);
            room[row] -= needed;
            if batch.rows[row].len() == sequences_per_row(length) {
                room[row] = 0;
            }
            widest = room.iter().copied().max().unwrap_or(0);
            false
        });
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths as those of proteins are spread, 2 to some thousands.
    fn lengths(count: usize) -> Vec<usize> {
        let spread = |i: usize| (i * 7919 + 104_729) % 1000;
        let length = |i: usize| (40.0 * (spread(i) as f64 / 230.0).exp()) as usize + 2;
        (0..count).map(length).collect()
    }

    #[test]
    fn every_sequence_has_one_place_and_rows_are_not_overfull() {
        for (count, tokens, devices) in [(1, 4096, 1), (700, 4096, 1), (700, 4096, 8), (60, 64, 3)]
        {
            let lengths = lengths(count);
            let batches = pack(&lengths, BatchSize { tokens, devices });
            let mut places = vec![0; count];
            for batch in &batches {
                assert_eq!(batch.rows.len() % devices, 0);
                for row in &batch.rows {
                    let used: usize = row.iter().map(|&i| lengths[i]).sum();
                    assert!(used <= batch.length, "{used} in {}", batch.length);
                    assert!(row.len() <= sequences_per_row(batch.length));
                    row.iter().for_each(|&i| places[i] += 1);
                }
            }
            assert!(places.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn little_is_padding_and_few_lengths_occur() {
        let lengths = lengths(3000);
        let size = BatchSize {
            tokens: 4096,
            devices: 1,
        };
        let batches = pack(&lengths, size);
        let positions: usize = batches.iter().map(|b| b.length * b.rows.len()).sum();
        let tokens: usize = lengths.iter().sum();
        let fill = tokens as f64 / positions as f64;
        assert!(fill > 0.97, "{fill}");
        let mut programs: Vec<usize> = batches.iter().map(|batch| batch.length).collect();
        programs.dedup();
        assert!(programs.len() <= 16, "{programs:?}");
    }

    #[test]
    fn rows_are_as_long_as_needed_and_not_much_longer() {
        for tokens in 1..20_000 {
            let length = row_length(tokens);
            assert!(length >= tokens);
            assert!(
                length - tokens < (tokens / 4).max(128),
                "{tokens} in {length}"
            );
            assert_eq!(length % 128, 0);
        }
    }
}
