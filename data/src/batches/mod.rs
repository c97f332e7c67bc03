//! Batches as a pure function of (seed, step).
//!
//! [`Batches`] joins a data set, an objective and a plan. Which examples make up a step is a matter
//! of arithmetic (`docs/design/data-order.md`), and each row is masked under a key of its own, so a
//! batch can be made by any host, on any number of threads, at any time, and is always the same.
//! Shapes are static: every row is padded to the plan's lengths.

mod assemble;
mod batch;
mod plan;
mod prefetch;
mod share;

use std::ops::Range;
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::objective::{Example, Objective};
use crate::order::{Order, Place};
use crate::random::Key;
use assemble::RowArrays;
pub use batch::{Batch, IGNORED, Seen, Sequence};
use plan::Examples;
pub use plan::{BatchPlan, LongSequences, Rows};
pub use prefetch::Prefetch;
pub use share::Share;

/// What a key is for, so that no two uses draw the same numbers.
mod purpose {
    pub const ORDER: u64 = 1;
    pub const CROP: u64 = 2;
    pub const MASKS: u64 = 3;
    pub const EVALUATION: u64 = 4;
}

/// The batches of one process, which may feed a share of each global batch. Cloning is cheap.
#[derive(Clone)]
pub struct Batches {
    shared: Arc<Shared>,
    /// The rows of each global batch that are made, ascending.
    ranges: Arc<[Range<usize>]>,
}

struct Shared {
    dataset: Dataset,
    objective: Objective,
    plan: BatchPlan,
    order: Order,
    examples: Examples,
    key: Key,
    /// The residues an example shows at most.
    window: usize,
    /// Its threads make the rows of a batch together.
    pool: rayon::ThreadPool,
}

impl Batches {
    /// A share of the training batches: endless, in an order of its own every epoch. `threads` make a
    /// batch together (0: as many as there are cores); their number changes nothing but the time it
    /// takes.
    pub fn new(
        dataset: Dataset,
        objective: Objective,
        plan: BatchPlan,
        share: Share,
        threads: usize,
    ) -> Result<Batches> {
        let key = Key::new(plan.seed);
        let order = |rows| Order::Shuffled {
            rows,
            key: key.with(purpose::ORDER),
        };
        Batches::with_order(dataset, objective, plan, share, threads, key, order)
    }

    /// A share of the evaluation batches: every example once, in stored order, with masks that are
    /// the same at every evaluation. The last batch is filled up with empty rows, which hold a
    /// single `</s>` (so that attention has something to attend to) and no label that counts.
    pub fn evaluation(
        dataset: Dataset,
        objective: Objective,
        plan: BatchPlan,
        share: Share,
        threads: usize,
    ) -> Result<Batches> {
        let key = Key::new(plan.seed).with(purpose::EVALUATION);
        let order = |rows| Order::Stored { rows };
        Batches::with_order(dataset, objective, plan, share, threads, key, order)
    }

    fn with_order(
        dataset: Dataset,
        objective: Objective,
        plan: BatchPlan,
        share: Share,
        threads: usize,
        key: Key,
        order: impl FnOnce(u64) -> Order,
    ) -> Result<Batches> {
        plan.validate()?;
        objective.validate_for(dataset.tokenizer())?;
        let ranges = share.of(plan.global_batch)?;
        let window = objective.window(plan.input_length, plan.target_length);
        let examples = Examples::new(&dataset, window, plan.long_sequences)?;
        if examples.count() == 0 {
            return Err(Error::setting("data", "has no rows"));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("batches-{i}"))
            .build()
            .map_err(|error| Error::setting("data.threads", format!("cannot be had: {error}")))?;
        Ok(Batches {
            shared: Arc::new(Shared {
                order: order(examples.count()),
                dataset,
                objective,
                plan,
                examples,
                key,
                window,
                pool,
            }),
            ranges: ranges.into(),
        })
    }

    /// Another share of the same batches.
    pub fn with_share(&self, share: Share) -> Result<Batches> {
        Ok(Batches {
            shared: self.shared.clone(),
            ranges: share.of(self.shared.plan.global_batch)?.into(),
        })
    }

