//! The operations as methods on [`Tensor`](crate::Tensor) and [`Graph`](crate::Graph), by subject.

mod annotations;
mod control;
mod dot;
mod elementwise;
mod random;
mod reduce;
mod rows;
mod structure;

pub use control::ScanOptions;
pub(crate) use dot::free;
