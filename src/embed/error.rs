//! Why sequences could not be embedded.

use std::io;
use std::path::{Path, PathBuf};

use crate::inference;

/// Why no file of embeddings was made.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inputs cannot be read.
    #[error(transparent)]
    Data(#[from] ankh_data::Error),
    /// The model cannot be run.
    #[error(transparent)]
    Inference(#[from] inference::Error),
    /// The file's name does not say what is to be written.
    #[error("cannot tell the format of {}: expected a name that ends in .parquet, .h5 or .hdf5", path.display())]
    Format { path: PathBuf },
    /// There is a file already.
    #[error("{} is there already", path.display())]
    Exists { path: PathBuf },
    /// Another process makes the same file.
    #[error("another process is at work on this output: it holds {}", path.display())]
    Busy { path: PathBuf },
    /// Parts that were begun otherwise.
    #[error("{} holds parts that another command began: {differences}", path.display())]
    OtherParts { path: PathBuf, differences: String },
    /// A record that was not to be left out.
    #[error("{file}, line {line}: {id}: {reason} ({detail})")]
    Rejected {
        file: String,
        line: u64,
        id: String,
        reason: &'static str,
        detail: String,
    },
    /// No record can be embedded.
    #[error("none of the {records} records in {inputs} can be embedded: {reasons}")]
    NoUsableRecords {
        records: u64,
        inputs: String,
        reasons: String,
    },
    /// An input that is not what it was when it was looked at.
    #[error("{input} changed while it was read")]
    Changed { input: String },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A part that is not what its size says.
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf },
    /// The Parquet file.
    #[error("cannot write {}", path.display())]
    Parquet {
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
}

impl Error {
    /// The error of something done to a file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}
