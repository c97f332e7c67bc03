//! What can go wrong with data, each with the file, row or setting it is about.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::storage::Location;
use crate::tokenizer::Vocabulary;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why data could not be read, prepared or batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as in "cannot `create`".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that could not be copied.
    #[error("cannot copy {from} to {to}: {source}", from = from.display(), to = to.display())]
    Copy {
        /// The file.
        from: PathBuf,
        /// Where its copy was to be.
        to: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A text that names no place for data.
    #[error("{text:?} is not a location: {reason}")]
    Location {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A remote file that is not there.
    #[error("{location} does not exist")]
    NoSuchObject {
        /// The file.
        location: Location,
    },
    /// A bucket that is not there.
    #[error(
        "{location} cannot be reached: there is no such bucket; check its name, and for a server of your own AWS_ENDPOINT_URL"
    )]
    NoSuchBucket {
        /// What was asked for.
        location: Location,
    },
    /// Bytes beyond a file's end.
    #[error("bytes {start} to {end} of {location} were asked for, but it has {size}", start = range.start, end = range.end)]
    NoSuchBytes {
        /// The file.
        location: Location,
        /// The bytes asked for.
        range: Range<u64>,
        /// The file's size in bytes.
        size: u64,
    },
    /// A request that the credentials do not allow, or that had none.
    #[error(
        "not allowed to {action} {location}: {reason}; docs/storage.md says where credentials are looked for"
    )]
    Refused {
        /// What was attempted, as in "not allowed to `read`".
        action: &'static str,
        /// The file or directory.
        location: Location,
        /// The server's reason.
        reason: String,
    },
    /// A remote file that became another while it was read.
    #[error("{location} was changed while it was being read")]
    Changed {
        /// The file.
        location: Location,
    },
    /// A request that did not succeed, after all attempts that made sense.
    #[error("cannot {action} {location}: {reason}")]
    Storage {
        /// What was attempted, as in "cannot `read`".
        action: &'static str,
        /// The file or directory.
        location: Location,
        /// The last attempt's reason.
        reason: String,
    },
    /// A sequence file without any record.
    #[error("{path} is empty: expected sequences", path = path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not text where text was expected.
    #[error("{path}, line {line}: binary data where text was expected", path = path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, after decompression.
        line: u64,
    },
    /// Text that begins neither like FASTA nor like a table of sequences.
    #[error("{path}, line {line}: expected a FASTA header starting with '>', or the header of a CSV or TSV table with a column `sequence`, found {found:?}", path = path.display())]
    NotFasta {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// How the line begins.
        found: String,
    },
    /// A line that breaks the format.
    #[error("{path}, line {line}: {reason}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, after decompression.
        line: u64,
        /// What was expected and what was found.
        reason: String,
    },
    /// A compressed file that ends before its data does.
    #[error("{path} is cut short: its {format} data ends in the middle, after line {line}", path = path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The compression.
        format: &'static str,
        /// The last line that could be read.
        line: u64,
    },
    /// A compressed file with damaged content.
    #[error("{path} is damaged: its {format} data cannot be decompressed after line {line}: {reason}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The compression.
        format: &'static str,
        /// The last line that could be read.
        line: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// A known format that is not read.
    #[error("{path} is {format}, which is not read: {advice} (expected FASTA, CSV or TSV, plain or compressed by gzip, zstd or xz, or Parquet)", path = path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// What to do with it.
        advice: &'static str,
    },
    /// A directory without sequence files.
    #[error(
        "{location} holds no sequence files: expected names that end in {endings}, compressed or not"
    )]
    NoSequenceFiles {
        /// The directory.
        location: Location,
        /// How the names of sequence files end.
        endings: String,
    },
    /// An input that is gone once it was read, where it would have to be read again.
    #[error("{name} can be read only once, but {reason}: write it to a file first")]
    Passing {
        /// The input.
        name: String,
        /// Why it would be read again.
        reason: &'static str,
    },
    /// Nothing to prepare.
    #[error("no input files were given")]
    NoInputs,
    /// Inputs that hold nothing but a header, or not even that.
    #[error("there is no record in {inputs}: expected at least one sequence")]
    NoRecords {
        /// The inputs.
        inputs: String,
    },
    /// Every record of the input was rejected.
    #[error("none of the {records} records can be used: {reasons}")]
    NoUsableRecords {
        /// Records read.
        records: u64,
        /// How many were rejected for which reason, with the first example of each.
        reasons: String,
    },
    /// The output directory already holds prepared data.
    #[error("{path} already holds prepared data ({rows} rows): remove it, or ask for it to be replaced", path = path.display())]
    AlreadyPrepared {
        /// The directory.
        path: PathBuf,
        /// Rows in it.
        rows: u64,
    },
    /// The output path holds something this crate did not write.
    #[error("{path} exists and is not prepared data: it is left alone, choose another output directory", path = path.display())]
    ForeignOutput {
        /// The path.
        path: PathBuf,
    },
    /// Prepared data where parts of other data were to be prepared or merged, or in a bucket.
    #[error("{location} already holds prepared data: choose another output")]
    AlreadyInPlace {
        /// Where.
        location: String,
    },
    /// Another process prepares in the same place.
    #[error("another process is at work here: it holds {path}", path = path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// Work that was begun with other inputs or options.
    #[error("{location} holds unfinished work of another kind: {differences}")]
    OtherPreparation {
        /// Where.
        location: String,
        /// What is asked for now, and what was begun.
        differences: String,
    },
    /// A note on unfinished work that cannot be understood.
    #[error("{location} cannot be understood: {reason}")]
    Note {
        /// The note.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Parts of prepared data without a manifest.
    #[error("{path} holds parts of prepared data that are not merged", path = path.display())]
    NotMerged {
        /// The directory.
        path: PathBuf,
    },
    /// Parts that make no data set together.
    #[error("the parts cannot be merged: {}", problems.join("; "))]
    CannotMerge {
        /// What is missing, and what contradicts.
        problems: Vec<String>,
    },
    /// A Parquet file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The Parquet library's reason.
        source: parquet::errors::ParquetError,
    },
    /// A table of sequences without the columns that are looked for.
    #[error("{path}: expected {expected}, found the columns {found}", path = path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        expected: String,
        /// The columns it has, with their types where these can differ.
        found: String,
    },
    /// A Parquet file without the columns that were expected.
    #[error("{path}: expected {expected}, found the columns {found}", path = path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        expected: &'static str,
        /// The columns it has.
        found: String,
    },
    /// A directory without a manifest.
    #[error("{path} holds no prepared data: it has no manifest.json", path = path.display())]
    NotPrepared {
        /// The directory.
        path: PathBuf,
    },
    /// A manifest that cannot be understood, or contradicts the files.
    #[error("{path}: {reason}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A Parquet file that is not laid out as prepared data is.
    #[error("{path} is no file of prepared data: {reason}", path = path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: &'static str,
    },
    /// Data prepared with another tokenizer than asked for.
    #[error("{path} was prepared with the tokenizer {found}, but {expected} is needed", path = path.display())]
    WrongTokenizer {
        /// The directory.
        path: PathBuf,
        /// The tokenizer of the data.
        found: Vocabulary,
        /// The tokenizer asked for.
        expected: Vocabulary,
    },
    /// A prepared file whose bytes are not those that were written.
    #[error("{path} was changed or damaged ({part}): its sha256 is {found}, but the manifest says {expected}", path = path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Which part of it does not fit its own checksum.
        part: String,
        /// The checksum in the manifest.
        expected: String,
        /// The checksum of the file.
        found: String,
    },
    /// A part of a prepared file whose bytes are not those that were written.
    #[error("{path} was changed or damaged: {part}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The row group and page, or the part of the file, and what is wrong with it.
        part: String,
    },
    /// A row of a prepared file that breaks the format.
    #[error("{path}, row {row}: {reason}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0 in the file.
        row: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A row outside the data set.
    #[error("row {row} was asked for, but the data set has {rows} rows")]
    NoSuchRow {
        /// The row asked for.
        row: u64,
        /// The number of rows.
        rows: u64,
    },
    /// A split without rows.
    #[error("{path} has no {split} rows: {reason}", path = path.display())]
    EmptySplit {
        /// The directory.
        path: PathBuf,
        /// The split.
        split: Split,
        /// How that came.
        reason: String,
    },
    /// A setting outside what it may be.
    #[error("{name} {reason}")]
    Setting {
        /// The setting's name in the configuration.
        name: &'static str,
        /// What it must be and what it is.
        reason: String,
    },
    /// An input and a target that do not belong together.
    #[error("input and target do not fit: {0}")]
    Unmask(String),
    /// A background thread ended without a result; its panic message is on stderr.
    #[error("a working thread died")]
    WorkerDied,
}

impl Error {
    /// Whether it says that a file, or its bucket, is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::NoSuchObject { .. } | Error::NoSuchBucket { .. } => true,
            _ => false,
        }
    }

    /// The error behind one of a reader of [`crate::storage::Storage::reader`], in whatever it was wrapped.
    pub fn reading(location: &Location, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => match location.local() {
                Some(path) => Error::io("read", path)(source),
                None => Error::Storage {
                    action: "read",
                    location: location.clone(),
                    reason: source.to_string(),
                },
            },
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Error {
        move |source| Error::Parquet {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn pieces(path: &Path) -> impl FnOnce(&'static str) -> Error {
        move |reason| Error::Layout {
            path: path.to_path_buf(),
            reason,
        }
    }

    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Error {
        Error::Setting {
            name,
            reason: reason.into(),
        }
    }
}
