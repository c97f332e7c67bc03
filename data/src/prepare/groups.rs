//! Rows to row groups, and row groups to the encoded columns of a Parquet file.
//!
//! A row group is gathered in order, encoded anywhere (that is where the time goes: compression),
//! and appended to its file in order. The bytes are a function of the rows and the limits alone: no
//! times, no paths, no hash maps.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BinaryBuilder, StringBuilder, UInt32Builder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use crate::error::{Error, Result};
use crate::format::{Amount, FORMAT_VERSION};
use crate::split::Split;

/// A row group ends when it holds so many residues or rows: the unit that is encoded at once, and
/// what is in memory while writing.
const GROUP_RESIDUES: u64 = 1 << 24;
const GROUP_ROWS: u64 = 1 << 16;
/// It also ends when its ids have so many bytes, which only a hostile file comes near.
const GROUP_ID_BYTES: usize = 1 << 24;
/// A page is the unit a later reader fetches for one row.
const PAGE_BYTES: usize = 1 << 18;
const PAGE_ROWS: usize = 1 << 10;

/// The rows of a row group that is being gathered.
pub(super) struct Group {
    amount: Amount,
    id_bytes: usize,
    ids: StringBuilder,
    tokens: BinaryBuilder,
    lengths: UInt32Builder,
}

/// A row group to encode.
pub(super) struct Gathered {
    /// What is in it.
    pub(super) amount: Amount,
    columns: [ArrayRef; 3],
}

impl Default for Group {
    fn default() -> Self {
        // Memory that is asked for and not touched costs nothing; growing would copy.
        let (rows, residues) = (GROUP_ROWS as usize, GROUP_RESIDUES as usize);
        Group {
            amount: Amount::default(),
            id_bytes: 0,
            ids: StringBuilder::with_capacity(rows, 32 * rows),
            tokens: BinaryBuilder::with_capacity(rows, residues + residues / 256),
            lengths: UInt32Builder::with_capacity(rows),
        }
    }
}

impl Group {
    /// Adds a row; true when the group is full.
    pub(super) fn push(&mut self, id: &str, tokens: &[u8]) -> bool {
        self.ids.append_value(id);
        self.tokens.append_value(tokens);
        // The longest sequence that is read is far shorter than 2^32.
        self.lengths.append_value(tokens.len() as u32);
        self.id_bytes += id.len();
        self.amount.rows += 1;
        self.amount.residues += tokens.len() as u64;
        self.amount.residues >= GROUP_RESIDUES
            || self.amount.rows >= GROUP_ROWS
            || self.id_bytes >= GROUP_ID_BYTES
    }

    /// The rows so far, for encoding.
    pub(super) fn gather(mut self) -> Gathered {
        Gathered {
            amount: self.amount,
            columns: [
                Arc::new(self.ids.finish()),
                Arc::new(self.tokens.finish()),
                Arc::new(self.lengths.finish()),
            ],
        }
    }
}

/// What all files have in common; makes column writers on any thread.
pub(super) struct Encoder {
    schema: SchemaRef,
    root: TypePtr,
    properties: WriterPropertiesPtr,
    factory: ArrowRowGroupWriterFactory,
}

impl Encoder {
    pub(super) fn new() -> std::result::Result<Encoder, ParquetError> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("tokens", DataType::Binary, false),
            Field::new("length", DataType::UInt32, false),
        ]));
        let properties = WriterProperties::builder()
            .set_created_by(format!("ankh-data format {FORMAT_VERSION}"))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_size_limit(PAGE_BYTES)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_max_row_group_row_count(None)
            .build();
        let properties = Arc::new(properties);
        let root = ArrowSchemaConverter::new()
            .convert(&schema)?
            .root_schema_ptr();
        // The factory is made by a file's writer, but serves the row groups of every file alike.
        let any = SerializedFileWriter::new(io::sink(), root.clone(), properties.clone())?;
        let factory = ArrowRowGroupWriterFactory::new(&any, schema.clone());
        Ok(Encoder {
            schema,
            root,
            properties,
            factory,
        })
    }

    /// Encodes and compresses a row group.
    pub(super) fn encode(&self, group: &Gathered) -> std::result::Result<Encoded, ParquetError> {
        let writers = self.factory.create_column_writers(0)?;
        let fields = self.schema.fields().iter().zip(&group.columns);
        let columns = writers.into_iter().zip(fields);
        let columns = columns.map(|(mut writer, (field, column))| {
            for leaf in compute_leaves(field, column)? {
                writer.write(&leaf)?;
            }
            writer.close()
        });
        Ok(Encoded {
            amount: group.amount,
            columns: columns.collect::<std::result::Result<_, _>>()?,
        })
    }
}

/// A row group as it stands in a file.
pub(super) struct Encoded {
    amount: Amount,
    columns: Vec<ArrowColumnChunk>,
}

/// A file of one chunk and split in the making.
pub(super) struct ChunkFile {
    path: PathBuf,
    name: String,
    split: Split,
    total: Amount,
    writer: SerializedFileWriter<BufWriter<File>>,
}

/// A file that is complete, but perhaps not yet on the disk.
pub(super) struct Closed {
    /// Where it was written.
    pub(super) path: PathBuf,
    /// Its name in the data set.
    pub(super) name: String,
    /// The split of its rows.
    pub(super) split: Split,
    /// What is in it.
    pub(super) total: Amount,
}

impl ChunkFile {
    pub(super) fn create(
        path: &Path,
        name: String,
        split: Split,
        encoder: &Encoder,
    ) -> Result<ChunkFile> {
        let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
        let (root, properties) = (encoder.root.clone(), encoder.properties.clone());
        let writer =
            SerializedFileWriter::new(file, root, properties).map_err(Error::parquet(path))?;
        Ok(ChunkFile {
            path: path.to_path_buf(),
            name,
            split,
            total: Amount::default(),
            writer,
        })
    }

    /// Appends a row group.
    pub(super) fn append(&mut self, group: Encoded) -> Result<()> {
        let append = || {
            let mut writer = self.writer.next_row_group()?;
            for column in group.columns {
                column.append_to_row_group(&mut writer)?;
            }
            writer.close()
        };
        append().map_err(Error::parquet(&self.path))?;
        self.total.rows += group.amount.rows;
        self.total.residues += group.amount.residues;
        Ok(())
    }

    /// Writes the footer.
    pub(super) fn close(self) -> Result<Closed> {
        let path = self.path;
        let file = self.writer.into_inner().map_err(Error::parquet(&path))?;
        file.into_inner()
            .map_err(|error| Error::io("write", &path)(error.into_error()))?;
        Ok(Closed {
            path,
            name: self.name,
            split: self.split,
            total: self.total,
        })
    }
}
