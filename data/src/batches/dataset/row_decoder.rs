//! Rows of a file as they are decoded, each checked, into memory that was set aside for them.

use std::borrow::Cow;
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt8Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, FieldRef};

use crate::error::{Error, Result};
use crate::format::Amount;
use crate::tokenizer::Tokenizer;

/// The rows of one file, in the making.
pub(super) struct RowDecoder<'a> {
    path: PathBuf,
    tokenizer: Tokenizer,
    tokens: &'a mut [u8],
    lengths: Vec<u32>,
    /// Residues so far, those that found no room included.
    residues: usize,
}

type RowOf<'a> = Box<dyn Fn(usize) -> Cow<'a, [u8]> + 'a>;

impl<'a> RowDecoder<'a> {
    pub fn new(path: PathBuf, tokenizer: Tokenizer, tokens: &'a mut [u8]) -> RowDecoder<'a> {
        RowDecoder {
            path,
            tokenizer,
            tokens,
            lengths: Vec::new(),
            residues: 0,
        }
    }

    /// How long each row is, and how much that is together. More residues than there was room for
    /// are counted only.
    pub fn finish(self) -> (Vec<u32>, Amount) {
        let found = Amount {
            rows: self.lengths.len() as u64,
            residues: self.residues as u64,
        };
        (self.lengths, found)
    }

    /// Appends a batch of rows.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = || {
            let schema = batch.schema();
            let column = |field: &FieldRef| format!("{}: {}", field.name(), field.data_type());
            Error::Columns {
                path: self.path.clone(),
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
            if tokens.is_null(i) || lengths.is_null(i) {
                return Err(self.wrong("has no value".into()));
            }
            self.push(&row_of(i), lengths.value(i))?;
        }
        Ok(())
    }

    fn push(&mut self, row: &[u8], length: u32) -> Result<()> {
        if row.len() != length as usize {
            let found = row.len();
            return Err(self.wrong(format!("has {found} tokens, but its length says {length}")));
        }
        let no_residue = |&id: &u8| self.tokenizer.residue(id).is_none();
        if let Some(at) = row.iter().position(no_residue) {
            return Err(self.wrong(format!("token {at} is {}, which is no residue", row[at])));
        }
        let end = self.residues + row.len();
        if let Some(room) = self.tokens.get_mut(self.residues..end) {
            room.copy_from_slice(row);
        }
        self.residues = end;
        self.lengths.push(length);
        Ok(())
    }

    /// What is wrong with the row that comes next.
    fn wrong(&self, reason: String) -> Error {
        Error::Row {
            path: self.path.clone(),
            row: self.lengths.len() as u64,
            reason,
        }
    }
}
