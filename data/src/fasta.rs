//! FASTA, one record at a time.
//!
//! Written here rather than taken from a crate: what a pre-training set needs from a FASTA reader is
//! to survive hostile files with a message that names the line, in memory bounded by one record
//! whatever the file holds. The published readers leave compression errors without a line, or grow
//! their buffer with the record.
//!
//! Lines may be wrapped or not, end in LF or CRLF, and be blank; lines that begin with `;` are
//! comments. The sequence is given as it is written, without white space: what its letters mean is
//! decided in [`crate::residues`].

use std::path::Path;

use crate::error::{Error, Result};
use crate::source::Source;

/// A longer sequence is not kept, so that a file cannot claim all memory. The longest known protein
/// has some 45,000 residues.
pub const LONGEST_SEQUENCE: usize = 1 << 24;
/// The rest of a longer header is not kept; the id is at its beginning.
const LONGEST_HEADER: usize = 1 << 16;

/// One record as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The first word of the header.
    pub id: String,
    /// The header's line, counted from 1.
    pub line: u64,
    /// The sequence's bytes without white space, at most [`LONGEST_SEQUENCE`] of them.
    pub sequence: Vec<u8>,
    /// How many bytes the sequence has in the file.
    pub length: usize,
}

/// Reads the records of one FASTA file.
pub struct FastaReader {
    source: Source,
    /// The line the next byte belongs to, counted from 1.
    line: u64,
    /// The next byte begins a line.
    at_line_start: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum In {
    Header,
    Sequence,
    Comment,
}

impl FastaReader {
    /// Opens a plain, gzip or zstd file, and checks that it begins like FASTA.
    pub fn open(path: impl AsRef<Path>) -> Result<FastaReader> {
        FastaReader::new(Source::open(path.as_ref())?)
    }

    pub(crate) fn new(source: Source) -> Result<FastaReader> {
        let mut reader = FastaReader {
            source,
            line: 1,
            at_line_start: true,
        };
        reader.find_first_header()?;
        Ok(reader)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Goes to the first `>`, over a byte order mark, blank lines and comments.
    fn find_first_header(&mut self) -> Result<()> {
        if self.source.fill(self.line)?.starts_with(b"\xef\xbb\xbf") {
            self.source.consume(3);
        }
        let mut comment = false;
        while let Some(&byte) = self.source.fill(self.line)?.first() {
            match byte {
                b'\n' => {
                    comment = false;
                    self.line += 1;
                }
                b'>' if !comment => return Ok(()),
                b';' => comment = true,
                b'\r' | b' ' | b'\t' => {}
                byte if comment && byte != 0 => {}
                _ => return Err(self.no_header()?),
            }
            self.source.consume(1);
        }
        Err(Error::EmptyFile {
            path: self.source.path.clone(),
        })
    }

    /// What stands where a header was expected.
    fn no_header(&mut self) -> Result<Error> {
        let line = self.line;
        let path = self.source.path.clone();
        let buffer = self.source.fill(line)?;
        let beginning = &buffer[..buffer.len().min(512)];
        let text = |&b: &u8| b >= b' ' || matches!(b, b'\t' | b'\r' | b'\n');
        if !beginning.iter().all(text) {
            return Ok(Error::Binary { path, line });
        }
        let shown = beginning.split(|&b| b == b'\n').next().unwrap_or_default();
        let shown = &shown[..shown.len().min(40)];
        let found = String::from_utf8_lossy(shown).trim_end().to_string();
        Ok(Error::NotFasta { path, line, found })
    }

    /// Reads the next record into `record`; false at the end of the file.
    pub fn read(&mut self, record: &mut Record) -> Result<bool> {
        record.id.clear();
        record.sequence.clear();
        record.length = 0;
        record.line = self.line;
        let mut header: Vec<u8> = Vec::new();
        let mut state = In::Comment;
        let mut seen_header = false;
        loop {
            let buffer = self.source.fill(self.line)?;
            let Some(&byte) = buffer.first() else {
                break;
            };
            if self.at_line_start {
                state = match byte {
                    b'>' if seen_header => break,
                    b'>' => In::Header,
                    b';' => In::Comment,
                    _ => In::Sequence,
                };
                self.at_line_start = false;
                if state == In::Header {
                    seen_header = true;
                    record.line = self.line;
                    self.source.consume(1);
                    continue;
                }
            }
            let newline = buffer.iter().position(|&b| b == b'\n');
            let piece = &buffer[..newline.unwrap_or(buffer.len())];
            if piece.contains(&0) {
                return Err(Error::Binary {
                    path: self.source.path.clone(),
                    line: self.line,
                });
            }
            match state {
                In::Comment => {}
                In::Header => {
                    let room = LONGEST_HEADER.saturating_sub(header.len());
                    header.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                In::Sequence => {
                    for &byte in piece.iter().filter(|byte| !byte.is_ascii_whitespace()) {
                        record.length += 1;
                        if record.length <= LONGEST_SEQUENCE {
                            record.sequence.push(byte);
                        }
                    }
                }
            }
            let consumed = piece.len() + usize::from(newline.is_some());
            if newline.is_some() {
                self.line += 1;
                self.at_line_start = true;
            }
            self.source.consume(consumed);
        }
        let text = String::from_utf8_lossy(&header);
        // An id is what follows '>' directly; "> text" has none.
        if !text.starts_with(char::is_whitespace) {
            record.id = text.split_whitespace().next().unwrap_or("").to_string();
        }
        Ok(seen_header)
    }
}
