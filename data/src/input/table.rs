//! Parquet: rows of a table with a sequence column.
//!
//! A table's end says what is in it, so its bytes are read at random; those of the columns that are
//! not wanted are not read at all. The hash is that of the whole file all the same: a thread of its
//! own reads it from beginning to end at the same time. Memory holds a batch of rows and a page of
//! each column.
//!
//! The library that decodes tables panics at some that are damaged. The places that a table names are
//! therefore checked first, and a panic becomes an error.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::Length;

use super::meter::Meter;
use super::source::failure;
use super::stored::{Failure, RandomAccess};
use super::{BLOCK, BLOCK_ROWS, Block, Columns, Content, RecordRef, without_white_space};
use crate::error::{Error, Result};

/// The blocks of a Parquet file.
pub(super) struct Table {
    path: Arc<Path>,
    reader: ParquetRecordBatchReader,
    /// Columns of the batches.
    columns: Columns,
    /// Rows given so far.
    rows: u64,
    total_rows: u64,
    total_bytes: u64,
    failure: Failure,
    hash: Hash,
}

impl Table {
    /// `hashed` gives the same bytes in order.
    pub(super) fn open(
        path: &Arc<Path>,
        bytes: RandomAccess,
        hashed: Box<dyn Read + Send>,
    ) -> Result<Table> {
        let total_bytes = bytes.len();
        let failure = bytes.failure();
        // Of the types that other programs noted beside the table's own none is of use here.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = unpanicked(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
            check_places(builder.metadata(), total_bytes)?;
            Ok(builder)
        });
        let builder = builder.map_err(|error| failure.or(path, error))?;
        let fields = builder.schema().fields();
        let text = |field: &Field| matches!(field.data_type(), DataType::Utf8 | DataType::Binary);
        let names = fields
            .iter()
            .map(|field| text(field).then_some(field.name().as_str()));
        let Some(columns) = Columns::find(names) else {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            return Err(Error::Columns {
                path: path.to_path_buf(),
                expected: Columns::EXPECTED,
                found: names.join(", "),
            });
        };
        let wanted = [Some(columns.sequence), columns.id].into_iter().flatten();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let metadata = builder.metadata();
        let total_rows: u64 = metadata
            .row_groups()
            .iter()
            .map(|group| u64::try_from(group.num_rows()).unwrap_or(0))
            .fold(0, u64::saturating_add);
        let batch = batch_rows(metadata, &mask, total_rows);
        let builder = builder.with_projection(mask).with_batch_size(batch);
        let reader = unpanicked(|| builder.build()).map_err(|error| failure.or(path, error))?;
        // A batch has the wanted columns alone, in the table's order.
        let place = |column, other: Option<usize>| match other {
            Some(other) if other < column => 1,
            _ => 0,
        };
        let columns = Columns {
            sequence: place(columns.sequence, columns.id),
            id: columns.id.map(|id| place(id, Some(columns.sequence))),
        };
        Ok(Table {
            path: path.clone(),
            reader,
            columns,
            rows: 0,
            total_rows,
            total_bytes,
            failure,
            hash: Hash::start(path, hashed)?,
        })
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.hash.meter
    }

    /// The share of the bytes that is the share of the rows.
    pub(super) fn bytes_read(&self) -> u64 {
        let rows = u128::from(self.rows.min(self.total_rows));
        let bytes = u128::from(self.total_bytes) * rows / u128::from(self.total_rows.max(1));
        // At most the total.
        bytes as u64
    }

    pub(super) fn next_block(&mut self) -> Result<Option<Block>> {
        loop {
            let batch = unpanicked(|| Ok(self.reader.next().transpose()?));
            let batch = batch.map_err(|error| self.failure.or(&self.path, error))?;
            let Some(batch) = batch else {
                self.rows = self.total_rows;
                self.hash.finish(&self.path)?;
                return Ok(None);
            };
            let first_row = self.rows + 1;
            let records = batch.num_rows() as u64;
            self.rows += records;
            if records > 0 {
                let columns = self.columns;
                return Ok(Some(Block {
                    path: self.path.clone(),
                    records,
                    content: Content::Batch(Batch {
                        batch,
                        columns,
                        first_row,
                    }),
                }));
            }
        }
    }
}

