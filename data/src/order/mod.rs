//! The order rows are seen in, computed at any place of the run.
//!
//! There is no shuffle buffer and no state. Row `i` of a run lies in epoch `i / rows`, and what it
//! holds is given by keyed permutations of that epoch, over all examples or over those of a window.
//! The argument that each epoch shows each example once, close to uniformly and the same on any
//! number of hosts, is in `docs/design/data-order.md`; what shares a packed row, in
//! `docs/design/packing.md`.

mod examples;
mod permutation;
mod section;
mod windows;

use std::ops::Range;
use std::sync::Arc;

use crate::dataset::Shuffle;
use crate::error::{Error, Result};
use crate::packing::Sizes;
use crate::random::Key;
pub(crate) use examples::Examples;
pub use permutation::Permutation;
pub(crate) use section::Held;
use section::{Draw, Section};
use windows::{Visit, Windows};

/// What a key is for, so that no two uses draw the same numbers.
mod purpose {
    pub const PACKED_ROWS: u64 = 1;
    pub const CLASSES: u64 = 2;
    pub const BLOCKS: u64 = 3;
    pub const WINDOW: u64 = 4;
}

/// How often the examples are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Without end, in an order of its own every epoch.
    Endless,
    /// Once: as stored if every row holds one example. Packed rows are shuffled, so that the first of
    /// them are not the ones with the longest sequences.
    Once,
}

/// What an order is made from.
pub(crate) struct Plan {
    pub examples: Examples,
    pub shuffle: Shuffle,
    /// What to pack by; without it a row holds one example.
    pub sizes: Option<Sizes>,
    pub course: Course,
    pub key: Key,
    /// Threads that make indexes.
    pub threads: usize,
    /// Is told which blocks come next, most urgent first.
    pub announce: Box<Announce>,
}

/// Is told the numbers of blocks.
pub(crate) type Announce = dyn Fn(&[u32]) + Send + Sync;

/// The order of a whole run.
pub(crate) struct Order {
    plan: Plan,
    extent: Extent,
}

enum Extent {
    /// Everything is put in order together; every epoch has the same number of rows.
    Whole(Arc<Section>),
    Windows(Windows),
}

impl Order {
    /// Indexes the lengths as far as the plan needs it. There must be an example.
    pub(crate) fn new(plan: Plan) -> Result<Order> {
        if plan.examples.count() == 0 {
            return Err(Error::setting("data", "has no rows"));
        }
        let extent = match &plan.shuffle {
            Shuffle::Windows { blocks, residues } => {
                Extent::Windows(Windows::new(&plan, blocks.clone(), *residues)?)
            }
            Shuffle::Exact => {
                let all = 0..plan.examples.rows();
                if plan.sizes.is_some() {
                    fits_index(plan.examples.count())?;
                }
                let (sizes, threads) = (plan.sizes.as_ref(), plan.threads);
                let section = Section::new(&plan.examples, &[all], sizes, threads);
                Extent::Whole(Arc::new(section))
            }
        };
        Ok(Order { plan, extent })
    }

    /// The examples of an epoch.
    pub(crate) fn examples(&self) -> &Examples {
        &self.plan.examples
    }

    /// What packed rows are packed by.
    pub(crate) fn sizes(&self) -> Option<&Sizes> {
        self.plan.sizes.as_ref()
    }

    /// The number of rows of the run; nothing if it does not end.
    pub(crate) fn rows(&self) -> Option<u64> {
        match (self.plan.course, &self.extent) {
            (Course::Endless, _) => None,
            (Course::Once, Extent::Whole(section)) => Some(section.rows()),
            (Course::Once, Extent::Windows(windows)) => Some(windows.rows(&self.plan, 0)),
        }
    }

    /// How often all examples were shown before a row of the run.
    pub(crate) fn epochs_before(&self, row: u128) -> f64 {
        match &self.extent {
            Extent::Whole(section) => row as f64 / section.rows() as f64,
            Extent::Windows(windows) => windows.epochs_before(&self.plan, row),
        }
    }

