//! Moving bytes: ranges of objects in pieces, several at once, and large files in parts.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, PutPayload};

use crate::Location;
use crate::error::{Error, Result};
use crate::remote::{Remote, key};
use crate::retry::Failure;
use crate::runtime::Awaited;
use crate::version::Version;

/// What one request reads at most, in bytes.
pub(crate) const PIECE: u64 = 8 << 20;

/// Ranges this close are read as one: the bytes between take less time than another request.
const GAP: u64 = 256 << 10;

/// What one request writes at most, in bytes; more where a file would have too many parts.
const PART: u64 = 16 << 20;
const PARTS: u64 = 10_000;

/// Parts in memory at once.
const PARTS_UNDER_WAY: usize = 4;

impl Remote {
    /// A whole object, as it is now.
    pub(crate) fn read(self: &Arc<Self>, location: &Location) -> Result<Bytes> {
        let size = self.look(location)?.size;
        // The pieces that a reader takes, so that the cache holds them once.
        let pieces: Vec<_> = pieces(&(0..size)).collect();
        let mut read = self.read_ranges(location, &pieces)?;
        match read.len() {
            0 | 1 => Ok(read.pop().unwrap_or_default()),
            _ => Ok(read.concat().into()),
        }
    }

    /// Ranges of an object, in the order given.
    pub(crate) fn read_ranges(
        self: &Arc<Self>,
        location: &Location,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let version = self.version(location)?;
        for range in ranges {
            if range.start > range.end || range.end > version.size {
                return Err(Error::NoSuchBytes {
                    location: location.clone(),
                    range: range.clone(),
                    size: version.size,
                });
            }
        }
        let cached = |range: &Range<u64>| match range.is_empty() {
            true => Some(Bytes::new()),
            false => self.cached(location, &version, range),
        };
        let mut read: Vec<Option<Bytes>> = ranges.iter().map(cached).collect();
        let missing = (0..ranges.len()).filter(|i| read[*i].is_none()).collect();
        let spans: Vec<_> = spans(ranges, missing)
            .into_iter()
            .map(|(span, members)| (self.start(location, &version, &span), span.start, members))
            .collect();
        for (pieces, start, members) in spans {
            let bytes = joined(pieces)?;
            for i in members {
                let own = (ranges[i].start - start) as usize..(ranges[i].end - start) as usize;
                let bytes = bytes.slice(own);
                self.keep(location, &version, &ranges[i], &bytes);
                read[i] = Some(bytes);
            }
        }
        // Every range was in the cache or is in a span.
        Ok(read.into_iter().flatten().collect())
    }

    /// Begins to read a range, piece by piece.
    fn start(
        self: &Arc<Self>,
        location: &Location,
        version: &Version,
        range: &Range<u64>,
    ) -> Vec<Awaited<Bytes>> {
        pieces(range)
            .map(|piece| self.fetch(location.clone(), version.clone(), piece))
            .collect()
    }

