//! Where an input file is: read from its beginning, or at random as tables are.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ankh_storage::Storage;
use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::{Error, Result};

/// Bytes read at once from a remote table.
const PIECE: u64 = 16 << 20;
/// Pieces kept: those that two columns are in, and the next ones.
const KEPT: usize = 4;

/// A file, local or in a bucket.
pub(super) enum Stored {
    /// Any path, also one that is no Unicode, or a pipe.
    Local(PathBuf),
    Remote(Storage, String),
}

impl Stored {
    pub(super) fn size(&self) -> Result<u64> {
        match self {
            Stored::Local(path) => {
                let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
                Ok(metadata.len())
            }
            Stored::Remote(storage, name) => Ok(storage.size(name)?),
        }
    }

    pub(super) fn reader(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Stored::Local(path) => Ok(Box::new(File::open(path).map_err(Error::io("open", path))?)),
            Stored::Remote(storage, name) => Ok(storage.reader(name)?),
        }
    }

    /// The file of that size, at random.
    pub(super) fn bytes(&self, size: u64) -> Result<RandomAccess> {
        match self {
            Stored::Local(path) => {
                let file = File::open(path).map_err(Error::io("open", path))?;
                Ok(RandomAccess::File(file))
            }
            Stored::Remote(storage, name) => Ok(RandomAccess::Remote(Arc::new(Remote {
                storage: storage.clone(),
                name: name.clone(),
                size,
                pieces: Mutex::default(),
                failure: Failure::default(),
            }))),
        }
    }
}

/// A file's bytes in any order.
pub(super) enum RandomAccess {
    File(File),
    Memory(Bytes),
    Remote(Arc<Remote>),
}

impl RandomAccess {
    /// Where the reason is put if a remote file cannot be read.
    pub(super) fn failure(&self) -> Failure {
        match self {
            RandomAccess::Remote(remote) => remote.failure.clone(),
            _ => Failure::default(),
        }
    }
}

impl Length for RandomAccess {
    fn len(&self) -> u64 {
        match self {
            RandomAccess::File(file) => file.len(),
            RandomAccess::Memory(bytes) => bytes.len() as u64,
            RandomAccess::Remote(remote) => remote.size,
        }
    }
}

impl ChunkReader for RandomAccess {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Box<dyn Read>> {
        Ok(match self {
            RandomAccess::File(file) => Box::new(file.get_read(start)?),
            RandomAccess::Memory(bytes) => Box::new(bytes.get_read(start)?),
            RandomAccess::Remote(remote) => Box::new(RemoteReader {
                remote: remote.clone(),
                place: start,
            }),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match self {
            RandomAccess::File(file) => file.get_bytes(start, length),
            RandomAccess::Memory(bytes) => bytes.get_bytes(start, length),
            RandomAccess::Remote(remote) => Ok(remote.bytes(start, length)?),
        }
    }
}

/// Why a remote file could not be read, past the table's reader, which would make it a text.
#[derive(Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// That reason, or the reader's own.
    pub(super) fn or(&self, path: &Path, error: ParquetError) -> Error {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        reason.unwrap_or_else(|| Error::parquet(path)(error))
    }

    fn put(&self, error: Error) -> io::Error {
        let shown = io::Error::other(error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        shown
    }
}

/// A remote file, some pieces of which are kept: pages are read one by one, and a request for each
/// would take longer than the page.
pub(super) struct Remote {
    storage: Storage,
    name: String,
    size: u64,
    /// The number of each piece and its bytes, the one used last at the end.
    pieces: Mutex<Vec<(u64, Bytes)>>,
    failure: Failure,
}

impl Remote {
    /// The bytes from a place to the end of their piece; none at the end of the file.
    fn rest_of_piece(&self, place: u64) -> io::Result<Bytes> {
        if place >= self.size {
            return Ok(Bytes::new());
        }
        let number = place / PIECE;
        let start = number * PIECE;
        // Below PIECE, so it fits.
        let within = (place - start) as usize;
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = match pieces.iter().position(|(kept, _)| *kept == number) {
            Some(place) => pieces.remove(place).1,
            None => {
                let range = start..self.size.min(start + PIECE);
                let read = self.storage.read_range(&self.name, range);
                read.map_err(|error| self.failure.put(error.into()))?
            }
        };
        pieces.push((number, piece.clone()));
        if pieces.len() > KEPT {
            pieces.remove(0);
        }
        Ok(piece.slice(within.min(piece.len())..))
    }

    fn bytes(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let first = self.rest_of_piece(start)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = first.to_vec();
        while bytes.len() < length {
            let next = self.rest_of_piece(start + bytes.len() as u64)?;
            if next.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&next[..next.len().min(length - bytes.len())]);
        }
        Ok(bytes.into())
    }
}

struct RemoteReader {
    remote: Arc<Remote>,
    place: u64,
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut piece = self.remote.rest_of_piece(self.place)?;
        let count = piece.len().min(buffer.len());
        piece.copy_to_slice(&mut buffer[..count]);
        self.place += count as u64;
        Ok(count)
    }
}
