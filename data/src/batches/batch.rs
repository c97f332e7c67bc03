//! One step's arrays.

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

/// The label of a position that does not count.
pub const IGNORED: i32 = -100;

/// What one process feeds in one step. Arrays are dense and row-major.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// The step it belongs to.
    pub step: u64,
    /// The epoch of the step's first example, over the whole batch.
    pub epoch: u64,
    /// The number of rows `B`, empty ones included.
    pub rows: usize,
    /// The length `S` of an input.
    pub input_length: usize,
    /// The length `T` of a target.
    pub target_length: usize,
    /// Which row of the data set each row comes from. Shorter than `rows` if the last are empty.
    pub examples: Vec<u64>,
    /// `[B, S]`: the encoder's tokens, 0 where there is none.
    pub input_ids: Vec<i32>,
    /// `[B, S]`: 1 on tokens, 0 on padding.
    pub attention_mask: Vec<i32>,
    /// `[B, T]`: the target one place to the right, starting with 0.
    pub decoder_input_ids: Vec<i32>,
    /// `[B, T]`: the target, [`IGNORED`] where there is none.
    pub labels: Vec<i32>,
    /// Residues of the sequences the rows show, masked ones included.
    pub residues: u64,
    /// Residues that are masked.
    pub masked: u64,
    /// Residues that were to be masked, but the sentinels had run out.
    pub unmasked_for_lack_of_sentinels: u64,
    /// Rows whose target was cut at `T`; such a target does not end with `</s>`.
    pub truncated_targets: u64,
    /// Tokens in `input_ids` that are no padding.
    pub input_tokens: u64,
    /// Labels that count.
    pub target_tokens: u64,
}

impl Batch {
    /// The share of both arrays that is no padding.
    pub fn padding_efficiency(&self) -> f64 {
        let places = self.input_ids.len() + self.labels.len();
        match places {
            0 => 1.0,
            _ => (self.input_tokens + self.target_tokens) as f64 / places as f64,
        }
    }
}

/// An array as nested lists, one for each row.
struct Rows<'a>(&'a [i32], usize);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0.chunks(self.1.max(1));
        let mut list = serializer.serialize_seq(Some(rows.len()))?;
        for row in rows {
            list.serialize_element(row)?;
        }
        list.end()
    }
}

/// As one JSON object, with arrays as nested lists.
impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (inputs, targets) = (self.input_length, self.target_length);
        let mut object = serializer.serialize_struct("Batch", 14)?;
        object.serialize_field("step", &self.step)?;
        object.serialize_field("epoch", &self.epoch)?;
        object.serialize_field("rows", &self.rows)?;
        object.serialize_field("examples", &self.examples)?;
        object.serialize_field("input_ids", &Rows(&self.input_ids, inputs))?;
        object.serialize_field("attention_mask", &Rows(&self.attention_mask, inputs))?;
        object.serialize_field("decoder_input_ids", &Rows(&self.decoder_input_ids, targets))?;
        object.serialize_field("labels", &Rows(&self.labels, targets))?;
        object.serialize_field("residues", &self.residues)?;
        object.serialize_field("masked", &self.masked)?;
        object.serialize_field("input_tokens", &self.input_tokens)?;
        object.serialize_field("target_tokens", &self.target_tokens)?;
        object.serialize_field("truncated_targets", &self.truncated_targets)?;
        object.serialize_field("padding_efficiency", &self.padding_efficiency())?;
        object.end()
    }
}
