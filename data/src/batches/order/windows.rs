//! The two-level shuffle: blocks in a keyed order fill windows, and the rows of a window are put in
//! order together.
//!
//! How many rows a window makes follows from its blocks' histograms alone, so the rows of all
//! epochs before a place of the run are counted without reading or indexing anything. Indexes are
//! made for the windows that are in use.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shuffle_group::{RowOrder, ShuffleGroup};
use super::{Epochs, OrderConfig, OrderedRows, fits_index, purpose};
use crate::batches::packing::{Histograms, Patterns};
use crate::error::Result;
use crate::threads;

/// Windows of epochs and indexes that are kept: those in use, and as many again.
const CACHED: usize = 4;

pub(super) struct Windows {
    /// Where each block begins, and the end of the last.
    starts: Vec<BlockStart>,
    /// The residues of a window, at most.
    residues: u64,
    /// How many examples of each class the blocks have, if rows are packed.
    histograms: Option<Histograms>,
    cache: Mutex<WindowCache>,
    leases: Mutex<Leases>,
}

/// What lies before a block.
#[derive(Clone, Copy)]
struct BlockStart {
    row: u64,
    example: u64,
    residues: u64,
}

/// What was computed and is kept for a while. All of it could be computed again at any time.
#[derive(Default)]
struct WindowCache {
    /// The rows of epochs 0, 0 to 1, 0 to 2, ..., if they are packed.
    ends: Vec<u128>,
    epochs: Vec<(u64, Arc<EpochWindows>)>,
    shuffle_groups: Vec<((u64, usize), Arc<ShuffleGroup>)>,
}

/// The windows of one epoch.
struct EpochWindows {
    /// The blocks in the order of the epoch.
    blocks: Vec<u32>,
    windows: Vec<Window>,
    /// The rows of all windows.
    rows: u64,
}

struct Window {
    /// Which places of [`EpochWindows::blocks`] it has.
    blocks: Range<usize>,
    /// The rows of the windows before it in the epoch.
    first: u64,
}

/// Which windows are being read, as (epoch, window), by how many.
#[derive(Default)]
struct Leases {
    now: BTreeMap<(u64, usize), usize>,
    hinted: Option<(u64, usize)>,
}

/// A window that is being read. Until it is dropped, its blocks are wanted.
pub(super) struct WindowLease<'a> {
    windows: &'a Windows,
    config: &'a OrderConfig,
    window: (u64, usize),
}

