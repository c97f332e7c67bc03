//! FASTA: where records begin, and what is in them.
//!
//! Lines may be wrapped or not, be blank, and end in LF, CR LF or CR, each as it likes; lines that
//! begin with `;` or `#` are comments. A `>` begins a record if nothing that can be seen stands
//! before it on its line, whatever came before that line, so that cutting needs no parsing.
//!
//! A `>` further on in a line of residues, or behind the mark of a comment, is a header as well,
//! but whose residues are which cannot be known: the record that it ends and the one that it begins
//! are both given with a fault.
//!
//! A record that does not fit in a block is parsed as it is read: what is kept of it is bounded.

use std::path::Path;

use memchr::{memchr, memchr2, memrchr2};

use super::text::Text;
use super::{Block, Content, RecordRef, append_without_white_space};
use crate::error::{Error, Result};
use crate::format::Reason;
use crate::prepare::invisible::leading_invisible;
use crate::prepare::nucleotides;

/// The rest of a longer header is not kept; the id is at its beginning.
const LONGEST_HEADER: usize = 1 << 16;
/// Before a header stand at most so many bytes of what nobody sees.
const INDENT: usize = 256;
/// What is not parsed yet of a record whose end is not read: a header may begin in it.
const HELD: usize = INDENT + 8;

/// The blocks of a FASTA file.
pub(super) struct Fasta {
    /// Stands at the beginning of a record.
    text: Text,
    begins: Begins,
}

/// How a record begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// On a line of its own.
    Seen,
    /// Within a line, behind what may be its neighbor's.
    Hidden,
}

/// Whole records as they are written.
pub(super) struct Records {
    text: Vec<u8>,
    /// The line the first begins on.
    line: u64,
    begins: Begins,
    /// How the record after the last begins.
    next: Begins,
}

/// One record, kept.
#[derive(Default)]
pub(super) struct Record {
    id: String,
    line: u64,
    sequence: Vec<u8>,
    length: usize,
    fault: Option<Reason>,
}

impl Record {
    pub(super) fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            id: &self.id,
            line: self.line,
            sequence: &self.sequence,
            length: self.length,
            fault: self.fault,
        }
    }
}

impl Fasta {
    pub(super) fn new(text: Text) -> Fasta {
        Fasta {
            text,
            begins: Begins::Seen,
        }
    }

    pub(super) fn text(&self) -> &Text {
        &self.text
    }

    pub(super) fn next_block(&mut self, bytes: usize) -> Result<Option<Block>> {
        let full = self.text.fill(bytes)?;
        let pending = &self.text.pending;
        if pending.is_empty() {
            return Ok(None);
        }
        let (mut records, mut end) = (1, None);
        // The first is the one that stands at the beginning.
        for start in RecordStarts::new(pending, None).skip(1) {
            match end {
                Some(_) if start.0 > bytes => break,
                Some(_) => records += 1,
                None => {}
            }
            end = Some(start);
        }
        let content = match end {
            Some((place, next)) => self.records(place, next),
            None if !full => self.records(pending.len(), Begins::Seen),
            None => Content::Long(self.long_record()?),
        };
        Ok(Some(Block {
            path: self.text.path.clone(),
            records,
            content,
        }))
    }

    fn records(&mut self, length: usize, next: Begins) -> Content {
        let line = self.text.line;
        Content::Text(Records {
            text: self.text.take(length),
            line,
            begins: std::mem::replace(&mut self.begins, next),
            next,
        })
    }

    /// The record that what is pending is the beginning of.
    fn long_record(&mut self) -> Result<Record> {
        let mut parser = Parser::new(self.text.line, self.begins);
        loop {
            let mut starts = RecordStarts::new(&self.text.pending, parser.within);
            // The first is the one that stands at the beginning.
            if let Some((place, next)) = starts.nth(usize::from(!parser.begun)) {
                self.feed(&mut parser, place)?;
                self.begins = next;
                break;
            }
            let known = self.text.pending.len().saturating_sub(HELD);
            if parser.begun || known > INDENT {
                self.feed(&mut parser, known)?;
            }
            let before = self.text.pending.len();
            self.text.fill(before.max(super::BLOCK))?;
            if self.text.pending.len() == before {
                self.feed(&mut parser, before)?;
                self.begins = Begins::Seen;
                break;
            }
        }
        parser.end(self.begins);
        Ok(parser.record)
    }

