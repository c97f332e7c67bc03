//! The two-level shuffle: blocks in a keyed order fill windows, and the rows of a window are put in
//! order together.
//!
//! How many rows a window makes follows from its blocks' histograms alone, so the rows of all epochs
//! before a place of the run are counted without reading or indexing anything. Indexes are made for
//! the windows that are in use.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::section::{Draw, Section};
use super::{Course, Plan, Stretch, fits_index, purpose};
use crate::error::Result;
use crate::packing::{Histograms, Packing};
use crate::threads;

/// Layouts and indexes that are kept: those in use, and as many again.
const KEPT: usize = 4;

pub(super) struct Windows {
    /// Where each block begins, and the end of the last.
    starts: Vec<Start>,
    /// The residues of a window, at most.
    residues: u64,
    /// How many examples of each class the blocks have, if rows are packed.
    histograms: Option<Histograms>,
    made: Mutex<Made>,
    visits: Mutex<Visits>,
}

/// What lies before a block.
#[derive(Clone, Copy)]
struct Start {
    row: u64,
    example: u64,
    residues: u64,
}

/// What was computed and is kept for a while. All of it could be computed again at any time.
#[derive(Default)]
struct Made {
    /// The rows of epochs 0, 0 to 1, 0 to 2, ..., if they are packed.
    ends: Vec<u128>,
    layouts: Vec<(u64, Arc<Layout>)>,
    sections: Vec<((u64, usize), Arc<Section>)>,
}

/// The windows of one epoch.
struct Layout {
    /// The blocks in the order of the epoch.
    blocks: Vec<u32>,
    windows: Vec<Window>,
    /// The rows of all windows.
    rows: u64,
}

struct Window {
    /// Which places of [`Layout::blocks`] it has.
    blocks: Range<usize>,
    /// The rows of the windows before it in the epoch.
    first: u64,
}

/// Which windows are being read, as (epoch, window), by how many.
#[derive(Default)]
struct Visits {
    now: BTreeMap<(u64, usize), usize>,
    announced: Option<(u64, usize)>,
}

/// A window that is being read. Until it is dropped, its blocks are wanted.
pub(super) struct Visit<'a> {
    windows: &'a Windows,
    plan: &'a Plan,
    window: (u64, usize),
}

impl Windows {
    pub(super) fn new(plan: &Plan, blocks: Arc<[u64]>, residues: u64) -> Result<Windows> {
        let examples = &plan.examples;
        let start = |&row: &u64| Start {
            row,
            example: examples.first_of(row),
            residues: examples.residues_before(row),
        };
        let starts: Vec<Start> = blocks.iter().map(start).collect();
        for block in starts.windows(2) {
            fits_index(block[1].example - block[0].example)?;
        }
        let rows = |block: &[Start]| block[0].row..block[1].row;
        let histograms = plan.sizes.as_ref().map(|sizes| {
            let blocks: Vec<Range<u64>> = starts.windows(2).map(rows).collect();
            Histograms::new(sizes, &blocks, plan.threads, |rows, visit| {
                examples.for_each_shown(rows, visit);
            })
        });
        Ok(Windows {
            starts,
            residues,
            histograms,
            made: Mutex::default(),
            visits: Mutex::default(),
        })
    }

    /// The stretch of the run that a row lies in.
    pub(super) fn stretch(&self, plan: &Plan, row: u128) -> Option<Stretch> {
        let mut made = lock(&self.made);
        let (epoch, first) = self.epoch_of(&mut made, plan, row);
        if epoch > 0 && plan.course == Course::Once {
            return None;
        }
        let layout = self.layout(&mut made, plan, epoch);
        let place = (row - first) as u64; // below the epoch's rows
        let window = layout.windows.partition_point(|w| w.first <= place).max(1) - 1;
        let section = self.section(&mut made, plan, (epoch, window), &layout);
        let first = first + u128::from(layout.windows.get(window)?.first);
        let draw = plan.draw(epoch, Some(window as u64));
        Some(Stretch::new(first, epoch, window, section, draw))
    }

    /// The rows of an epoch.
    pub(super) fn rows(&self, plan: &Plan, epoch: u64) -> u64 {
        self.layout(&mut lock(&self.made), plan, epoch).rows
    }

    pub(super) fn epochs_before(&self, plan: &Plan, row: u128) -> f64 {
        let mut made = lock(&self.made);
        let (epoch, first) = self.epoch_of(&mut made, plan, row);
        let rows = self.layout(&mut made, plan, epoch).rows;
        epoch as f64 + (row - first) as f64 / rows as f64
    }

    /// Says that a window is being read from now on.
    pub(super) fn visit<'a>(&'a self, plan: &'a Plan, epoch: u64, window: usize) -> Visit<'a> {
        let window = (epoch, window);
        let mut visits = lock(&self.visits);
        *visits.now.entry(window).or_default() += 1;
        self.announce(plan, &mut visits);
        Visit {
            windows: self,
            plan,
            window,
        }
    }

    /// The bytes of memory taken now.
    pub(super) fn bytes(&self) -> usize {
        let made = lock(&self.made);
        let layout = |l: &Layout| {
            l.blocks.capacity() * size_of::<u32>() + l.windows.capacity() * size_of::<Window>()
        };
        self.starts.capacity() * size_of::<Start>()
            + self.histograms.as_ref().map_or(0, Histograms::bytes)
            + made.ends.capacity() * size_of::<u128>()
            + made.layouts.iter().map(|(_, l)| layout(l)).sum::<usize>()
            + made.sections.iter().map(|(_, s)| s.bytes()).sum::<usize>()
    }

