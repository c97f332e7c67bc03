//! Input files: what they are, decompressed, and what they hashed to.
//!
//! A file is what its first bytes say, not what its name says. [`Source`] gives the decompressed
//! text of a FASTA file through one `BufRead`, and turns a reader's failure into an error that names
//! the file, the compression and the last line. All bytes of the file are counted and hashed on the
//! way. Formats that are not text go another way (see [`Format`]); CSV would be one more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::manifest::hex;

/// What an input file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text as it is.
    Plain,
    /// Text in one or more gzip members.
    Gzip,
    /// Text in one or more Zstandard frames.
    Zstd,
    /// An Apache Parquet table.
    Parquet,
}

impl Format {
    /// The format of the file that begins with some bytes.
    pub fn detect(beginning: &[u8]) -> std::result::Result<Format, &'static str> {
        match beginning {
            [0x1f, 0x8b, ..] => Ok(Format::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
            [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
            [b'B', b'Z', b'h', ..] => Err("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("xz"),
            [b'P', b'K', 3, 4, ..] => Err("a zip archive"),
            _ => Ok(Format::Plain),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Plain => "text",
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Parquet => "Parquet",
        }
    }
}

/// Bytes that went by, and their hash so far.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Mutex<(u64, Sha256)>>);

impl Meter {
    fn lock(&self) -> MutexGuard<'_, (u64, Sha256)> {
        // Counting cannot panic half-way, so a poisoned value is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lock().0
    }

    pub(crate) fn sha256(&self) -> String {
        hex(&self.lock().1.clone().finalize())
    }

    pub(crate) fn count(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.0 += bytes.len() as u64;
        state.1.update(bytes);
    }
}

struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.count(&buffer[..count]);
        Ok(count)
    }
}

/// The text of an input file.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) meter: Meter,
    text: Box<dyn BufRead>,
}

const BUFFER: usize = 1 << 17;

impl Source {
    /// Opens a file. A Parquet file opens too, with its raw bytes as text.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let meter = Meter::default();
        let metered = Metered {
            inner: file,
            meter: meter.clone(),
        };
        let mut raw = BufReader::with_capacity(BUFFER, metered);
        let beginning = raw.fill_buf().map_err(Error::io("read", path))?;
        let format = Format::detect(beginning).map_err(|format| Error::UnsupportedFormat {
            path: path.to_path_buf(),
            format,
        })?;
        let text: Box<dyn BufRead> = match format {
            Format::Plain | Format::Parquet => Box::new(raw),
            Format::Gzip => Box::new(BufReader::with_capacity(
                BUFFER,
                flate2::bufread::MultiGzDecoder::new(raw),
            )),
            Format::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw);
                Box::new(BufReader::with_capacity(
                    BUFFER,
                    decoder.map_err(Error::io("decompress", path))?,
                ))
            }
        };
        Ok(Source {
            path: path.to_path_buf(),
            format,
            meter,
            text,
        })
    }

    /// The bytes that are ready; none at the end of the file. `line` is where the reader stands.
    pub(crate) fn fill(&mut self, line: u64) -> Result<&[u8]> {
        let (path, format) = (&self.path, self.format);
        self.text.fill_buf().map_err(|error| {
            if format == Format::Plain || error.raw_os_error().is_some() {
                return Error::io("read", path)(error);
            }
            match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Truncated {
                    path: path.clone(),
                    format: format.name(),
                    line,
                },
                _ => Error::Corrupt {
                    path: path.clone(),
                    format: format.name(),
                    line,
                    reason: error.to_string(),
                },
            }
        })
    }

    /// Steps over bytes that [`Source::fill`] gave.
    pub(crate) fn consume(&mut self, count: usize) {
        self.text.consume(count);
    }
}
