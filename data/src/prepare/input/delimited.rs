//! CSV and TSV: rows of a table whose header names the sequence column.
//!
//! A row with more or fewer columns than the header is an error: its sequence may stand in another
//! column. Lines end as that of the header does.
//!
//! **Quotes.** In CSV a column may be quoted, and may then hold delimiters and line breaks. A quote
//! that someone forgot to close, or that is a letter of a name, takes all rows up to the next quote
//! with it, and gives the first one's id the last one's residues. So a quoted column may only hold
//! lines that are no rows by themselves: of a row, a line has the header's columns, its sequence
//! has only letters, and no column begins with a space as the words of a sentence do. Where one is,
//! the quote is an error.
//!
//! TSV knows no quotes: a line that has the header's columns is a row, whatever is in them. Quotes
//! around a whole column are taken off, as R and pandas write them. Only a line that has other
//! columns than the header is read with quotes, under the same rule as in CSV: a tab or a line
//! break in a column can be meant.

use std::ops::Range;

use memchr::memchr;

use super::columns::{Column, Columns, Holds, Missing};
use super::text::{FIRST_LINE, Text, first_line};
use super::{BLOCK_ROWS, Block, Content, RecordRef, without_white_space};
use crate::error::{Error, Result};
use crate::format::ColumnNames;
use crate::prepare::invisible::leading_invisible;
use crate::prepare::residues::LONGEST_SEQUENCE;

/// The most bytes of a row, so that a quote that is never closed cannot claim all memory.
const LONGEST_ROW: usize = 4 * LONGEST_SEQUENCE;
/// Bytes read at once.
const READ: usize = 1 << 18;
/// What may stand between columns: the first that makes the header one of a table.
const DELIMITERS: [u8; 3] = [b'\t', b',', b';'];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first line of a table.
pub(super) struct Header {
    delimiter: u8,
    columns: Columns,
    /// The byte that lines end in.
    line_end: u8,
}

