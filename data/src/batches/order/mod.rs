//! The order rows are seen in, computed at any place of the run.
//!
//! There is no shuffle buffer and no state. Row `i` of a run lies in epoch `i / rows`, and what it
//! holds is given by keyed permutations of that epoch, over all examples or over those of a window.
//! The argument that each epoch shows each example once, close to uniformly and the same on any
//! number of hosts, is in `docs/design/data-order.md`; what shares a packed row, in
//! `docs/design/packing.md`.

mod examples;
mod permutation;
mod shuffle_group;
mod windows;

use std::ops::Range;
use std::sync::Arc;

use crate::batches::dataset::Shuffle;
use crate::batches::packing::Sizes;
use crate::error::{Error, Result, Setting};
use crate::random::Key;
pub use examples::LongSequences;
pub(crate) use examples::{Examples, RowPiece};
pub use permutation::Permutation;
pub use shuffle_group::RowCounts;
use shuffle_group::{RowOrder, ShuffleGroup};
use windows::{WindowLease, Windows};

/// What a key is for, so that no two uses draw the same numbers.
mod purpose {
    pub const PACKED_ROWS: u64 = 1;
    pub const CLASSES: u64 = 2;
    pub const BLOCKS: u64 = 3;
    pub const WINDOW: u64 = 4;
}

/// How often the examples are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epochs {
    /// Without end, in an order of its own every epoch.
    Endless,
    /// Once: as stored if every row holds one example. Packed rows are shuffled, so that the first
    /// of them are not the ones with the longest sequences.
    Once,
}

/// What an order is made from.
pub(crate) struct OrderConfig {
    pub examples: Examples,
    pub shuffle: Shuffle,
    /// What to pack by; without it a row holds one example.
    pub sizes: Option<Sizes>,
    pub epochs: Epochs,
    pub key: Key,
    /// Threads that make indexes.
    pub threads: usize,
    /// Is told which blocks come next, most urgent first.
    pub prefetch_hint: Box<PrefetchHint>,
}

/// Is told the numbers of blocks.
pub(crate) type PrefetchHint = dyn Fn(&[u32]) + Send + Sync;

/// The order of a whole run.
pub(crate) struct DataOrder {
    config: OrderConfig,
    extent: Extent,
}

enum Extent {
    /// Everything is put in order together; every epoch has the same number of rows.
    Whole(Arc<ShuffleGroup>),
    Windows(Windows),
}

impl DataOrder {
    /// Indexes the lengths as far as the configuration needs it. There must be an example.
    pub(crate) fn new(config: OrderConfig) -> Result<DataOrder> {
        if config.examples.count() == 0 {
            return Err(Error::setting(Setting::Data, "has no rows"));
        }
        let extent = match &config.shuffle {
            Shuffle::Windows { blocks, residues } => {
                Extent::Windows(Windows::new(&config, blocks.clone(), *residues)?)
            }
            Shuffle::Exact => {
                let all = 0..config.examples.rows();
                if config.sizes.is_some() {
                    fits_index(config.examples.count())?;
                }
                let (sizes, threads) = (config.sizes.as_ref(), config.threads);
                let group = ShuffleGroup::new(&config.examples, &[all], sizes, threads);
                Extent::Whole(Arc::new(group))
            }
        };
        Ok(DataOrder { config, extent })
    }

    /// The examples of an epoch.
    pub(crate) fn examples(&self) -> &Examples {
        &self.config.examples
    }

    /// What packed rows are packed by.
    pub(crate) fn sizes(&self) -> Option<&Sizes> {
        self.config.sizes.as_ref()
    }

    /// The number of rows of the run; nothing if it does not end.
    pub(crate) fn rows(&self) -> Option<u64> {
        match (self.config.epochs, &self.extent) {
            (Epochs::Endless, _) => None,
            (Epochs::Once, Extent::Whole(group)) => Some(group.rows()),
            (Epochs::Once, Extent::Windows(windows)) => Some(windows.rows(&self.config, 0)),
        }
    }

    /// How often all examples were shown before a row of the run.
    pub(crate) fn epochs_before(&self, row: u128) -> f64 {
        match &self.extent {
            Extent::Whole(group) => row as f64 / group.rows() as f64,
            Extent::Windows(windows) => windows.epochs_before(&self.config, row),
        }
    }

