//! Kernels for TPUs: programs that keep a block of each array in the core's own memory (VMEM) and
//! pass over a grid of blocks.
//!
//! A [`Kernel`] is a grid, the block of each array that belongs to a place on it ([`Block`]), and a
//! body that computes blocks from blocks with the operations of [`Tensor`](ankh_hlo::Tensor). So
//! shapes and element types are checked as in any program, and a mistake is reported with its line.
//! One description is lowered in two ways ([`Lowering`]):
//!
//! - [`Lowering::Mosaic`]: text of the dialect that a TPU's compiler takes, in a custom call;
//! - [`Lowering::Loops`]: a loop over the grid in plain HLO, for every other plugin. So the
//!   arithmetic of a kernel is tested where there is no TPU, with the very body that a TPU gets.
//!
//! Begin with `kernel.rs`. `loops.rs` and `custom_call.rs` are the two lowerings. `text` writes
//! Mosaic. The argument is in `docs/design/kernels.md`.
//!
//! ```
//! use ankh_hlo::{DType, Graph, Shape};
//! use ankh_mosaic::{Block, BlockDim::{Element, Whole}, Kernel, Lowering, Output};
//!
//! // The sum of each of four arrays, of which one at a time is in VMEM.
//! let x = Shape::new(DType::F32, [4, 8, 128]);
//! let sums = Shape::new(DType::F32, [4, 1, 128]);
//! let kernel = Kernel::new("sums", &[4])
//!     .input(Block::new(x.clone(), &[Element(0), Whole, Whole]))
//!     .output(Output::Each(Block::new(sums, &[Element(0), Whole, Whole])))
//!     .body(|step| vec![step.inputs[0].sum(&[0]).expand_dims(&[0])]);
//! let g = Graph::new("program");
//! let x = g.parameter("x", x);
//! let sums = kernel.apply(Lowering::Loops, &[x]);
//! assert!(g.finish(&sums, &[]).is_ok());
//! ```

mod cost;
mod custom_call;
mod kernel;
mod loops;
mod lowering;
mod text;

pub use cost::Cost;
pub use custom_call::{KernelCall, TARGET};
pub use kernel::{Block, BlockDim, Body, Carried, Kernel, Output, Step};
pub use lowering::Lowering;
pub use text::TextError;
