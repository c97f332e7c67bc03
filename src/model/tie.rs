//! What a model's output projection is, in one setting: `model.tie_embeddings`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

/// Whether the output projection is the embedding table, and what comes before it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TieEmbeddings {
    /// A matrix of its own, written `false`: Ankh.
    #[default]
    Untied,
    /// The embedding table, written `true`. The decoder's states are scaled by `d_model^-1/2`
    /// before it: the first T5.
    Scaled,
    /// The embedding table and no scaling, written `"unscaled"`: T5 v1.1 as transformers 5 begins
    /// it.
    Unscaled,
}

const UNSCALED: &str = "unscaled";

impl JsonSchema for TieEmbeddings {
    fn schema_name() -> Cow<'static, str> {
        "TieEmbeddings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "const": false, "description": "It is a matrix of its own: Ankh." },
            { "const": true, "description": "It is the embedding table. The decoder's states are scaled by d_model^-1/2 before it: the first T5." },
            { "const": UNSCALED, "description": "It is the embedding table, without scaling: T5 v1.1 as transformers 5 begins it." },
        ]})
    }
}

impl Serialize for TieEmbeddings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Untied => serializer.serialize_bool(false),
            Self::Scaled => serializer.serialize_bool(true),
            Self::Unscaled => serializer.serialize_str(UNSCALED),
        }
    }
}

impl<'de> Deserialize<'de> for TieEmbeddings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = TieEmbeddings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, or `unscaled`")
            }

            fn visit_bool<E: de::Error>(self, tied: bool) -> Result<TieEmbeddings, E> {
                Ok(match tied {
                    true => TieEmbeddings::Scaled,
                    false => TieEmbeddings::Untied,
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TieEmbeddings, E> {
                match text {
                    UNSCALED => Ok(TieEmbeddings::Unscaled),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_is_written_as_it_is_read() {
        for (tie, text) in [
            (TieEmbeddings::Untied, "false"),
            (TieEmbeddings::Scaled, "true"),
            (TieEmbeddings::Unscaled, "\"unscaled\""),
        ] {
            assert_eq!(serde_json::to_string(&tie).unwrap(), text);
            assert_eq!(serde_json::from_str::<TieEmbeddings>(text).unwrap(), tie);
        }
        for text in ["1", "\"true\"", "\"scaled\"", "null"] {
            let error = serde_json::from_str::<TieEmbeddings>(text).unwrap_err();
            assert!(error.to_string().contains("`unscaled`"), "{text}: {error}");
        }
    }
}
