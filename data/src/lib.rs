//! Protein sequences to the masked batches a T5-like model trains on.
//!
//! Two sides meet in the [`format`](mod@format) of prepared data. [`prepare`](mod@prepare) reads
//! files of sequences ([`prepare::input`]), decides what their letters mean ([`prepare::residues`])
//! and writes token ids ([`Tokenizer`]) as Parquet with a [`Manifest`]. [`batches`] opens that as a
//! [`Dataset`], picks the rows of a step ([`batches::order`]), masks them ([`Objective`]) and lays
//! them out as a [`Batch`]. Neither side uses the other.
//!
//! Nothing here has hidden state: order and masks are functions of (seed, epoch, row), so every
//! step can be made on its own. The crate knows nothing of XLA, devices or models.

pub mod batches;
mod error;
pub mod format;
mod frequencies;
pub mod prepare;
mod random;
mod split;
pub mod synthetic;
mod threads;
pub mod tokenizer;

pub use batches::dataset::{Dataset, Lengths, ReadOptions, Shuffle};
pub use batches::objective::{Example, Objective};
pub use batches::{
    Batch, BatchConfig, Batches, Component, HostShard, IGNORED, LongSequences, Mixture, Packing,
    Prefetch, RowCounts, RowFill, Sequence,
};
pub use error::{Error, ManifestFault, PartsFault, Result, Setting, StructureFault};
pub use format::{Duplicates, Manifest, Report};
pub use frequencies::TokenFrequencies;
pub use prepare::input::Input;
pub use prepare::{Existing, PrepareOptions, ProgressUpdate, Unfinished, prepare};
pub use random::Key;
pub use split::Split;
pub use tokenizer::{Tokenizer, Vocabulary};