    fn feed(&mut self, parser: &mut Parser, length: usize) -> Result<()> {
        let part = self.text.take(length);
        let fed = parser.feed(&part, &mut |_| Ok(()));
        fed.map_err(|failure| failure.of(&self.text.path))
    }
}

impl Records {
    pub(super) fn for_each(
        &self,
        path: &Path,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut parser = Parser::new(self.line, self.begins);
        let fed = parser.feed(&self.text, each);
        fed.map_err(|failure| failure.of(path))?;
        parser.end(self.next);
        each(parser.record.as_ref())
    }
}

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Header,
    Sequence,
    Comment,
}

/// What stands before a `>` on its line, or at the beginning of a line without one.
fn before(text: &[u8]) -> (LineKind, Option<Begins>) {
    let seen = text.len() <= INDENT;
    if seen && leading_invisible(text) == text.len() {
        return (LineKind::Header, Some(Begins::Seen));
    }
    match text.first() {
        Some(b';' | b'#') => {
            let marks = text.iter().take_while(|byte| matches!(byte, b';' | b'#'));
            let rest = &text[marks.count()..];
            match seen && leading_invisible(rest) == rest.len() {
                true => (LineKind::Header, Some(Begins::Hidden)),
                false => (LineKind::Comment, None),
            }
        }
        _ => (LineKind::Header, Some(Begins::Hidden)),
    }
}

/// The places where records begin.
struct RecordStarts<'a> {
    text: &'a [u8],
    /// Where the line begins that is looked at, and from where on it is.
    line: usize,
    next: usize,
    /// What that line is, if it is known.
    within: Option<LineKind>,
}

impl<'a> RecordStarts<'a> {
    /// The text begins within such a line, or with a line.
    fn new(text: &'a [u8], within: Option<LineKind>) -> RecordStarts<'a> {
        RecordStarts {
            text,
            line: 0,
            next: 0,
            within,
        }
    }
}

impl Iterator for RecordStarts<'_> {
    type Item = (usize, Begins);

    fn next(&mut self) -> Option<(usize, Begins)> {
        loop {
            let place = self.next + memchr(b'>', &self.text[self.next..])?;
            let between = &self.text[self.next..place];
            if let Some(end) = memrchr2(b'\n', b'\r', between) {
                self.line = self.next + end + 1;
                self.within = None;
            }
            self.next = place + 1;
            let start = match self.within {
                Some(LineKind::Header | LineKind::Comment) => None,
                Some(LineKind::Sequence) => {
                    self.within = Some(LineKind::Header);
                    Some(Begins::Hidden)
                }
                None => {
                    let (within, start) = before(&self.text[self.line..place]);
                    self.within = Some(within);
                    start
                }
            };
            match start {
                // With what stands before it on its line.
                Some(Begins::Seen) => return Some((self.line, Begins::Seen)),
                Some(Begins::Hidden) => return Some((place, Begins::Hidden)),
                None => {}
            }
        }
    }
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
    within: Option<LineKind>,
    /// How the next record begins, before the first.
    first: Begins,
    /// A record has begun.
    begun: bool,
    header: Vec<u8>,
    ends: LineEnds,
    record: Record,
}

/// The line ends of a record.
#[derive(Clone, Copy, Default)]
struct LineEnds {
    /// The byte before is a CR.
    after_return: bool,
    /// Between it and the header are none but others.
    after_header: bool,
    /// Its header ended in a CR without LF.
    header_in_return: bool,
    /// A line has ended in LF.
    line_feed: bool,
}

