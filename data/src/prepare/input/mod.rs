//! Input files: cut into blocks of whole records, which any thread can parse.
//!
//! What a file is, its first bytes say: FASTA, a CSV or TSV table whose header names a sequence
//! column (each plain or compressed by gzip, zstd or xz), or Parquet. [`Input::next_block`] does
//! what must be done in order, and as little of it as it can: it decompresses, hashes, and finds
//! where records begin. [`Block::for_each`] does the rest. Memory is bounded by a block, and by
//! [`LONGEST_SEQUENCE`] for a longer record, whatever the file holds.
//!
//! Written here rather than taken from a crate: what a pre-training set needs from a reader is to
//! survive hostile files with a message that names file and line. The published FASTA readers leave
//! compression errors without a line, or grow their buffer with the record.
//!
//! A sequence is given as it is written, without white space: what its letters mean is decided in
//! [`crate::prepare::residues`]. Every record that a file has is given. One whose residues cannot
//! be told from its neighbor's is given with a fault, and so is the neighbor.

mod columns;
mod delimited;
mod fasta;
mod members;
mod meter;
mod stored;
mod table;
mod text;
mod unread;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankh_storage::{Location, Storage, StorageOptions};

use crate::error::{Error, Result};
use crate::format::{ColumnNames, Reason};
use crate::prepare::residues::LONGEST_SEQUENCE;
use delimited::{Delimited, RowBlock};
use fasta::Fasta;
pub(crate) use meter::Meter;
use stored::{RandomAccess, Stored};
use table::Table;
use text::{Beginning, Format, Text};

/// About how many bytes of text a block holds.
const BLOCK: usize = 1 << 20;
/// The most rows of a table in a block.
const BLOCK_ROWS: usize = 4096;

/// One input file, from its beginning to its end.
pub struct Input {
    meter: Meter,
    total_bytes: Option<u64>,
    /// About how many bytes of text a block holds.
    block: usize,
    reader: Reader,
}

enum Reader {
    Fasta(Fasta),
    Delimited(Delimited),
    Table(Table),
}

/// Some records that follow one another in a file.
pub struct Block {
    path: Arc<Path>,
    records: u64,
    content: Content,
}

enum Content {
    /// Whole records of FASTA as they are written.
    Text(fasta::Records),
    /// A record too long for a block of text.
    Long(fasta::Record),
    /// Rows of CSV or TSV.
    Rows(RowBlock),
    /// Rows of Parquet.
    Batch(table::TableBatch),
}

/// One record as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The first word of the header, or the value of the id column. A record that has none is named
    /// by where it stands: `line17` in FASTA, `row17` in a table.
    pub id: &'a str,
    /// The line the record begins on, or the row of a Parquet table, counted from 1. A line ends in
    /// LF, CR LF or CR.
    pub line: u64,
    /// The sequence's bytes without white space, at most [`LONGEST_SEQUENCE`] of them.
    pub sequence: &'a [u8],
    /// How many bytes the sequence has in the file, without white space.
    pub length: usize,
    /// Why it cannot be used, where what is written around the residues says so.
    pub fault: Option<Reason>,
}

impl Input {
    /// Opens a file and finds out what it is. Fails if it is nothing that is read.
    pub fn open(location: &Location, options: &StorageOptions) -> Result<Input> {
        Input::open_with(location, options, &ColumnNames::default())
    }

    /// Opens a file that, if it is a table, has columns of these names.
    pub fn open_with(
        location: &Location,
        options: &StorageOptions,
        columns: &ColumnNames,
    ) -> Result<Input> {
        let (path, file) = match location.local() {
            Some(path) => (path.to_path_buf(), Stored::Local(path.to_path_buf())),
            None => {
                let (storage, name) = Storage::of_file(location, options)?;
                let shown = PathBuf::from(location.to_string());
                (shown, Stored::Remote(storage, name))
            }
        };
        let size = file.size()?;
        let parquet = |_: Beginning| Ok((file.bytes(size)?, file.reader()?));
        let mut input = Input::begin(&path, file.reader()?, columns, parquet)?;
        input.total_bytes = Some(size);
        Ok(input)
    }

    /// Reads from anything; `name` stands in messages in the place of a path. A Parquet table is
    /// held in memory, as its end comes first.
    pub fn from_reader(name: &str, reader: Box<dyn Read + Send>) -> Result<Input> {
        Input::from_reader_with(name, reader, &ColumnNames::default())
    }

