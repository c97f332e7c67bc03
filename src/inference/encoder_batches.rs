//! Where sequences lie when they go through the encoder.
//!
//! On several devices of a CPU rows are packed: several sequences stand in a row, one after the
//! other, and attention visits the blocks of each sequence's own keys. Little is padding, and one
//! program or two serve sequences of all lengths. Elsewhere a row has one sequence, in one of a few
//! lengths, because loops whose ends the data says would make a TPU or a GPU wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ankh_data::Packing;
use ankh_data::tokenizer::PAD;
use ankh_pjrt::HostTensor;

use super::{BatchSize, RowLengths, input_batch, sorted_batches};
use crate::model::attention::BLOCK;
use crate::programs::{BatchShape, most_segments};

/// How the sequences of a job are laid out.
#[derive(Clone, Debug)]
pub enum EncoderLayout {
    /// A sequence a row.
    Padded {
        /// The lengths of rows.
        lengths: RowLengths,
        /// How large batches are.
        size: BatchSize,
    },
    /// Several sequences a row.
    Packed(PackedRows),
}

/// How rows are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedRows {
    /// Positions of a row.
    length: usize,
    /// Those of a row that has sequences longer than that.
    long: usize,
    /// Rows of a batch: one for each device.
    rows: usize,
}

/// Sequences that go through the encoder together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderBatch {
    /// Rows and their length.
    pub(super) size: BatchShape,
    /// The sequences, and where they are.
    pub places: Vec<Place>,
}

/// Where a sequence lies in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The sequence, by its index.
    pub sequence: usize,
    pub(super) row: usize,
    /// Its first position in the row.
    pub(super) start: usize,
    /// How many sequences of the row come before it.
    pub(super) before: usize,
}

impl PackedRows {
    /// Rows of about `tokens` positions on each of `devices`, for `sequences` of each number of
    /// tokens, `</s>` included; shorter where that is more than there are.
    pub fn choose(tokens: usize, devices: usize, sequences: &BTreeMap<usize, u64>) -> PackedRows {
        let all: u64 = sequences.iter().map(|(&n, count)| n as u64 * count).sum();
        let share = usize::try_from(all).unwrap_or(usize::MAX).div_ceil(devices);
        let whole = |tokens: usize| tokens.max(1).next_multiple_of(BLOCK as usize);
        let length = whole(tokens.min(share));
        let longest = sequences.keys().next_back().copied().unwrap_or(0);
        PackedRows {
            length,
            long: whole(longest).max(length),
            rows: devices,
        }
    }

    /// Packs sequences with these numbers of tokens, the longest first, each into the row that it
    /// fills best.
    fn batches(self, tokens: &[usize]) -> Vec<EncoderBatch> {
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&sequence| (Reverse(tokens[sequence]), sequence));
        let mut rows: Vec<Row> = vec![];
        // What is left of each row that takes more.
        let mut room = BTreeSet::new();
        for sequence in order {
            let needed = tokens[sequence];
            let (left, row) = match room.range((needed, 0)..).next().copied() {
                Some(best) => {
                    room.remove(&best);
                    best
                }
                None => {
                    let length = match needed <= self.length {
                        true => self.length,
                        false => self.long,
                    };
                    rows.push(Row {
                        length,
                        sequences: vec![],
                    });
                    (length, rows.len() - 1)
                }
            };
            let start = rows[row].length - left;
            rows[row].sequences.push((sequence, start));
            if rows[row].sequences.len() < most_segments(rows[row].length) {
                room.insert((left - needed, row));
            }
        }
        // Sequences came in the order of their lengths, so the long rows are the first.
        let alike = rows.chunk_by(|a, b| a.length == b.length);
        alike
            .flat_map(|rows| rows.chunks(self.rows))
            .map(|rows| self.batch(rows))
            .collect()
    }

    fn batch(self, rows: &[Row]) -> EncoderBatch {
        let length = rows[0].length;
        let of_row = |(row, of): (usize, &Row)| {
            let sequences = of.sequences.iter().enumerate();
            let places = sequences.map(move |(before, &(sequence, start))| Place {
                sequence,
                row,
                start,
                before,
            });
            places.collect::<Vec<Place>>()
        };
        EncoderBatch {
            size: BatchShape {
                rows: self.rows,
                input: length,
                target: length,
                packing: Packing::Packed,
            },
            places: rows.iter().enumerate().flat_map(of_row).collect(),
        }
    }
}

/// A row that is being packed: its sequences with their starts.
struct Row {
    length: usize,
    sequences: Vec<(usize, usize)>,
}

