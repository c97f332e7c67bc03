//! Prepared data, opened: rows of token ids by number.
//!
//! A [`Dataset`] is one split of a prepared directory. Opening verifies the manifest, the checksum of
//! every file, the columns and each row, so that nothing after it can meet a bad token. Rows are read
//! through `RowStore`; the one implementation here keeps all tokens in memory, one byte each.

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

/// Where rows of tokens lie. In memory today; a store that reads pages of Parquet when they are
/// needed takes the same place.
pub(crate) trait RowStore: Send + Sync {
    /// The number of rows.
    fn rows(&self) -> u64;
    /// The number of tokens of a row; nothing beyond the last row.
    fn length(&self, row: u64) -> Option<usize>;
    /// Some tokens of a row. The range lies within its length.
    fn read(&self, row: u64, range: Range<usize>) -> Result<Cow<'_, [u8]>>;
}

/// All tokens, one after the other, and where each row begins.
struct InMemory {
    tokens: Vec<u8>,
    /// One more than there are rows: the last is the end.
    starts: Vec<usize>,
}

impl InMemory {
    fn bounds(&self, row: u64) -> Option<Range<usize>> {
        let row = usize::try_from(row).ok()?;
        let (&start, &end) = (self.starts.get(row)?, self.starts.get(row.checked_add(1)?)?);
        Some(start..end)
    }
}

impl RowStore for InMemory {
    fn rows(&self) -> u64 {
        self.starts.len() as u64 - 1 // there is always the first start
    }

    fn length(&self, row: u64) -> Option<usize> {
        self.bounds(row).map(|bounds| bounds.len())
    }

    fn read(&self, row: u64, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let tokens = self.bounds(row).and_then(|bounds| {
            let (start, end) = (bounds.start + range.start, bounds.start + range.end);
            (end <= bounds.end).then(|| self.tokens.get(start..end))?
        });
        tokens.map(Cow::Borrowed).ok_or_else(|| Error::NoSuchRow {
            row,
            rows: self.rows(),
        })
    }
}

/// One split of prepared data. Cloning is cheap: the rows are shared.
#[derive(Clone)]
pub struct Dataset {
    store: Arc<dyn RowStore>,
    tokenizer: Tokenizer,
    residues: u64,
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
        let mut store = InMemory {
            tokens: Vec::new(),
            starts: vec![0],
        };
        for file in manifest.files.iter().filter(|file| file.split == split) {
            read_file(&directory.join(&file.path), file, tokenizer, &mut store)?;
        }
        Ok(Dataset {
            store: Arc::new(store),
            tokenizer,
            residues: amount.residues,
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
        let mut store = InMemory {
            tokens: Vec::new(),
            starts: vec![0],
        };
        for sequence in sequences {
            store.tokens.extend(tokenizer.encode(sequence.as_ref()));
            store.starts.push(store.tokens.len());
        }
        let residues = store.tokens.len() as u64;
        Dataset {
            store: Arc::new(store),
            tokenizer,
            residues,
            name: Path::new("sequences in memory").into(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.store.rows()
    }

    /// The number of residues of all rows together.
    pub fn residues(&self) -> u64 {
        self.residues
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
        self.store.length(row).ok_or_else(|| Error::NoSuchRow {
            row,
            rows: self.rows(),
        })
    }

    /// The tokens of a row, without `</s>`.
    pub fn tokens(&self, row: u64) -> Result<Cow<'_, [u8]>> {
        let length = self.length(row)?;
        self.store.read(row, 0..length)
    }

    /// Some of a row's tokens. The range lies within the row's length.
    pub fn window(&self, row: u64, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        self.store.read(row, range)
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
    store: &mut InMemory,
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
    let (rows, tokens) = (store.rows(), store.tokens.len());
    for batch in reader {
        let batch = batch.map_err(|error| Error::parquet(path)(error.into()))?;
        append(path, &batch, rows, tokenizer, store)?;
    }
    let found = Amount {
        rows: store.rows() - rows,
        residues: (store.tokens.len() - tokens) as u64,
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

/// Appends a batch of rows, checking each; `first` is the store's row at which the file began.
fn append(
    path: &Path,
    batch: &RecordBatch,
    first: u64,
    tokenizer: Tokenizer,
    store: &mut InMemory,
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
            row: store.rows() - first,
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
        store.tokens.extend_from_slice(&row);
        store.starts.push(store.tokens.len());
    }
    Ok(())
}
