//! Variants of proteins, as the paper of Ankh makes them: of a family that is known ([`high_n`]),
//! and of one sequence alone ([`one_n`]).
//!
//! High-N fine-tunes the decoder on a family while the encoder is frozen, and then writes sequences
//! from a short beginning. One-N hides a share of one sequence, and fills it anew. Both end with a
//! [`Report`]: how conserved each column is, beside the family's; how much the sequences are like
//! natural ones; and how many are distinct. Fine-tuning is a run of [`crate::train`], generating is
//! [`crate::generate`]; this module connects them and measures what they give. All that follows
//! from the seed is the same when a command is run again, stopped in between or not.

mod aligner;
mod alignment;
mod directory;
mod error;
mod fine_tuning;
mod generation;
mod high_n;
mod measures;
mod one_n;
mod page;
mod profile;
mod report;

pub use aligner::Aligner;
pub use alignment::{Alignment, Record, records};
pub use error::Error;
pub use fine_tuning::{FineTuning, Origin};
pub use generation::{Drawing, Stage};
pub use high_n::{HighN, high_n};
pub use measures::{EntropyError, Range};
pub use one_n::{OneN, one_n};
pub use report::{Column, Report, Setting};

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The report is written.
    Finished(Box<Report>),
    /// On request; the same command goes on.
    Stopped,
}
