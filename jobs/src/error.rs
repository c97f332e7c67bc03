//! What goes wrong with jobs.

use std::io;
use std::path::PathBuf;

/// Why something cannot be done with a job.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that a machine cannot have.
    #[error(
        "`{0}` is no name of a job, expected 1 to 40 of a-z, 0-9 and -, a letter first and no - last"
    )]
    Name(String),
    /// A place that is described wrongly.
    #[error("{0}")]
    Place(String),
    /// What a job needs is not there. Nothing was created.
    #[error("{what}: {found}")]
    Check {
        /// What was looked at.
        what: &'static str,
        found: String,
        /// What to do about it.
        help: String,
    },
    /// A tool is not installed.
    #[error("{program} cannot be started: {source}")]
    NoTool {
        program: &'static str,
        source: io::Error,
    },
    /// A tool failed.
    #[error("`{command}` failed: {said}")]
    Tool {
        command: String,
        /// What it printed.
        said: String,
    },
    /// A tool gave an answer that is not understood.
    #[error("`{command}` gave an answer that is not understood: {said}")]
    Answer { command: String, said: String },
    /// There is a job of that name, and it is another one.
    #[error("there is a job {name} already, and it differs: {}", .differences.join("; "))]
    Differs {
        name: String,
        differences: Vec<String>,
    },
    /// A machine of that name is not this job's.
    #[error("there is a queued resource {name} in {zone} already, and it is not of this job")]
    Foreign { name: String, zone: String },
    /// Nobody knows that job here.
    #[error("no job {0} is recorded here")]
    NoJob(String),
    /// Another process acts on the job.
    #[error("another process on this machine submits or stops {0} now")]
    Busy(String),
    /// The machine fails again and again.
    #[error("the machine failed {times} times in a row; the last time {reason}")]
    GivenUp { times: u32, reason: String },
    /// Some hosts cannot be used.
    #[error("{} of {hosts} hosts: {what}: {}", .failed.len(), .failed.join("; "))]
    SomeHosts {
        hosts: usize,
        what: &'static str,
        /// Each host with the reason.
        failed: Vec<String>,
    },
    /// A file on this machine.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Results cannot be written.
    #[error("cannot write the results")]
    Output(#[source] io::Error),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}
