//! What can go wrong with a checkpoint.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ankh_storage::Location;

/// The result of a checkpoint operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be written or read.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a checkpoint is missing, short or altered.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The step asked for is not in the directory.
    #[error("no checkpoint of step {step} in {directory}: {}", steps(.available))]
    NoStep {
        step: u64,
        directory: Location,
        available: Vec<u64>,
    },
    /// A path holds no checkpoint at all.
    #[error(
        "{0} is not a checkpoint: expected a directory with commit.json, a run directory with checkpoints/, or a directory of step_<number> directories"
    )]
    NotACheckpoint(Location),
    /// A checkpoint was removed while it was read.
    #[error("checkpoint {0} was removed while it was read")]
    Removed(Location),
    /// Whoever decides who may write here refused.
    #[error("nothing was changed in the checkpoints: {0}")]
    NotAllowed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A save was refused after it was written ([`super::Verdict`]).
    #[error("the save of step {step} was refused")]
    Refused { step: u64 },
    /// Another process of the run did not write its part of a save.
    #[error("host {host} has not written its part of step {step} in {seconds} s")]
    Late {
        step: u64,
        host: usize,
        seconds: u64,
    },
    /// What another process lists of its part of a save is not to be used.
    #[error("cannot use {list}: {problem}")]
    List { list: Location, problem: String },
    /// Another process of the run cannot write its part of a save.
    #[error("host {host} cannot write its part: {reason}")]
    Part { host: usize, reason: String },
    /// The process of the run that leads did not commit a save.
    #[error("host 0 has not committed step {step}: {reason}")]
    NotCommitted { step: u64, reason: String },
    /// A checkpoint has no tensor of this name.
    #[error("checkpoint {checkpoint} has no tensor `{name}`")]
    NoTensor { name: String, checkpoint: Location },
    /// The place to write to already holds something else.
    #[error("{0} exists and is not empty: give another directory, or remove this one")]
    Occupied(Location),
    /// A tensor's name cannot name a Zarr array, or clashes with another's.
    #[error("tensor name `{name}`: {problem}")]
    Name { name: String, problem: &'static str },
    /// A tensor that cannot be stored as it is.
    #[error("tensor `{name}`: {problem}")]
    Tensor { name: String, problem: String },
    /// A file or directory could not be written, read or renamed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file or a bucket could not be reached, or refused something.
    #[error(transparent)]
    Storage(#[from] ankh_storage::Error),
    /// What was written to a bucket is not there.
    #[error("{file} was written with {bytes} bytes and {}", now(.found))]
    Incomplete {
        file: Location,
        bytes: u64,
        found: Option<u64>,
    },
    /// The system refused a thread to save with.
    #[error("cannot start a thread to write {directory}: {source}")]
    Thread {
        directory: Location,
        source: io::Error,
    },
    /// The Zarr library refused an array.
    #[error("cannot {action} {node}: {problem}")]
    Zarr {
        action: &'static str,
        node: Location,
        problem: String,
    },
}

impl Error {
    /// Whether saving may succeed later although nothing changes but the machine around it: a full
    /// disk gets room, a server comes back, somebody sets a permission right. What is wrong with
    /// the state itself stays wrong.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Error::Io { .. }
                | Error::Thread { .. }
                | Error::Storage(_)
                | Error::Incomplete { .. }
                | Error::Zarr { .. }
                | Error::Late { .. }
                | Error::List { .. }
                | Error::Part { .. }
                | Error::NotCommitted { .. }
        )
    }

    /// Whether a service was not reached, or did not do what it was asked to.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, Error::Storage(_))
    }

    /// An [`Error::Io`] maker for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// What is wrong with a checkpoint on disk, and which step can be used instead.
#[derive(Debug)]
pub struct Damage {
    /// The checkpoint's directory.
    pub checkpoint: Location,
    /// The array the file belongs to, if it belongs to one.
    pub array: Option<String>,
    /// The file, relative to the checkpoint.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether the file is there and readable, or known to be gone: what is only unreadable may be
    /// whole.
    pub certain: bool,
    /// The newest earlier step whose every byte was found intact.
    pub intact: Option<u64>,
}

impl Damage {
    /// The step to go on with, where it is certain that this one cannot be used.
    pub fn fallback(&self) -> Option<u64> {
        self.intact.filter(|_| self.certain)
    }

    /// What is wrong, without advice.
    pub fn finding(&self) -> String {
        let array = match &self.array {
            Some(array) => format!("array `{array}`, "),
            None => String::new(),
        };
        let (checkpoint, file) = (&self.checkpoint, &self.file);
        let problem = &self.problem;
        format!("checkpoint {checkpoint} is damaged: {array}file {file}: {problem}")
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; ", self.finding())?;
        match self.intact {
            Some(step) => write!(
                f,
                "the earlier step {step} is intact: move this directory away to resume from there"
            ),
            None => write!(
                f,
                "no earlier step beside it is intact: restore this directory from a copy"
            ),
        }
    }
}

/// What a file of a checkpoint turned out to be, before anyone knows what to advise.
#[derive(Debug)]
pub(super) struct Fault {
    pub array: Option<String>,
    pub file: String,
    pub problem: String,
    /// Whether the file is not as it was written; else it only cannot be read.
    pub certain: bool,
    /// Why nothing is known of the file, where a service did not answer.
    pub unreached: Option<Box<ankh_storage::Error>>,
}

impl Fault {
    pub fn new(file: impl Into<String>, problem: impl Into<String>) -> Fault {
        Fault {
            array: None,
            file: file.into(),
            problem: problem.into(),
            certain: true,
            unreached: None,
        }
    }

    /// A file of another length.
    pub fn length(file: impl Into<String>, expected: u64, found: u64) -> Fault {
        let problem = format!("expected a file of {expected} bytes, found {found}");
        Fault::new(file, problem)
    }

    /// An object that a service did not give.
    pub fn unreachable(file: impl Into<String>, error: ankh_storage::Error) -> Fault {
        match error {
            ankh_storage::Error::NoSuchObject { .. } => Fault::new(file, "it is missing"),
            error => Fault {
                certain: false,
                unreached: Some(Box::new(error)),
                ..Fault::new(file, "it cannot be read")
            },
        }
    }

    /// A file that cannot be read, be it whole or not.
    pub fn unreadable(file: impl Into<String>, error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::NotFound => Fault::new(file, "it is missing"),
            _ => Fault {
                certain: false,
                ..Fault::new(file, format!("it cannot be read: {error}"))
            },
        }
    }

    pub fn of(self, array: &str) -> Fault {
        Fault {
            array: Some(array.to_owned()),
            ..self
        }
    }
}

fn now(found: &Option<u64>) -> String {
    match found {
        None => "is not there".to_owned(),
        Some(bytes) => format!("has {bytes} now"),
    }
}

fn steps(available: &[u64]) -> String {
    match available {
        [] => "it has no complete step".to_owned(),
        [only] => format!("it has step {only}"),
        [first, .., last] => format!("it has {} steps, {first} to {last}", available.len()),
    }
}
