//! Amounts of memory as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

/// A number of bytes: `"8 GiB"` or `"500 MB"` in a file, or a plain number of GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Units with their bytes; of those that divide a size, the first writes it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// So many GiB.
    pub const fn gib(number: u64) -> Self {
        Self(number << 30)
    }

    /// `number` of a unit, where it is some number of bytes.
    fn of(number: f64, unit: u64) -> Option<Self> {
        let bytes = (number * unit as f64).round();
        let fits = number >= 0.0 && bytes < u64::MAX as f64;
        fits.then_some(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, bytes): &&(&str, u64)| self.0.is_multiple_of(*bytes) && self.0 >= *bytes;
        match UNITS.iter().find(whole) {
            Some((unit, bytes)) => write!(f, "{} {unit}", self.0 / bytes),
            None => write!(f, "0 B"),
        }
    }
}

const EXPECTED: &str = "a size such as \"8 GiB\", or a number of GiB";

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid size {0:?}, expected {expected}", expected = EXPECTED)]
pub struct InvalidSize(String);

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let parse = || {
            let end = text.find(|c: char| c.is_ascii_alphabetic());
            let (number, unit) = text.split_at(end.unwrap_or(text.len()));
            let number: f64 = number.trim().parse().ok()?;
            let known = |(name, _): &&(&str, u64)| name.eq_ignore_ascii_case(unit.trim());
            let bytes = match unit {
                "" => 1 << 30,
                _ => UNITS.iter().find(known)?.1,
            };
            Size::of(number, bytes)
        };
        parse().ok_or_else(|| InvalidSize(text.to_owned()))
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number"], "description": EXPECTED })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Size, E> {
                let found = de::Unexpected::Float(number);
                Size::of(number, 1 << 30).ok_or_else(|| E::invalid_value(found, &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                self.visit_f64(number as f64)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                self.visit_f64(number as f64)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_are_written() {
        let bytes = [
            0,
            1,
            999,
            1024,
            1_500_000,
            3 << 20,
            8 << 30,
            5 << 40,
            (1 << 53) - 1,
        ];
        for bytes in bytes {
            let text = Size(bytes).to_string();
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_several_ways() {
        for (text, bytes) in [
            ("8 GiB", 8 << 30),
            ("8gib", 8 << 30),
            ("1.5 MiB", 3 << 19),
            ("500 MB", 500_000_000),
            ("64", 64 << 30),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "8 gigs", "-1 GiB", "nan GiB", "1e30 TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
