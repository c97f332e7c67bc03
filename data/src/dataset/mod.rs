//! Prepared data, opened: rows of token ids by number.
//!
//! A [`Dataset`] is one split of a prepared directory. Opening verifies the manifest, the checksum of
//! every file, the columns and each row, so that nothing after it can meet a bad token. Rows are read
//! through `RowStore`; the one implementation here keeps all tokens in memory, one byte each.

mod lengths;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{Amount, FileInfo, Manifest, sha256};
use crate::tokenizer::Tokenizer;
pub use lengths::Lengths;

/// A part of the data.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    #[default]
    Train,
    /// What is held out.
    Validation,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
        })
    }
}

/// How the rows of a data set can be put in a random order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// Any row can be had at any time: one permutation of all rows.
    Exact,
    /// Rows are read from their files in blocks when they are needed, so a permutation of blocks fills windows one
    /// after the other, and the rows of a window are permuted.
    Windows {
        /// The first row of each block, ascending, and behind the last the number of rows.
        blocks: Arc<[u64]>,
        /// The residues of a window, at most; a window holds one block at least.
        residues: u64,
    },
}

/// Where rows of tokens lie.
pub(crate) trait RowStore: Send + Sync {
    /// Some tokens of a row, which lies at `bounds` of all tokens. The range lies within its length.
    fn read(&self, row: u64, bounds: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>>;
    /// How rows can be shuffled.
    fn shuffle(&self) -> &Shuffle;
    /// Which blocks will be read from now on, the most urgent first; others may be forgotten.
    fn will_need(&self, blocks: &[u32]);
}

/// All tokens, one after the other.
struct InMemory(Vec<u8>);

impl RowStore for InMemory {
    fn read(&self, _: u64, bounds: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        // What lies in memory has places that fit.
        let start = bounds.start as usize;
        Ok(Cow::Borrowed(
            &self.0[start + range.start..start + range.end],
        ))
    }

    fn shuffle(&self) -> &Shuffle {
        &Shuffle::Exact
    }

    fn will_need(&self, _: &[u32]) {}
}

/// One split of prepared data. Cloning is cheap: the rows are shared.
#[derive(Clone)]
pub struct Dataset {
    lengths: Arc<Lengths>,
    store: Arc<dyn RowStore>,
    tokenizer: Tokenizer,
    name: Arc<Path>,
}

impl Dataset {
    /// Opens one split of a prepared directory, and verifies all of it.
    pub fn open(directory: impl AsRef<Path>, split: Split) -> Result<Dataset> {
        let directory = directory.as_ref();
        let manifest = Manifest::read(directory)?;
        let tokenizer = Tokenizer::of(manifest.tokenizer.name);
        let amount = manifest.amount(split);
        if amount.rows == 0 {
            return Err(Error::EmptySplit {
                path: directory.to_path_buf(),
                split,
            });
        }
        let mut rows = Rows::default();
        for file in manifest.files.iter().filter(|file| file.split == split) {
            read_file(&directory.join(&file.path), file, tokenizer, &mut rows)?;
        }
        Ok(Dataset {
            lengths: Arc::new(rows.lengths),
            store: Arc::new(InMemory(rows.tokens)),
            tokenizer,
            name: directory.into(),
        })
    }

    /// Like [`Dataset::open`], for a model that needs a particular tokenizer.
    pub fn open_for(
        directory: impl AsRef<Path>,
        split: Split,
        tokenizer: Tokenizer,
    ) -> Result<Dataset> {
        let dataset = Dataset::open(&directory, split)?;
        if dataset.tokenizer != tokenizer {
            return Err(Error::WrongTokenizer {
                path: directory.as_ref().to_path_buf(),
                found: dataset.tokenizer.vocabulary(),
                expected: tokenizer.vocabulary(),
            });
        }
        Ok(dataset)
    }

