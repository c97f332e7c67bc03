//! What can go wrong with a file or a bucket, and where.
#![allow(missing_docs)] // The message of a variant explains its fields.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::Location;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file could not be read, listed or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file that could not be copied.
    #[error("cannot copy {from} to {to}: {source}", from = from.display(), to = to.display())]
    Copy {
        from: PathBuf,
        to: PathBuf,
        source: io::Error,
    },
    /// A text that is no location, or a location that cannot be used so.
    #[error("{text:?} is not a location: {reason}")]
    Location { text: String, reason: String },
    /// A remote file that is not there.
    #[error("{location} does not exist")]
    NoSuchObject { location: Location },
    /// A bucket that is not there.
    #[error("{location} cannot be reached: there is no such bucket")]
    NoSuchBucket { location: Location },
    /// Bytes beyond a file's end.
    #[error(
        "bytes {start} to {end} of {location} were asked for, but it has {size}",
        start = range.start,
        end = range.end
    )]
    NoSuchBytes {
        location: Location,
        range: Range<u64>,
        size: u64,
    },
    /// A request that the credentials do not allow, or that had none.
    #[error("not allowed to {action} {location}: {reason}")]
    Refused {
        action: &'static str,
        location: Location,
        reason: String,
    },
    /// A remote file that became another while it was read.
    #[error("{location} was changed while it was being read")]
    Changed { location: Location },
    /// A request that did not succeed, after all attempts that made sense.
    #[error("cannot {action} {location}: {reason}")]
    Request {
        action: &'static str,
        location: Location,
        reason: String,
    },
    /// A setting of a service that does not exist.
    #[error("storage settings hold {name:?}, which is not known")]
    UnknownSetting { name: String },
    /// A background task ended without a result; its panic message is on stderr.
    #[error("a working thread died")]
    TaskDied,
}

impl Error {
    /// Whether it says that a file, or its bucket, is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::Copy { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
            Error::NoSuchObject { .. } | Error::NoSuchBucket { .. } => true,
            _ => false,
        }
    }

    /// The error behind one of a reader of [`crate::Storage::reader`], in whatever it was wrapped.
    pub fn reading(location: &Location, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => match location.local() {
                Some(path) => Error::io("read", path)(source),
                None => Error::Request {
                    action: "read",
                    location: location.clone(),
                    reason: source.to_string(),
                },
            },
        }
    }

    /// Makes an [`Error::Io`] of what the system says, for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}
