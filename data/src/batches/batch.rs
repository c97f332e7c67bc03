//! One step's arrays.

use serde::Serialize;
use serde::ser::{SerializeSeq, SerializeStruct, Serializer};

use super::{Packing, RowCounts};

/// The label of a position that does not count.
pub const IGNORED: i32 = -100;

/// What one process feeds in one step. Arrays are dense and row-major.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// The step it belongs to.
    pub step: u64,
    /// The epoch of the first row of the whole batch, counted by that row's own component.
    pub epoch: u64,
    /// Whether a row may hold more than one sequence.
    pub packing: Packing,
    /// The number of rows `B`, empty ones included.
    pub rows: usize,
    /// The length `S` of an input.
    pub input_length: usize,
    /// The length `T` of a target.
    pub target_length: usize,
    /// Which row of its data set each sequence comes from: those of the first row in the order of
    /// their segments, then those of the second, and so on.
    pub examples: Vec<u64>,
    /// `[B]`: how many sequences each row holds. Only the last rows of an evaluation hold none.
    pub segments: Vec<usize>,
    /// `[B]`: the number of the mixture's component that each row's sequences belong to.
    pub components: Vec<usize>,
    /// `[B, S]`: the encoder's tokens, 0 where there is none.
    pub input_ids: Vec<i32>,
    /// `[B, S]`: which of its row's sequences a token of the encoder belongs to, counted from 1; 0
    /// on padding. A row without a sequence has a lone `</s>` with the number 1.
    pub input_segments: Vec<i32>,
    /// `[B, T]`: each target one place to the right, starting with 0.
    pub decoder_input_ids: Vec<i32>,
    /// `[B, T]`: which of its row's sequences a target's token belongs to, counted from 1; 0 on
    /// padding.
    pub target_segments: Vec<i32>,
    /// `[B, T]`: the target, [`IGNORED`] where there is none.
    pub labels: Vec<i32>,
    /// Residues of the sequences the rows show, masked ones included.
    pub residues: u64,
    /// Residues that are masked.
    pub masked: u64,
    /// Residues that were to be masked, but the sentinels had run out.
    pub unmasked_for_lack_of_sentinels: u64,
    /// Targets that were cut for lack of room; such a target does not end with `</s>`.
    pub truncated_targets: u64,
    /// Tokens in `input_ids` that are no padding.
    pub input_tokens: u64,
    /// Labels that count.
    pub target_tokens: u64,
    /// What all shares of this step show together.
    pub whole: RowCounts,
}

/// One sequence of a batch, as the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// The row of the batch.
    pub row: usize,
    /// Its number in that row, counted from 1.
    pub segment: i32,
    /// The number of its component of the mixture.
    pub component: usize,
    /// The row of the component's data set.
    pub example: u64,
    /// The encoder's tokens, `</s>` included.
    pub input: &'a [i32],
    /// The decoder's, `</s>` included unless the target was cut.
    pub target: &'a [i32],
}

impl Batch {
    /// The sequences taken apart again, row by row in the order of their segments.
    pub fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        let rows = (0..self.segments.len()).flat_map(|row| {
            let (s, t) = (self.input_length, self.target_length);
            let inputs = Runs::new(&self.input_ids, &self.input_segments, row * s, s);
            let targets = Runs::new(&self.labels, &self.target_segments, row * t, t);
            let numbers = 1..=self.segments[row] as i32; // at most a row's tokens
            let sequences = numbers.zip(inputs.zip(targets));
            sequences.map(move |(segment, (input, target))| (row, segment, input, target))
        });
        rows.zip(&self.examples)
            .map(|((row, segment, input, target), &example)| Sequence {
                row,
                segment,
                component: self.components[row],
                example,
                input,
                target,
            })
    }

    /// `[B, S]`: 1 on tokens, 0 on padding.
    pub fn attention_mask(&self) -> Vec<i32> {
        let on = |&segment: &i32| i32::from(segment > 0);
        self.input_segments.iter().map(on).collect()
    }

    /// The share of both arrays that is no padding.
    pub fn padding_efficiency(&self) -> f64 {
        let places = self.input_ids.len() + self.labels.len();
        match places {
            0 => 1.0,
            _ => (self.input_tokens + self.target_tokens) as f64 / places as f64,
        }
    }
}

/// The tokens of segment 1, 2, ... of one row.
struct Runs<'a> {
    ids: &'a [i32],
    segments: &'a [i32],
}

impl<'a> Runs<'a> {
    fn new(ids: &'a [i32], segments: &'a [i32], start: usize, length: usize) -> Self {
        Runs {
            ids: &ids[start..start + length],
            segments: &segments[start..start + length],
        }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [i32];

    fn next(&mut self) -> Option<&'a [i32]> {
        let &number = self.segments.first().filter(|&&number| number > 0)?;
        let other = |&segment: &i32| segment != number;
        let end = self.segments.iter().position(other);
        let (run, rest) = self.ids.split_at(end.unwrap_or(self.ids.len()));
        self.segments = &self.segments[run.len()..];
        self.ids = rest;
        Some(run)
    }
}

/// An array as nested lists, one for each row.
struct Nested<'a>(&'a [i32], usize);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0.chunks(self.1.max(1));
        let mut list = serializer.serialize_seq(Some(rows.len()))?;
        for row in rows {
            list.serialize_element(row)?;
        }
        list.end()
    }
}

/// As one JSON object, with arrays as nested lists. Packed batches list the examples of each row;
/// they alone have segment numbers.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (inputs, targets) = (self.input_length, self.target_length);
        let packed = self.packing == Packing::Packed;
        let fields = if packed { 18 } else { 16 };
        let mut object = serializer.serialize_struct("Batch", fields)?;
        object.serialize_field("step", &self.step)?;
        object.serialize_field("epoch", &self.epoch)?;
        object.serialize_field("rows", &self.rows)?;
        if packed {
            let mut rest = self.examples.as_slice();
            let mut rows = Vec::with_capacity(self.segments.len());
            for &sequences in &self.segments {
                let (row, after) = rest.split_at(sequences.min(rest.len()));
                rows.push(row);
                rest = after;
            }
            object.serialize_field("examples", &rows)?;
        } else {
            object.serialize_field("examples", &self.examples)?;
        }
        object.serialize_field("components", &self.components)?;
        object.serialize_field("input_ids", &Nested(&self.input_ids, inputs))?;
        object.serialize_field("attention_mask", &Nested(&self.attention_mask(), inputs))?;
        if packed {
            object.serialize_field("input_segments", &Nested(&self.input_segments, inputs))?;
        }
        object.serialize_field(
            "decoder_input_ids",
            &Nested(&self.decoder_input_ids, targets),
        )?;
        if packed {
            object.serialize_field("target_segments", &Nested(&self.target_segments, targets))?;
        }
        object.serialize_field("labels", &Nested(&self.labels, targets))?;
        object.serialize_field("residues", &self.residues)?;
        object.serialize_field("masked", &self.masked)?;
        object.serialize_field("input_tokens", &self.input_tokens)?;
        object.serialize_field("target_tokens", &self.target_tokens)?;
        object.serialize_field("truncated_targets", &self.truncated_targets)?;
        object.serialize_field("padding_efficiency", &self.padding_efficiency())?;
        object.serialize_field("whole", &self.whole)?;
        object.end()
    }
}
