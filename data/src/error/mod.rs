//! What can go wrong with data, each with the file, row or setting it is about.
#![allow(missing_docs)] // The message of a variant explains its fields.

mod faults;

use std::path::{Path, PathBuf};
use std::{fmt, io};

use ankh_storage::Location;

use crate::split::Split;
use crate::tokenizer::Vocabulary;
pub use faults::{ManifestFault, PartsFault, StructureFault};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why data could not be read, prepared or batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or bucket that cannot be read or written.
    #[error(transparent)]
    Storage(#[from] ankh_storage::Error),
    /// A sequence file without any record.
    #[error("{path} is empty: expected sequences", path = path.display())]
    EmptyFile { path: PathBuf },
    /// A file that is not text where text was expected.
    #[error("{path}, line {line}: binary data where text was expected", path = path.display())]
    Binary { path: PathBuf, line: u64 },
    /// Text that begins neither like FASTA nor like a table of sequences.
    #[error(
        "{path}, line {line}: expected a FASTA header starting with '>', or the header of \
         a CSV or TSV table with a column `sequence`, found {found:?}",
        path = path.display()
    )]
    NotFasta {
        path: PathBuf,
        line: u64,
        found: String,
    },
    /// A line that breaks the format.
    #[error("{path}, line {line}: {reason}", path = path.display())]
    Line {
        path: PathBuf,
        line: u64,
        reason: String,
    },
    /// A compressed file that ends before its data does.
    #[error(
        "{path} is cut short: its {format} data ends in the middle, after line {line}",
        path = path.display()
    )]
    Truncated {
        path: PathBuf,
        format: &'static str,
        line: u64,
    },
    /// A compressed file with damaged content.
    #[error(
        "{path} is damaged: its {format} data cannot be decompressed after line {line}: \
         {reason}",
        path = path.display()
    )]
    Corrupt {
        path: PathBuf,
        format: &'static str,
        line: u64,
        reason: String,
    },
    /// A known format that is not read.
    #[error(
        "{path} is {format}, which is not read: {advice} (expected FASTA, CSV or TSV, \
         plain or compressed by gzip, zstd or xz, or Parquet)",
        path = path.display()
    )]
    UnsupportedFormat {
        path: PathBuf,
        format: &'static str,
        advice: &'static str,
    },
    /// A directory without sequence files.
    #[error(
        "{location} holds no sequence files: expected names that end in {endings}, compressed or not"
    )]
    NoSequenceFiles { location: Location, endings: String },
    /// An input that is gone once it was read, where it would have to be read again.
    #[error("{name} can be read only once, but {reason}: write it to a file first")]
    Passing { name: String, reason: &'static str },
    /// Nothing to prepare.
    #[error("no input files were given")]
    NoInputs,
    /// Inputs that hold nothing but a header, or not even that.
    #[error("there is no record in {inputs}: expected at least one sequence")]
    NoRecords { inputs: String },
    /// Every record of the input was rejected.
    #[error("none of the {records} records can be used: {reasons}")]
    NoUsableRecords { records: u64, reasons: String },
    /// The output directory already holds prepared data.
    #[error(
        "{path} already holds prepared data ({rows} rows): remove it, or ask for it to be \
         replaced",
        path = path.display()
    )]
    AlreadyPrepared { path: PathBuf, rows: u64 },
    /// The output path holds something this crate did not write.
    #[error(
        "{path} exists and is not prepared data: it is left alone, choose another output \
         directory",
        path = path.display()
    )]
    ForeignOutput { path: PathBuf },
    /// Prepared data where parts of other data were to be prepared or merged, or in a bucket.
    #[error("{location} already holds prepared data: choose another output")]
    AlreadyInPlace { location: String },
    /// Another process prepares in the same place.
    #[error("another process is at work here: it holds {path}", path = path.display())]
    Busy { path: PathBuf },
    /// Work that was begun with other inputs or options.
    #[error("{location} holds unfinished work of another kind: {differences}")]
    OtherPreparation {
        location: String,
        differences: String,
    },
    /// A progress file of unfinished work that cannot be understood.
    #[error("{location} cannot be understood: {reason}")]
    Progress { location: String, reason: String },
    /// Parts of prepared data without a manifest.
    #[error("{path} holds parts of prepared data that are not merged", path = path.display())]
    NotMerged { path: PathBuf },
    /// A text that names no part of the work.
    #[error("expected I/N with I from 0 to N - 1, as in 0/4 to 3/4, found {found:?}")]
    NotAPart { found: String },
    /// Parts that make no data set together.
    #[error("the parts cannot be merged: {}", problems.join("; "))]
    CannotMerge { problems: Vec<String> },
    /// A Parquet file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Parquet {
        path: PathBuf,
        source: parquet::errors::ParquetError,
    },
    /// A table of sequences without the columns that are looked for.
    #[error("{path}: expected {expected}, found the columns {found}", path = path.display())]
    NoColumn {
        path: PathBuf,
        expected: String,
        found: String,
    },
    /// A Parquet file without the columns that were expected.
    #[error("{path}: expected {expected}, found the columns {found}", path = path.display())]
    Columns {
        path: PathBuf,
        expected: &'static str,
        found: String,
    },
    /// A directory without a manifest.
    #[error("{path} holds no prepared data: it has no manifest.json", path = path.display())]
    NotPrepared { path: PathBuf },
    /// A manifest that cannot be understood, or contradicts the files.
    #[error("{path}: {fault}", path = path.display())]
    Manifest { path: PathBuf, fault: ManifestFault },
    /// A Parquet file that is not laid out as prepared data is.
    #[error("{path} is no file of prepared data: {fault}", path = path.display())]
    WrongStructure {
        path: PathBuf,
        fault: StructureFault,
    },
    /// Data prepared with another tokenizer than asked for.
    #[error(
        "{path} was prepared with the tokenizer {found}, but {expected} is needed",
        path = path.display()
    )]
    WrongTokenizer {
        path: PathBuf,
        found: Vocabulary,
        expected: Vocabulary,
    },
    /// A prepared file whose bytes are not those that were written.
    #[error(
        "{path} was changed or damaged ({part}): its sha256 is {found}, but the manifest \
         says {expected}",
        path = path.display()
    )]
    Checksum {
        path: PathBuf,
        part: String,
        expected: String,
        found: String,
    },
    /// A part of a prepared file whose bytes are not those that were written.
    #[error("{path} was changed or damaged: {part}", path = path.display())]
    Damaged { path: PathBuf, part: String },
    /// A row of a prepared file that breaks the format.
    #[error("{path}, row {row}: {reason}", path = path.display())]
    Row {
        path: PathBuf,
        row: u64,
        reason: String,
    },
    /// A row outside the data set.
    #[error("row {row} was asked for, but the data set has {rows} rows")]
    NoSuchRow { row: u64, rows: u64 },
    /// A split without rows.
    #[error("{path} has no {split} rows: {reason}", path = path.display())]
    EmptySplit {
        path: PathBuf,
        split: Split,
        reason: String,
    },
    /// A setting outside what it may be.
    #[error("{setting} {reason}")]
    Setting { setting: Setting, reason: String },
    /// An input and a target that do not belong together.
    #[error("input and target do not fit: {0}")]
    Unmask(String),
    /// A background thread ended without a result; its panic message is on stderr.
    #[error("a working thread died")]
    WorkerDied,
}

