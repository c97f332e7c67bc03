//! CSV and TSV: rows of a table whose header names the sequence column.
//!
//! Where a row ends depends on the quotes before it, so rows are found in order, and only their
//! sequence and id are kept. A row with more or fewer columns than the header is an error: its
//! sequence may stand in another column.

use std::io::{self, Read};

use memchr::memchr;

use super::columns::{Column, ColumnNames, Columns, Holds, Missing};
use super::source::{Text, lines};
use super::{BLOCK_ROWS, Block, Content, LONGEST_SEQUENCE, RecordRef, without_white_space};
use crate::error::{Error, Result};

/// The most bytes of a row, so that a quote that is never closed cannot claim all memory.
const LONGEST_ROW: usize = 4 * LONGEST_SEQUENCE;
/// What may stand between columns: the first that makes the header one of a table.
const DELIMITERS: [u8; 3] = [b'\t', b',', b';'];

/// The first line of a table.
pub(super) struct Header {
    delimiter: u8,
    columns: Columns,
}

impl Header {
    /// Nothing if the line names no sequence column, an error if it lacks one that is asked for.
    pub(super) fn read(
        line: &[u8],
        names: &ColumnNames,
    ) -> std::result::Result<Option<Header>, Missing> {
        // Most text is no table, and that takes no parser to see.
        if !names.may_be_in(line) {
            return Ok(None);
        }
        // What the delimiter that makes the most columns of the line lacks.
        let mut lacking: Option<(usize, Missing)> = None;
        for delimiter in DELIMITERS {
            let mut row = csv::StringRecord::new();
            let read = builder(delimiter).from_reader(line).read_record(&mut row);
            if !matches!(read, Ok(true)) {
                continue;
            }
            let columns: Vec<Column<'_>> = row
                .iter()
                .map(|name| Column {
                    name,
                    holds: Holds::Text,
                    kind: String::new(),
                })
                .collect();
            match Columns::find(names, &columns) {
                Ok(columns) => return Ok(Some(Header { delimiter, columns })),
                Err(missing) => {
                    if lacking
                        .as_ref()
                        .is_none_or(|(most, _)| columns.len() > *most)
                    {
                        lacking = Some((columns.len(), missing));
                    }
                }
            }
        }
        match lacking {
            Some((_, missing)) if missing.named => Err(missing),
            _ => Ok(None),
        }
    }
}

fn builder(delimiter: u8) -> csv::ReaderBuilder {
    let mut builder = csv::ReaderBuilder::new();
    // A CR at a line's end stays in the last column: if it ended the row, as by default it does, the
    // LF behind it would count to the next row, and what line a row is on could not be said.
    let line_feed = csv::Terminator::Any(b'\n');
    builder.delimiter(delimiter).terminator(line_feed);
    builder.has_headers(false).flexible(true);
    builder
}

/// The blocks of a table as text.
pub(super) struct Delimited {
    rows: csv::Reader<RowReader>,
    columns: Columns,
    /// The line of the header.
    first_line: u64,
    /// How many columns the header has; none before it was read.
    width: Option<usize>,
    /// Rows read after the header.
    read: u64,
    row: csv::ByteRecord,
}

impl Delimited {
    /// The text stands at the header.
    pub(super) fn new(text: Text, header: Header) -> Delimited {
        let first_line = text.line;
        let reader = RowReader {
            text,
            taken: 0,
            left: LONGEST_ROW,
            last: b'\n',
        };
        Delimited {
            rows: builder(header.delimiter).from_reader(reader),
            columns: header.columns,
            first_line,
            width: None,
            read: 0,
            row: csv::ByteRecord::new(),
        }
    }

