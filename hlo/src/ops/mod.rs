//! The operations as methods on [`Tensor`](crate::Tensor) and [`Graph`](crate::Graph), by subject.

mod annotations;
mod control;
mod custom_call;
mod dot;
mod elementwise;
mod random;
mod reduce;
mod rows;
mod shard_map;
mod structure;

pub use control::ScanOptions;
pub(crate) use dot::free;
pub use shard_map::ShardMapAxes;
