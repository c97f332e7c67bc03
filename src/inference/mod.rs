//! Weights at work on devices, without training: what embedding, scoring and generating share.
//!
//! A [`LoadedModel`] holds the parameters on the devices and compiles programs for the sizes that
//! are asked for. [`Lengths`] are those sizes: sequences are padded to one of a few lengths, so
//! that a few programs serve all. [`input_batch`] lays sequences out as a program takes them. This
//! module does not know what the programs compute, nor files.

mod batch;
mod error;
mod lengths;
mod loaded_model;

pub use batch::input_batch;
pub use error::Error;
pub use lengths::Lengths;
pub use loaded_model::{LoadedModel, ModelOptions, Program};
