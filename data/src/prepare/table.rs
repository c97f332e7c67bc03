//! Records from a Parquet table with a sequence column.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::error::{Error, Result};
use crate::fasta::{LONGEST_SEQUENCE, Record};
use crate::source::Meter;

/// Names of the sequence column, the first that is there wins; case does not matter.
const SEQUENCE: [&str; 4] = ["sequence", "seq", "aa_sequence", "protein_sequence"];
/// Names of the id column. Without one, rows are numbered.
const ID: [&str; 6] = [
    "id",
    "accession",
    "entry",
    "name",
    "primary_accession",
    "uniref_id",
];

pub(super) struct Table {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    /// Rows read so far.
    rows: u64,
    id: Option<String>,
    sequence: String,
}

impl Table {
    /// Opens a table. All bytes go through the meter first, so that what is read later has a hash.
    pub(super) fn open(path: &Path, meter: &Meter) -> Result<Table> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                count => meter.count(&buffer[..count]),
            }
        }
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(Error::parquet(path))?;
        let schema = builder.schema();
        let sequence = find(schema, &SEQUENCE).ok_or_else(|| Error::Columns {
            path: path.to_path_buf(),
            expected: "a text column `sequence`",
            found: names(schema),
        })?;
        let id = find(schema, &ID);
        let wanted = [Some(&sequence), id.as_ref()];
        let wanted = wanted.into_iter().flatten().map(String::as_str);
        let columns = ProjectionMask::columns(builder.parquet_schema(), wanted);
        let reader = builder
            .with_projection(columns)
            .with_batch_size(1024)
            .build()
            .map_err(Error::parquet(path))?;
        Ok(Table {
            path: path.to_path_buf(),
            reader,
            batch: None,
            next: 0,
            rows: 0,
            id,
            sequence,
        })
    }

    /// Reads the next row into `record`; false at the end.
    pub(super) fn read(&mut self, record: &mut Record) -> Result<bool> {
        let batch = loop {
            match &self.batch {
                Some(batch) if self.next < batch.num_rows() => break batch,
                _ => match self.reader.next() {
                    None => return Ok(false),
                    Some(batch) => {
                        let batch =
                            batch.map_err(|error| Error::parquet(&self.path)(error.into()))?;
                        self.batch = Some(batch);
                        self.next = 0;
                    }
                },
            }
        };
        let row = self.next;
        self.next += 1;
        self.rows += 1;
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .and_then(|column| text(column, row))
        };
        record.line = self.rows;
        record.id = match &self.id {
            None => format!("row{}", self.rows),
            Some(name) => text(name).unwrap_or_default().to_string(),
        };
        let sequence = text(&self.sequence).unwrap_or_default().as_bytes();
        record.sequence.clear();
        let letters = sequence.iter().filter(|byte| !byte.is_ascii_whitespace());
        record.sequence.extend(letters.take(LONGEST_SEQUENCE));
        let spaces = sequence.iter().filter(|byte| byte.is_ascii_whitespace());
        record.length = sequence.len() - spaces.count();
        Ok(true)
    }
}

/// The value of a text column; nothing where it is null.
fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        _ => None,
    }
}

/// The first text column with one of the names.
fn find(schema: &Schema, names: &[&str]) -> Option<String> {
    let is_text = |kind: &DataType| {
        matches!(
            kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    names.iter().find_map(|name| {
        let mut fields = schema.fields().iter();
        fields
            .find(|field| field.name().eq_ignore_ascii_case(name) && is_text(field.data_type()))
            .map(|field| field.name().clone())
    })
}

fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    names.join(", ")
}