impl EncoderLayout {
    /// What its rows are, in a word: work that was begun with others cannot go on.
    pub fn rows(&self) -> &'static str {
        match self {
            EncoderLayout::Padded { .. } => "padded",
            EncoderLayout::Packed(_) => "packed",
        }
    }

    /// The batches of sequences with these numbers of tokens, `</s>` included, none of them longer
    /// than the layout was made for.
    pub fn batches(&self, tokens: &[usize]) -> Vec<EncoderBatch> {
        let (lengths, size) = match self {
            EncoderLayout::Padded { lengths, size } => (lengths, *size),
            EncoderLayout::Packed(rows) => return rows.batches(tokens),
        };
        let batches = sorted_batches(tokens, lengths, size).into_iter();
        batches
            .map(|batch| EncoderBatch {
                size: BatchShape {
                    rows: batch.rows,
                    input: batch.length,
                    target: batch.length,
                    packing: Packing::Padded,
                },
                places: batch
                    .sequences
                    .into_iter()
                    .enumerate()
                    .map(|(row, sequence)| Place {
                        sequence,
                        row,
                        start: 0,
                        before: 0,
                    })
                    .collect(),
            })
            .collect()
    }
}

impl EncoderBatch {
    /// What the program takes, for the inputs of its places.
    ///
    /// # Panics
    /// Where an input is longer than its place.
    pub(super) fn arrays(&self, inputs: &[impl AsRef<[u8]>]) -> [HostTensor; 2] {
        let BatchShape {
            rows,
            input: length,
            packing,
            ..
        } = self.size;
        if packing == Packing::Padded {
            return input_batch(inputs, rows, length);
        }
        let mut ids = vec![i32::from(PAD); rows * length];
        let mut segments = vec![0i32; rows * length];
        for (place, input) in self.places.iter().zip(inputs) {
            let input = input.as_ref();
            assert!(place.start + input.len() <= length, "{place:?}");
            let start = place.row * length + place.start;
            for (position, &id) in (start..).zip(input) {
                ids[position] = id.into();
                segments[position] = place.before as i32 + 1;
            }
        }
        let dims = [rows as i64, length as i64];
        [&ids, &segments].map(|values| HostTensor::new::<i32>(dims, values))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sorted_batches::tests::{counted, tokens};
    use super::*;

    fn packed(tokens: &[usize], of_row: usize, devices: usize) -> Vec<EncoderBatch> {
        let rows = PackedRows::choose(of_row, devices, &counted(tokens));
        EncoderLayout::Packed(rows).batches(tokens)
    }

    #[test]
    fn every_sequence_has_positions_of_its_own() {
        for (count, of_row, devices) in [(1, 2048, 1), (700, 2048, 1), (700, 512, 8), (90, 256, 3)]
        {
            let tokens = tokens(count);
            let mut seen = vec![0; count];
            for batch in packed(&tokens, of_row, devices) {
                let BatchShape { rows, input, .. } = batch.size;
                assert_eq!((rows, input % BLOCK as usize), (devices, 0));
                let mut taken = vec![false; rows * input];
                for place in &batch.places {
                    seen[place.sequence] += 1;
                    assert!(place.before < most_segments(input));
                    let end = place.start + tokens[place.sequence];
                    assert!(end <= input);
                    for position in place.start..end {
                        let position = place.row * input + position;
                        assert!(!std::mem::replace(&mut taken[position], true));
                    }
                }
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn two_lengths_serve_all_and_little_is_padding() {
        let tokens = tokens(3000);
        let batches = packed(&tokens, 2048, 1);
        let lengths: BTreeSet<usize> = batches.iter().map(|batch| batch.size.input).collect();
        assert_eq!(lengths.len(), 2, "{lengths:?}");
        let positions: usize = batches.iter().map(|batch| batch.size.input).sum();
        let fill = tokens.iter().sum::<usize>() as f64 / positions as f64;
        assert!(fill > 0.97, "{fill}");
    }

    #[test]
    fn rows_are_no_longer_than_what_there_is() {
        let batches = packed(&[30, 90, 40], 2048, 1);
        assert_eq!((batches.len(), batches[0].size.input), (1, 256));
        let batches = packed(&[30, 90, 40], 2048, 2);
        assert_eq!((batches.len(), batches[0].size.input), (1, 128));
        // Many short ones: a row has no more than the program numbers.
        let batches = packed(&[2; 100], 2048, 1);
        assert!(batches.iter().all(|batch| batch.places.len() <= 16));
    }

    #[test]
    fn segments_are_consecutive_and_numbered_in_order() {
        let tokens = [3, 100, 30];
        let batches = packed(&tokens, 2048, 2);
        let places = batches[0].places.iter();
        let inputs: Vec<Vec<u8>> = places.map(|of| vec![7; tokens[of.sequence]]).collect();
        let [ids, segments] = batches[0].arrays(&inputs);
        let ids: Vec<i32> = ids.to_vec().unwrap();
        let segments: Vec<i32> = segments.to_vec().unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 7).count(), 133);
        let row = |row: usize| -> Vec<(i32, usize)> {
            let segments = &segments[row * 128..][..128];
            let alike = segments.chunk_by(|a, b| a == b);
            alike.map(|of| (of[0], of.len())).collect()
        };
        assert_eq!(row(0), [(1, 100), (2, 3), (0, 25)]);
        assert_eq!(row(1), [(1, 30), (0, 98)]);
    }
}
