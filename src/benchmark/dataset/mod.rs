//! Labelled proteins: what a benchmark is trained and measured on.
//!
//! Knows files and labels alone: neither the model nor the devices.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A class of each residue, such as its secondary structure.
    ResidueClasses,
    /// A class of the whole protein, such as where in the cell it is.
    SequenceClasses,
    /// A number for the whole protein, such as its stability.
    SequenceValue,
    /// Which pairs of residues touch.
    Contacts,
}

/// The part of an example in the split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The head is trained on it.
    Train,
    /// The best epoch is chosen by it.
    Validation,
    /// The figures are of it. A benchmark may have several test sets, such as `CASP12` and `CB513`;
    /// one without a name is `test`.
    Test(String),
}

/// What is to be predicted for one protein.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `[residues]`: indices into [`Dataset::classes`]. `None`: not resolved or not labelled; left
    /// out of the loss and of every figure.
    ResidueClasses(Vec<Option<u16>>),
    /// An index into [`Dataset::classes`].
    Class(u16),
    /// A finite number, in the units of the file.
    Value(f64),
    /// What touches in the structure.
    Contacts(Contacts),
}

/// The pairs of residues under 8 angstrom apart, of those resolved in the structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contacts {
    /// `[residues]`: whether the residue's position is known. A pair with one that is not is neither
    /// a contact nor none.
    pub resolved: Vec<bool>,
    /// `(i, j)` with `i < j`, in ascending order, at every separation: whoever measures leaves out
    /// those that are near in the sequence.
    pub pairs: Vec<(u32, u32)>,
}

/// Where an example was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As it was given.
    pub file: Arc<PathBuf>,
    /// The first line of the file is 1.
    pub line: usize,
}

impl Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// One labelled protein.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Unique in the dataset.
    pub id: String,
    /// One-letter codes in upper case, each of one byte and of the tokenizer's vocabulary.
    pub sequence: String,
    /// `None` in formats without a split, such as ProteinGym's: whoever reads draws one.
    pub split: Option<Split>,
    /// Of the kind of the dataset, and as long as the sequence where it is per residue.
    pub target: Target,
    /// Of the sequence.
    pub place: Place,
}

/// Labelled proteins, all of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Of every example.
    pub kind: Kind,
    /// What the indices in targets mean, in ascending order. Empty where nothing is classified.
    pub classes: Vec<String>,
    /// In the order of the files. Never empty.
    pub examples: Vec<Example>,
}
