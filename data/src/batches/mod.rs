//! Batches as a pure function of (seed, step).
//!
//! [`Batches`] joins a mixture of data sets and objectives with a plan. What row `i` of a run holds
//! depends on neither batch sizes nor steps; a step takes the next rows. Which examples make up a step
//! is a matter of arithmetic (`docs/design/data-order.md`), and each sequence is masked under a key
//! of its own, so a batch can be made by any host, on any number of threads, at any time, and is
//! always the same. Shapes are static: rows hold one sequence or several, and padding behind them.

mod assemble;
mod batch;
mod mixture;
mod plan;
mod prefetch;
mod share;
mod source;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::objective::Objective;
use crate::order::{Course, Held, Stretches};
use crate::random::Key;
pub use batch::{Batch, IGNORED, Seen, Sequence};
pub use mixture::{Component, Mixture};
pub use plan::{BatchPlan, LongSequences, Rows};
pub use prefetch::Prefetch;
pub use share::Share;
use source::{Scratch, Source};

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
    start: Start,
}

/// Where steps begin to be counted in rows of the run.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    step: u64,
    /// The rows of the steps before it.
    rows: u128,
}

struct Shared {
    mixture: Mixture,
    plan: BatchPlan,
    /// One for each component.
    sources: Vec<Source>,
    /// Its threads make the rows of a batch together.
    pool: rayon::ThreadPool,
}

impl Batches {
    /// A share of the training batches: endless, each component in an order of its own every epoch.
    /// `threads` make a batch together (0: as many as there are cores); their number changes nothing
    /// but the time it takes.
    pub fn new(mixture: Mixture, plan: BatchPlan, share: Share, threads: usize) -> Result<Batches> {
        let key = Key::new(plan.seed);
        Batches::with_course(mixture, plan, share, threads, key, Course::Endless)
    }

    /// A share of the evaluation batches: every example once, with masks that are the same at every
    /// evaluation; padded rows in stored order. The last batch is filled up with empty rows, which
    /// hold a single `</s>` (so that attention has something to attend to) and no label that counts.
    pub fn evaluation(
        dataset: Dataset,
        objective: Objective,
        plan: BatchPlan,
        share: Share,
        threads: usize,
    ) -> Result<Batches> {
        let key = Key::new(plan.seed).with(purpose::EVALUATION);
        let mixture = Mixture::one(dataset, objective);
        Batches::with_course(mixture, plan, share, threads, key, Course::Once)
    }

