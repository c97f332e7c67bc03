//! Parquet: rows of a table with a sequence column.
//!
//! The footer of a table lists its contents, so its bytes are read at random, and columns that are
//! not needed are not read at all. The hash is still that of the whole file: another thread reads
//! it from beginning to end at the same time. Memory holds a batch of rows and a page of each
//! column.
//!
//! Every codec but LZO is decompressed. With gzip and brotli, the library decompresses a page to
//! its end, whatever its size: a decompression bomb takes that much memory.
//!
//! The library that decodes tables panics on some damaged ones. The offsets that a table contains
//! are therefore checked first, and a panic becomes an error.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ankh_storage::hex;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrowPrimitiveType, RecordBatch};
use arrow_schema::{ArrowError, DataType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::Length;

use super::columns::{Column, Columns, Holds};
use super::meter::Meter;
use super::stored::{Failure, RandomAccess};
use super::text::failure;
use super::{BLOCK, BLOCK_ROWS, Block, Content, RecordRef, without_white_space};
use crate::error::{Error, Result};
use crate::format::ColumnNames;

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
        names: &ColumnNames,
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
        let builder = builder.map_err(|error| failure.or(path, in_words(error)))?;
        let fields = builder.schema().fields().iter();
        let fields: Vec<Column<'_>> = fields
            .map(|field| Column {
                name: field.name(),
                holds: holds(field.data_type()),
                kind: field.data_type().to_string(),
            })
            .collect();
        let columns = Columns::find(names, &fields).map_err(|missing| missing.of(path))?;
        let wanted = [Some(columns.sequence), columns.id].into_iter().flatten();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let metadata = builder.metadata();
        check_codecs(path, metadata, &mask)?;
        let total_rows: u64 = metadata
            .row_groups()
            .iter()
            .map(|group| u64::try_from(group.num_rows()).unwrap_or(0))
            .fold(0, u64::saturating_add);
        let batch = batch_rows(metadata, &mask, total_rows);
        let builder = builder.with_projection(mask).with_batch_size(batch);
        let reader = unpanicked(|| builder.build());
        let reader = reader.map_err(|error| failure.or(path, in_words(error)))?;
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
            let batch =
                batch.map_err(|error| self.failure.or(&self.path, of_a_page(error, self.rows)))?;
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
                    content: Content::Batch(TableBatch {
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

/// The library's own error, out of those it was wrapped in.
fn in_words(error: ParquetError) -> ParquetError {
    match &error {
        ParquetError::External(outer) => match outer.downcast_ref::<ArrowError>() {
            Some(ArrowError::ParquetError(reason)) => ParquetError::General(bare(reason)),
            _ => error,
        },
        _ => error,
    }
}

/// The error of a page. Where only columns are encrypted, the library cannot tell it from damage.
fn of_a_page(error: ParquetError, rows: u64) -> ParquetError {
    match in_words(error) {
        // That of the file.
        error @ ParquetError::External(_) => error,
        error => {
            let reason = bare(&error.to_string());
            ParquetError::General(format!(
                "what follows row {rows} cannot be decoded, as it is damaged or encrypted: {reason}"
            ))
        }
    }
}

fn bare(reason: &str) -> String {
    let prefix = "Parquet error: ";
    reason.strip_prefix(prefix).unwrap_or(reason).into()
}

/// What a column can be used for. Without the types that other programs noted, strings of every
/// kind are `Utf8`, and bytes of every kind `Binary`.
fn holds(kind: &DataType) -> Holds {
    match kind {
        DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(_) => Holds::Text,
        // A column of nulls alone is one of ids as good as any: there is none.
        DataType::Null
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Holds::Numbers,
        _ => Holds::Other,
    }
}

/// Whether there is a decoder for what the wanted columns are compressed by.
fn check_codecs(path: &Path, metadata: &ParquetMetaData, mask: &ProjectionMask) -> Result<()> {
    let columns = metadata.row_groups().iter().flat_map(|group| {
        let columns = group.columns().iter().enumerate();
        columns.filter(|(leaf, _)| mask.leaf_included(*leaf))
    });
    for (_, column) in columns {
        if matches!(column.compression(), Compression::LZO) {
            return Err(Error::UnsupportedFormat {
                path: path.to_path_buf(),
                format: "a Parquet table compressed by LZO",
                advice: "write it with another codec, as snappy or zstd",
            });
        }
    }
    Ok(())
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
pub(super) struct TableBatch {
    batch: RecordBatch,
    columns: Columns,
    first_row: u64,
}

impl TableBatch {
    pub(super) fn for_each(
        &self,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut room = Vec::new();
        let sequences = self.batch.column(self.columns.sequence).as_ref();
        let ids = self.columns.id.map(|id| self.batch.column(id).as_ref());
        for row in 0..self.batch.num_rows() {
            let number = self.first_row + row as u64;
            let id = ids.and_then(|ids| id(ids, row));
            let id = id.unwrap_or_else(|| format!("row{number}").into());
            let (sequence, length) = without_white_space(bytes(sequences, row), &mut room);
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

/// The id that a value is; none where it is null or blank.
fn id(column: &dyn Array, row: usize) -> Option<Cow<'_, str>> {
    fn number<T: ArrowPrimitiveType<Native: ToString>>(column: &dyn Array, row: usize) -> String {
        column.as_primitive::<T>().value(row).to_string()
    }
    let not_nan = |number: String| (number != "NaN").then_some(number);
    if column.is_null(row) {
        return None;
    }
    let id: Cow<'_, str> = match column.data_type() {
        DataType::Int8 => number::<Int8Type>(column, row).into(),
        DataType::Int16 => number::<Int16Type>(column, row).into(),
        DataType::Int32 => number::<Int32Type>(column, row).into(),
        DataType::Int64 => number::<Int64Type>(column, row).into(),
        DataType::UInt8 => number::<UInt8Type>(column, row).into(),
        DataType::UInt16 => number::<UInt16Type>(column, row).into(),
        DataType::UInt32 => number::<UInt32Type>(column, row).into(),
        DataType::UInt64 => number::<UInt64Type>(column, row).into(),
        // Integers become these where some are missing; 7.0 is 7 again.
        DataType::Float32 => not_nan(number::<Float32Type>(column, row))?.into(),
        DataType::Float64 => not_nan(number::<Float64Type>(column, row))?.into(),
        DataType::Decimal128(..) => {
            let column = column.as_primitive::<Decimal128Type>();
            column.value_as_string(row).into()
        }
        DataType::Decimal256(..) => {
            let column = column.as_primitive::<Decimal256Type>();
            column.value_as_string(row).into()
        }
        DataType::FixedSizeBinary(_) => {
            let bytes = bytes(column, row);
            // Such are UUIDs and hashes: as letters, many would be the same.
            let hex = |_| hex(bytes).into();
            std::str::from_utf8(bytes).map_or_else(hex, Cow::from)
        }
        _ => String::from_utf8_lossy(bytes(column, row)),
    };
    (!id.trim().is_empty()).then_some(id)
}

/// The bytes of a text; none where it is null.
fn bytes(column: &dyn Array, row: usize) -> &[u8] {
    if column.is_null(row) {
        return &[];
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
        DataType::Binary => column.as_binary::<i32>().value(row),
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().value(row),
        // No other column is wanted.
        _ => &[],
    }
}