    pub(super) fn next_block(&mut self, bytes: usize) -> Result<Option<Block>> {
        let mut rows = Rows::default();
        while rows.text.len() < bytes && rows.ends.len() < BLOCK_ROWS {
            let Some(line) = self.next_row()? else {
                break;
            };
            let Some(width) = self.width else {
                self.width = Some(self.row.len());
                continue;
            };
            if self.row.len() != width {
                let found = self.row.len();
                let reason = format!("expected the header's {width} columns, found {found}");
                return Err(self.wrong(line, reason));
            }
            self.read += 1;
            // All rows have the header's columns.
            let sequence = self.row.get(self.columns.sequence).unwrap_or_default();
            match self.columns.id {
                None => rows.id(format!("row{}", self.read).as_bytes()),
                Some(id) => rows.id(self.row.get(id).unwrap_or_default().trim_ascii_end()),
            }
            rows.end(sequence, line);
        }
        let records = rows.ends.len() as u64;
        Ok((records > 0).then(|| Block {
            path: self.rows.get_ref().text.path.clone(),
            records,
            content: Content::Rows(rows),
        }))
    }

    /// Reads a row that is not blank; its first line, if there is one.
    fn next_row(&mut self) -> Result<Option<u64>> {
        loop {
            self.rows.get_mut().left = LONGEST_ROW;
            let before = self.line();
            let read = self.rows.read_byte_record(&mut self.row);
            if !read.map_err(|error| self.failed(error))? {
                return Ok(None);
            }
            let text = self.row.as_slice();
            // Its last line break has been read; those within it are in its columns.
            let line = self.line().saturating_sub(1 + lines(text));
            // Unless that one is within, too.
            if line < before {
                let reason = "expected the end of a quoted column, found that of the file";
                return Err(self.wrong(before, reason.into()));
            }
            if memchr(0, text).is_some() {
                return Err(self.rows.get_ref().text.binary(line));
            }
            if self.row.len() > 1 || !text.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// The line that is read next.
    fn line(&self) -> u64 {
        self.first_line + self.rows.position().line() - 1
    }

    fn wrong(&self, line: u64, reason: String) -> Error {
        Error::Line {
            path: self.rows.get_ref().text.path.to_path_buf(),
            line,
            reason,
        }
    }

    fn failed(&self, error: csv::Error) -> Error {
        let reader = self.rows.get_ref();
        let shown = error.to_string();
        match error.into_kind() {
            csv::ErrorKind::Io(error) if reader.left > 0 => reader.text.failed(error, self.line()),
            csv::ErrorKind::Io(_) => self.wrong(
                self.line(),
                format!("expected a row of at most {LONGEST_ROW} bytes: is a quote never closed?"),
            ),
            _ => self.wrong(self.line(), shown),
        }
    }
}

/// Gives the text of at most one long row; then it must be told that the row is over. The last line
/// ends, whether it does in the file or not.
struct RowReader {
    text: Text,
    /// Bytes given of what is pending in the text.
    taken: usize,
    /// Bytes that may still be given.
    left: usize,
    /// The last byte given.
    last: u8,
}

impl Read for RowReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("a row is too long"));
        }
        let pending = &self.text.pending[self.taken..];
        let mut count = if pending.is_empty() {
            self.text.read(buffer)?
        } else {
            let count = pending.len().min(buffer.len());
            buffer[..count].copy_from_slice(&pending[..count]);
            self.taken += count;
            count
        };
        if count == 0 && self.last != b'\n' && !buffer.is_empty() {
            buffer[0] = b'\n';
            count = 1;
        }
        self.last = buffer[..count].last().copied().unwrap_or(self.last);
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

/// Ids and sequences, one behind the other.
#[derive(Default)]
pub(super) struct Rows {
    text: Vec<u8>,
    ends: Vec<Ends>,
}

struct Ends {
    id: usize,
    sequence: usize,
    line: u64,
}

impl Rows {
    fn id(&mut self, id: &[u8]) {
        self.text.extend_from_slice(id);
    }

    fn end(&mut self, sequence: &[u8], line: u64) {
        let id = self.text.len();
        self.text.extend_from_slice(sequence);
        let sequence = self.text.len();
        self.ends.push(Ends { id, sequence, line });
    }

    pub(super) fn for_each(
        &self,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut room = Vec::new();
        let mut start = 0;
        for ends in &self.ends {
            let id = String::from_utf8_lossy(&self.text[start..ends.id]);
            let (sequence, length) =
                without_white_space(&self.text[ends.id..ends.sequence], &mut room);
            each(RecordRef {
                id: &id,
                line: ends.line,
                sequence,
                length,
            })?;
            start = ends.sequence;
        }
        Ok(())
    }
}