    fn with_course(
        mixture: Mixture,
        plan: BatchPlan,
        share: Share,
        threads: usize,
        key: Key,
        course: Course,
    ) -> Result<Batches> {
        plan.validate()?;
        let ranges = share.of(plan.global_batch)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("batches-{i}"))
            .build()
            .map_err(|error| Error::setting("data.threads", format!("cannot be had: {error}")))?;
        let threads = pool.current_num_threads();
        let components = mixture.components().iter().enumerate();
        let sources = components.map(|(number, component)| {
            // The first has the order it would have alone.
            let key = match number {
                0 => key,
                _ => key.with(purpose::COMPONENT).with(number as u64),
            };
            Source::new(component, &plan, key, course, threads)
        });
        Ok(Batches {
            shared: Arc::new(Shared {
                sources: sources.collect::<Result<_>>()?,
                mixture,
                plan,
                pool,
            }),
            ranges: ranges.into(),
            start: Start::default(),
        })
    }

    /// Another share of the same batches.
    pub fn with_share(&self, share: Share) -> Result<Batches> {
        Ok(Batches {
            ranges: share.of(self.shared.plan.global_batch)?.into(),
            ..self.clone()
        })
    }

    /// The batches from `step` on in a run whose steps before it took `rows` rows, in batches of
    /// whatever sizes. Steps before it are no part of them.
    pub fn after(&self, step: u64, rows: u64) -> Batches {
        let rows = rows.into();
        Batches {
            start: Start { step, rows },
            ..self.clone()
        }
    }

    /// The rows that the steps before `step` take, over all hosts.
    pub fn rows_before(&self, step: u64) -> u64 {
        // Runs of 2^64 rows are out of reach.
        self.first_row(step) as u64
    }

    /// The number of steps until the batches end, those before their first included; nothing if they
    /// do not end.
    pub fn steps(&self) -> Option<u64> {
        let batch = self.shared.plan.global_batch as u64;
        // Batches that end have one component.
        let rows = self.shared.sources.first()?.order.rows()?;
        let left = u128::from(rows).saturating_sub(self.start.rows) as u64;
        Some(self.start.step + left.div_ceil(batch))
    }

    /// The number of examples of one epoch, rows or pieces of rows: those of all components together.
    pub fn examples_per_epoch(&self) -> u64 {
        let sources = self.shared.sources.iter();
        sources.map(|source| source.order.examples().count()).sum()
    }

    /// How often a sequence was shown before a step, on average over all. With one component these
    /// are its epochs.
    pub fn epochs_before(&self, step: u64) -> f64 {
        let all = self.examples_per_epoch() as f64;
        let sources = self.shared.sources.iter();
        let parts = sources.zip(self.component_epochs_before(step));
        parts
            .map(|(source, epochs)| epochs * (source.order.examples().count() as f64 / all))
            .sum()
    }

    /// How often each component's sequences were shown before a step.
    pub fn component_epochs_before(&self, step: u64) -> Vec<f64> {
        let shared = &*self.shared;
        let rows = shared.mixture.before(self.first_row(step));
        let sources = shared.sources.iter().zip(rows);
        sources
            .map(|(source, row)| source.order.epochs_before(row))
            .collect()
    }

    /// The rows of the share in one step.
    pub fn rows(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The longest target a sequence can have. If it is longer than the plan's target length, some
    /// targets may be cut.
    pub fn longest_target(&self) -> usize {
        let longest = |source: &Source| {
            let Component {
                dataset, objective, ..
            } = &source.component;
            objective.longest_target(dataset.tokenizer(), source.order.examples().window())
        };
        let sources = self.shared.sources.iter();
        sources.map(longest).max().unwrap_or(0)
    }

    /// The plan the batches follow.
    pub fn plan(&self) -> &BatchPlan {
        &self.shared.plan
    }

    /// What the batches are made from.
    pub fn mixture(&self) -> &Mixture {
        &self.shared.mixture
    }

    /// The bytes of memory that finding the examples of a step takes, beside the lengths of rows.
    pub fn index_bytes(&self) -> usize {
        let sources = self.shared.sources.iter();
        sources.map(|source| source.order.bytes()).sum()
    }

    /// The share's rows of a step: a pure function of the seed, the step and the share, in which each
    /// row is as in the whole batch. Evaluation batches beyond the last are empty.
    ///
    /// # Errors
    /// [`Error::Setting`] for a step before the first ([`Batches::after`]); what reading rows gives.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let shared = &*self.shared;
        if step < self.start.step {
            let reason = format!(
                "must be at least {}, where these batches begin, but is {step}",
                self.start.step
            );
            return Err(Error::setting("step", reason));
        }
        let first = self.first_row(step);
        let (from, to) = (first, first + shared.plan.global_batch as u128);
        let ranges = shared.mixture.before(from).into_iter();
        let ranges = ranges.zip(shared.mixture.before(to));
        // Outside the pool, whose threads must not wait for each other.
        let stretches: Vec<Stretches<'_>> = ranges
            .zip(&shared.sources)
            .map(|((from, to), source)| source.order.stretches(from..to))
            .collect();
        shared.pool.install(|| self.make(step, first, &stretches))
    }

    fn make(&self, step: u64, first: u128, stretches: &[Stretches<'_>]) -> Result<Batch> {
        let Shared {
            mixture,
            plan,
            sources,
            ..
        } = &*self.shared;
        let rows: Vec<usize> = self.ranges.iter().flat_map(Range::clone).collect();
        let (inputs, targets) = (plan.input_length, plan.target_length);
        let mut batch = Batch::blank(plan.rows, rows.len(), inputs, targets);
        batch.step = step;
        let (component, row) = mixture.place(first);
        batch.epoch = stretches[component].epoch(row).unwrap_or(0);
        batch.whole = (0..plan.global_batch)
            .into_par_iter()
            .with_min_len(64)
            .map(|row| {
                let (component, row) = mixture.place(first + row as u128);
                stretches[component].held(row)
            })
            .reduce(Held::default, Held::and)
            .into();
        batch.fill(|row, arrays, scratch: &mut Scratch| {
            let (component, row) = mixture.place(first + rows[row] as u128);
            sources[component].fill(component, &stretches[component], row, arrays, scratch)
        })?;
        Ok(batch)
    }

    /// How many threads make a batch together.
    fn threads(&self) -> usize {
        self.shared.pool.current_num_threads()
    }

    /// The first row of a step, in the whole run.
    fn first_row(&self, step: u64) -> u128 {
        let Start { step: first, rows } = self.start;
        rows + u128::from(step.saturating_sub(first)) * self.shared.plan.global_batch as u128
    }
}

impl From<Held> for Seen {
    fn from(held: Held) -> Seen {
        Seen {
            sequences: held.sequences,
            residues: held.residues,
        }
    }
}
