//! Why variants could not be scored.

use std::io;
use std::path::{Path, PathBuf};

use super::Mutation;
use crate::inference;

/// Why variants could not be scored.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    /// A table is malformed.
    #[error("{path}:{line}: {problem}")]
    Malformed {
        path: PathBuf,
        line: u64,
        problem: String,
    },
    /// A table has no rows.
    #[error("{path} has no variants: expected a header and a row for each")]
    Empty { path: PathBuf },
    /// A table lacks a column.
    #[error("{path}:1: there is no column {wanted}; it has {}", found.join(", "))]
    NoColumn {
        path: PathBuf,
        wanted: &'static str,
        found: Vec<String>,
    },
    /// A table has a column of the name of a result.
    #[error("{path}:1: there is a column `{name}` already, which is to hold the scores")]
    ColumnExists { path: PathBuf, name: &'static str },
    /// A row cannot be used.
    #[error("{path}:{line}: {fault}")]
    Row {
        path: PathBuf,
        line: u64,
        fault: Fault,
    },
    /// What is given as a wild type is none.
    #[error("the wild type `{given}` is neither a file nor a sequence: {fault}")]
    WildType { given: String, fault: Fault },
    /// The file of the wild type does not hold one sequence.
    #[error("{path} has {found} sequences: expected the wild type alone")]
    NotOneSequence { path: PathBuf, found: usize },
    /// The file of the wild type cannot be read.
    #[error(transparent)]
    Sequences(#[from] ankh_data::Error),
    /// A reference file does not name the table.
    #[error("{reference} has no row whose DMS_filename is {name}")]
    NotInReference { reference: PathBuf, name: String },
    /// The output is there already.
    #[error("{0} is there already")]
    OutputExists(PathBuf),
    /// What is done cannot be kept, or cannot be gone on from.
    #[error(transparent)]
    Journal(#[from] inference::JournalError),
    /// The output cannot be written.
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    /// The model.
    #[error(transparent)]
    Model(#[from] inference::Error),
    /// The weights give no probabilities.
    #[error("the model's probabilities are not finite: {0} of them")]
    NotFinite(usize),
}

/// What is wrong with a variant. Positions count from 1, as in the table.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "`{text}` is no mutation: expected the wild type's residue, its position counted from 1 \
         and the new residue, as in A24G, several joined by colons, or WT"
    )]
    NotAMutation { text: String },
    #[error("`{letter}` in {mutation} is no residue of the vocabulary")]
    UnknownResidueIn { letter: char, mutation: String },
    #[error("`{letter}` at position {place} is no residue of the vocabulary")]
    UnknownResidue { letter: char, place: usize },
    #[error("there are two mutations of position {position}")]
    Twice { position: usize },
    #[error("{mutation} is outside of the sequence, which has {length} residues")]
    Outside { mutation: Mutation, length: usize },
    #[error("{mutation}: the wild type has `{found}` at position {}", mutation.position + 1)]
    OtherWildType { mutation: Mutation, found: char },
    #[error("{mutation}: mutated_sequence has `{found}` at position {}", mutation.position + 1)]
    OtherVariant { mutation: Mutation, found: char },
    #[error(
        "mutated_sequence is not the wild type with {mutant}: they differ at position {position}"
    )]
    Disagrees { mutant: String, position: usize },
    #[error(
        "mutated_sequence has {found} residues, and the wild type with {mutant} has {expected}"
    )]
    OtherLength {
        mutant: String,
        found: usize,
        expected: usize,
    },
    #[error("mutant and mutated_sequence imply another wild type than line {first}")]
    SeveralWildTypes { first: u64 },
    #[error("there is no wild type")]
    NoWildType,
    #[error(
        "the variant has {found} residues and the wild type {expected}: masked marginals compare residues at the same position"
    )]
    Indel { found: usize, expected: usize },
    #[error("neither mutant nor mutated_sequence is there")]
    NoVariant,
    #[error("there are no residues")]
    NoResidues,
    #[error("the sequence has {found} residues, of at most {most}")]
    TooLong { found: usize, most: usize },
    #[error("{column} is `{text}`: expected a number")]
    NotANumber { column: &'static str, text: String },
    #[error("{column} is `{text}`: expected 0 or 1")]
    NotBinary { column: &'static str, text: String },
}

impl Error {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Write {
            path: path.to_path_buf(),
            source,
        }
    }
}
