//! Compressed text: several members, frames or streams in one file, and trailing data.
//!
//! `cat`, bgzip and pzstd write many members where one would do. Trailing data after the last
//! member belongs to no sequence: zeros that fill a tape's block, or a line that some program
//! appended. As gzip does, all members are read, and trailing data is ignored with a warning. A
//! member that is cut short is an error, even if only its first bytes are there.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

/// Bytes read at once from the file.
const BUFFER: usize = 1 << 17;
/// Bytes that tell a member.
pub(super) const MAGIC: usize = 6;
/// The most memory that decompressing xz may take; `xz -9` asks for 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// How text is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
    Xz,
}

impl Compression {
    const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Xz];

    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Xz => "xz",
        }
    }

    /// That of a file that begins so.
    pub(super) fn of(beginning: &[u8]) -> Option<Compression> {
        let begins = |compression: &Compression| compression.magic_length(beginning).is_some();
        Compression::ALL.into_iter().find(begins)
    }

    /// The length of the bytes that tell a member, if it begins so.
    fn magic_length(self, beginning: &[u8]) -> Option<usize> {
        let magic: &[u8] = match (self, beginning) {
            (Compression::Gzip, _) => b"\x1f\x8b",
            // A frame to be skipped, with which pzstd begins.
            (Compression::Zstd, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) => return Some(4),
            (Compression::Zstd, _) => b"\x28\xb5\x2f\xfd",
            (Compression::Xz, _) => b"\xfd7zXZ\0",
        };
        beginning.starts_with(magic).then_some(magic.len())
    }

    /// Whether a member may have been meant that ends within the bytes that tell one.
    fn is_cut(self, rest: &[u8]) -> bool {
        let magic: &[u8] = match self {
            Compression::Gzip => b"\x1f\x8b",
            Compression::Zstd => b"\x28\xb5\x2f\xfd",
            Compression::Xz => b"\xfd7zXZ\0",
        };
        !rest.is_empty() && rest.len() < magic.len() && magic.starts_with(rest)
    }
}

/// What stands behind the members and is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trailing {
    /// How many bytes.
    pub(super) bytes: u64,
    /// How they begin, after zeros.
    pub(super) begins: Vec<u8>,
}

/// The text of all members.
pub(super) struct Members {
    compression: Compression,
    state: State,
    left: Trailing,
}

enum State {
    Within(Box<Decoder>),
    Between(Buffered),
    Over,
}

enum Decoder {
    Gzip(GzDecoder<Buffered>),
    Zstd(zstd::stream::read::Decoder<'static, Buffered>),
    Xz(XzDecoder<Buffered>),
}

impl Decoder {
    fn new(compression: Compression, stored: Buffered) -> io::Result<Decoder> {
        Ok(match compression {
            Compression::Gzip => Decoder::Gzip(GzDecoder::new(stored)),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(stored)?;
                Decoder::Zstd(decoder.single_frame())
            }
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                Decoder::Xz(XzDecoder::new_stream(stored, stream))
            }
        })
    }

    fn finish(self) -> Buffered {
        match self {
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
            Decoder::Xz(decoder) => decoder.into_inner(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
        }
    }
}

impl Members {
    /// `stored` stands at the first member.
    pub(super) fn new(compression: Compression, stored: Buffered) -> io::Result<Members> {
        Ok(Members {
            compression,
            state: State::Within(Box::new(Decoder::new(compression, stored)?)),
            left: Trailing::default(),
        })
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// What was left behind the last member; known once all has been read.
    pub(super) fn left(&self) -> Option<&Trailing> {
        (self.left.bytes > 0).then_some(&self.left)
    }

    /// Goes to the next member; false if there is none, and then all is read.
    fn begin_next(&mut self) -> io::Result<bool> {
        let State::Between(stored) = &mut self.state else {
            return Ok(false);
        };
        let zeros = stored.skip_zeros()?;
        let beginning = stored.peek(MAGIC)?;
        let begins = self.compression.magic_length(beginning).is_some();
        if !begins && zeros == 0 && self.compression.is_cut(beginning) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Zeros in fours between streams and behind them are part of xz's format.
        if self.compression != Compression::Xz || zeros % 4 != 0 {
            self.left.bytes += zeros;
        }
        let State::Between(mut stored) = std::mem::replace(&mut self.state, State::Over) else {
            return Ok(false);
        };
        if begins {
            self.state = State::Within(Box::new(Decoder::new(self.compression, stored)?));
            return Ok(true);
        }
        self.left.begins = stored.peek(24)?.to_vec();
        self.left.bytes += io::copy(&mut stored, &mut io::sink())?;
        Ok(false)
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let State::Within(decoder) = &mut self.state {
                match decoder.read(buffer)? {
                    0 => {}
                    count => return Ok(count),
                }
            }
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Within(decoder) => State::Between(decoder.finish()),
                other => other,
            };
            if !self.begin_next()? {
                return Ok(0);
            }
        }
    }
}

/// A file's bytes, some of which can be looked at before they are read.
pub(super) struct Buffered {
    inner: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// The bytes of the buffer that were not read yet.
    waiting: Range<usize>,
}

impl Buffered {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> Buffered {
        Buffered {
            inner,
            buffer: vec![0; BUFFER],
            waiting: 0..0,
        }
    }

    /// The next bytes: so many, or all that are left. They are few.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        self.buffer.copy_within(self.waiting.clone(), 0);
        self.waiting = 0..self.waiting.len();
        while self.waiting.len() < count {
            match self.inner.read(&mut self.buffer[self.waiting.end..]) {
                Ok(0) => break,
                Ok(read) => self.waiting.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[..count.min(self.waiting.end)])
    }

    /// How many zeros came next, which are read.
    fn skip_zeros(&mut self) -> io::Result<u64> {
        let mut zeros = 0;
        loop {
            let next = self.fill_buf()?;
            let end = next.iter().position(|&byte| byte != 0);
            let (found, over) = (end.unwrap_or(next.len()), end.is_some() || next.is_empty());
            self.consume(found);
            zeros += found as u64;
            if over {
                return Ok(zeros);
            }
        }
    }
}

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting.is_empty() && buffer.len() >= BUFFER {
            return self.inner.read(buffer);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Buffered {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.waiting.is_empty() {
            self.waiting = 0..self.inner.read(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.waiting.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.waiting.start = (self.waiting.start + count).min(self.waiting.end);
    }
}
