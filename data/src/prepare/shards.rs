//! Writing the rows of one split as a sequence of Parquet files.
//!
//! The bytes are a function of the rows and the limits alone: no times, no paths, no hash maps.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder, UInt32Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::input::Meter;
use crate::manifest::{Amount, FileInfo, Pieces};

/// A row group ends when it holds so many residues or rows: the unit a reader decodes at least, and
/// what is in memory while writing.
const ROW_GROUP_RESIDUES: u64 = 1 << 24;
const ROW_GROUP_ROWS: u64 = 1 << 16;
/// A page is the unit a later reader fetches for one row.
const PAGE_BYTES: usize = 1 << 18;
const PAGE_ROWS: usize = 1 << 10;

/// A file that is hashed as it is written.
struct Hashed {
    file: BufWriter<File>,
    meter: Meter,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.meter.count(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Shard {
    name: String,
    path: PathBuf,
    writer: ArrowWriter<Hashed>,
    meter: Meter,
    total: Amount,
    group: Amount,
    ids: StringBuilder,
    tokens: BinaryBuilder,
    lengths: UInt32Builder,
}

/// The files of one split.
pub(super) struct Shards {
    directory: PathBuf,
    split: Split,
    most_residues: u64,
    current: Option<Shard>,
    files: Vec<FileInfo>,
}

impl Shards {
    pub(super) fn new(directory: &Path, split: Split, most_residues: u64) -> Self {
        Shards {
            directory: directory.to_path_buf(),
            split,
            most_residues,
            current: None,
            files: Vec::new(),
        }
    }

    /// Adds one row.
    pub(super) fn push(&mut self, id: &str, tokens: &[u8]) -> Result<()> {
        let shard = match &mut self.current {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}.parquet", self.split, self.files.len());
                self.current.insert(Shard::create(&self.directory, name)?)
            }
        };
        shard.push(id, tokens)?;
        if shard.total.residues >= self.most_residues {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(shard) = self.current.take() {
            self.files.push(shard.close(self.split)?);
        }
        Ok(())
    }

    /// Writes what is left, and says which files there are.
    pub(super) fn finish(mut self) -> Result<Vec<FileInfo>> {
        self.close()?;
        Ok(self.files)
    }
}

impl Shard {
    fn create(directory: &Path, name: String) -> Result<Shard> {
        let path = directory.join(&name);
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let meter = Meter::default();
        let hashed = Hashed {
            file: BufWriter::new(file),
            meter: meter.clone(),
        };
        let level = ZstdLevel::try_new(3).map_err(Error::parquet(&path))?;
        let properties = WriterProperties::builder()
            .set_created_by(format!(
                "ankh-data format {}",
                crate::manifest::FORMAT_VERSION
            ))
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_max_row_group_row_count(None)
            .build();
        let writer = ArrowWriter::try_new(hashed, Arc::new(schema()), Some(properties))
            .map_err(Error::parquet(&path))?;
        Ok(Shard {
            name,
            path,
            writer,
            meter,
            total: Amount::default(),
            group: Amount::default(),
            ids: StringBuilder::new(),
            tokens: BinaryBuilder::new(),
            lengths: UInt32Builder::new(),
        })
    }

    fn push(&mut self, id: &str, tokens: &[u8]) -> Result<()> {
        let residues = tokens.len() as u64;
        self.ids.append_value(id);
        self.tokens.append_value(tokens);
        // The longest sequence that is read is far shorter than 2^32.
        self.lengths.append_value(tokens.len() as u32);
        for amount in [&mut self.total, &mut self.group] {
            amount.rows += 1;
            amount.residues += residues;
        }
        if self.group.residues >= ROW_GROUP_RESIDUES || self.group.rows >= ROW_GROUP_ROWS {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        if self.group.rows == 0 {
            return Ok(());
        }
        self.group = Amount::default();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.ids.finish()),
            Arc::new(self.tokens.finish()),
            Arc::new(self.lengths.finish()),
        ];
        RecordBatch::try_new(Arc::new(schema()), columns)
            .map_err(Into::into)
            .and_then(|batch| self.writer.write(&batch))
            .and_then(|()| self.writer.flush())
            .map_err(Error::parquet(&self.path))
    }

    fn close(mut self, split: Split) -> Result<FileInfo> {
        self.end_group()?;
        let path = self.path;
        let hashed = self.writer.into_inner().map_err(Error::parquet(&path))?;
        let file = hashed
            .file
            .into_inner()
            .map_err(|error| Error::io("write", &path)(error.into_error()))?;
        file.sync_all().map_err(Error::io("write", &path))?;
        Ok(FileInfo {
            path: self.name,
            split,
            rows: self.total.rows,
            residues: self.total.residues,
            bytes: self.meter.bytes(),
            sha256: self.meter.sha256(),
            pieces: Pieces::of(&path)?,
        })
    }
}

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("tokens", DataType::Binary, false),
        Field::new("length", DataType::UInt32, false),
    ])
}
