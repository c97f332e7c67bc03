//! Training: the loop ([`train`]), and what it needs around it.
//!
//! `trainer` is the loop; it reads as the order of things in a step. What a step computes is in
//! [`crate::programs`]. The other files serve the loop: `resume` finds where a run goes on,
//! `data_loader` brings batches to the devices, `in_flight` holds the steps that the devices still work
//! on, `reporter` writes their metrics, `evaluation` and `saving` do what their names say.

mod data_loader;
mod data_order;
mod devices;
mod error;
mod evaluation;
pub mod forward;
mod in_flight;
mod pace;
mod rate_change;
mod reporter;
mod resume;
mod saving;
mod state;
mod summary;
mod trainer;

pub use data_loader::{BatchError, batches, host_rows};
pub use data_order::OrderDifference;
pub use devices::open_mesh;
pub use error::TrainError;
pub use rate_change::RateChange;
pub use state::{MissingSlots, State};
pub use summary::Summary;
pub use trainer::{Outcome, train};