/// Decodes; a panic becomes an error.
fn unpanicked<T>(
    decode: impl FnOnce() -> parquet::errors::Result<T>,
) -> parquet::errors::Result<T> {
    // What was half changed is not used again: an error ends the reading of a table.
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode));
    decoded.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
        Err(damaged(text.unwrap_or("it cannot be decoded")))
    })
}

fn damaged(how: &str) -> ParquetError {
    ParquetError::General(format!("the table is damaged: {how}"))
}

/// Whether what the table says of its columns can be: that they lie in a file of so many bytes.
fn check_places(metadata: &ParquetMetaData, bytes: u64) -> parquet::errors::Result<()> {
    let groups = metadata.row_groups();
    if groups.iter().any(|group| group.num_rows() < 0) {
        return Err(damaged("it has groups of fewer than no rows"));
    }
    for column in groups.iter().flat_map(|group| group.columns()) {
        let start = column
            .dictionary_page_offset()
            .unwrap_or(column.data_page_offset());
        let place = (
            u64::try_from(start),
            u64::try_from(column.compressed_size()),
        );
        let end = match place {
            (Ok(start), Ok(length)) => start.checked_add(length),
            _ => None,
        };
        if end.is_none_or(|end| end > bytes) {
            return Err(damaged("it has columns outside the file"));
        }
    }
    Ok(())
}

/// Rows of a batch: fewer where they are long.
fn batch_rows(metadata: &ParquetMetaData, mask: &ProjectionMask, rows: u64) -> usize {
    let mut bytes = 0u64;
    for group in metadata.row_groups() {
        for (leaf, column) in group.columns().iter().enumerate() {
            if mask.leaf_included(leaf) {
                bytes =
                    bytes.saturating_add(u64::try_from(column.uncompressed_size()).unwrap_or(0));
            }
        }
    }
    let of_a_row = (bytes / rows.max(1)).max(1);
    let rows = usize::try_from(BLOCK as u64 / of_a_row).unwrap_or(BLOCK_ROWS);
    rows.clamp(1, BLOCK_ROWS)
}

/// The hash of a file, made while the file is read otherwise.
struct Hash {
    meter: Meter,
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Hash {
    fn start(path: &Path, mut bytes: Box<dyn Read + Send>) -> Result<Hash> {
        let meter = Meter::default();
        let given_up = Arc::new(AtomicBool::new(false));
        let (counted, stop) = (meter.clone(), given_up.clone());
        let read_all = move || {
            let mut buffer = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                match bytes.read(&mut buffer)? {
                    0 => break,
                    count => counted.count(&buffer[..count]),
                }
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("hash".into());
        let thread = thread.spawn(read_all).map_err(Error::io("hash", path))?;
        Ok(Hash {
            meter,
            given_up,
            thread: Some(thread),
        })
    }

    /// Waits for the end of the file.
    fn finish(&mut self, path: &Path) -> Result<()> {
        let read = self.thread.take().map(JoinHandle::join);
        match read {
            None => Ok(()),
            Some(Ok(read)) => read.map_err(failure(path)),
            Some(Err(_)) => Err(Error::io("read", path)(std::io::Error::other(
                "the thread that makes its hash died",
            ))),
        }
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Rows of a table.
pub(super) struct Batch {
    batch: RecordBatch,
    columns: Columns,
    first_row: u64,
}

impl Batch {
    pub(super) fn for_each(
        &self,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut room = Vec::new();
        let sequences = self.batch.column(self.columns.sequence).as_ref();
        let ids = self.columns.id.map(|id| self.batch.column(id).as_ref());
        for row in 0..self.batch.num_rows() {
            let number = self.first_row + row as u64;
            let id = match ids {
                Some(ids) => String::from_utf8_lossy(value(ids, row)),
                None => format!("row{number}").into(),
            };
            let (sequence, length) = without_white_space(value(sequences, row), &mut room);
            each(RecordRef {
                id: &id,
                line: number,
                sequence,
                length,
                fault: None,
            })?;
        }
        Ok(())
    }
}

/// The bytes of a value; none where it is null.
fn value(column: &dyn Array, row: usize) -> &[u8] {
    if column.is_null(row) {
        return &[];
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
        DataType::Binary => column.as_binary::<i32>().value(row),
        // No other column is wanted.
        _ => &[],
    }
}