impl Header {
    /// The header that the first line of a text is. Nothing if the line names no sequence column,
    /// an error if it lacks one that is asked for.
    pub(super) fn read(
        text: &[u8],
        names: &ColumnNames,
    ) -> std::result::Result<Option<Header>, Missing> {
        let line = first_line(text);
        let is_text = |&byte: &u8| byte >= b' ' || byte == b'\t';
        // Most text is no table, and that takes no parser to see.
        if line.len() >= FIRST_LINE || !line.iter().all(is_text) || !names.may_be_in(line) {
            return Ok(None);
        }
        let returns = text[line.len()..].iter().take_while(|&&byte| byte == b'\r');
        let returns = returns.count();
        let line_end = match returns > 0 && text.get(line.len() + returns) != Some(&b'\n') {
            true => b'\r',
            false => b'\n',
        };
        // The first column's name may stand behind the mark of a comment.
        let line = line.strip_prefix(b"#").unwrap_or(line);
        // What the delimiter that makes the most columns of the line lacks.
        let mut lacking: Option<(usize, Missing)> = None;
        for delimiter in DELIMITERS {
            let mut row = Fields::default();
            row.read(line, delimiter, line_end);
            // A name that is not UTF-8 is none of those that are looked for.
            let name = |place| std::str::from_utf8(row.column(place)).unwrap_or_default();
            let columns: Vec<Column<'_>> = (0..row.len())
                .map(|place| Column {
                    name: name(place),
                    holds: Holds::Text,
                    kind: String::new(),
                })
                .collect();
            match Columns::find(names, &columns) {
                Ok(columns) => {
                    return Ok(Some(Header {
                        delimiter,
                        columns,
                        line_end,
                    }));
                }
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

/// The blocks of a table as text.
pub(super) struct Delimited {
    lines: Lines,
    delimiter: u8,
    columns: Columns,
    /// The header as it is written; nothing before it was read.
    header: Option<Vec<u8>>,
    /// How many columns the header has.
    width: usize,
    /// Rows read after the header.
    read: u64,
    row: Fields,
}

impl Delimited {
    /// The text stands at the header.
    pub(super) fn new(text: Text, header: Header) -> Delimited {
        Delimited {
            lines: Lines {
                line: text.line,
                text,
                end: header.line_end,
                at: 0,
            },
            delimiter: header.delimiter,
            columns: header.columns,
            header: None,
            width: 0,
            read: 0,
            row: Fields::default(),
        }
    }

    pub(super) fn text(&self) -> &Text {
        &self.lines.text
    }

    pub(super) fn next_block(&mut self, bytes: usize) -> Result<Option<Block>> {
        if self.header.is_none() {
            self.read_header()?;
        }
        let mut rows = RowBlock::default();
        while rows.text.len() < bytes && rows.ends.len() < BLOCK_ROWS {
            let Some(line) = self.next_row()? else {
                break;
            };
            self.read += 1;
            let id = self
                .columns
                .id
                .map(|id| self.row.column(id).trim_ascii_end());
            match id.filter(|id| leading_invisible(id) < id.len()) {
                Some(id) => rows.id(id),
                None => rows.id(format!("row{}", self.read).as_bytes()),
            }
            rows.end(self.row.column(self.columns.sequence), line);
        }
        let records = rows.ends.len() as u64;
        Ok((records > 0).then(|| Block {
            path: self.lines.text.path.clone(),
            records,
            content: Content::Rows(rows),
        }))
    }

    fn read_header(&mut self) -> Result<()> {
        let line = self.lines.line;
        let header = match self.lines.next()? {
            Some(range) => self.lines.text.pending[range].to_vec(),
            None => Vec::new(),
        };
        if self.row.read(&header, self.delimiter, self.lines.end) == Quotes::Open
            && self.delimiter != b'\t'
        {
            let reason = "expected the end of a quoted column, found that of the header";
            return Err(self.lines.wrong(line, reason.into()));
        }
        self.width = self.row.len();
        self.header = Some(header);
        Ok(())
    }

    /// Reads a row that is not blank; its first line, if there is one.
    fn next_row(&mut self) -> Result<Option<u64>> {
        loop {
            let number = self.lines.line;
            let Some(range) = self.lines.next()? else {
                return Ok(None);
            };
            let line = &self.lines.text.pending[range.clone()];
            // Tables were put together with their headers.
            if leading_invisible(line) == line.len() || self.header.as_deref() == Some(line) {
                continue;
            }
            if memchr(0, line).is_some() {
                return Err(self.lines.text.binary(number));
            }
            let quoted = memchr(b'"', line).is_some();
            if !quoted || self.delimiter == b'\t' {
                self.row.split(line, self.delimiter);
                if self.row.len() == self.width || !quoted {
                    return self.checked(number);
                }
            }
            self.read_quoted(range, number)?;
            return self.checked(number);
        }
    }

    /// Reads a row with quotes, of as many lines as it has.
    fn read_quoted(&mut self, range: Range<usize>, number: u64) -> Result<()> {
        let first = &self.lines.text.pending[range];
        if self.row.read(first, self.delimiter, self.lines.end) == Quotes::Closed {
            return Ok(());
        }
        let mut text = first.to_vec();
        if is_row(&text, self.delimiter, self.width, &self.columns) {
            return Err(self.swallowed(number, number));
        }
        loop {
            let last = self.lines.line;
            let Some(range) = self.lines.next()? else {
                let reason = "expected the end of a quoted column, found that of the file";
                return Err(self.lines.wrong(number, reason.into()));
            };
            let line = &self.lines.text.pending[range];
            if memchr(0, line).is_some() {
                return Err(self.lines.text.binary(last));
            }
            if is_row(line, self.delimiter, self.width, &self.columns) {
                return Err(self.swallowed(number, last));
            }
            text.push(self.lines.end);
            text.extend_from_slice(line);
            if text.len() > LONGEST_ROW {
                return Err(self.lines.too_long(number));
            }
            // The end of a quoted column has a quote.
            if memchr(b'"', line).is_some() {
                match self.row.read(&text, self.delimiter, self.lines.end) {
                    Quotes::Open => {}
                    Quotes::Closed => return Ok(()),
                    Quotes::Loose => {
                        let reason = "expected a delimiter behind the end of a quoted column that \
                                      holds line breaks: is a quote missing, or one too many?";
                        return Err(self.lines.wrong(number, reason.into()));
                    }
                }
            }
        }
    }

    fn swallowed(&self, number: u64, row: u64) -> Error {
        let reason = format!(
            "expected the end of a quoted column before the row of line {row} ends: is a quote \
             missing, or one too many?"
        );
        self.lines.wrong(number, reason)
    }

    /// The line, if the row has the columns it must have.
    fn checked(&self, line: u64) -> Result<Option<u64>> {
        let (width, found) = (self.width, self.row.len());
        if found != width {
            let reason = format!("expected the header's {width} columns, found {found}");
            return Err(self.lines.wrong(line, reason));
        }
        let id = self.columns.id.map_or(&b""[..], |id| self.row.column(id));
        if memchr(self.lines.end, id).is_some() {
            let reason = "expected an id, found a quoted column that holds line breaks";
            return Err(self.lines.wrong(line, reason.into()));
        }
        Ok(Some(line))
    }
}

/// Whether a line, read without regard to quotes, can be a row by itself.
fn is_row(line: &[u8], delimiter: u8, width: usize, columns: &Columns) -> bool {
    let mut found = 0;
    for (place, column) in line.split(|&byte| byte == delimiter).enumerate() {
        found += 1;
        // Two quotes are one that is meant; one at the end may be the end of what was open.
        let column = column.trim_ascii_end();
        let letters = column.strip_suffix(b"\"").unwrap_or(column);
        let is_residue =
            |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'.' | b'*');
        let wrong =
            place == columns.sequence && (letters.is_empty() || !letters.iter().all(is_residue));
        if wrong || column.starts_with(b" ") {
            return false;
        }
    }
    found == width
}

/// How the quotes of a row end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quotes {
    /// They are all closed, or there are none.
    Closed,
    /// One is not closed.
    Open,
    /// Behind one that holds line breaks there is more text in the same column.
    Loose,
}

/// The columns of a row, one behind the other.
#[derive(Default)]
struct Fields {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    fn len(&self) -> usize {
        self.ends.len()
    }

    /// A column; nothing where there is none.
    fn column(&self, place: usize) -> &[u8] {
        let start = place
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        match self.ends.get(place) {
            Some(&end) => &self.text[start.copied().unwrap_or(0)..end],
            None => &[],
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn end_column(&mut self) {
        self.ends.push(self.text.len());
    }

    /// Splits a line at each delimiter, and takes quotes around whole columns off.
    fn split(&mut self, line: &[u8], delimiter: u8) {
        self.clear();
        let mut start = 0;
        loop {
            let end = memchr(delimiter, &line[start..]).map_or(line.len(), |place| start + place);
            let column = &line[start..end];
            match column {
                [b'"', inner @ .., b'"'] => self.unquote(inner),
                column => self.text.extend_from_slice(column),
            }
            self.end_column();
            if end == line.len() {
                return;
            }
            start = end + 1;
        }
    }

    /// Appends quoted text; two quotes in it are one.
    fn unquote(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(place) = memchr(b'"', rest) {
            self.text.extend_from_slice(&rest[..=place]);
            rest = &rest[place + 1..];
            rest = rest.strip_prefix(b"\"").unwrap_or(rest);
        }
        self.text.extend_from_slice(rest);
    }

    /// Reads a row with quotes. What follows a closing quote directly belongs to the column.
    fn read(&mut self, row: &[u8], delimiter: u8, line_end: u8) -> Quotes {
        self.clear();
        let (mut start, mut quotes) = (0, Quotes::Closed);
        loop {
            if row.get(start) == Some(&b'"') {
                let inner = start + 1;
                let Some(length) = closing(&row[inner..]) else {
                    self.unquote(&row[inner..]);
                    self.end_column();
                    return Quotes::Open;
                };
                self.unquote(&row[inner..inner + length]);
                start = inner + length + 1;
                let follows = row.get(start).is_some_and(|&byte| byte != delimiter);
                if follows && memchr(line_end, &row[inner..inner + length]).is_some() {
                    quotes = Quotes::Loose;
                }
            }
            let end = memchr(delimiter, &row[start..]).map_or(row.len(), |place| start + place);
            self.text.extend_from_slice(&row[start..end]);
            self.end_column();
            if end == row.len() {
                return quotes;
            }
            start = end + 1;
        }
    }
}

/// The place of the quote that closes a column, of which this is what follows the opening one.
fn closing(text: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let place = start + memchr(b'"', &text[start..])?;
        if text.get(place + 1) != Some(&b'"') {
            return Some(place);
        }
        start = place + 2;
    }
}

/// The lines of a text.
struct Lines {
    text: Text,
    /// The byte that lines end in.
    end: u8,
    /// How many of the pending bytes were given.
    at: usize,
    /// The line that is given next.
    line: u64,
}

impl Lines {
    /// Where the next line is in the pending text, without its end and byte order marks.
    fn next(&mut self) -> Result<Option<Range<usize>>> {
        let mut searched = self.at;
        let end = loop {
            if let Some(place) = memchr(self.end, &self.text.pending[searched..]) {
                break searched + place;
            }
            searched = self.text.pending.len();
            if searched - self.at > LONGEST_ROW {
                return Err(self.too_long(self.line));
            }
            if self.at > 0 {
                drop(self.text.take(self.at));
                searched -= self.at;
                self.at = 0;
            }
            self.text.fill(searched + searched.max(READ))?;
            if self.text.pending.len() == searched {
                if searched == 0 {
                    return Ok(None);
                }
                break searched;
            }
        };
        let whole = &self.text.pending[self.at..end];
        let mut line = whole;
        while let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK) {
            line = rest;
        }
        let start = self.at + whole.len() - line.len();
        let returns = line.iter().rev().take_while(|&&byte| byte == b'\r');
        let range = start..end - returns.count();
        self.at = (end + 1).min(self.text.pending.len());
        self.line += 1;
        Ok(Some(range))
    }

    fn wrong(&self, line: u64, reason: String) -> Error {
        Error::Line {
            path: self.text.path.to_path_buf(),
            line,
            reason,
        }
    }

    fn too_long(&self, line: u64) -> Error {
        let reason =
            format!("expected a row of at most {LONGEST_ROW} bytes: is a quote never closed?");
        self.wrong(line, reason)
    }
}

/// Ids and sequences, one behind the other.
#[derive(Default)]
pub(super) struct RowBlock {
    text: Vec<u8>,
    ends: Vec<RecordEnds>,
}

struct RecordEnds {
    id: usize,
    sequence: usize,
    line: u64,
}

impl RowBlock {
    fn id(&mut self, id: &[u8]) {
        self.text.extend_from_slice(id);
    }

    fn end(&mut self, sequence: &[u8], line: u64) {
        let id = self.text.len();
        self.text.extend_from_slice(sequence);
        let sequence = self.text.len();
        self.ends.push(RecordEnds { id, sequence, line });
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
                fault: None,
            })?;
            start = ends.sequence;
        }
        Ok(())
    }
}
