//! Spikes: losses, and norms of gradients, far above what they were.
//!
//! A training step keeps the numbers of the last good steps in its state, and compares its own with
//! their medians. So whether its update is skipped depends on the state and the batch alone: it is
//! the same on all hosts, and a run that is resumed skips what it would have skipped. Where no
//! limit is set, neither the state nor the program has any of this.

use ankh_hlo::{DType, Shape, Tensor};

use super::Array;
use crate::config::Recovery;

/// Good steps whose numbers are kept.
const WINDOW: i64 = 100;

/// Fewer say nothing yet.
const ENOUGH: f64 = 20.0;

/// The names of the arrays of a state that this module is about.
const NAMES: [&str; 3] = ["recent_losses", "recent_grad_norms", "recent_steps"];

/// Whether an array of this name is kept for spikes. A saved state may have none; it is taken for
/// zeros then, which is an empty window.
pub fn is_of_spikes(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The arrays of the state, if any limit is set: losses and norms of gradients, the newest last,
/// and of how many steps they are.
pub(super) fn state(recovery: &Recovery) -> Vec<Array> {
    if recovery.loss_spike == 0.0 && recovery.grad_norm_spike == 0.0 {
        return Vec::new();
    }
    let numbers = || Shape::new(DType::F32, [WINDOW]);
    let shapes = [numbers(), numbers(), Shape::new(DType::S32, [])];
    let arrays = NAMES.into_iter().zip(shapes);
    let array = |(name, shape): (&str, Shape)| Array {
        name: name.into(),
        shape,
        logical_axes: Vec::new(),
    };
    arrays.map(array).collect()
}

/// The numbers of the last good steps, in a program.
pub(super) struct Window<'g> {
    /// `[100]`, the newest last.
    losses: Tensor<'g>,
    grad_norms: Tensor<'g>,
    /// How many of each there are, int32.
    count: Tensor<'g>,
}

/// Whether the numbers of a step are spikes.
pub(super) struct Spikes<'g> {
    pub loss: Tensor<'g>,
    pub grad_norm: Tensor<'g>,
}

impl<'g> Window<'g> {
    /// From the arrays of the state; nothing where it has none.
    pub fn of(arrays: &[Tensor<'g>]) -> Option<Window<'g>> {
        let &[losses, grad_norms, count] = arrays else {
            return None;
        };
        Some(Window {
            losses,
            grad_norms,
            count,
        })
    }

    /// What is a spike by these limits.
    pub fn spikes(
        &self,
        recovery: &Recovery,
        loss: Tensor<'g>,
        grad_norm: Tensor<'g>,
    ) -> Spikes<'g> {
        Spikes {
            loss: self.spikes_in(self.losses, recovery.loss_spike, loss),
            grad_norm: self.spikes_in(self.grad_norms, recovery.grad_norm_spike, grad_norm),
        }
    }

    fn spikes_in(&self, recent: Tensor<'g>, factor: f64, value: Tensor<'g>) -> Tensor<'g> {
        let limit = match factor {
            0.0 => value.full_like(f64::INFINITY),
            factor => self.median(recent) * factor,
        };
        value.greater(limit) & self.count.greater_equal(self.count.full_like(ENOUGH))
    }

    /// The upper median of the numbers that there are: the one that as many are below as half of
    /// them, rounded down. 100 numbers are ranked sooner than sorted.
    fn median(&self, recent: Tensor<'g>) -> Tensor<'g> {
        let g = recent.graph();
        let place = g.iota(Shape::new(DType::S32, [WINDOW]), 0);
        // What there is stands at the end.
        let first = self.count * -1.0 + WINDOW as f64;
        let is_there = place.greater_equal(first.broadcast_to(&[WINDOW]));
        let numbers = is_there.select(recent, recent.full_like(f64::INFINITY));
        let square = Shape::new(DType::S32, [WINDOW, WINDOW]);
        let row = numbers.reshape(&[WINDOW, 1]);
        let row = row.broadcast_to(&[WINDOW, WINDOW]);
        let column = numbers.reshape(&[1, WINDOW]);
        let column = column.broadcast_to(&[WINDOW, WINDOW]);
        // Equal numbers are ranked by their places.
        let is_earlier = g.iota(square.clone(), 1).less(g.iota(square, 0));
        let is_below = column.less(row) | (column.equal(row) & is_earlier);
        let rank = is_below.convert(DType::F32).sum(&[1]);
        let count = self.count.convert(DType::F32).broadcast_to(&[WINDOW]);
        let twice = rank * 2.0;
        let is_median = twice.equal(count) | (twice + 1.0).equal(count);
        is_median.select(numbers, numbers.zeros_like()).sum_all()
    }

    /// The arrays after a step: with its numbers where it is good.
    pub fn after(
        &self,
        is_good: Tensor<'g>,
        loss: Tensor<'g>,
        grad_norm: Tensor<'g>,
    ) -> [Tensor<'g>; 3] {
        let g = loss.graph();
        let append = |recent: Tensor<'g>, value: Tensor<'g>| {
            let kept = recent.slice_dim(0, 1, WINDOW);
            is_good.select(g.concatenate(&[kept, value.reshape(&[1])], 0), recent)
        };
        let more = (self.count + 1.0).minimum(self.count.full_like(WINDOW as f64));
        [
            append(self.losses, loss),
            append(self.grad_norms, grad_norm),
            is_good.select(more, self.count),
        ]
    }
}
