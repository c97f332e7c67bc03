//! The text of an input file: what the file is, decompressed.
//!
//! A file is what its first bytes say, not what its name says. [`Text`] gathers decompressed bytes
//! until a block can be cut off, and turns a reader's failure into an error that names the file, the
//! compression and the last line.

use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use super::columns::ColumnNames;
use super::delimited::Header;
use super::meter::{Meter, Metered};
use super::unread::{self, Unread};
use crate::error::{Error, Result};

/// Bytes read at once from the file.
const BUFFER: usize = 1 << 17;
/// Bytes that tell a format.
const MAGIC: usize = 512;
/// A first line is looked at to this length.
const FIRST_LINE: usize = 1 << 16;
/// The most memory that decompressing xz may take; `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// What an input file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text(Compression),
    Parquet,
}

/// How text is stored. Members, frames and streams may follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "text",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Xz => "xz",
        }
    }
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
            [0x1f, 0x8b, ..] => Ok(Format::Text(Compression::Gzip)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Text(Compression::Zstd)),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Ok(Format::Text(Compression::Xz)),
            [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
            magic => match unread::by_magic(magic) {
                Some(unread) => Err(unread),
                None => Ok(Format::Text(Compression::None)),
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
    compression: Compression,
    reader: Box<dyn Read + Send>,
    /// Text that was read and not yet taken.
    pub(super) pending: Vec<u8>,
    /// The line that `pending` begins on, counted from 1.
    pub(super) line: u64,
}

impl Text {
    pub(super) fn new(
        path: &Arc<Path>,
        beginning: Beginning,
        compression: Compression,
        meter: &Meter,
    ) -> Result<Text> {
        let metered = Metered {
            inner: beginning,
            meter: meter.clone(),
        };
        let raw = BufReader::with_capacity(BUFFER, metered);
        let reader: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw);
                Box::new(decoder.map_err(Error::io("decompress", path))?)
            }
            Compression::Xz => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags);
                let stream = stream.map_err(io::Error::from);
                let stream = stream.map_err(Error::io("decompress", path))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(raw, stream))
            }
        };
        Ok(Text {
            path: path.clone(),
            compression,
            reader,
            pending: Vec::new(),
            line: 1,
        })
    }

    /// Reads until `pending` holds so many bytes, or all that are left; whether it holds so many.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<bool> {
        let missing = wanted.saturating_sub(self.pending.len());
        self.pending.reserve_exact(missing);
        let mut some = self.reader.by_ref().take(missing as u64);
        if let Err(error) = some.read_to_end(&mut self.pending) {
            let line = self.line + lines(&self.pending);
            return Err(self.failed(error, line));
        }
        Ok(self.pending.len() >= wanted)
    }

    /// Reads on, past what is pending.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }

    /// Takes the first bytes off what is pending.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        // The rest, mostly less than a record, is what is copied.
        let rest = self.pending.split_off(count);
        let taken = std::mem::replace(&mut self.pending, rest);
        self.line += lines(&taken);
        taken
    }

    /// A reader's failure in words. `line` is the last that could be read.
    pub(super) fn failed(&self, error: io::Error, line: u64) -> Error {
        let of_the_file = error.raw_os_error().is_some() || error.get_ref().is_some_and(is_ours);
        if self.compression == Compression::None || of_the_file {
            return failure(&self.path)(error);
        }
        let path = self.path.to_path_buf();
        let format = self.compression.name();
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

    /// Goes to the first line that says something, over a byte order mark, blank lines and comments.
    /// Nothing if that is a FASTA header, the table's header if it is one, an error otherwise.
    pub(super) fn begins_with_header(&mut self, columns: &ColumnNames) -> Result<Option<Header>> {
        self.fill(MAGIC)?;
        // What was compressed may be anything itself, as a tar archive mostly is.
        if let Some(unread) = unread::by_magic(&self.pending) {
            return Err(unread.error(&self.path));
        }
        if self.pending.starts_with(b"\xef\xbb\xbf") {
            self.take(3);
        }
        let mut comment = false;
        loop {
            self.fill(FIRST_LINE)?;
            if self.pending.is_empty() {
                return Err(Error::EmptyFile {
                    path: self.path.to_path_buf(),
                });
            }
            let says_something = |&byte: &u8| {
                match byte {
                    b'\n' => comment = false,
                    b';' => comment = true,
                    b'\r' | b' ' | b'\t' => {}
                    byte => return !comment || byte == 0,
                }
                false
            };
            match self.pending.iter().position(says_something) {
                None => drop(self.take(self.pending.len())),
                Some(place) => {
                    self.take(place);
                    break;
                }
            }
        }
        self.fill(FIRST_LINE)?;
        if self.pending.starts_with(b">") {
            return Ok(None);
        }
        let is_text = |&byte: &u8| byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n');
        let end = memchr::memchr(b'\n', &self.pending);
        let first = &self.pending[..end.unwrap_or(self.pending.len())];
        if first.len() < FIRST_LINE
            && first.iter().all(is_text)
            && let Some(header) =
                Header::read(first, columns).map_err(|missing| missing.of(&self.path))?
        {
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
}

fn is_ours(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<Error>()
}

/// Why a file could not be read.
pub(super) fn failure(path: &Path) -> impl FnOnce(io::Error) -> Error {
    // A storage's errors say what and where themselves.
    move |error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("read", path)(error),
    }
}

/// The line breaks in some text.
pub(super) fn lines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}
