//! Protein sequences to the masked batches a T5-like model trains on.
//!
//! The way of a sequence: [`prepare()`] reads files of sequences ([`input`]), decides what their letters
//! mean ([`residues`]) and writes token ids ([`Tokenizer`]) as Parquet with a [`Manifest`]. A
//! [`Dataset`] opens that and verifies it. [`Batches`] picks the rows of a step ([`order`]), masks
//! them ([`Objective`]) and lays them out as a [`Batch`].
//!
//! Nothing here has hidden state: order and masks are functions of (seed, epoch, row), so every step
//! can be made on its own. The crate knows nothing of XLA, devices or models.

pub mod batches;
pub mod dataset;
pub mod error;
pub mod frequencies;
pub mod input;
pub mod manifest;
mod nucleotides;
pub mod objective;
pub mod order;
mod packing;
pub mod prepare;
pub mod random;
pub mod residues;
pub mod storage;
pub mod synthetic;
mod threads;
pub mod tokenizer;

pub use batches::{
    Batch, BatchPlan, Batches, Component, IGNORED, LongSequences, Mixture, Prefetch, Rows, Seen,
    Sequence, Share,
};
pub use dataset::{Dataset, Lengths, ReadOptions, Shuffle, Split};
pub use error::{Error, Result};
pub use frequencies::TokenFrequencies;
pub use input::Input;
pub use manifest::Manifest;
pub use objective::{Example, Objective};
pub use prepare::{Duplicates, Existing, PrepareOptions, Progress, Report, Unfinished, prepare};
pub use random::Key;
pub use storage::{CacheOptions, Location, Storage, StorageOptions};
pub use tokenizer::{Tokenizer, Vocabulary};
