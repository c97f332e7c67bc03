//! Why a benchmark's files could not be used.

use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Place};

/// Why a benchmark's files could not be used. Each is found before any work.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// No file is given.
    #[error("no file of labelled proteins is given")]
    NoFiles,
    /// A file holds nothing.
    #[error("{}:1: there are no proteins: expected {expected}", path.display())]
    Empty {
        path: PathBuf,
        expected: &'static str,
    },
    /// Everything that is read is left out.
    #[error("none of the {read} proteins can be used: {reasons}")]
    NothingLeft { read: usize, reasons: String },
    /// A format cannot hold what is to be predicted.
    #[error("{} is {format}, which has no {kind}: expected {expected}", path.display())]
    OtherKind {
        path: PathBuf,
        format: &'static str,
        kind: Kind,
        expected: &'static str,
    },
    /// A file of labels or a mask beside files that hold their own.
    #[error("{} is given beside {format}: separate labels and masks go with FASTA alone", path.display())]
    Beside { path: PathBuf, format: &'static str },
    /// A table lacks a column.
    #[error("{}:1: there is no column {column}; it has {}", path.display(), found.join(", "))]
    NoColumn {
        path: PathBuf,
        column: &'static str,
        found: Vec<String>,
    },
    /// A line or record.
    #[error("{place}: {fault}")]
    At { place: Place, fault: Fault },
    /// Nothing is to be trained on.
    #[error(
        "no protein of {} is for training: expected some marked `train` by SET=, by the column \
         `set` or by the name of the file",
        shown(files)
    )]
    NoTraining { files: Vec<PathBuf> },
    /// Nothing is to be measured on.
    #[error(
        "no protein of {} is for testing: expected some marked `test` by SET=, by the column `set` \
         or by the name of the file",
        shown(files)
    )]
    NoTest { files: Vec<PathBuf> },
    /// There is nothing to tell apart.
    #[error("every label is `{class}`: expected at least two classes")]
    OneClass { class: String },
    /// Indices have 16 bits.
    #[error("there are {found} classes, of at most 65535: is the label a number to be predicted?")]
    TooManyClasses { found: usize },
}

/// What is wrong with a record. Positions count from 1.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{problem}")]
    Malformed { problem: String },
    #[error("expected a line that begins with `>`, and found `{found}`")]
    NoHeader { found: String },
    #[error("the header has no id: expected a word right after `>`")]
    NoId,
    #[error("`{id}` is also at {first}: give each protein an id of its own")]
    Duplicate { id: String, first: Place },
    #[error("`{id}` has no residues")]
    NoResidues { id: String },
    #[error(
        "`{letter}` at position {position} of `{id}` is no residue: correct it, or leave the \
         protein out"
    )]
    NotAResidue {
        id: String,
        letter: char,
        position: usize,
    },
    #[error("`{id}` has no label: expected {expected}")]
    NoLabel { id: String, expected: &'static str },
    #[error("`{id}` has {found} {what}, and its sequence {expected} residues: expected as many")]
    OtherLength {
        id: String,
        what: &'static str,
        found: usize,
        expected: usize,
    },
    #[error("`{found}` at position {position} of the mask of `{id}`: expected 0 or 1")]
    NotAMask {
        id: String,
        found: String,
        position: usize,
    },
    #[error("the label of `{id}` is `{found}`: expected a finite number")]
    NotANumber { id: String, found: String },
    #[error("`{found}` at position {position} of the labels of `{id}`: expected {expected}")]
    NotAState {
        id: String,
        found: String,
        position: usize,
        expected: &'static str,
    },
    #[error("no residue of `{id}` is labelled: leave the protein out")]
    NothingLabelled { id: String },
    #[error("`{id}` is of set `{found}`: expected {expected}")]
    NotASet {
        id: String,
        found: String,
        expected: String,
    },
    #[error(
        "`{id}` is of no set, and other proteins are: expected SET=, a column `set`, or a file \
             whose name ends in the set, such as _train.json"
    )]
    NoSet { id: String },
    #[error(
        "`{id}` is of set `test` and for validation too: the figures would be of what the epoch is \
         chosen by"
    )]
    ValidationOfTest { id: String },
    #[error("`{found}` is no value of VALIDATION: expected True or False")]
    NotAFlag { found: String },
    #[error(
        "`{id}` is of class `{class}`, which no training protein has: add some that are, or leave \
         this one out"
    )]
    UnseenClass { id: String, class: String },
    #[error(
        "`{id}` is not among the sequences: expected it in {}",
        shown(sequences)
    )]
    NoSequence { id: String, sequences: Vec<PathBuf> },
    #[error("`{id}` has no mask: expected it in {}", masks.display())]
    NoMask { id: String, masks: PathBuf },
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

impl Error {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(super) fn at(place: &Place, fault: Fault) -> Error {
        let place = place.clone();
        Error::At { place, fault }
    }
}