    /// The rows of a part of the run, ready to be looked up. An order that goes through the examples
    /// once ends with them.
    pub(crate) fn stretches(&self, rows: Range<u128>) -> Stretches<'_> {
        let mut stretches = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let Some(stretch) = self.stretch(at) else {
                break;
            };
            at = stretch.rows.end;
            stretches.push(stretch);
        }
        let visit = match (&self.extent, stretches.first()) {
            (Extent::Windows(windows), Some(first)) => {
                Some(windows.visit(&self.plan, first.epoch, first.window))
            }
            _ => None,
        };
        Stretches {
            examples: &self.plan.examples,
            stretches,
            _visit: visit,
        }
    }

    /// The bytes of memory the index takes, the lengths not counted.
    pub(crate) fn bytes(&self) -> usize {
        let extent = match &self.extent {
            Extent::Whole(section) => section.bytes(),
            Extent::Windows(windows) => windows.bytes(),
        };
        self.plan.examples.bytes() + extent
    }

    fn stretch(&self, row: u128) -> Option<Stretch> {
        let once = self.plan.course == Course::Once;
        match &self.extent {
            Extent::Whole(section) => {
                let rows = u128::from(section.rows());
                // Runs of 2^64 epochs are out of reach.
                let epoch = (row / rows) as u64;
                let first = u128::from(epoch) * rows;
                let draw = self.plan.draw(epoch, None);
                (epoch == 0 || !once).then(|| Stretch::new(first, epoch, 0, section.clone(), draw))
            }
            Extent::Windows(windows) => windows.stretch(&self.plan, row),
        }
    }
}

impl Plan {
    /// How the rows of an epoch, or of one of its windows, are drawn.
    fn draw(&self, epoch: u64, window: Option<u64>) -> Draw {
        let key = self.key.with(epoch);
        let of_window = |key: Key| match window {
            None => key,
            Some(window) => key.with(purpose::WINDOW).with(window),
        };
        match (self.course, &self.sizes) {
            (Course::Once, None) => Draw::Stored,
            // Without packing there are no classes.
            (Course::Endless, None) => Draw::Shuffled {
                rows: of_window(key),
                classes: key,
            },
            (_, Some(_)) => Draw::Shuffled {
                rows: of_window(key.with(purpose::PACKED_ROWS)),
                classes: of_window(key.with(purpose::CLASSES)),
            },
        }
    }
}

/// Rows that follow each other in the run and are put in order together.
struct Stretch {
    rows: Range<u128>,
    epoch: u64,
    window: usize,
    section: Arc<Section>,
    draw: Draw,
    permutation: Option<Permutation>,
}

impl Stretch {
    fn new(first: u128, epoch: u64, window: usize, section: Arc<Section>, draw: Draw) -> Stretch {
        Stretch {
            rows: first..first + u128::from(section.rows()),
            epoch,
            window,
            permutation: section.permutation(draw),
            section,
            draw,
        }
    }

    fn stored(&self, row: u128) -> u64 {
        // Below the section's rows.
        let place = (row - self.rows.start) as u64;
        self.permutation.map_or(place, |order| order.at(place))
    }
}

/// A part of the run.
pub(crate) struct Stretches<'a> {
    examples: &'a Examples,
    stretches: Vec<Stretch>,
    // As long as this lives, the blocks of the first stretch are wanted.
    _visit: Option<Visit<'a>>,
}

impl Stretches<'_> {
    /// The epoch of a row of the run; its examples are appended to `into`. Nothing if the run has
    /// ended.
    pub(crate) fn row(&self, row: u128, into: &mut Vec<u64>) -> Option<u64> {
        let stretch = self.of(row)?;
        let stored = stretch.stored(row);
        stretch.section.examples(stored, stretch.draw, into);
        Some(stretch.epoch)
    }

    /// The epoch of a row of the run.
    pub(crate) fn epoch(&self, row: u128) -> Option<u64> {
        self.of(row).map(|stretch| stretch.epoch)
    }

    /// How much a row of the run holds.
    pub(crate) fn held(&self, row: u128) -> Held {
        self.of(row).map_or(Held::default(), |stretch| {
            stretch.section.held(stretch.stored(row), self.examples)
        })
    }

    fn of(&self, row: u128) -> Option<&Stretch> {
        let number = self.stretches.partition_point(|s| s.rows.end <= row);
        let stretch = self.stretches.get(number)?;
        stretch.rows.contains(&row).then_some(stretch)
    }
}

/// An index has four bytes for each example.
fn fits_index(examples: u64) -> Result<()> {
    match u32::try_from(examples) {
        Ok(_) => Ok(()),
        Err(_) => {
            let reason = format!("cannot be packed for {examples} examples at once, only for 2^32");
            Err(Error::setting("data.rows", reason))
        }
    }
}

#[cfg(test)]
mod tests;