    /// A data set of the given sequences of letters, in memory.
    pub fn from_sequences<S: AsRef<[u8]>>(
        tokenizer: Tokenizer,
        sequences: impl IntoIterator<Item = S>,
    ) -> Dataset {
        let mut rows = Rows::default();
        for sequence in sequences {
            rows.push(&tokenizer.encode(sequence.as_ref()));
        }
        Dataset {
            lengths: Arc::new(rows.lengths),
            store: Arc::new(InMemory(rows.tokens)),
            tokenizer,
            name: Path::new("sequences in memory").into(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.lengths.rows()
    }

    /// The number of residues of all rows together.
    pub fn residues(&self) -> u64 {
        self.lengths.total()
    }

    /// The number of residues of each row.
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// How its rows can be put in a random order.
    pub fn shuffle(&self) -> &Shuffle {
        self.store.shuffle()
    }

    /// Says which blocks will be read from now on, the most urgent first, so that they can be read ahead and others
    /// forgotten. Reading a row of another block is possible, and slow.
    pub fn will_need(&self, blocks: &[u32]) {
        self.store.will_need(blocks);
    }

    /// The tokenizer the ids belong to.
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// The directory, or what stands for it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The number of residues of a row.
    pub fn length(&self, row: u64) -> Result<usize> {
        let length = self.lengths.of(row).ok_or_else(|| self.no_such(row))?;
        Ok(length as usize)
    }

    /// The tokens of a row, without `</s>`.
    pub fn tokens(&self, row: u64) -> Result<Cow<'_, [u8]>> {
        let length = self.length(row)?;
        self.window(row, 0..length)
    }

    /// Some of a row's tokens. The range lies within the row's length.
    pub fn window(&self, row: u64, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let bounds = self.lengths.bounds(row).ok_or_else(|| self.no_such(row))?;
        match range.start <= range.end && range.end as u64 <= bounds.end - bounds.start {
            true => self.store.read(row, bounds, range),
            false => Err(self.no_such(row)),
        }
    }

    fn no_such(&self, row: u64) -> Error {
        Error::NoSuchRow {
            row,
            rows: self.rows(),
        }
    }
}

/// Rows that were read, one behind the other.
#[derive(Default)]
struct Rows {
    tokens: Vec<u8>,
    lengths: Lengths,
}

impl Rows {
    fn push(&mut self, row: &[u8]) {
        self.tokens.extend_from_slice(row);
        // No sequence is kept that is longer than `LONGEST_SEQUENCE`, far below 2^32.
        self.lengths.push(row.len() as u32);
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({}, {} rows)", self.name.display(), self.rows())
    }
}

/// Appends the rows of one file. The bytes are read once, so what is decoded is what was verified.
fn read_file(
    path: &Path,
    expected: &FileInfo,
    tokenizer: Tokenizer,
    rows: &mut Rows,
) -> Result<()> {
    let bytes = Bytes::from(std::fs::read(path).map_err(Error::io("read", path))?);
    let found = sha256(&bytes);
    if found != expected.sha256 {
        return Err(Error::Checksum {
            path: path.to_path_buf(),
            expected: expected.sha256.clone(),
            found,
        });
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(Error::parquet(path))?;
    let reader = reader.build().map_err(Error::parquet(path))?;
    let (first, residues) = (rows.lengths.rows(), rows.lengths.total());
    for batch in reader {
        let batch = batch.map_err(|error| Error::parquet(path)(error.into()))?;
        append(path, &batch, first, tokenizer, rows)?;
    }
    let found = Amount {
        rows: rows.lengths.rows() - first,
        residues: rows.lengths.total() - residues,
    };
    if found.rows != expected.rows || found.residues != expected.residues {
        return Err(Error::Manifest {
            path: path.to_path_buf(),
            reason: format!(
                "holds {} rows with {} residues, but the manifest says {} and {}",
                found.rows, found.residues, expected.rows, expected.residues
            ),
        });
    }
    Ok(())
}

type RowOf<'a> = Box<dyn Fn(usize) -> Cow<'a, [u8]> + 'a>;

/// Appends a batch of rows, checking each; `first` is the row at which the file began.
fn append(
    path: &Path,
    batch: &RecordBatch,
    first: u64,
    tokenizer: Tokenizer,
    rows: &mut Rows,
) -> Result<()> {
    let columns = || {
        let schema = batch.schema();
        let column =
            |field: &arrow_schema::FieldRef| format!("{}: {}", field.name(), field.data_type());
        Error::Columns {
            path: path.to_path_buf(),
            expected: "`tokens` as binary or list of uint8, and `length` as uint32",
            found: schema
                .fields()
                .iter()
                .map(column)
                .collect::<Vec<_>>()
                .join(", "),
        }
    };
    let tokens = batch.column_by_name("tokens").ok_or_else(columns)?;
    let lengths = batch.column_by_name("length").ok_or_else(columns)?;
    let lengths = lengths
        .as_primitive_opt::<UInt32Type>()
        .ok_or_else(columns)?;
    let row_of: RowOf<'_> = match tokens.data_type() {
        DataType::Binary => {
            let tokens = tokens.as_binary::<i32>();
            Box::new(move |i| Cow::Borrowed(tokens.value(i)))
        }
        DataType::List(item) if item.data_type() == &DataType::UInt8 => {
            let lists = tokens.as_list::<i32>();
            Box::new(move |i| {
                let list = lists.value(i);
                Cow::Owned(list.as_primitive::<UInt8Type>().values().to_vec())
            })
        }
        _ => return Err(columns()),
    };
    for i in 0..batch.num_rows() {
        let wrong = |reason: String| Error::Row {
            path: path.to_path_buf(),
            row: rows.lengths.rows() - first,
            reason,
        };
        if tokens.is_null(i) || lengths.is_null(i) {
            return Err(wrong("has no value".into()));
        }
        let row = row_of(i);
        if row.len() != lengths.value(i) as usize {
            let (found, said) = (row.len(), lengths.value(i));
            return Err(wrong(format!(
                "has {found} tokens, but its length says {said}"
            )));
        }
        if let Some(at) = row.iter().position(|&id| tokenizer.residue(id).is_none()) {
            return Err(wrong(format!(
                "token {at} is {}, which is no residue",
                row[at]
            )));
        }
        rows.push(&row);
    }
    Ok(())
}