    /// The rows of a part of the run, ready to be looked up. An order that goes through the
    /// examples once ends with them.
    pub(crate) fn row_range(&self, rows: Range<u128>) -> RowRange<'_> {
        let mut parts = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let Some(part) = self.ordered_rows(at) else {
                break;
            };
            at = part.rows.end;
            parts.push(part);
        }
        let lease = match (&self.extent, parts.first()) {
            (Extent::Windows(windows), Some(first)) => {
                Some(windows.lease(&self.config, first.epoch, first.window))
            }
            _ => None,
        };
        RowRange {
            examples: &self.config.examples,
            parts,
            _lease: lease,
        }
    }

    /// The bytes of memory the index takes, the lengths not counted.
    pub(crate) fn bytes(&self) -> usize {
        let extent = match &self.extent {
            Extent::Whole(group) => group.bytes(),
            Extent::Windows(windows) => windows.bytes(),
        };
        self.config.examples.bytes() + extent
    }

    fn ordered_rows(&self, row: u128) -> Option<OrderedRows> {
        let once = self.config.epochs == Epochs::Once;
        match &self.extent {
            Extent::Whole(group) => {
                let rows = u128::from(group.rows());
                // Runs of 2^64 epochs are out of reach.
                let epoch = (row / rows) as u64;
                let first = u128::from(epoch) * rows;
                let row_order = self.config.row_order(epoch, None);
                (epoch == 0 || !once)
                    .then(|| OrderedRows::new(first, epoch, 0, group.clone(), row_order))
            }
            Extent::Windows(windows) => windows.ordered_rows(&self.config, row),
        }
    }
}

impl OrderConfig {
    /// How the rows of an epoch, or of one of its windows, are ordered.
    fn row_order(&self, epoch: u64, window: Option<u64>) -> RowOrder {
        let key = self.key.with(epoch);
        let of_window = |key: Key| match window {
            None => key,
            Some(window) => key.with(purpose::WINDOW).with(window),
        };
        match (self.epochs, &self.sizes) {
            (Epochs::Once, None) => RowOrder::Stored,
            // Without packing there are no classes.
            (Epochs::Endless, None) => RowOrder::Shuffled {
                rows: of_window(key),
                classes: key,
            },
            (_, Some(_)) => RowOrder::Shuffled {
                rows: of_window(key.with(purpose::PACKED_ROWS)),
                classes: of_window(key.with(purpose::CLASSES)),
            },
        }
    }
}

/// Rows that follow each other in the run and are put in order together.
struct OrderedRows {
    rows: Range<u128>,
    epoch: u64,
    window: usize,
    group: Arc<ShuffleGroup>,
    row_order: RowOrder,
    permutation: Option<Permutation>,
}

impl OrderedRows {
    fn new(
        first: u128,
        epoch: u64,
        window: usize,
        group: Arc<ShuffleGroup>,
        row_order: RowOrder,
    ) -> OrderedRows {
        OrderedRows {
            rows: first..first + u128::from(group.rows()),
            epoch,
            window,
            permutation: group.permutation(row_order),
            group,
            row_order,
        }
    }

    fn stored(&self, row: u128) -> u64 {
        // Below the group's rows.
        let place = (row - self.rows.start) as u64;
        self.permutation.map_or(place, |order| order.at(place))
    }
}

/// A part of the run.
pub(crate) struct RowRange<'a> {
    examples: &'a Examples,
    parts: Vec<OrderedRows>,
    // As long as this lives, the blocks of the first part are wanted.
    _lease: Option<WindowLease<'a>>,
}

impl RowRange<'_> {
    /// The epoch of a row of the run; its examples are appended to `into`. Nothing if the run has
    /// ended.
    pub(crate) fn row(&self, row: u128, into: &mut Vec<u64>) -> Option<u64> {
        let part = self.of(row)?;
        let stored = part.stored(row);
        part.group.examples(stored, part.row_order, into);
        Some(part.epoch)
    }

    /// The epoch of a row of the run.
    pub(crate) fn epoch(&self, row: u128) -> Option<u64> {
        self.of(row).map(|part| part.epoch)
    }

    /// How much a row of the run holds.
    pub(crate) fn counts(&self, row: u128) -> RowCounts {
        self.of(row).map_or(RowCounts::default(), |part| {
            part.group.counts(part.stored(row), self.examples)
        })
    }

    fn of(&self, row: u128) -> Option<&OrderedRows> {
        let number = self.parts.partition_point(|s| s.rows.end <= row);
        let part = self.parts.get(number)?;
        part.rows.contains(&row).then_some(part)
    }
}

/// An index has four bytes for each example.
fn fits_index(examples: u64) -> Result<()> {
    match u32::try_from(examples) {
        Ok(_) => Ok(()),
        Err(_) => {
            let reason = format!("cannot be packed for {examples} examples at once, only for 2^32");
            Err(Error::setting(Setting::Packing, reason))
        }
    }
}

#[cfg(test)]
mod tests;