impl Parser {
    fn new(line: u64, first: Begins) -> Parser {
        Parser {
            line,
            within: None,
            first,
            begun: false,
            header: Vec::new(),
            ends: LineEnds::default(),
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
        let binary = memchr(0, text);
        let returns = memchr(b'\r', text).is_some();
        let mut starts = RecordStarts::new(text, self.within);
        let mut next = starts.next();
        let mut start = 0;
        while start < text.len() {
            // A line, or what stands on it before a hidden header.
            let rest = &text[start..];
            let line_end = match returns {
                true => memchr2(b'\n', b'\r', rest),
                false => memchr(b'\n', rest),
            };
            let mut line = &rest[..line_end.unwrap_or(rest.len())];
            let mut end = line_end.map_or(rest.len(), |place| place + 1);
            if let Some((place, begins)) = next
                && place == start
            {
                self.next_record(begins, each)?;
                next = starts.next();
                let mark = memchr(b'>', line).map_or(line.len(), |mark| mark + 1);
                line = &line[mark..];
                self.within = Some(LineKind::Header);
            }
            let mut line_end = line_end.map(|place| rest[place]);
            if let Some((place, _)) = next
                && place < start + end
                && self.within != Some(LineKind::Header)
            {
                end = place - start;
                line = &rest[..end];
                line_end = None;
            }
            if binary.is_some_and(|place| place < start + end) {
                return Err(Failure::Binary(self.line));
            }
            let within = self.within.unwrap_or(match line.first() {
                Some(b';' | b'#') => LineKind::Comment,
                _ => LineKind::Sequence,
            });
            match within {
                LineKind::Comment => {}
                LineKind::Header => {
                    let room = LONGEST_HEADER - self.header.len();
                    self.header.extend_from_slice(&line[..line.len().min(room)]);
                }
                LineKind::Sequence => self.residues(line),
            }
            self.within = Some(within);
            if !line.is_empty() {
                self.ends.after_return = false;
                self.ends.after_header = false;
            }
            if let Some(byte) = line_end {
                if byte == b'\r' && rest.get(end) == Some(&b'\n') {
                    end += 1;
                    self.ends.after_return = false;
                    self.end_line(b'\n', within);
                } else {
                    self.end_line(byte, within);
                }
            }
            start += end;
        }
        Ok(())
    }

    fn residues(&mut self, line: &[u8]) {
        let Record {
            sequence,
            length,
            fault,
            ..
        } = &mut self.record;
        append_without_white_space(line, sequence, length);
        let mixed = self.ends.header_in_return && self.ends.line_feed;
        if mixed && leading_invisible(line) < line.len() {
            fault.get_or_insert(Reason::MixedLineEnds);
        }
    }

    /// Ends a line of the kind `within`. CR LF counts as LF.
    fn end_line(&mut self, byte: u8, within: LineKind) {
        let ends = &mut self.ends;
        self.within = None;
        if byte == b'\r' {
            self.line += 1;
            if within == LineKind::Header {
                ends.header_in_return = true;
                ends.after_header = true;
            }
            ends.after_return = true;
            return;
        }
        // Of a CR LF in two pieces the line was counted with the first.
        self.line += u64::from(!ends.after_return);
        ends.header_in_return &= !ends.after_header;
        ends.line_feed = true;
        ends.after_return = false;
        ends.after_header = false;
    }

    fn next_record(
        &mut self,
        begins: Begins,
        each: &mut impl FnMut(RecordRef<'_>) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        let begins = match self.begun {
            true => {
                self.end(begins);
                each(self.record.as_ref()).map_err(Failure::Other)?;
                begins
            }
            false => self.first,
        };
        self.begun = true;
        self.header.clear();
        self.ends = LineEnds::default();
        self.record.line = self.line;
        self.record.sequence.clear();
        self.record.length = 0;
        self.record.fault = (begins == Begins::Hidden).then_some(Reason::HiddenHeader);
        Ok(())
    }

    /// Finishes the last record. The next one begins so.
    fn end(&mut self, next: Begins) {
        let text = String::from_utf8_lossy(&self.header);
        // An id is what follows '>' directly; "> text" has none.
        let id = match text.starts_with(char::is_whitespace) {
            true => "",
            false => text.split_whitespace().next().unwrap_or(""),
        };
        let Record {
            id: kept,
            line,
            sequence,
            fault,
            ..
        } = &mut self.record;
        kept.clear();
        match id {
            "" => *kept = format!("line{line}"),
            id => kept.push_str(id),
        }
        if next == Begins::Hidden {
            *fault = Some(Reason::HiddenHeader);
        }
        if fault.is_none() && nucleotides::named_by(&self.header, sequence) {
            *fault = Some(Reason::NucleicAcid);
        }
    }
}
