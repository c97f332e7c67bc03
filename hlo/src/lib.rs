//! Tensor programs for XLA: a builder with checked shapes, reverse-mode derivatives, scans with
//! rematerialisation, shardings, and lowering to HLO.
//!
//! A [`Graph`] collects operations through [`Tensor`] handles that behave like numbers, as JAX's
//! tracers do. [`Graph::gradients`] is `jax.grad`, [`Graph::scan`] is `lax.scan` with a checkpoint
//! policy ([`Remat`]), and [`LogicalAxisRules`] are Flax's. [`Graph::finish`] gives a [`Module`]
//! for a PJRT plugin to compile. The crate knows nothing of devices, models or files.
//!
//! Operations are methods in `ops`; each adds a node (`ir`) to the graph (`graph`). Their
//! derivatives are in `grad/rules.rs`, their instructions in `lower/operation.rs`.
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
mod grad;
mod graph;
mod ir;
mod literal;
mod lower;
mod ops;
mod shape;
mod sharding;
mod text;

pub use error::Error;
pub use graph::{Graph, Scope, Tensor};
pub use ir::{
    Binary, Comparison, CustomCall, DotDims, PadDim, Reduction, Remat, RngAlgorithm, Unary,
};
pub use literal::Literal;
pub use lower::{ArraySpec, MANUAL_COMPUTATION, Module};
pub use ops::{ScanOptions, ShardMapAxes};
pub use shape::{DType, Shape};
pub use sharding::{
    AxisError, AxisName, IndivisibleDim, LogicalAxisRules, Mesh, Sharding, ShardingForm,
};
pub use text::module as text;
