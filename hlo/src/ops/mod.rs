//! The operations as methods on [`Tensor`](crate::Tensor) and [`Graph`](crate::Graph), by subject.

mod control;
mod dot;
mod elementwise;
mod names;
mod random;
mod reduce;
mod rows;
mod structure;

pub use control::{Remat, ScanOptions};
pub(crate) use dot::inverse;
