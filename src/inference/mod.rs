//! Weights at work on devices, without training: what embedding, scoring and generating share.
//!
//! A [`LoadedModel`] holds the parameters on the devices and compiles programs for the sizes that
//! are asked for. [`Lengths`] are those sizes: sequences are padded to one of a few lengths, so
//! that a few programs serve all. [`sorted_batches`] are sequences of about the same length.
//! [`input_batch`] lays sequences out as a program takes them. An [`EncoderLayout`] says which go
//! through the encoder together, and [`LoadedModel::encode`] gives their states. A [`Journal`]
//! keeps what is done of an output. This module prints nothing.

mod batch;
mod encoder_batches;
mod encoding;
mod error;
mod journal;
mod lengths;
mod loaded_model;
mod sorted_batches;

pub use batch::input_batch;
pub use encoder_batches::{EncoderBatch, EncoderLayout, PackedRows, Place};
pub use encoding::EncodedBatch;
pub use error::Error;
pub use journal::{Journal, JournalError, Unfinished, remove_journal_of};
pub use lengths::Lengths;
pub use loaded_model::{LoadedModel, ModelOptions, Program};
pub use sorted_batches::{BatchSize, RowLengths, SortedBatch, sorted_batches};