impl Windows {
    pub(super) fn new(config: &OrderConfig, blocks: Arc<[u64]>, residues: u64) -> Result<Windows> {
        let examples = &config.examples;
        let start = |&row: &u64| BlockStart {
            row,
            example: examples.first_of(row),
            residues: examples.residues_before(row),
        };
        let starts: Vec<BlockStart> = blocks.iter().map(start).collect();
        for block in starts.windows(2) {
            fits_index(block[1].example - block[0].example)?;
        }
        let rows = |block: &[BlockStart]| block[0].row..block[1].row;
        let histograms = config.sizes.as_ref().map(|sizes| {
            let blocks: Vec<Range<u64>> = starts.windows(2).map(rows).collect();
            Histograms::new(sizes, &blocks, config.threads, |rows, visit| {
                examples.for_each_shown(rows, visit);
            })
        });
        Ok(Windows {
            starts,
            residues,
            histograms,
            cache: Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// The rows of the run among which a row lies, put in order together.
    pub(super) fn ordered_rows(&self, config: &OrderConfig, row: u128) -> Option<OrderedRows> {
        let mut cache = lock(&self.cache);
        let (epoch, first) = self.epoch_of(&mut cache, config, row);
        if epoch > 0 && config.epochs == Epochs::Once {
            return None;
        }
        let epoch_windows = self.epoch_windows(&mut cache, config, epoch);
        let place = (row - first) as u64; // below the epoch's rows
        let window = epoch_windows
            .windows
            .partition_point(|w| w.first <= place)
            .max(1)
            - 1;
        let group = self.group(&mut cache, config, (epoch, window), &epoch_windows);
        let first = first + u128::from(epoch_windows.windows.get(window)?.first);
        let row_order = config.row_order(epoch, Some(window as u64));
        Some(OrderedRows::new(first, epoch, window, group, row_order))
    }

    /// The rows of an epoch.
    pub(super) fn rows(&self, config: &OrderConfig, epoch: u64) -> u64 {
        self.epoch_windows(&mut lock(&self.cache), config, epoch)
            .rows
    }

    pub(super) fn epochs_before(&self, config: &OrderConfig, row: u128) -> f64 {
        let mut cache = lock(&self.cache);
        let (epoch, first) = self.epoch_of(&mut cache, config, row);
        let rows = self.epoch_windows(&mut cache, config, epoch).rows;
        epoch as f64 + (row - first) as f64 / rows as f64
    }

    /// Says that a window is being read from now on.
    pub(super) fn lease<'a>(
        &'a self,
        config: &'a OrderConfig,
        epoch: u64,
        window: usize,
    ) -> WindowLease<'a> {
        let window = (epoch, window);
        let mut leases = lock(&self.leases);
        *leases.now.entry(window).or_default() += 1;
        self.prefetch_hint(config, &mut leases);
        WindowLease {
            windows: self,
            config,
            window,
        }
    }

    /// The bytes of memory taken now.
    pub(super) fn bytes(&self) -> usize {
        let cache = lock(&self.cache);
        let epoch_windows = |l: &EpochWindows| {
            l.blocks.capacity() * size_of::<u32>() + l.windows.capacity() * size_of::<Window>()
        };
        self.starts.capacity() * size_of::<BlockStart>()
            + self.histograms.as_ref().map_or(0, Histograms::bytes)
            + cache.ends.capacity() * size_of::<u128>()
            + cache
                .epochs
                .iter()
                .map(|(_, l)| epoch_windows(l))
                .sum::<usize>()
            + cache
                .shuffle_groups
                .iter()
                .map(|(_, s)| s.bytes())
                .sum::<usize>()
    }

    /// Hints at the blocks of the first window that is being read and of the one after it, once.
    fn prefetch_hint(&self, config: &OrderConfig, leases: &mut Leases) {
        let first = leases.now.keys().next().copied();
        let Some((epoch, window)) = first.filter(|_| first != leases.hinted) else {
            return;
        };
        leases.hinted = first;
        let mut cache = lock(&self.cache);
        let epoch_windows = self.epoch_windows(&mut cache, config, epoch);
        let of = |epoch_windows: &EpochWindows, window: usize| {
            let blocks = epoch_windows.windows.get(window).map(|w| w.blocks.clone());
            epoch_windows.blocks[blocks.unwrap_or_default()].to_vec()
        };
        let mut blocks = of(&epoch_windows, window);
        if window + 1 < epoch_windows.windows.len() {
            blocks.extend(of(&epoch_windows, window + 1));
        } else if config.epochs == Epochs::Endless {
            blocks.extend(of(&self.epoch_windows(&mut cache, config, epoch + 1), 0));
        }
        drop(cache);
        (config.prefetch_hint)(&blocks);
    }

    /// The epoch of a row of the run, and the rows before that epoch.
    fn epoch_of(&self, cache: &mut WindowCache, config: &OrderConfig, row: u128) -> (u64, u128) {
        if self.histograms.is_none() {
            let rows = u128::from(config.examples.count());
            return ((row / rows) as u64, row / rows * rows);
        }
        loop {
            let end = cache.ends.last().copied().unwrap_or(0);
            if row < end {
                let epoch = cache.ends.partition_point(|&end| end <= row);
                let before = epoch.checked_sub(1).map_or(0, |before| cache.ends[before]);
                return (epoch as u64, before);
            }
            // Epochs have nearly the same number of rows, so this is the last round or the last but
            // one.
            let known = cache.ends.len() as u128;
            let missing = match cache.ends.first() {
                Some(&one) => ((row - end) / one + 1).min(1 << 16) as u64,
                None => 1,
            };
            let next = known as u64..known as u64 + missing;
            let rows = threads::map(config.threads, next.collect(), |epoch| {
                self.lay_out(config, epoch).rows
            });
            let mut end = end;
            for rows in rows {
                end += u128::from(rows);
                cache.ends.push(end);
            }
        }
    }

    fn epoch_windows(
        &self,
        cache: &mut WindowCache,
        config: &OrderConfig,
        epoch: u64,
    ) -> Arc<EpochWindows> {
        let make = || self.lay_out(config, epoch);
        cached(&mut cache.epochs, epoch, make)
    }

    fn group(
        &self,
        cache: &mut WindowCache,
        config: &OrderConfig,
        window: (u64, usize),
        epoch_windows: &EpochWindows,
    ) -> Arc<ShuffleGroup> {
        let make = || {
            let places = epoch_windows
                .windows
                .get(window.1)
                .map(|w| w.blocks.clone());
            let blocks = &epoch_windows.blocks[places.unwrap_or_default()];
            let rows = |&block: &u32| {
                let block = block as usize;
                self.starts[block].row..self.starts[block + 1].row
            };
            let rows: Vec<Range<u64>> = blocks.iter().map(rows).collect();
            ShuffleGroup::new(
                &config.examples,
                &rows,
                config.sizes.as_ref(),
                config.threads,
            )
        };
        cached(&mut cache.shuffle_groups, window, make)
    }

    /// Fills the windows of an epoch.
    fn lay_out(&self, config: &OrderConfig, epoch: u64) -> EpochWindows {
        let count = self.starts.len() - 1;
        let stored = matches!(config.row_order(epoch, None), RowOrder::Stored);
        let order =
            super::Permutation::new(count as u64, config.key.with(epoch).with(purpose::BLOCKS));
        let block = |place: u64| if stored { place } else { order.at(place) };
        // Blocks are numbered by 32 bits wherever hints name them.
        let blocks: Vec<u32> = (0..count as u64).map(|place| block(place) as u32).collect();
        let mut epoch_windows = EpochWindows {
            windows: Vec::new(),
            rows: 0,
            blocks,
        };
        let mut start = 0;
        let (mut residues, mut examples) = (0, 0);
        for place in 0..=count {
            let (more_residues, more_examples) = match epoch_windows.blocks.get(place) {
                Some(&block) => self.amount(block as usize),
                None => (0, 0),
            };
            let fits = place < count
                && self.residues.saturating_sub(residues) >= more_residues
                && examples + more_examples <= u64::from(u32::MAX);
            if place > start && !fits {
                let window = start..place;
                epoch_windows.windows.push(Window {
                    blocks: window.clone(),
                    first: epoch_windows.rows,
                });
                epoch_windows.rows +=
                    self.window_rows(config, &epoch_windows.blocks[window], examples);
                start = place;
                (residues, examples) = (0, 0);
            }
            residues += more_residues;
            examples += more_examples;
        }
        epoch_windows
    }

    /// The residues and the examples of a block.
    fn amount(&self, block: usize) -> (u64, u64) {
        let (start, end) = (self.starts[block], self.starts[block + 1]);
        (end.residues - start.residues, end.example - start.example)
    }

    /// The rows that a window makes, given how many examples it has.
    fn window_rows(&self, config: &OrderConfig, blocks: &[u32], examples: u64) -> u64 {
        match (&self.histograms, &config.sizes) {
            (Some(histograms), Some(sizes)) => {
                let blocks = blocks.iter().map(|&block| block as usize);
                Patterns::count(sizes, &histograms.sum(blocks))
            }
            _ => examples,
        }
    }
}

impl Drop for WindowLease<'_> {
    fn drop(&mut self) {
        let mut leases = lock(&self.windows.leases);
        if let Some(readers) = leases.now.get_mut(&self.window) {
            *readers -= 1;
            if *readers == 0 {
                leases.now.remove(&self.window);
            }
        }
        self.windows.prefetch_hint(self.config, &mut leases);
    }
}

/// What is kept under a key, or else made and kept in place of the oldest.
fn cached<K: PartialEq, V>(all: &mut Vec<(K, Arc<V>)>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    if let Some((_, found)) = all.iter().find(|(of, _)| *of == key) {
        return found.clone();
    }
    let made = Arc::new(make());
    if all.len() >= CACHED {
        all.remove(0);
    }
    all.push((key, made.clone()));
    made
}

/// What a thread that panicked left behind is whole: every change is one push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
