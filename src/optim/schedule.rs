//! The learning rate as a function of the step.

use ankh_hlo::{DType, Tensor};

use crate::config::{Schedule, ScheduleKind};

/// The learning rate of the step after `step` steps (float32), in a run of `steps`.
///
/// As optax joins its schedules in Hugging Face's T5 script: a line from 0 (at the first step) to the peak after
/// `warmup_steps`, then the rest of the run by `kind`.
pub fn learning_rate<'g>(schedule: &Schedule, steps: u64, step: Tensor<'g>) -> Tensor<'g> {
    debug_assert_eq!(step.dtype(), DType::F32);
    let peak = schedule.peak_learning_rate;
    let warmup = schedule.warmup_steps as f64;
    let left = steps.saturating_sub(schedule.warmup_steps).max(1) as f64;
    let done = ((step - warmup) * (1.0 / left)).minimum(step.like(1.0));
    let after = match schedule.kind {
        ScheduleKind::Linear => (1.0 - done) * peak,
        ScheduleKind::Constant => step.like(peak),
        ScheduleKind::Cosine => ((done * std::f64::consts::PI).cos() + 1.0) * (0.5 * peak),
    };
    if schedule.warmup_steps == 0 {
        return after;
    }
    step.less(step.like(warmup))
        .select(step * (peak / warmup), after)
}
