//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019) as `optax.adamw`.

use ankh_hlo::Tensor;

use super::{StepContext, Updated};
use crate::config::AdamW;

pub(super) fn update<'g>(
    rule: &AdamW,
    value: Tensor<'g>,
    gradient: Tensor<'g>,
    slots: &[Tensor<'g>],
    context: StepContext<'g>,
) -> Updated<'g> {
    let average = |old: Tensor<'g>, new: Tensor<'g>, decay: f64| old * decay + new * (1.0 - decay);
    let first = average(slots[0], gradient, rule.b1);
    let second = average(slots[1], gradient.square(), rule.b2);
    // Both start from zeros; dividing by what they have seen so far removes that.
    let unbiased = |moment: Tensor<'g>, decay: f64| {
        moment / (1.0 - context.step.full_like(decay).pow(context.step + 1.0))
    };
    let direction = unbiased(first, rule.b1) / (unbiased(second, rule.b2).sqrt() + rule.epsilon);
    let step = (direction + value * rule.weight_decay) * context.learning_rate;
    Updated {
        value: value - step,
        slots: vec![first, second],
    }
}