    /// The number of steps until the batches end; nothing if they do not.
    pub fn steps(&self) -> Option<u64> {
        let batch = self.shared.plan.global_batch as u64;
        match self.shared.order {
            Order::Shuffled { .. } => None,
            Order::Stored { rows } => Some(rows.div_ceil(batch)),
        }
    }

    /// The number of examples of one epoch: rows, or pieces of rows.
    pub fn examples_per_epoch(&self) -> u64 {
        self.shared.examples.count()
    }

    /// How many epochs have passed before a step.
    pub fn epochs_before(&self, step: u64) -> f64 {
        step as f64 * self.shared.plan.global_batch as f64 / self.examples_per_epoch() as f64
    }

    /// The rows of the share in one step.
    pub fn rows(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The longest target a row can have. If it is longer than the plan's target length, some
    /// targets may be cut.
    pub fn longest_target(&self) -> usize {
        let tokenizer = self.shared.dataset.tokenizer();
        let objective = &self.shared.objective;
        objective.longest_target(tokenizer, self.shared.window)
    }

    /// The plan the batches follow.
    pub fn plan(&self) -> &BatchPlan {
        &self.shared.plan
    }

    /// The objective the batches are made for.
    pub fn objective(&self) -> &Objective {
        &self.shared.objective
    }

    /// The data set the batches are made from.
    pub fn dataset(&self) -> &Dataset {
        &self.shared.dataset
    }

    /// The share's rows of a step: a pure function of the seed, the step and the share, in which each
    /// row is as in the whole batch. Evaluation batches beyond the last are empty.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        self.shared.pool.install(|| self.make(step))
    }

    fn make(&self, step: u64) -> Result<Batch> {
        let shared = &*self.shared;
        let plan = &shared.plan;
        let first = u128::from(step) * plan.global_batch as u128;
        // Places end with the data, so rows without one are the last of the share as of the batch.
        let whole = shared.order.places(first, plan.global_batch);
        let places: Vec<Option<Place>> = self
            .ranges
            .iter()
            .flat_map(|range| range.clone().map(|row| whole.get(row).copied()))
            .collect();
        let (inputs, targets) = (plan.input_length, plan.target_length);
        let mut batch = Batch::blank(plan.rows, places.len(), inputs, targets);
        batch.step = step;
        batch.epoch = whole.first().map_or(0, |place| place.epoch);
        batch.whole = shared.seen(&whole)?;
        batch.fill(|i, row| match places[i] {
            Some(place) => shared.fill(place, row),
            None => {
                row.leave_empty();
                Ok(())
            }
        })?;
        Ok(batch)
    }
}

/// A masked example, and where it is from.
struct Masked {
    row: u64,
    residues: usize,
    example: Example,
}

impl Shared {
    fn fill(&self, place: Place, row: &mut RowArrays<'_>) -> Result<()> {
        let masked = self.masked(place)?;
        row.push(masked.row, masked.residues, &masked.example, 0);
        Ok(())
    }

    /// How much those places show, by lengths alone.
    fn seen(&self, places: &[Place]) -> Result<Seen> {
        let mut seen = Seen::default();
        for place in places {
            let piece = self.examples.piece(place.index);
            let length = piece.range(self.dataset.length(piece.row)?).len();
            seen.sequences += 1;
            seen.residues += length.min(self.window) as u64;
        }
        Ok(seen)
    }

    fn masked(&self, place: Place) -> Result<Masked> {
        let piece = self.examples.piece(place.index);
        let key = self.key.with(place.epoch).with(piece.row).with(piece.piece);
        let range = piece.range(self.dataset.length(piece.row)?);
        let length = range.len().min(self.window);
        let spare = range.len() - length;
        let offset = match self.plan.long_sequences {
            LongSequences::Crop => key.with(purpose::CROP).stream().below(spare + 1),
            // A piece of a split row has nothing to spare.
            LongSequences::Truncate | LongSequences::Split => 0,
        };
        let start = range.start + offset;
        let tokens = self.dataset.window(piece.row, start..start + length)?;
        let masks = key.with(purpose::MASKS);
        let example = self
            .objective
            .apply(self.dataset.tokenizer(), &tokens, masks);
        Ok(Masked {
            row: piece.row,
            residues: length,
            example,
        })
    }
}
