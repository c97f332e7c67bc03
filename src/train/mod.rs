//! Training: the loop ([`train`]) and what it needs.
//!
//! `trainer` is the loop, in the order in which things happen in a step. What a step computes is in
//! [`crate::programs`]. The other files serve the loop: `resume` finds where a run continues,
//! `first_state` is what it begins with,
//! `data_loader` moves batches to the devices, `in_flight` holds the steps that the devices still
//! work on, `reporter` writes metrics, `evaluation` measures the loss on held-out sequences,
//! `health` tells whether a state is good, `saving` writes checkpoints, `local_states` keeps states
//! in the memory of each host, `profiling` takes the profile of some steps, and `processes` is how
//! several hosts decide as one. `replay` trains steps of a run twice, to see whether the devices
//! compute the same.

mod data_loader;
mod data_order;
mod error;
mod evaluation;
mod first_state;
pub mod forward;
mod health;
mod in_flight;
mod local_states;
mod pace;
mod processes;
mod profiling;
mod rate_change;
mod replay;
mod reporter;
mod resume;
mod saving;
mod state;
mod summary;
mod trainer;

pub use data_loader::{BatchError, batches, host_rows};
pub use data_order::OrderDifference;
pub use error::TrainError;
pub use health::{Fault, Spike};
pub use processes::Processes;
pub use rate_change::RateChange;
pub use replay::{Difference, Reference, Replay, replay};
pub use state::{MissingSlots, State};
pub use summary::Summary;
pub use trainer::{Outcome, train};
