//! Rows read from their files page by page, when they are needed or shortly before.
//!
//! A page of tokens is a *block*. [`Pages::prefetch_hint`] names the blocks that will be read next.
//! Threads of the store read them ahead, in that order, and all others are dropped. So memory holds
//! the hinted blocks, and a few that were read without a hint.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use arrow_array::BinaryArray;

use super::file::{PageId, PagedFile};
use super::{Lengths, RowStore, Shuffle};
use crate::error::Result;

/// Blocks that one thread asks for at once: enough for a network to be busy.
const AT_ONCE: usize = 16;
/// Threads that read ahead.
const THREADS: usize = 4;
/// Blocks that are kept though no hint named them: those of rows read in the order of the files.
const UNHINTED: usize = 64;

/// Blocks in files.
pub(super) struct Pages {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    files: Vec<PagedFile>,
    /// Where each block is.
    offsets: Vec<PageLocation>,
    /// The first row of each block, and the number of rows.
    first_rows: Arc<[u64]>,
    lengths: Arc<Lengths>,
    shuffle: Shuffle,
    loaded: RwLock<HashMap<u32, BinaryArray>>,
    work: Mutex<ReadQueue>,
    /// Something about the work changed.
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct PageLocation {
    file: u32,
    page: PageId,
}

#[derive(Default)]
struct ReadQueue {
    /// Blocks that were hinted.
    hinted: HashSet<u32>,
    /// Those of them that no thread has taken up, in order.
    ahead: VecDeque<u32>,
    /// Blocks that a thread is reading.
    under_way: HashSet<u32>,
    /// Blocks that were read without a hint, the oldest first.
    others: VecDeque<u32>,
    closed: bool,
}

impl Pages {
    /// The blocks of some files, whose rows follow one another. A window of the shuffle has so many
    /// residues at most.
    pub fn new(files: Vec<PagedFile>, lengths: Arc<Lengths>, residues: u64) -> Pages {
        let mut offsets = Vec::new();
        let mut first_rows = vec![0];
        let mut rows = 0;
        for (file, paged) in (0u32..).zip(&files) {
            for (page, count) in paged.pages().filter(|(_, rows)| *rows > 0) {
                offsets.push(PageLocation { file, page });
                rows += count;
                first_rows.push(rows);
            }
        }
        let first_rows: Arc<[u64]> = first_rows.into();
        let shared = Arc::new(Shared {
            files,
            offsets,
            shuffle: Shuffle::Windows {
                blocks: first_rows.clone(),
                residues,
            },
            first_rows,
            lengths,
            loaded: RwLock::default(),
            work: Mutex::default(),
            changed: Condvar::new(),
        });
        let threads = (0..THREADS).filter_map(|_| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("pages".into());
            // With fewer threads, or none, rows are read when they are needed.
            thread.spawn(move || shared.read_ahead()).ok()
        });
        Pages {
            threads: threads.collect(),
            shared,
        }
    }
}

impl RowStore for Pages {
    fn read(&self, row: u64, _: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let (rows, within) = self.shared.block_with(row)?;
        Ok(Cow::Owned(rows.value(within)[range].to_vec()))
    }

    fn shuffle(&self) -> &Shuffle {
        &self.shared.shuffle
    }

    fn prefetch_hint(&self, blocks: &[u32]) {
        self.shared.prefetch_hint(blocks);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the thread has been printed; whoever needs its blocks reads them.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ReadQueue> {
        // Every change of the work is whole, so a poisoned one is too.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn have(&self, block: u32) -> Option<BinaryArray> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(&block).cloned()
    }

    /// The block with a row, and the row's number in it.
    fn block_with(&self, row: u64) -> Result<(BinaryArray, usize)> {
        // Rows are checked before, and there are fewer than 2^32 blocks.
        let block = self.first_rows.partition_point(|&first| first <= row) - 1;
        let within = (row - self.first_rows[block]) as usize;
        let block = block as u32;
        if let Some(rows) = self.have(block) {
            return Ok((rows, within));
        }
        let mut work = self.lock();
        loop {
            if let Some(rows) = self.have(block) {
                return Ok((rows, within));
            }
            if work.under_way.insert(block) {
                break;
            }
            work = self
                .changed
                .wait(work)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(work);
        let guard = UnderWay(self, vec![block]);
        let rows = self.fetch(&[block])?;
        drop(guard);
        Ok((rows[0].clone(), within))
    }

    /// Reads some blocks and keeps them.
    fn fetch(&self, blocks: &[u32]) -> Result<Vec<BinaryArray>> {
        let mut read: Vec<Option<BinaryArray>> = vec![None; blocks.len()];
        let mut files: Vec<u32> = blocks
            .iter()
            .map(|&b| self.offsets[b as usize].file)
            .collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let of_file = |&i: &usize| self.offsets[blocks[i] as usize].file == file;
            let chosen: Vec<usize> = (0..blocks.len()).filter(of_file).collect();
            let pages: Vec<PageId> = chosen
                .iter()
                .map(|&i| self.offsets[blocks[i] as usize].page)
                .collect();
            let lengths: Vec<&[u32]> = chosen.iter().map(|&i| self.lengths_of(blocks[i])).collect();
            let found = self.files[file as usize].read(&pages, &lengths)?;
            for (i, rows) in chosen.into_iter().zip(found) {
                read[i] = Some(rows);
            }
        }
        // Every block lies in one of the files.
        let read: Vec<BinaryArray> = read.into_iter().flatten().collect();
        let mut work = self.lock();
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        for (&block, rows) in blocks.iter().zip(&read) {
            if loaded.insert(block, rows.clone()).is_none() && !work.hinted.contains(&block) {
                work.others.push_back(block);
            }
        }
        while work.others.len() > UNHINTED {
            let oldest = work.others.pop_front();
            if let Some(oldest) = oldest.filter(|oldest| !work.hinted.contains(oldest)) {
                loaded.remove(&oldest);
            }
        }
        Ok(read)
    }

    fn lengths_of(&self, block: u32) -> &[u32] {
        let block = block as usize;
        let rows = self.first_rows[block]..self.first_rows[block + 1];
        &self.lengths.as_slice()[rows.start as usize..rows.end as usize]
    }

    fn prefetch_hint(&self, blocks: &[u32]) {
        let mut work = self.lock();
        work.hinted = blocks.iter().copied().collect();
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|block, _| work.hinted.contains(block));
        work.ahead = blocks
            .iter()
            .copied()
            .filter(|block| !loaded.contains_key(block))
            .collect();
        work.others.clear();
        drop(loaded);
        drop(work);
        self.changed.notify_all();
    }

    /// Reads what the last hint named, until the store is closed.
    fn read_ahead(&self) {
        loop {
            let mut work = self.lock();
            while !work.closed && work.ahead.is_empty() {
                work = self
                    .changed
                    .wait(work)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if work.closed {
                return;
            }
            let mut blocks = Vec::new();
            while blocks.len() < AT_ONCE {
                let Some(block) = work.ahead.pop_front() else {
                    break;
                };
                if self.have(block).is_none() && work.under_way.insert(block) {
                    blocks.push(block);
                }
            }
            drop(work);
            let guard = UnderWay(self, blocks);
            // Whoever needs a block that could not be read tries again, and has the error.
            let _ = self.fetch(&guard.1);
        }
    }
}

/// Blocks that are being read; whatever happens, those who wait for them are told when it is over.
struct UnderWay<'a>(&'a Shared, Vec<u32>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut work = self.0.lock();
        for block in &self.1 {
            work.under_way.remove(block);
        }
        drop(work);
        self.0.changed.notify_all();
    }
}
