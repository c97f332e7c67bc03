//! Batches as a pure function of (seed, step).
//!
//! [`Batches`] joins a mixture of data sets and objectives with a configuration. What row `i` of a
//! run holds depends on neither batch sizes nor steps; a step takes the next rows. Which examples
//! make up a step is a matter of arithmetic (`docs/design/data-order.md`), and each sequence is
//! masked under a key of its own, so a batch can be made by any host, on any number of threads, at
//! any time, and is always the same. Shapes are static: rows hold one sequence or several, and
//! padding behind them.

mod assemble;
mod batch;
mod component;
mod config;
pub mod dataset;
mod fill;
mod mixture;
pub mod objective;
pub mod order;
mod packing;
mod prefetch;
mod shard;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::error::{Error, Result, Setting};
use crate::random::Key;
pub use batch::{Batch, IGNORED, Sequence};
use component::{ComponentRows, Scratch};
pub use config::{BatchConfig, Packing};
use dataset::Dataset;
pub use fill::RowFill;
pub use mixture::{Component, Mixture};
use objective::Objective;
use order::{Epochs, RowRange};
pub use order::{LongSequences, RowCounts};
pub use prefetch::Prefetch;
pub use shard::HostShard;

/// What a key is for, so that no two uses draw the same numbers.
mod purpose {
    pub const ORDER: u64 = 1;
    pub const CROP: u64 = 2;
    pub const MASKS: u64 = 3;
    pub const EVALUATION: u64 = 4;
    pub const COMPONENT: u64 = 5;
}

/// The batches of one process, which may feed a share of each global batch. Cloning is cheap.
#[derive(Clone)]
pub struct Batches {
    shared: Arc<Shared>,
    /// The rows of each global batch that are made, ascending.
    ranges: Arc<[Range<usize>]>,
    origin: StepOrigin,
}

/// Where steps begin to be counted in rows of the run.
#[derive(Clone, Copy, Debug, Default)]
struct StepOrigin {
    step: u64,
    /// The rows of the steps before it.
    rows: u128,
}

struct Shared {
    mixture: Mixture,
    config: BatchConfig,
    /// One for each component.
    components: Vec<ComponentRows>,
    /// Its threads make the rows of a batch together.
    pool: rayon::ThreadPool,
}

impl Batches {
    /// A share of the training batches: endless, each component in an order of its own every epoch.
    /// `threads` make a batch together (0: as many as there are cores); their number changes
    /// nothing but the time it takes.
    pub fn new(
        mixture: Mixture,
        config: BatchConfig,
        shard: HostShard,
        threads: usize,
    ) -> Result<Batches> {
        let key = Key::new(config.seed);
        Batches::with_epochs(mixture, config, shard, threads, key, Epochs::Endless)
    }

    /// A share of the evaluation batches: every example once, with masks that are the same at every
    /// evaluation; padded rows in stored order. The last batch is filled up with empty rows, which
    /// hold a single `</s>` (so that attention has something to attend to) and no label that
    /// counts.
    pub fn evaluation(
        dataset: Dataset,
        objective: Objective,
        config: BatchConfig,
        shard: HostShard,
        threads: usize,
    ) -> Result<Batches> {
        let key = Key::new(config.seed).with(purpose::EVALUATION);
        let mixture = Mixture::one(dataset, objective);
        Batches::with_epochs(mixture, config, shard, threads, key, Epochs::Once)
    }

