//! What can go wrong between hosts.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::wire;

/// Why the hosts of a run are together no longer, or never were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    /// The kind of end.
    pub reason: EndReason,
    /// What happened, and on which host.
    pub message: String,
}

/// Kinds of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A host failed, is lost, or did not come: the run can be started again.
    Failed,
    /// A host was asked to stop before there was anything to save.
    Stopped,
    /// The hosts do not belong together: they would be refused again.
    Refused,
}

impl Ended {
    pub(crate) fn failed(message: impl Into<String>) -> Ended {
        Ended {
            reason: EndReason::Failed,
            message: message.into(),
        }
    }

    /// What a coordinator says; nothing if another session may follow.
    pub(crate) fn of(ended: wire::Ended) -> Option<Ended> {
        let reason = match ended.reason() {
            wire::EndReason::Over => return None,
            wire::EndReason::Stopped => EndReason::Stopped,
            wire::EndReason::Refused => EndReason::Refused,
            wire::EndReason::Failed | wire::EndReason::Unspecified => EndReason::Failed,
        };
        Some(Ended {
            reason,
            message: ended.message,
        })
    }
}

/// Why the hosts did not meet.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There were others, and one of them, or this one, could not take part.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// Host 0 was not found.
    #[error("host {host} waited {seconds} s for host 0 and did not meet it: {last}")]
    NoCoordinator {
        host: usize,
        seconds: u64,
        /// What the last attempt met.
        last: String,
    },
    /// A thread for it cannot be started.
    #[error("the thread that speaks with the other hosts cannot be started")]
    Thread(#[source] io::Error),
}

/// Why host 0 cannot coordinate.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the other hosts of the run")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    /// The others cannot be told where.
    #[error("cannot write {} for the other hosts of the run", path.display())]
    Publish { path: PathBuf, source: io::Error },
    /// A thread for it cannot be started.
    #[error("the thread that serves the other hosts cannot be started")]
    Thread(#[source] io::Error),
}

/// Why hosts keep no copies for each other.
#[derive(Debug, thiserror::Error)]
pub enum CopiesError {
    /// They are together no longer.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// This one cannot take them in.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Why a directory was not sent to another host.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The other host was not reached, or did not keep it.
    #[error("{address} has not kept the copy: {problem}")]
    NotSent {
        address: SocketAddr,
        problem: String,
    },
    /// A thread for it cannot be started.
    #[error("the thread that sends a copy cannot be started")]
    Thread(#[source] io::Error),
}
