//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019) as `optax.adamw`.

use ankh_hlo::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Slot, StepContext, UpdateRule, Updated};
use crate::model::Parameter;
use crate::validation::Problems;

/// `optax.adamw`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the first moment.
    pub b1: f64,
    /// Decay of the second moment.
    pub b2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of a weight removed each step, times the learning rate.
    pub weight_decay: f64,
    /// Bound on the norm of all gradients together; unset, they are used as they are.
    pub clip_norm: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            b1: 0.9,
            b2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            clip_norm: None,
        }
    }
}

impl UpdateRule for AdamW {
    fn slots(&self, parameter: &Parameter) -> Vec<Slot> {
        vec![Slot::like("m", parameter), Slot::like("v", parameter)]
    }

    fn update<'g>(
        &self,
        _: &Parameter,
        value: Tensor<'g>,
        gradient: Tensor<'g>,
        slots: &[Tensor<'g>],
        context: StepContext<'g>,
    ) -> Updated<'g> {
        let average =
            |old: Tensor<'g>, new: Tensor<'g>, decay: f64| old * decay + new * (1.0 - decay);
        let first = average(slots[0], gradient, self.b1);
        let second = average(slots[1], gradient.square(), self.b2);
        // Both start from zeros; dividing by what they have seen so far removes that.
        let unbiased = |moment: Tensor<'g>, decay: f64| {
            moment / (1.0 - context.step.full_like(decay).pow(context.step + 1.0))
        };
        let direction =
            unbiased(first, self.b1) / (unbiased(second, self.b2).sqrt() + self.epsilon);
        let step = (direction + value * self.weight_decay) * context.learning_rate;
        Updated {
            value: value - step,
            slots: vec![first, second],
        }
    }

    fn clip_norm(&self) -> Option<f64> {
        self.clip_norm
    }

    fn continues(&self, _: &Self) -> bool {
        true
    }

    fn check(&self, problems: &mut Problems) {
        problems.share("optimizer.b1", self.b1);
        problems.share("optimizer.b2", self.b2);
        problems.positive_number("optimizer.epsilon", self.epsilon);
        problems.not_negative("optimizer.weight_decay", self.weight_decay);
    }
}
