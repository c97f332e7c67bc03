//! Why there are no variants, or no report on them.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::devices::OpenMeshError;
use crate::run_dir::RunError;
use crate::train::TrainError;
use crate::{generate, hugging_face, inference};

/// Why there are no variants, or no report on them.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is neither FASTA, A2M nor Stockholm.
    #[error(
        "{path}, line {line}: expected FASTA, A2M or Stockholm, found `{found}`",
        path = path.display()
    )]
    NotAnAlignment {
        path: PathBuf,
        line: u64,
        found: String,
    },
    /// A file without sequences.
    #[error("{path} has no sequences", path = .0.display())]
    Empty(PathBuf),
    /// Sequences that are not aligned with each other.
    #[error(
        "{path}, line {line}: `{id}` has {found} columns, and the first sequence has {expected}",
        path = path.display()
    )]
    Columns {
        path: PathBuf,
        line: u64,
        id: String,
        found: usize,
        expected: usize,
    },
    /// A character that is neither a residue nor a gap.
    #[error(
        "{path}, line {line}: `{id}` has `{found}` at column {column}, which is no residue and no gap",
        path = path.display()
    )]
    NoResidue {
        path: PathBuf,
        line: u64,
        id: String,
        found: char,
        column: usize,
    },
    /// A sequence of gaps alone.
    #[error("{path}, line {line}: `{id}` has no residues", path = path.display())]
    NoResidues {
        path: PathBuf,
        line: u64,
        id: String,
    },
    /// No column of the alignment is mostly residues.
    #[error("{path} has no column with residues in half of its sequences", path = .0.display())]
    NoColumns(PathBuf),
    /// A file of several sequences where one is expected.
    #[error("{path} has {found} sequences: expected one", path = path.display())]
    NotOne { path: PathBuf, found: usize },
    /// There is no sequence of this name.
    #[error("{path} has no sequence `{id}`", path = path.display())]
    NoWildType { path: PathBuf, id: String },
    /// A prompt that leaves nothing to be generated.
    #[error(
        "{path}, line {line}: `{id}` has {residues} residues, and the prompt would be {prompt} of them",
        path = path.display()
    )]
    Prompt {
        path: PathBuf,
        line: u64,
        id: String,
        residues: usize,
        prompt: usize,
    },
    /// A share of masked residues that masks none or all.
    #[error("a mask of {share} hides {masked} of the {residues} residues of `{id}`")]
    Mask {
        share: f64,
        masked: usize,
        residues: usize,
        id: String,
    },
    /// The output holds something else.
    #[error("{path} holds {what}", path = path.display())]
    Occupied { path: PathBuf, what: String },
    /// The aligner is not installed.
    #[error("the program `{0}` cannot be found")]
    NoAligner(&'static str),
    /// The aligner failed.
    #[error("`{program}` failed: {message}")]
    Aligner {
        program: &'static str,
        message: String,
    },
    /// A file could not be read or written.
    #[error("cannot {verb} {path}", path = path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The model and the settings do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The family could not be prepared.
    #[error(transparent)]
    Data(#[from] ankh_data::Error),
    /// The model could not be fine-tuned.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The directory of the fine-tuning cannot hold it.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The devices.
    #[error(transparent)]
    Mesh(#[from] OpenMeshError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] hugging_face::Error),
    /// The model cannot run.
    #[error(transparent)]
    Model(#[from] inference::Error),
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] generate::Error),
}

impl Error {
    /// A file that could not be read or written.
    pub(super) fn file(verb: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File {
            verb,
            path: path.clone(),
            source,
        }
    }
}
