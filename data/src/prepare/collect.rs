//! Rows in their order to the files of each chunk.
//!
//! The collector fills row groups, one a split, has them encoded, and appends them in the order in
//! which they were filled. A chunk's files are closed when its last group is in them, and handed on
//! to a thread that makes them last: syncing and checking a file takes as long as writing it.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;
use std::sync::mpsc::SyncSender;

use super::engine::Engine;
use super::groups::{ChunkFile, Closed, Encoder, Group};
use super::rows::ParsedBlock;
use crate::error::{Error, Result};
use crate::format::Report;
use crate::split::Split;

/// The files of a chunk and what was found in its records.
pub(super) struct Complete {
    pub(super) chunk: u64,
    pub(super) files: Vec<Closed>,
    pub(super) report: Report,
}

/// What is to be written next.
enum Pending {
    Group {
        chunk: u64,
        split: Split,
        number: u64,
    },
    End {
        chunk: u64,
        report: Report,
    },
}

pub(super) struct Collector<'a> {
    encoder: &'a Encoder,
    directory: &'a Path,
    complete: SyncSender<Complete>,
    /// Row groups that may be between filling and writing.
    most_groups: usize,
    chunk: Option<(u64, Report)>,
    groups: BTreeMap<Split, Group>,
    pending: VecDeque<Pending>,
    files: BTreeMap<Split, ChunkFile>,
}

/// The name of a chunk's file.
pub(super) fn file_name(split: Split, chunk: u64) -> String {
    format!("{split}-{chunk:05}.parquet")
}

/// Whether a file's name is one of those.
pub(super) fn is_chunk_file(name: &str) -> bool {
    Split::ALL.iter().any(|split| {
        let number = name
            .strip_prefix(&format!("{split}-"))
            .and_then(|rest| rest.strip_suffix(".parquet"));
        number.is_some_and(|n| n.len() >= 5 && n.bytes().all(|digit| digit.is_ascii_digit()))
    })
}

impl<'a> Collector<'a> {
    /// Writes files into `directory`, and sends them to `complete`.
    pub(super) fn new(
        encoder: &'a Encoder,
        directory: &'a Path,
        threads: usize,
        complete: SyncSender<Complete>,
    ) -> Collector<'a> {
        Collector {
            encoder,
            directory,
            complete,
            most_groups: threads + 1,
            chunk: None,
            groups: BTreeMap::new(),
            pending: VecDeque::new(),
            files: BTreeMap::new(),
        }
    }

    /// Adds the rows of a piece. Pieces come in the order of their records.
    pub(super) fn add<T>(&mut self, piece: &ParsedBlock, engine: &mut Engine<'_, T>) -> Result<()> {
        if self
            .chunk
            .as_ref()
            .is_none_or(|(chunk, _)| *chunk != piece.chunk)
        {
            self.end_chunk(engine)?;
            self.chunk = Some((piece.chunk, Report::default()));
        }
        if let Some((_, report)) = &mut self.chunk {
            report.add(&piece.report);
        }
        for (split, id, tokens) in piece.rows() {
            let group = self.groups.entry(split).or_default();
            if group.push(id, tokens) {
                self.end_group(split, piece.chunk, engine)?;
            }
        }
        self.settle(engine, self.most_groups)
    }

    /// Writes what is left.
    pub(super) fn finish<T>(mut self, engine: &mut Engine<'_, T>) -> Result<()> {
        self.end_chunk(engine)?;
        self.settle(engine, 0)
    }

    fn end_group<T>(&mut self, split: Split, chunk: u64, engine: &mut Engine<'_, T>) -> Result<()> {
        if let Some(group) = self.groups.remove(&split) {
            self.settle(engine, self.most_groups - 1)?;
            let number = engine.encode(group.gather())?;
            self.pending.push_back(Pending::Group {
                chunk,
                split,
                number,
            });
        }
        Ok(())
    }

    fn end_chunk<T>(&mut self, engine: &mut Engine<'_, T>) -> Result<()> {
        if let Some((chunk, report)) = self.chunk.take() {
            for split in Split::ALL {
                self.end_group(split, chunk, engine)?;
            }
            self.pending.push_back(Pending::End { chunk, report });
        }
        Ok(())
    }

    /// Writes all groups that are ready, and waits until at most so many are left.
    fn settle<T>(&mut self, engine: &mut Engine<'_, T>, most: usize) -> Result<()> {
        while let Some(next) = self.pending.pop_front() {
            match next {
                Pending::End { chunk, report } => self.close(chunk, report)?,
                Pending::Group {
                    chunk,
                    split,
                    number,
                } => {
                    let groups = |pending: &&Pending| matches!(pending, Pending::Group { .. });
                    let ready = engine.encoded(number);
                    let encoded = match ready {
                        Some(encoded) => encoded,
                        None if self.pending.iter().filter(groups).count() < most => {
                            self.pending.push_front(next);
                            return Ok(());
                        }
                        None => engine.wait_for(number)?,
                    };
                    let name = file_name(split, chunk);
                    let path = self.directory.join(&name);
                    let encoded = encoded.map_err(Error::parquet(&path))?;
                    let file = match self.files.entry(split) {
                        Entry::Occupied(file) => file.into_mut(),
                        Entry::Vacant(place) => {
                            place.insert(ChunkFile::create(&path, name, split, self.encoder)?)
                        }
                    };
                    file.append(encoded)?;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, chunk: u64, report: Report) -> Result<()> {
        let files = std::mem::take(&mut self.files).into_values();
        let files = files.map(ChunkFile::close).collect::<Result<_>>()?;
        let complete = Complete {
            chunk,
            files,
            report,
        };
        // The other end is gone only when it failed, and its error is the one to tell.
        self.complete.send(complete).map_err(|_| Error::WorkerDied)
    }
}
