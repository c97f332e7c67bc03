//! Supervision: a launcher keeps a training process as its child, and starts it again where it
//! crashes or hangs ([`Launch`]).
//!
//! The child says what it does through a socket ([`Pulse`]), since a process that hangs cannot be
//! asked. Silence for longer than its work can take is a hang: its threads are written down, it is
//! killed, and the next one resumes. If the launcher dies, the child hears its socket close.
//!
//! This module knows processes, signals and times. It does not know what training is.

mod back_off;
mod hang;
mod launcher;
mod libtpu_lock;
mod pulse;
mod relay;
mod socket;
mod thread_dump;

pub use hang::{Hang, Patience};
pub use launcher::{Ended, Launch, LaunchError};
pub use libtpu_lock::LIBTPU_LOCK;
pub use pulse::{Phase, Pulse, Restart};