    /// Announces the blocks of the first window that is being read and of the one after it, once.
    fn announce(&self, plan: &Plan, visits: &mut Visits) {
        let first = visits.now.keys().next().copied();
        let Some((epoch, window)) = first.filter(|_| first != visits.announced) else {
            return;
        };
        visits.announced = first;
        let mut made = lock(&self.made);
        let layout = self.layout(&mut made, plan, epoch);
        let of = |layout: &Layout, window: usize| {
            let blocks = layout.windows.get(window).map(|w| w.blocks.clone());
            layout.blocks[blocks.unwrap_or_default()].to_vec()
        };
        let mut blocks = of(&layout, window);
        if window + 1 < layout.windows.len() {
            blocks.extend(of(&layout, window + 1));
        } else if plan.course == Course::Endless {
            blocks.extend(of(&self.layout(&mut made, plan, epoch + 1), 0));
        }
        drop(made);
        (plan.announce)(&blocks);
    }

    /// The epoch of a row of the run, and the rows before that epoch.
    fn epoch_of(&self, made: &mut Made, plan: &Plan, row: u128) -> (u64, u128) {
        if self.histograms.is_none() {
            let rows = u128::from(plan.examples.count());
            return ((row / rows) as u64, row / rows * rows);
        }
        loop {
            let end = made.ends.last().copied().unwrap_or(0);
            if row < end {
                let epoch = made.ends.partition_point(|&end| end <= row);
                let before = epoch.checked_sub(1).map_or(0, |before| made.ends[before]);
                return (epoch as u64, before);
            }
            // Epochs have nearly the same number of rows, so this is the last round or the last but
            // one.
            let known = made.ends.len() as u128;
            let missing = match made.ends.first() {
                Some(&one) => ((row - end) / one + 1).min(1 << 16) as u64,
                None => 1,
            };
            let next = known as u64..known as u64 + missing;
            let rows = threads::map(plan.threads, next.collect(), |epoch| {
                self.lay_out(plan, epoch).rows
            });
            let mut end = end;
            for rows in rows {
                end += u128::from(rows);
                made.ends.push(end);
            }
        }
    }

    fn layout(&self, made: &mut Made, plan: &Plan, epoch: u64) -> Arc<Layout> {
        let make = || self.lay_out(plan, epoch);
        kept(&mut made.layouts, epoch, make)
    }

    fn section(
        &self,
        made: &mut Made,
        plan: &Plan,
        window: (u64, usize),
        layout: &Layout,
    ) -> Arc<Section> {
        let make = || {
            let places = layout.windows.get(window.1).map(|w| w.blocks.clone());
            let blocks = &layout.blocks[places.unwrap_or_default()];
            let rows = |&block: &u32| {
                let block = block as usize;
                self.starts[block].row..self.starts[block + 1].row
            };
            let rows: Vec<Range<u64>> = blocks.iter().map(rows).collect();
            Section::new(&plan.examples, &rows, plan.sizes.as_ref(), plan.threads)
        };
        kept(&mut made.sections, window, make)
    }

    /// Fills the windows of an epoch.
    fn lay_out(&self, plan: &Plan, epoch: u64) -> Layout {
        let count = self.starts.len() - 1;
        let stored = matches!(plan.draw(epoch, None), Draw::Stored);
        let order =
            super::Permutation::new(count as u64, plan.key.with(epoch).with(purpose::BLOCKS));
        let block = |place: u64| if stored { place } else { order.at(place) };
        // Blocks are numbered by 32 bits wherever they are announced.
        let blocks: Vec<u32> = (0..count as u64).map(|place| block(place) as u32).collect();
        let mut layout = Layout {
            windows: Vec::new(),
            rows: 0,
            blocks,
        };
        let mut start = 0;
        let (mut residues, mut examples) = (0, 0);
        for place in 0..=count {
            let (more_residues, more_examples) = match layout.blocks.get(place) {
                Some(&block) => self.amount(block as usize),
                None => (0, 0),
            };
            let fits = place < count
                && self.residues.saturating_sub(residues) >= more_residues
                && examples + more_examples <= u64::from(u32::MAX);
            if place > start && !fits {
                let window = start..place;
                layout.windows.push(Window {
                    blocks: window.clone(),
                    first: layout.rows,
                });
                layout.rows += self.window_rows(plan, &layout.blocks[window], examples);
                start = place;
                (residues, examples) = (0, 0);
            }
            residues += more_residues;
            examples += more_examples;
        }
        layout
    }

    /// The residues and the examples of a block.
    fn amount(&self, block: usize) -> (u64, u64) {
        let (start, end) = (self.starts[block], self.starts[block + 1]);
        (end.residues - start.residues, end.example - start.example)
    }

    /// The rows that a window makes, given how many examples it has.
    fn window_rows(&self, plan: &Plan, blocks: &[u32], examples: u64) -> u64 {
        match (&self.histograms, &plan.sizes) {
            (Some(histograms), Some(sizes)) => {
                let blocks = blocks.iter().map(|&block| block as usize);
                Packing::count(sizes, &histograms.sum(blocks))
            }
            _ => examples,
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut visits = lock(&self.windows.visits);
        if let Some(readers) = visits.now.get_mut(&self.window) {
            *readers -= 1;
            if *readers == 0 {
                visits.now.remove(&self.window);
            }
        }
        self.windows.announce(self.plan, &mut visits);
    }
}

/// What is kept under a key, or else made and kept in place of the oldest.
fn kept<K: PartialEq, V>(all: &mut Vec<(K, Arc<V>)>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    if let Some((_, found)) = all.iter().find(|(of, _)| *of == key) {
        return found.clone();
    }
    let made = Arc::new(make());
    if all.len() >= KEPT {
        all.remove(0);
    }
    all.push((key, made.clone()));
    made
}

/// What a thread that panicked left behind is whole: every change is one push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