    /// Reads from anything that, if it is a table, has columns of these names.
    pub fn from_reader_with(
        name: &str,
        reader: Box<dyn Read + Send>,
        columns: &ColumnNames,
    ) -> Result<Input> {
        let path = Path::new(name);
        Input::begin(path, reader, columns, |mut beginning| {
            let mut bytes = Vec::new();
            let read = beginning.read_to_end(&mut bytes);
            read.map_err(Error::io("read", path))?;
            let bytes = bytes::Bytes::from(bytes);
            let hashed: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(bytes.clone()));
            Ok((RandomAccess::Memory(bytes), hashed))
        })
    }

    /// `parquet` gives a table's bytes, at random and once more in order.
    fn begin(
        path: &Path,
        reader: Box<dyn Read + Send>,
        columns: &ColumnNames,
        parquet: impl FnOnce(Beginning) -> Result<(RandomAccess, Box<dyn Read + Send>)>,
    ) -> Result<Input> {
        let path: Arc<Path> = Arc::from(path);
        let meter = Meter::default();
        let beginning = Beginning::read(reader).map_err(text::failure(&path))?;
        let format = beginning.format().map_err(|unread| unread.error(&path))?;
        let (meter, reader) = match format {
            Format::Parquet => {
                let (bytes, hashed) = parquet(beginning)?;
                let table = Table::open(&path, bytes, hashed, columns)?;
                (table.meter().clone(), Reader::Table(table))
            }
            Format::Text(compression) => {
                let mut text = Text::new(&path, beginning, compression, &meter)?;
                let reader = match text.begins_with_header(columns)? {
                    None => Reader::Fasta(Fasta::new(text)),
                    Some(header) => Reader::Delimited(Delimited::new(text, header)),
                };
                (meter, reader)
            }
        };
        Ok(Input {
            meter,
            total_bytes: None,
            block: BLOCK,
            reader,
        })
    }

    /// About how many bytes of text a block is to hold. The records are the same whatever it is.
    pub fn with_block_bytes(mut self, bytes: usize) -> Input {
        self.block = bytes.max(1);
        self
    }

    /// The next records, in the order of the file; none at its end.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        match &mut self.reader {
            Reader::Fasta(fasta) => fasta.next_block(self.block),
            Reader::Delimited(rows) => rows.next_block(self.block),
            Reader::Table(table) => table.next_block(),
        }
    }

    /// How much of the file has been read, in bytes as stored.
    pub fn bytes_read(&self) -> u64 {
        match &self.reader {
            Reader::Table(table) => table.bytes_read(),
            _ => self.meter.bytes(),
        }
    }

    /// The file's size as stored. Of a reader, whose size is not known, what has been read so far.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.unwrap_or_else(|| self.bytes_read())
    }

    /// What is to be told of a file that was read all the same. Only after the last block is it
    /// known.
    pub fn warning(&self) -> Option<String> {
        match &self.reader {
            Reader::Fasta(fasta) => fasta.text().warning(),
            Reader::Delimited(rows) => rows.text().warning(),
            Reader::Table(_) => None,
        }
    }

    /// The SHA-256 of the file as stored, in hexadecimal. Only after the last block is it that of
    /// the whole file.
    pub fn sha256(&self) -> String {
        self.meter.sha256()
    }
}

impl Block {
    /// How many records it holds.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Parses the records and gives each to `each`, in order. Ends at the first error, be it of a
    /// record or of `each`.
    pub fn for_each(&self, each: &mut impl FnMut(RecordRef<'_>) -> Result<()>) -> Result<()> {
        match &self.content {
            Content::Text(records) => records.for_each(&self.path, each),
            Content::Long(record) => each(record.as_ref()),
            Content::Rows(rows) => rows.for_each(each),
            Content::Batch(batch) => batch.for_each(each),
        }
    }
}

/// A sequence without its white space, and its length. `room` is for the copy, if there must be
/// one.
fn without_white_space<'a>(sequence: &'a [u8], room: &'a mut Vec<u8>) -> (&'a [u8], usize) {
    if !has_white_space(sequence) {
        let kept = sequence.len().min(LONGEST_SEQUENCE);
        return (&sequence[..kept], sequence.len());
    }
    room.clear();
    let mut length = 0;
    append_without_white_space(sequence, room, &mut length);
    (room, length)
}

/// Appends the bytes that are no white space to `kept`, up to [`LONGEST_SEQUENCE`] of them all
/// together, and counts them in `length`.
fn append_without_white_space(text: &[u8], kept: &mut Vec<u8>, length: &mut usize) {
    let room = LONGEST_SEQUENCE - kept.len();
    if !has_white_space(text) {
        *length += text.len();
        kept.extend_from_slice(&text[..text.len().min(room)]);
        return;
    }
    let letters = || text.iter().filter(|byte| !byte.is_ascii_whitespace());
    *length += letters().count();
    kept.extend(letters().take(room));
}

fn has_white_space(text: &[u8]) -> bool {
    // Without an early exit, so that it compiles to vector instructions.
    text.iter()
        .fold(false, |found, byte| found | byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_blocks_go_to_other_threads() {
        fn is_send<T: Send>() {}
        is_send::<Input>();
        is_send::<Block>();
    }

    #[test]
    fn white_space_is_removed_and_the_rest_counted() {
        let mut room = vec![];
        assert_eq!(without_white_space(b"MKL", &mut room), (&b"MKL"[..], 3));
        let spaced = b" M\tK\r\nL\x0c";
        assert_eq!(without_white_space(spaced, &mut room), (&b"MKL"[..], 3));
    }
}