    /// Begins to read a piece.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        location: Location,
        version: Version,
        range: Range<u64>,
    ) -> Awaited<Bytes> {
        let remote = self.clone();
        Awaited::start(&self.runtime, async move {
            let key = key(&location)?;
            // The semaphore is never closed.
            let _permit = remote.permits.acquire().await;
            let mut received = BytesMut::with_capacity((range.end - range.start) as usize);
            let mut attempts = remote.attempts("read", &location);
            loop {
                let before = received.len();
                let rest = range.start + before as u64..range.end;
                let pull = remote.pull(&key, &version, rest, &mut received);
                let failure = match tokio::time::timeout(remote.options.timeout, pull).await {
                    Ok(Ok(())) => return Ok(received.freeze()),
                    Ok(Err(failure)) => failure,
                    Err(_) => attempts.late(),
                };
                if received.len() > before {
                    attempts.progressed();
                }
                if matches!(failure, Failure::Changed) {
                    remote.forget(&location);
                }
                attempts.failed(failure).await?;
            }
        })
    }

    /// One attempt at a range; what arrives is kept even when it fails.
    async fn pull(
        &self,
        key: &Key,
        version: &Version,
        range: Range<u64>,
        received: &mut BytesMut,
    ) -> std::result::Result<(), Failure> {
        let mut left = range.end - range.start;
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
        let answer = self.store.get_opts(key, options).await?;
        if Version::of(&answer.meta) != *version {
            return Err(Failure::Changed);
        }
        let mut body = answer.into_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            let Some(rest) = left.checked_sub(bytes.len() as u64) else {
                return Err(Failure::Passing(
                    "more bytes came than were asked for".to_owned(),
                ));
            };
            received.extend_from_slice(&bytes);
            left = rest;
        }
        match left {
            0 => Ok(()),
            left => Err(Failure::Passing(format!(
                "the body ended {left} bytes early"
            ))),
        }
    }

    pub(crate) fn cached(
        &self,
        location: &Location,
        version: &Version,
        range: &Range<u64>,
    ) -> Option<Bytes> {
        self.cache.as_ref()?.find(location, version, range)
    }

    pub(crate) fn keep(
        &self,
        location: &Location,
        version: &Version,
        range: &Range<u64>,
        bytes: &Bytes,
    ) {
        if let Some(cache) = &self.cache {
            cache.keep(location, version, range, bytes);
        }
    }

    /// Writes an object.
    pub(crate) fn write(self: &Arc<Self>, location: &Location, bytes: Bytes) -> Result<()> {
        let size = bytes.len() as u64;
        if size <= PART {
            return self.put(location, bytes);
        }
        self.put_parts(location, size, |range| {
            Ok(bytes.slice(range.start as usize..range.end as usize))
        })
    }

    /// Writes a file as an object.
    pub(crate) fn upload(self: &Arc<Self>, location: &Location, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("open", path))?.len();
        let read = |range: Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)
                .map_err(Error::io("read", path))?;
            Ok(Bytes::from(bytes))
        };
        match size {
            0..=PART => self.put(location, read(0..size)?),
            _ => self.put_parts(location, size, read),
        }
    }

    /// Writes an object in parts; it appears when all are there.
    fn put_parts(
        self: &Arc<Self>,
        location: &Location,
        size: u64,
        part: impl Fn(Range<u64>) -> Result<Bytes>,
    ) -> Result<()> {
        self.forget(location);
        let at = location.clone();
        let id = self.wait(|remote| async move {
            let key = key(&at)?;
            let attempts = remote.attempts("write", &at);
            match attempts.run(|| remote.store.create_multipart(&key)).await {
                Ok(id) => Ok(id),
                Err(error) => Err(remote.without_bucket(error).await),
            }
        })?;
        let sent = self.send_parts(location, &id, size, part);
        let at = location.clone();
        self.wait(|remote| async move {
            let key = key(&at)?;
            let attempts = remote.attempts("write", &at);
            let error = match sent {
                Ok(parts) => {
                    let complete = || remote.store.complete_multipart(&key, &id, parts.clone());
                    match attempts.run(complete).await {
                        Ok(_) => return Ok(()),
                        // Done by an attempt whose answer was lost.
                        Err(Error::NoSuchObject { .. }) if remote.has(&at, size).await => {
                            return Ok(());
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            // Parts that stay behind cost money, but no reader sees them.
            let abort = remote.store.abort_multipart(&key, &id);
            let _ = tokio::time::timeout(remote.options.timeout, abort).await;
            Err(error)
        })
    }

    fn send_parts(
        self: &Arc<Self>,
        location: &Location,
        id: &str,
        size: u64,
        part: impl Fn(Range<u64>) -> Result<Bytes>,
    ) -> Result<Vec<PartId>> {
        let length = PART.max(size.div_ceil(PARTS));
        let mut under_way: VecDeque<Awaited<PartId>> = VecDeque::new();
        let mut done = Vec::new();
        for index in 0..size.div_ceil(length) {
            if under_way.len() == PARTS_UNDER_WAY
                && let Some(first) = under_way.pop_front()
            {
                done.push(first.wait()?);
            }
            let bytes = part(index * length..size.min((index + 1) * length))?;
            let (remote, location, id) = (self.clone(), location.clone(), id.to_owned());
            under_way.push_back(Awaited::start(&self.runtime, async move {
                let key = key(&location)?;
                // The semaphore is never closed.
                let _permit = remote.permits.acquire().await;
                let attempts = remote.attempts("write", &location);
                let put = || {
                    let payload = PutPayload::from(bytes.clone());
                    remote.store.put_part(&key, &id, index as usize, payload)
                };
                attempts.run(put).await
            }));
        }
        for last in under_way {
            done.push(last.wait()?);
        }
        Ok(done)
    }

    /// Whether there is an object of a size.
    async fn has(&self, location: &Location, size: u64) -> bool {
        let Ok(key) = key(location) else {
            return false;
        };
        let attempts = self.attempts("open", location);
        let options = || self.store.get_opts(&key, GetOptions::new().with_head(true));
        matches!(attempts.run(options).await, Ok(answer) if answer.meta.size == size)
    }
}

/// A range in pieces.
pub(crate) fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    let starts = (range.start..end).step_by(PIECE as usize);
    starts.map(move |start| start..end.min(start + PIECE))
}

/// What to read for the ranges with the given indices: spans, each with the ranges within it.
fn spans(ranges: &[Range<u64>], mut indices: Vec<usize>) -> Vec<(Range<u64>, Vec<usize>)> {
    indices.sort_by_key(|i| (ranges[*i].start, ranges[*i].end));
    let mut spans: Vec<(Range<u64>, Vec<usize>)> = Vec::new();
    for i in indices {
        let range = &ranges[i];
        if let Some((span, members)) = spans.last_mut()
            && range.start <= span.end.saturating_add(GAP)
            && (range.end <= span.end || range.end - span.start <= PIECE)
        {
            span.end = span.end.max(range.end);
            members.push(i);
        } else {
            spans.push((range.clone(), vec![i]));
        }
    }
    spans
}

/// The bytes of all pieces.
fn joined(mut pieces: Vec<Awaited<Bytes>>) -> Result<Bytes> {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only.wait();
    }
    let mut bytes = BytesMut::new();
    for piece in pieces {
        bytes.extend_from_slice(&piece.wait()?);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spans_hold_every_range_and_little_else(
            starts in proptest::collection::vec((0u64..40 << 20, 0u64..12 << 20), 0..40)
        ) {
            let ranges: Vec<_> = starts.into_iter().map(|(start, length)| start..start + length).collect();
            let spans = spans(&ranges, (0..ranges.len()).collect());
            let mut seen: Vec<usize> = spans.iter().flat_map(|(_, members)| members.clone()).collect();
            seen.sort();
            prop_assert_eq!(seen, (0..ranges.len()).collect::<Vec<_>>());
            for (span, members) in &spans {
                let longest = members.iter().map(|i| ranges[*i].end - ranges[*i].start).max();
                prop_assert!(span.end - span.start <= PIECE.max(longest.unwrap()));
                let mut reach = span.start;
                for i in members {
                    prop_assert!(span.start <= ranges[*i].start && ranges[*i].end <= span.end);
                    prop_assert!(ranges[*i].start <= reach + GAP);
                    reach = reach.max(ranges[*i].end);
                }
                prop_assert_eq!(reach, span.end);
                let cut: Vec<_> = pieces(span).collect();
                prop_assert_eq!(cut.iter().map(|piece| piece.end - piece.start).sum::<u64>(), span.end - span.start);
            }
        }
    }
}
