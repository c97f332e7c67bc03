//! Why a benchmark could not be run.

use std::io;
use std::path::{Path, PathBuf};

use super::dataset;
use crate::inference::{self, JournalError};

/// Why a benchmark could not be run.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The labelled proteins.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The model.
    #[error(transparent)]
    Inference(#[from] inference::Error),
    /// What is kept of unfinished work.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}", path = path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Nothing is measured.
    #[error(
        "the data have no test set, and {folds} folds of {examples} examples make none: mark test \
         examples, or give 2 to {examples} folds"
    )]
    NoTest { folds: usize, examples: usize },
    /// Nothing is learnt from.
    #[error("the data have no examples to train on, or a single one")]
    NoTraining,
    /// The width of the states is none that the head has.
    #[error("the head needs states whose width is a multiple of 4, and the model has {0}")]
    Width(usize),
    /// Neighbours say nothing of residues.
    #[error("the nearest neighbour says what a whole protein is, not its residues or contacts")]
    NearestOfResidues,
    /// Neighbours are not trained.
    #[error("the nearest neighbour trains nothing, and so no adapters of the encoder either")]
    NearestAdapted,
    /// A head that gives no numbers any more.
    #[error("the loss of the head is {loss} in epoch {epoch}: a lower learning rate may help")]
    NotFinite { loss: f32, epoch: usize },
}

impl Error {
    pub(super) fn file(verb: &'static str, path: &Path, source: io::Error) -> Error {
        Error::File {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}