/// What a program that uses this crate sets. What it calls that is its own matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// The rows of a step over all hosts: [`crate::BatchConfig::global_batch`].
    GlobalBatch,
    /// [`crate::BatchConfig::input_length`].
    InputLength,
    /// [`crate::BatchConfig::target_length`].
    TargetLength,
    /// [`crate::BatchConfig::packing`].
    Packing,
    /// The threads that make a batch.
    Threads,
    /// The parts of a [`crate::Mixture`].
    Mixture,
    /// The data that an order is made of.
    Data,
    /// A host's number: [`crate::HostShard::host`].
    Host,
    /// The rows of [`crate::HostShard::ranges`].
    Rows,
    /// The step of a batch.
    Step,
    /// A switch of an [`crate::Objective`], by its name.
    Objective(&'static str),
    /// A field of [`crate::PrepareOptions`], or the inputs, by its name.
    Prepare(&'static str),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::GlobalBatch => "the global batch",
            Setting::InputLength => "the input length",
            Setting::TargetLength => "the target length",
            Setting::Packing => "rows of several sequences",
            Setting::Threads => "the threads",
            Setting::Mixture => "the mixture",
            Setting::Data => "the data",
            Setting::Host => "the host's number",
            Setting::Rows => "the rows",
            Setting::Step => "the step",
            Setting::Objective(name) | Setting::Prepare(name) => name,
        })
    }
}

impl Error {
    /// Whether it says that a file, or its bucket, is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Error::Storage(error) if error.is_missing())
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| ankh_storage::Error::io(action, path)(source).into()
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Error {
        move |source| Error::Parquet {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn wrong_structure(path: &Path) -> impl FnOnce(StructureFault) -> Error {
        move |fault| Error::WrongStructure {
            path: path.to_path_buf(),
            fault,
        }
    }

    pub(crate) fn setting(setting: Setting, reason: impl Into<String>) -> Error {
        Error::Setting {
            setting,
            reason: reason.into(),
        }
    }
}
