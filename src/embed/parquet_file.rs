//! Writes Parquet: a row for each sequence.

use std::io::Write;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int32Array, ListArray, RecordBatch,
    StringArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::Store;
use crate::programs::Pooling;

/// About how many bytes of values a row group has.
const ROW_GROUP: usize = 64 << 20;

/// A file in the making, with the columns `id`, `length` and `embedding`: of a mean, a list of
/// d_model values; of residues, one of length times d_model.
pub struct Writer<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    pooling: Pooling,
    store: Store,
    d_model: usize,
    ids: Vec<String>,
    lengths: Vec<usize>,
    values: Vec<u8>,
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file that carries `metadata`.
    pub fn new(
        to: W,
        pooling: Pooling,
        store: Store,
        d_model: usize,
        metadata: Vec<(String, String)>,
    ) -> Result<Self> {
        let element = match store {
            Store::Float32 => DataType::Float32,
            Store::Float16 => DataType::Float16,
        };
        let element = FieldRef::from(Field::new("element", element, false));
        let list = match pooling {
            Pooling::Mean => DataType::FixedSizeList(element, d_model as i32),
            Pooling::None => DataType::List(element),
        };
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("length", DataType::Int32, false),
            Field::new("embedding", list, false),
        ]));
        let values = ColumnPath::from(["embedding", "list", "element"].map(String::from).to_vec());
        let metadata = metadata.into_iter();
        let metadata = metadata.map(|(key, value)| KeyValue::new(key, value));
        let properties = WriterProperties::builder()
            .set_created_by(concat!("ankh ", env!("CARGO_PKG_VERSION")).into())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(metadata.collect()))
            .set_column_dictionary_enabled(values.clone(), false)
            .set_column_statistics_enabled(values.clone(), EnabledStatistics::None)
            // The bytes of a float, each among its like, are smaller together.
            .set_column_encoding(values, Encoding::BYTE_STREAM_SPLIT)
            .set_column_dictionary_enabled("id".into(), false)
            .build();
        Ok(Writer {
            writer: ArrowWriter::try_new(to, schema.clone(), Some(properties))?,
            schema,
            pooling,
            store,
            d_model,
            ids: Vec::new(),
            lengths: Vec::new(),
            values: Vec::new(),
        })
    }

    /// Adds a sequence.
    pub fn row(&mut self, id: &str, length: usize, values: &[u8]) -> Result<()> {
        // Offsets in a list count elements in 32 bits.
        if !self.ids.is_empty() && self.values.len() + values.len() > ROW_GROUP {
            self.write()?;
        }
        self.ids.push(id.into());
        self.lengths.push(length);
        self.values.extend(values);
        Ok(())
    }

    /// Writes what is left, and the end of the file.
    pub fn finish(mut self) -> Result<W> {
        self.write()?;
        self.writer.into_inner()
    }

    fn write(&mut self) -> Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let lengths = std::mem::take(&mut self.lengths);
        let values = std::mem::take(&mut self.values);
        let element: ArrayRef = match self.store {
            Store::Float32 => Arc::new(Float32Array::from_iter_values(
                values.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)),
            )),
            Store::Float16 => Arc::new(Float16Array::from_iter_values(
                values.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)),
            )),
        };
        let embedding: ArrayRef = match self.schema.field(2).data_type() {
            DataType::FixedSizeList(field, size) => Arc::new(FixedSizeListArray::try_new(
                field.clone(),
                *size,
                element,
                None,
            )?),
            DataType::List(field) => {
                let elements = lengths.iter().map(|length| length * self.d_model);
                let offsets = OffsetBuffer::from_lengths(elements);
                Arc::new(ListArray::try_new(field.clone(), offsets, element, None)?)
            }
            other => unreachable!("{other} is none of the lists of {:?}", self.pooling),
        };
        let length = Int32Array::from_iter_values(lengths.iter().map(|&length| length as i32));
        let id = StringArray::from(std::mem::take(&mut self.ids));
        let columns: Vec<ArrayRef> = vec![Arc::new(id), Arc::new(length), embedding];
        self.writer
            .write(&RecordBatch::try_new(self.schema.clone(), columns)?)?;
        self.writer.flush()
    }
}
