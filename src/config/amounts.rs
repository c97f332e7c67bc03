//! Amounts that may be given by what they are for, and are worked out before a run: a batch by its
//! sequences, a target's length by the objective.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

/// How much one update sees, over all devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// So many rows: a whole number in a file.
    Rows(usize),
    /// As many rows as hold about so many sequences: `"1024 sequences"` in a file.
    Sequences(usize),
}

/// Decoder positions of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetLength {
    /// So many: a whole number in a file.
    Tokens(usize),
    /// What the longest target of the objective takes, or in packed rows what is kept for it, up to
    /// a multiple of 16: `"auto"` in a file.
    Auto,
}

impl BatchSize {
    /// Rows of a batch where a row holds `per_row` sequences on average: within a twelfth of the
    /// nearest number, the one that the most devices can share.
    pub fn rows(self, per_row: f64) -> usize {
        let sequences = match self {
            BatchSize::Rows(rows) => return rows,
            BatchSize::Sequences(sequences) => sequences,
        };
        if per_row == 1.0 {
            return sequences;
        }
        let exact = (sequences as f64 / per_row).max(1.0);
        let off = |rows: usize| (rows as f64 / exact - 1.0).abs();
        let unit = (0..usize::BITS - 1).rev().find_map(|power| {
            let unit = 1usize << power;
            let rows = unit * (exact / unit as f64).round() as usize;
            (rows > 0 && off(rows) <= TOLERANCE).then_some(rows)
        });
        unit.unwrap_or(exact.round() as usize)
    }
}

/// How far a batch may be from the sequences asked for, so that devices can share its rows.
const TOLERANCE: f64 = 1.0 / 12.0;

const EXPECTED_BATCH_SIZE: &str = "a number of rows, or of sequences such as \"1024 sequences\"";
const EXPECTED_TARGET_LENGTH: &str = "a number of tokens, or \"auto\"";

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid amount {found:?}, expected {expected}")]
pub struct InvalidAmount {
    found: String,
    expected: &'static str,
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchSize::Rows(rows) => write!(f, "{rows}"),
            BatchSize::Sequences(sequences) => write!(f, "{sequences} sequences"),
        }
    }
}

impl FromStr for BatchSize {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let number = text.trim().strip_suffix("sequences").map(str::trim);
        let sequences = number.and_then(|number| number.replace('_', "").parse().ok());
        sequences.map(BatchSize::Sequences).ok_or(InvalidAmount {
            found: text.to_owned(),
            expected: EXPECTED_BATCH_SIZE,
        })
    }
}

impl FromStr for TargetLength {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        match text.trim() {
            "auto" => Ok(TargetLength::Auto),
            _ => Err(InvalidAmount {
                found: text.to_owned(),
                expected: EXPECTED_TARGET_LENGTH,
            }),
        }
    }
}

impl JsonSchema for BatchSize {
    fn schema_name() -> Cow<'static, str> {
        "BatchSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "description": EXPECTED_BATCH_SIZE })
    }
}

impl JsonSchema for TargetLength {
    fn schema_name() -> Cow<'static, str> {
        "TargetLength".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "description": EXPECTED_TARGET_LENGTH })
    }
}

impl Serialize for BatchSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            BatchSize::Rows(rows) => rows.serialize(serializer),
            BatchSize::Sequences(_) => serializer.collect_str(self),
        }
    }
}

impl Serialize for TargetLength {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TargetLength::Tokens(tokens) => tokens.serialize(serializer),
            TargetLength::Auto => "auto".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOr {
            number: BatchSize::Rows,
            expected: EXPECTED_BATCH_SIZE,
        })
    }
}

impl<'de> Deserialize<'de> for TargetLength {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOr {
            number: TargetLength::Tokens,
            expected: EXPECTED_TARGET_LENGTH,
        })
    }
}

/// Reads a number, or the text that stands for one.
struct NumberOr<T> {
    number: fn(usize) -> T,
    expected: &'static str,
}

impl<T: FromStr<Err = InvalidAmount>> de::Visitor<'_> for NumberOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let found = de::Unexpected::Unsigned(number);
        let number_of = usize::try_from(number).map(self.number);
        number_of.map_err(|_| E::invalid_value(found, &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_about_the_sequences_asked_for_and_are_shared_by_many_devices() {
        for (sequences, per_row, rows) in [
            (1024, 2.15, 512),
            (1536, 2.15, 768),
            (1024, 2.35, 448),
            (1024, 1.0, 1024),
            (1000, 1.0, 1000),
            (8, 2.0, 4),
            (1, 3.0, 1),
            (7, 2.9, 2),
        ] {
            let found = BatchSize::Sequences(sequences).rows(per_row);
            assert_eq!(found, rows, "{sequences} sequences, {per_row} a row");
        }
        assert_eq!(BatchSize::Rows(7).rows(2.15), 7);
        for sequences in 2..5000usize {
            let rows = BatchSize::Sequences(sequences).rows(2.15) as f64;
            let off = (rows * 2.15 - sequences as f64).abs();
            // A batch of few rows is as near as rows are.
            assert!(
                off <= (sequences as f64 * TOLERANCE).max(1.08),
                "{sequences}"
            );
        }
    }
}
