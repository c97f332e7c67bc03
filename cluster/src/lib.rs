//! How the hosts of a run meet, watch over each other and act together.
//!
//! Host 0 runs a [`Server`], and each host a [`Member`]. Hosts meet first: the coordinator compares
//! what has to be the same on all of them, and nobody begins before all are there. Then every host
//! is heard several times within the time after which it counts as lost, and when one fails or is
//! lost, all learn which and why. A request to save or stop that reaches one host is carried out by
//! all of them at the same place: see [`Member::pass`].
//!
//! A host also keeps copies of directories for another: [`Copies`].
//!
//! The crate does not know what a run is. The decisions are made in `coordinator`, which does no
//! input or output and is given the time; `server` and `member` carry its messages.

mod coordinator;
mod copies;
mod errors;
mod gate;
mod identity;
mod incoming;
mod lag;
mod meeting_place;
mod member;
mod server;

/// The messages on the wire.
#[allow(missing_docs)]
mod wire {
    tonic::include_proto!("ankh.cluster");
}

/// What the fuzz target of `cluster/fuzz` plays.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use coordinator::course::play;

use std::time::Duration;

pub use copies::{Copies, CopySender};
pub use errors::{CopiesError, EndReason, Ended, JoinError, SendError, ServeError};
pub use gate::{Next, Request};
pub use identity::Identity;
pub use meeting_place::MeetingPlace;
pub use member::{Leaving, Member, SaveReport};
pub use server::Server;

/// How long the hosts wait for each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// For all hosts to come.
    pub rendezvous: Duration,
    /// A host that is not heard for so long counts as lost.
    pub lost_after: Duration,
}

impl Timing {
    /// How often each host is heard.
    pub(crate) fn heartbeat(&self) -> Duration {
        (self.lost_after / 8).clamp(Duration::from_millis(50), Duration::from_secs(2))
    }
}
