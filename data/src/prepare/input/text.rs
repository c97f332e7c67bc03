//! The text of an input file: what the file is, decompressed.
//!
//! A file is what its first bytes say, not what its name says. [`Text`] gathers decompressed bytes
//! until a block can be cut off, and turns a reader's failure into an error that names the file,
//! the compression and the last line.

use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use memchr::memchr2;

use super::delimited::Header;
use super::members::{Buffered, Compression, Members};
use super::meter::{Meter, Metered};
use super::unread::{self, Unread};
use crate::error::{Error, Result};
use crate::format::ColumnNames;
use crate::prepare::invisible::leading_invisible;

/// Bytes that tell a format.
const MAGIC: usize = 512;
/// A first line is looked at to this length.
pub(super) const FIRST_LINE: usize = 1 << 16;

/// What an input file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Text, compressed or not.
    Text(Option<Compression>),
    Parquet,
}

/// A file whose first bytes are known.
pub(super) struct Beginning {
    magic: Vec<u8>,
    rest: io::Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>,
}

impl Beginning {
    pub(super) fn read(mut reader: Box<dyn Read + Send>) -> io::Result<Beginning> {
        let mut magic = Vec::with_capacity(MAGIC);
        reader.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
        let rest = Cursor::new(magic.clone()).chain(reader);
        Ok(Beginning { magic, rest })
    }

    /// The format; one that is not read otherwise.
    pub(super) fn format(&self) -> std::result::Result<Format, &'static Unread> {
        match self.magic.as_slice() {
            [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
            magic => match Compression::of(magic) {
                Some(compression) => Ok(Format::Text(Some(compression))),
                None => match unread::by_magic(magic) {
                    Some(unread) => Err(unread),
                    None => Ok(Format::Text(None)),
                },
            },
        }
    }
}

impl Read for Beginning {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

/// Decompressed text on its way.
pub(super) struct Text {
    pub(super) path: Arc<Path>,
    reader: ByteStream,
    /// Text that was read and not yet taken.
    pub(super) pending: Vec<u8>,
    /// The line that `pending` begins on, counted from 1.
    pub(super) line: u64,
    /// The last byte taken.
    last: u8,
}

enum ByteStream {
    Plain(Buffered),
    Compressed(Members),
}

impl Text {
    pub(super) fn new(
        path: &Arc<Path>,
        beginning: Beginning,
        compression: Option<Compression>,
        meter: &Meter,
    ) -> Result<Text> {
        let stored = Buffered::new(Box::new(Metered {
            inner: beginning,
            meter: meter.clone(),
        }));
        let reader = match compression {
            None => ByteStream::Plain(stored),
            Some(compression) => {
                let members = Members::new(compression, stored);
                ByteStream::Compressed(members.map_err(Error::io("decompress", path))?)
            }
        };
        Ok(Text {
            path: path.clone(),
            reader,
            pending: Vec::new(),
            line: 1,
            last: 0,
        })
    }

    /// What is to be told of a file whose text is all right.
    pub(super) fn warning(&self) -> Option<String> {
        let ByteStream::Compressed(members) = &self.reader else {
            return None;
        };
        let left = members.left()?;
        let format = members.compression().name();
        let zeros = left.begins.is_empty();
        let shown = String::from_utf8_lossy(&left.begins);
        Some(match zeros {
            true => format!("{} zeros behind its {format} data were left", left.bytes),
            false => format!(
                "{} bytes behind its {format} data, which begin with {shown:?}, were left",
                left.bytes
            ),
        })
    }

    /// Reads until `pending` holds so many bytes, or all that are left; whether it holds so many.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<bool> {
        let missing = wanted.saturating_sub(self.pending.len());
        self.pending.reserve_exact(missing);
        let reader: &mut dyn Read = match &mut self.reader {
            ByteStream::Plain(stored) => stored,
            ByteStream::Compressed(members) => members,
        };
        if let Err(error) = reader.take(missing as u64).read_to_end(&mut self.pending) {
            let line = self.line + line_breaks(self.last, &self.pending);
            return Err(self.failed(error, line));
        }
        Ok(self.pending.len() >= wanted)
    }

