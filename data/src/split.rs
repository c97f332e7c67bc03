//! Which rows a model learns from, and which are held out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of the data.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    #[default]
    Train,
    /// What is held out, to look at while training.
    Validation,
    /// What is held out for the end.
    Test,
}

impl Split {
    /// Every split, in the order of a manifest's files.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        })
    }
}
