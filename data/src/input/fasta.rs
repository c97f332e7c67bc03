//! FASTA: where records begin, and what is in them.
//!
//! Lines may be wrapped or not, end in LF or CRLF, and be blank; lines that begin with `;` are
//! comments. A `>` at the beginning of a line begins a record, whatever came before it, so that
//! cutting needs no parsing. A record that does not fit in a block is parsed as it is read: what is
//! kept of it is bounded.

use std::path::Path;

use memchr::memmem::Finder;

use super::source::Text;
use super::{Block, Content, RecordRef, append_without_white_space};
use crate::error::{Error, Result};

/// The rest of a longer header is not kept; the id is at its beginning.
const LONGEST_HEADER: usize = 1 << 16;
const RECORD_START: &[u8] = b"\n>";

/// The blocks of a FASTA file.
pub(super) struct Fasta {
    /// Stands at the beginning of a record.
    text: Text,
    start: Finder<'static>,
}

/// One record, kept.
#[derive(Default)]
pub(super) struct Record {
    id: String,
    line: u64,
    sequence: Vec<u8>,
    length: usize,
}

impl Record {
    pub(super) fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            id: &self.id,
            line: self.line,
            sequence: &self.sequence,
            length: self.length,
        }
    }
}

impl Fasta {
    pub(super) fn new(text: Text) -> Fasta {
        Fasta {
            text,
            start: Finder::new(RECORD_START),
        }
    }

    pub(super) fn next_block(&mut self, bytes: usize) -> Result<Option<Block>> {
        let full = self.text.fill(bytes)?;
        let pending = &self.text.pending;
        if pending.is_empty() {
            return Ok(None);
        }
        let first_part = &pending[..pending.len().min(bytes)];
        let place = memchr::memmem::rfind(first_part, RECORD_START);
        let place = place.or_else(|| self.start.find(pending));
        let content = match place {
            Some(place) => self.text_block(place + 1),
            None if !full => self.text_block(pending.len()),
            None => Content::Long(self.long_record()?),
        };
        let records = match &content {
            Content::Text { text, .. } => 1 + self.start.find_iter(text).count() as u64,
            _ => 1,
        };
        Ok(Some(Block {
            path: self.text.path.clone(),
            records,
            content,
        }))
    }

    fn text_block(&mut self, length: usize) -> Content {
        let line = self.text.line;
        let text = self.text.take(length);
        Content::Text { text, line }
    }

    /// The record that what is pending is the beginning of.
    fn long_record(&mut self) -> Result<Record> {
        let mut parser = Parser::new(self.text.line);
        loop {
            let place = self.start.find(&self.text.pending);
            // A line break at the end may be half of a record's beginning.
            let whole = place.map(|place| place + 1);
            let length = whole.unwrap_or(self.text.pending.len().saturating_sub(1));
            let part = self.text.take(length);
            let fed = parser.feed(&part, &mut |_| Ok(()));
            fed.map_err(|failure| failure.of(&self.text.path))?;
            if whole.is_some() {
                break;
            }
            if !self.text.fill(super::BLOCK)? && self.start.find(&self.text.pending).is_none() {
                let part = self.text.take(self.text.pending.len());
                let fed = parser.feed(&part, &mut |_| Ok(()));
                fed.map_err(|failure| failure.of(&self.text.path))?;
                break;
            }
        }
        parser.end();
        Ok(parser.record)
    }
}

/// Parses whole records, the first of which begins on `line`.
pub(super) fn parse(
    path: &Path,
    text: &[u8],
    line: u64,
    each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
) -> Result<()> {
    let mut parser = Parser::new(line);
    let fed = parser.feed(text, each);
    fed.map_err(|failure| failure.of(path))?;
    parser.end();
    each(parser.record.as_ref())
}

/// Why parsing ended early.
enum Failure {
    /// There is a NUL on this line.
    Binary(u64),
    /// Whoever was given a record failed.
    Other(Error),
}

impl Failure {
    fn of(self, path: &Path) -> Error {
        match self {
            Failure::Binary(line) => Error::Binary {
                path: path.to_path_buf(),
                line,
            },
            Failure::Other(error) => error,
        }
    }
}

/// Parses text that comes in pieces of any size.
struct Parser {
    /// The line the next byte belongs to.
    line: u64,
    /// What that line is; nothing if the next byte begins it.
    within: Option<Within>,
    /// A record has begun.
    begun: bool,
    header: Vec<u8>,
    record: Record,
}

#[derive(Clone, Copy)]
enum Within {
    Header,
    Sequence,
    Comment,
}

impl Parser {
    fn new(line: u64) -> Parser {
        Parser {
            line,
            within: None,
            begun: false,
            header: Vec::new(),
            record: Record::default(),
        }
    }

    /// Takes the next text. All but the last record are given to `each`.
    fn feed(
        &mut self,
        text: &[u8],
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        // Looked for once: most text has none.
        let binary = memchr::memchr(0, text);
        let mut start = 0;
        while start < text.len() {
            let rest = &text[start..];
            let line_break = memchr::memchr(b'\n', rest);
            let mut line = &rest[..line_break.unwrap_or(rest.len())];
            if self.within.is_none() && line.first() == Some(&b'>') {
                self.next_record(each)?;
            }
            let within = self.within.unwrap_or_else(|| match line.first() {
                Some(b'>') => {
                    line = &line[1..];
                    Within::Header
                }
                Some(b';') => Within::Comment,
                _ => Within::Sequence,
            });
            let end = start + line_break.map_or(rest.len(), |place| place + 1);
            if binary.is_some_and(|place| place < end) {
                return Err(Failure::Binary(self.line));
            }
            match within {
                Within::Comment => {}
                Within::Header => {
                    let room = LONGEST_HEADER - self.header.len();
                    self.header.extend_from_slice(&line[..line.len().min(room)]);
                }
                Within::Sequence => {
                    let Record {
                        sequence, length, ..
                    } = &mut self.record;
                    append_without_white_space(line, sequence, length);
                }
            }
            self.within = match line_break {
                Some(_) => None,
                None => Some(within),
            };
            self.line += u64::from(line_break.is_some());
            start = end;
        }
        Ok(())
    }

    fn next_record(
        &mut self,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        if self.begun {
            self.end();
            each(self.record.as_ref()).map_err(Failure::Other)?;
        }
        self.begun = true;
        self.header.clear();
        self.record.line = self.line;
        self.record.sequence.clear();
        self.record.length = 0;
        Ok(())
    }

    /// Finishes the last record.
    fn end(&mut self) {
        let text = String::from_utf8_lossy(&self.header);
        // An id is what follows '>' directly; "> text" has none.
        let id = match text.starts_with(char::is_whitespace) {
            true => "",
            false => text.split_whitespace().next().unwrap_or(""),
        };
        self.record.id.clear();
        self.record.id.push_str(id);
    }
}