    /// Takes the first bytes off what is pending.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        // The rest, mostly less than a record, is what is copied.
        let rest = self.pending.split_off(count);
        let taken = std::mem::replace(&mut self.pending, rest);
        self.line += line_breaks(self.last, &taken);
        self.last = taken.last().copied().unwrap_or(self.last);
        taken
    }

    /// A reader's failure in words. `line` is the last that could be read.
    fn failed(&self, error: io::Error, line: u64) -> Error {
        let of_the_file = error.raw_os_error().is_some() || error.get_ref().is_some_and(is_ours);
        let ByteStream::Compressed(members) = &self.reader else {
            return failure(&self.path)(error);
        };
        if of_the_file {
            return failure(&self.path)(error);
        }
        let path = self.path.to_path_buf();
        let format = members.compression().name();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated { path, format, line },
            _ => Error::Corrupt {
                path,
                format,
                line,
                reason: error.to_string(),
            },
        }
    }

    pub(super) fn binary(&self, line: u64) -> Error {
        Error::Binary {
            path: self.path.to_path_buf(),
            line,
        }
    }

    /// Goes to the first line that says something, over a byte order mark, blank lines and
    /// comments. Nothing if that is a FASTA header, the table's header if it is one, an error
    /// otherwise.
    pub(super) fn begins_with_header(&mut self, columns: &ColumnNames) -> Result<Option<Header>> {
        self.fill(MAGIC)?;
        // What was compressed may be anything itself, as a tar archive mostly is.
        if let Some(unread) = unread::by_magic(&self.pending) {
            return Err(unread.error(&self.path));
        }
        loop {
            self.skip_invisible()?;
            match self.pending.first() {
                None => {
                    return Err(Error::EmptyFile {
                        path: self.path.to_path_buf(),
                    });
                }
                Some(b'>') => return Ok(None),
                Some(b'#') => match self.header_after_mark(columns) {
                    Some(header) => return Ok(Some(header)),
                    None => self.skip_line()?,
                },
                Some(b';') => self.skip_line()?,
                Some(_) => break,
            }
        }
        let is_text = |&byte: &u8| byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n');
        let first = first_line(&self.pending);
        let header = Header::read(&self.pending, columns);
        if let Some(header) = header.map_err(|missing| missing.of(&self.path))? {
            return Ok(Some(header));
        }
        let looked_at = self.pending.len().min(512);
        if !self.pending[..looked_at].iter().all(is_text) {
            return Err(self.binary(self.line));
        }
        if let Some(unread) = unread::by_words(&self.pending) {
            return Err(unread.error(&self.path));
        }
        let shown = String::from_utf8_lossy(&first[..first.len().min(40)]);
        Err(Error::NotFasta {
            path: self.path.to_path_buf(),
            line: self.line,
            found: shown.trim_end().to_string(),
        })
    }

    /// Goes over what nobody sees. Then as much is pending as is looked at of a first line.
    fn skip_invisible(&mut self) -> Result<()> {
        loop {
            self.fill(FIRST_LINE)?;
            match leading_invisible(&self.pending) {
                0 => return Ok(()),
                some => drop(self.take(some)),
            }
        }
    }

    /// Goes over the rest of a line, up to its end.
    fn skip_line(&mut self) -> Result<()> {
        loop {
            let end = memchr2(b'\n', b'\r', &self.pending);
            let line = self.take(end.unwrap_or(self.pending.len()));
            if line.contains(&0) {
                return Err(self.binary(self.line));
            }
            if end.is_some() || !self.fill(1)? {
                return Ok(());
            }
        }
    }

    /// The table's header that a line beginning with `#` is. It is a comment where a header
    /// follows.
    fn header_after_mark(&self, columns: &ColumnNames) -> Option<Header> {
        // A comment lacks whatever columns are asked for.
        let read = |text| Header::read(text, columns).ok().flatten();
        let header = read(&self.pending)?;
        let next = &self.pending[first_line(&self.pending).len()..];
        let next = &next[leading_invisible(next)..];
        let is_header = matches!(next.first(), Some(b'>' | b'#')) || read(next).is_some();
        (!is_header).then_some(header)
    }
}

/// The first line of a text, without its end; all of it if it has no end.
pub(super) fn first_line(text: &[u8]) -> &[u8] {
    &text[..memchr2(b'\n', b'\r', text).unwrap_or(text.len())]
}

fn is_ours(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<ankh_storage::Error>()
}

/// Why a file could not be read.
pub(super) fn failure(path: &Path) -> impl FnOnce(io::Error) -> Error {
    // A storage's errors say what and where themselves.
    move |error| match error.downcast::<ankh_storage::Error>() {
        Ok(error) => error.into(),
        Err(error) => Error::io("read", path)(error),
    }
}

/// The line breaks in some text that follows the byte `last`. A line ends in LF, in CR LF, or in
/// CR.
fn line_breaks(last: u8, text: &[u8]) -> u64 {
    let line_feeds = memchr::memchr_iter(b'\n', text).count();
    let mut both = usize::from(last == b'\r' && text.first() == Some(&b'\n'));
    let mut returns = 0;
    for place in memchr::memchr_iter(b'\r', text) {
        returns += 1;
        both += usize::from(text.get(place + 1) == Some(&b'\n'));
    }
    (line_feeds + returns - both) as u64
}