    fn with_epochs(
        mixture: Mixture,
        config: BatchConfig,
        shard: HostShard,
        threads: usize,
        key: Key,
        epochs: Epochs,
    ) -> Result<Batches> {
        config.validate()?;
        let ranges = shard.of(config.global_batch)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("batches-{i}"))
            .build()
            .map_err(|error| Error::setting(Setting::Threads, format!("cannot be had: {error}")))?;
        let threads = pool.current_num_threads();
        let components = mixture.components().iter().enumerate();
        let components = components.map(|(number, component)| {
            // The first has the order it would have alone.
            let key = match number {
                0 => key,
                _ => key.with(purpose::COMPONENT).with(number as u64),
            };
            ComponentRows::new(component, &config, key, epochs, threads)
        });
        Ok(Batches {
            shared: Arc::new(Shared {
                components: components.collect::<Result<_>>()?,
                mixture,
                config,
                pool,
            }),
            ranges: ranges.into(),
            origin: StepOrigin::default(),
        })
    }

    /// Another share of the same batches.
    pub fn with_shard(&self, shard: HostShard) -> Result<Batches> {
        Ok(Batches {
            ranges: shard.of(self.shared.config.global_batch)?.into(),
            ..self.clone()
        })
    }

    /// The batches from `step` on in a run whose steps before it took `rows` rows, in batches of
    /// whatever sizes. Steps before it are no part of them.
    pub fn after(&self, step: u64, rows: u64) -> Batches {
        let rows = rows.into();
        Batches {
            origin: StepOrigin { step, rows },
            ..self.clone()
        }
    }

    /// The rows that the steps before `step` take, over all hosts.
    pub fn rows_before(&self, step: u64) -> u64 {
        // Runs of 2^64 rows are out of reach.
        self.first_row(step) as u64
    }

    /// The number of steps until the batches end, those before their first included; nothing if
    /// they do not end.
    pub fn steps(&self) -> Option<u64> {
        let batch = self.shared.config.global_batch as u64;
        // Batches that end have one component.
        let rows = self.shared.components.first()?.order.rows()?;
        let left = u128::from(rows).saturating_sub(self.origin.rows) as u64;
        Some(self.origin.step + left.div_ceil(batch))
    }

    /// The number of examples of one epoch, rows or pieces of rows: those of all components
    /// together.
    pub fn examples_per_epoch(&self) -> u64 {
        let components = self.shared.components.iter();
        components.map(|rows| rows.order.examples().count()).sum()
    }

    /// How often a sequence was shown before a step, on average over all. With one component these
    /// are its epochs.
    pub fn epochs_before(&self, step: u64) -> f64 {
        let all = self.examples_per_epoch() as f64;
        let components = self.shared.components.iter();
        let parts = components.zip(self.component_epochs_before(step));
        parts
            .map(|(rows, epochs)| epochs * (rows.order.examples().count() as f64 / all))
            .sum()
    }

    /// How often each component's sequences were shown before a step.
    pub fn component_epochs_before(&self, step: u64) -> Vec<f64> {
        let shared = &*self.shared;
        let rows = shared.mixture.before(self.first_row(step));
        let components = shared.components.iter().zip(rows);
        components
            .map(|(rows, row)| rows.order.epochs_before(row))
            .collect()
    }

    /// The rows of the share in one step.
    pub fn rows(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The longest target a sequence can have. If it is longer than the configuration's target
    /// length, some targets may be cut.
    pub fn longest_target(&self) -> usize {
        let longest = |rows: &ComponentRows| {
            let Component {
                dataset, objective, ..
            } = &rows.component;
            objective.longest_target(dataset.tokenizer(), rows.order.examples().window())
        };
        let components = self.shared.components.iter();
        components.map(longest).max().unwrap_or(0)
    }

    /// The shape and the order of the batches.
    pub fn config(&self) -> &BatchConfig {
        &self.shared.config
    }

    /// What the batches are made from.
    pub fn mixture(&self) -> &Mixture {
        &self.shared.mixture
    }

    /// The bytes of memory that finding the examples of a step takes, beside the lengths of rows.
    pub fn index_bytes(&self) -> usize {
        let components = self.shared.components.iter();
        components.map(|rows| rows.order.bytes()).sum()
    }

    /// The share's rows of a step: a pure function of the seed, the step and the share, in which
    /// each row is as in the whole batch. Evaluation batches beyond the last are empty.
    ///
    /// # Errors
    /// [`Error::Setting`] for a step before the first ([`Batches::after`]); what reading rows
    /// gives.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let shared = &*self.shared;
        if step < self.origin.step {
            let reason = format!(
                "must be at least {}, where these batches begin, but is {step}",
                self.origin.step
            );
            return Err(Error::setting(Setting::Step, reason));
        }
        let first = self.first_row(step);
        let (from, to) = (first, first + shared.config.global_batch as u128);
        let ranges = shared.mixture.before(from).into_iter();
        let ranges = ranges.zip(shared.mixture.before(to));
        // Outside the pool, whose threads must not wait for each other.
        let ranges: Vec<RowRange<'_>> = ranges
            .zip(&shared.components)
            .map(|((from, to), rows)| rows.order.row_range(from..to))
            .collect();
        shared.pool.install(|| self.make(step, first, &ranges))
    }

    fn make(&self, step: u64, first: u128, ranges: &[RowRange<'_>]) -> Result<Batch> {
        let Shared {
            mixture,
            config,
            components,
            ..
        } = &*self.shared;
        let rows: Vec<usize> = self.ranges.iter().flat_map(Range::clone).collect();
        let (inputs, targets) = (config.input_length, config.target_length);
        let mut batch = Batch::blank(config.packing, rows.len(), inputs, targets);
        batch.step = step;
        let (component, row) = mixture.place(first);
        batch.epoch = ranges[component].epoch(row).unwrap_or(0);
        batch.whole = (0..config.global_batch)
            .into_par_iter()
            .with_min_len(64)
            .map(|row| {
                let (component, row) = mixture.place(first + row as u128);
                ranges[component].counts(row)
            })
            .reduce(RowCounts::default, RowCounts::and);
        batch.fill(|row, arrays, scratch: &mut Scratch| {
            let (component, row) = mixture.place(first + rows[row] as u128);
            components[component].fill(component, &ranges[component], row, arrays, scratch)
        })?;
        Ok(batch)
    }

    /// How many threads make a batch together.
    fn threads(&self) -> usize {
        self.shared.pool.current_num_threads()
    }

    /// The first row of a step, in the whole run.
    fn first_row(&self, step: u64) -> u128 {
        let StepOrigin { step: first, rows } = self.origin;
        rows + u128::from(step.saturating_sub(first)) * self.shared.config.global_batch as u128
    }
}
