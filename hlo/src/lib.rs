//! Tensor programs: a typed builder, derivatives, loops with rematerialisation, shardings, and lowering to XLA's HLO.
//!
//! A [`Graph`] collects operations through [`Tensor`] handles that behave like numbers; [`Graph::gradients`] adds the
//! derivative of a scalar; [`Graph::finish`] gives a [`Module`] for a PJRT plugin to compile. The crate knows nothing of
//! devices, models or files.
//!
//! ```
//! use ankh_hlo::{DType, Graph, Shape};
//!
//! let g = Graph::new("parabola");
//! let x = g.parameter("x", Shape::new(DType::F32, [3]));
//! let y = x.square().sum_all();
//! let dy = g.gradients(y, &[x])[0];
//! let module = g.finish(&[y, dy], &[]).unwrap();
//! assert!(module.text().contains("multiply"));
//! ```

mod error;
mod function;
mod grad;
mod graph;
mod literal;
mod lower;
mod op;
mod ops;
mod shape;
mod sharding;
mod text;

pub use error::Error;
pub use graph::{Graph, Scope, Tensor};
pub use literal::Literal;
pub use lower::{ArraySpec, Module};
pub use op::{Binary, Comparison, DotDims, PadDim, Precision, Reduction, RngAlgorithm, Unary};
pub use ops::{Remat, ScanOptions};
pub use shape::{DType, Shape};
pub use sharding::{IndivisibleDim, LogicalAxisRules, Mesh, Sharding, ShardingForm};
pub use text::module as text;
