//! Adafactor (Shazeer and Stern, 2018) as `optax.adafactor(learning_rate)` composes it: a gradient
//! scaled by factored second moments, clipped by its root mean square, scaled by the learning rate
//! and by the size of its tensor.

use ankh_hlo::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Slot, StepContext, UpdateRule, Updated, own_dims, root_mean_square};
use crate::model::Parameter;
use crate::validation::Problems;

/// `optax.adafactor` as it is when only the learning rate is given.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adafactor {
    /// Second moments are factored where the two largest dimensions of a matrix are at least this.
    pub min_dim_size_to_factor: usize,
    /// Exponent of the decay of the second moments: `1 - step^-decay_rate`.
    pub decay_rate: f64,
    /// Bound on the root mean square of one tensor's update.
    pub clipping_threshold: f64,
    /// Whether an update is scaled by the root mean square of its tensor (at least 1e-3).
    pub multiply_by_parameter_scale: bool,
    /// Added to the squared gradient.
    pub epsilon: f64,
    /// Share of a weight removed each step, whatever the learning rate, as in optax.
    pub weight_decay: f64,
    /// Bound on the norm of all gradients together; unset, they are used as they are.
    pub clip_norm: Option<f64>,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            min_dim_size_to_factor: 128,
            decay_rate: 0.8,
            clipping_threshold: 1.0,
            multiply_by_parameter_scale: true,
            epsilon: 1e-30,
            weight_decay: 0.0,
            clip_norm: None,
        }
    }
}

/// The least root mean square by which an update is scaled, so that a tensor of zeros can grow.
const LEAST_PARAMETER_SCALE: f64 = 1e-3;

/// The two dimensions whose second moments are factored.
struct Factored {
    /// The second largest, whose means make `v_col` when it is left out.
    smaller: usize,
    /// The largest, whose means make `v_row` when it is left out.
    larger: usize,
}

/// The largest two dimensions of a tensor, where both reach the least size; of equal ones the later
/// counts as larger.
fn factored(rule: &Adafactor, parameter: &Parameter) -> Option<Factored> {
    let mut order: Vec<usize> = own_dims(parameter).iter().map(|&d| d as usize).collect();
    order.sort_by_key(|&d| parameter.dims[d]);
    let [.., smaller, larger] = order[..] else {
        return None;
    };
    (parameter.dims[smaller] >= rule.min_dim_size_to_factor as i64)
        .then_some(Factored { smaller, larger })
}

impl UpdateRule for Adafactor {
    fn slots(&self, parameter: &Parameter) -> Vec<Slot> {
        match factored(self, parameter) {
            Some(f) => vec![
                Slot::without("v_row", parameter, f.larger),
                Slot::without("v_col", parameter, f.smaller),
            ],
            None => vec![Slot::like("v", parameter)],
        }
    }

    fn update<'g>(
        &self,
        parameter: &Parameter,
        value: Tensor<'g>,
        gradient: Tensor<'g>,
        slots: &[Tensor<'g>],
        context: StepContext<'g>,
    ) -> Updated<'g> {
        // The decay of step t (from 1) is 1 - t^-c: the first step has no memory.
        let fresh = (context.step + 1.0).pow(context.step.full_like(-self.decay_rate));
        let average = |old: Tensor<'g>, new: Tensor<'g>| old * (1.0 - fresh) + new * fresh;
        let squared = gradient.square() + self.epsilon;
        let (scaled, slots) = match factored(self, parameter) {
            Some(Factored { smaller, larger }) => {
                let (small, large) = ([smaller as i64], [larger as i64]);
                let row = average(slots[0], squared.mean(&large));
                let col = average(slots[1], squared.mean(&small));
                // `row` has lost the larger dimension; this is where the smaller one is now.
                let rest = [smaller as i64 - i64::from(smaller > larger)];
                let row_factor = (row / row.mean(&rest).expand_dims(&rest)).rsqrt();
                let scaled =
                    gradient * row_factor.expand_dims(&large) * col.rsqrt().expand_dims(&small);
                (scaled, vec![row, col])
            }
            None => {
                let moment = average(slots[0], squared);
                (gradient * moment.rsqrt(), vec![moment])
            }
        };
        let dims = own_dims(parameter);
        let size = root_mean_square(scaled, &dims) / self.clipping_threshold;
        let mut step = scaled / size.maximum(size.full_like(1.0)) * context.learning_rate;
        if self.multiply_by_parameter_scale {
            let scale = root_mean_square(value, &dims);
            step = step * scale.maximum(scale.full_like(LEAST_PARAMETER_SCALE));
        }
        if self.weight_decay > 0.0 {
            step = step + value * self.weight_decay;
        }
        Updated {
            value: value - step,
            slots,
        }
    }

    fn clip_norm(&self) -> Option<f64> {
        self.clip_norm
    }

    fn continues(&self, other: &Self) -> bool {
        self.min_dim_size_to_factor == other.min_dim_size_to_factor
    }

    fn check(&self, problems: &mut Problems) {
        problems.positive(
            "optimizer.min_dim_size_to_factor",
            self.min_dim_size_to_factor,
        );
        problems.positive_number("optimizer.decay_rate", self.decay_rate);
        problems.positive_number("optimizer.clipping_threshold", self.clipping_threshold);
        problems.not_negative("optimizer.epsilon", self.epsilon);
        problems.not_negative("optimizer.weight_decay", self.weight_decay);
    }
}
