//! Why nothing could be generated.

use std::io;
use std::path::PathBuf;

use crate::inference;

/// Why nothing could be generated.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that does not begin as FASTA does.
    #[error(
        "{path}, line {line}: expected a header that begins with `>`, found `{found}`",
        path = path.display()
    )]
    NotFasta {
        path: PathBuf,
        line: u64,
        found: String,
    },
    /// A file without prompts.
    #[error("{path} has no prompts: expected FASTA", path = .0.display())]
    NoPrompts(PathBuf),
    /// A prompt cannot be used.
    #[error("{path}, line {line}: {fault}", path = path.display())]
    Prompt {
        path: PathBuf,
        line: u64,
        fault: Fault,
    },
    /// The model could not be run.
    #[error(transparent)]
    Inference(#[from] inference::Error),
    /// The model's scores are not numbers.
    #[error("the model gives no finite scores for `{id}`")]
    NotFinite { id: String },
    /// A program compiled for other sizes gives other arrays.
    #[error("the program gives arrays of another type or size")]
    Arrays(#[from] ankh_pjrt::Error),
    /// The output is there already.
    #[error("{0} is there already")]
    OutputExists(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {verb} {path}", path = path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What is done cannot be kept, or cannot be gone on from.
    #[error(transparent)]
    Journal(#[from] inference::JournalError),
}

/// What is wrong with a prompt.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A character that is no residue.
    #[error("`{id}` has `{found}` at position {position}, which is no residue")]
    NoResidue {
        id: String,
        found: char,
        position: usize,
    },
    /// A mark that is no sentinel.
    #[error("`{id}` has `{found}`, which is no sentinel: they are <extra_id_0>, <extra_id_1> ...")]
    NoSentinel { id: String, found: String },
    /// Sentinels that do not count up from 0.
    #[error("`{id}` has <extra_id_{found}> where <extra_id_{expected}> should be: they count up")]
    SentinelOrder {
        id: String,
        found: usize,
        expected: usize,
    },
    /// More places than the tokenizer has sentinels for.
    #[error("`{id}` has {found} places to be filled, and a prompt may have {most}")]
    TooMany {
        id: String,
        found: usize,
        most: usize,
    },
    /// Nothing to be filled.
    #[error("`{id}` has no sentinel, so there is nothing to fill")]
    NothingToFill { id: String },
    /// A sentinel where a sequence is to go on.
    #[error("`{id}` has a sentinel, and a sequence that is to go on has none")]
    SentinelInBeginning { id: String },
    /// No residue at all.
    #[error("`{id}` has no residues")]
    Empty { id: String },
    /// A sequence longer than was allowed.
    #[error("`{id}` has {found} tokens, and --max-length is {most}")]
    TooLong {
        id: String,
        found: usize,
        most: usize,
    },
}
