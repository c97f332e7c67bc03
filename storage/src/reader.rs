//! An object read from its beginning, some pieces ahead.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::Location;
use crate::error::Result;
use crate::remote::Remote;
use crate::runtime::Awaited;
use crate::transfer::pieces;
use crate::version::Version;

/// PartChecksums under way or waiting to be read.
const AHEAD: usize = 4;

pub(crate) struct Reader {
    remote: Arc<Remote>,
    location: Location,
    version: Version,
    to_come: Box<dyn Iterator<Item = Range<u64>> + Send>,
    ahead: VecDeque<Fetch>,
    current: Bytes,
    failed: bool,
}

enum Fetch {
    Cached(Bytes),
    Fetched(Range<u64>, Awaited<Bytes>),
}

impl Reader {
    pub(crate) fn open(remote: &Arc<Remote>, location: &Location) -> Result<Reader> {
        let version = remote.look(location)?;
        Ok(Reader {
            remote: remote.clone(),
            location: location.clone(),
            to_come: Box::new(pieces(&(0..version.size))),
            version,
            ahead: VecDeque::new(),
            current: Bytes::new(),
            failed: false,
        })
    }

    /// The next piece; none at the end.
    fn next(&mut self) -> Result<Option<Bytes>> {
        while self.ahead.len() < AHEAD
            && let Some(range) = self.to_come.next()
        {
            let (location, version) = (&self.location, &self.version);
            self.ahead
                .push_back(match self.remote.cached(location, version, &range) {
                    Some(bytes) => Fetch::Cached(bytes),
                    None => {
                        let piece =
                            self.remote
                                .fetch(location.clone(), version.clone(), range.clone());
                        Fetch::Fetched(range, piece)
                    }
                });
        }
        match self.ahead.pop_front() {
            None => Ok(None),
            Some(Fetch::Cached(bytes)) => Ok(Some(bytes)),
            Some(Fetch::Fetched(range, piece)) => {
                let bytes = piece.wait()?;
                self.remote
                    .keep(&self.location, &self.version, &range, &bytes);
                Ok(Some(bytes))
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !buffer.is_empty() {
            if self.failed {
                // The pieces that follow must not be taken for the one that is missing.
                return Err(io::Error::other("an earlier part could not be read"));
            }
            match self.next() {
                Ok(Some(bytes)) => self.current = bytes,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.failed = true;
                    return Err(io::Error::other(error));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
