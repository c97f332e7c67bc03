//! The learning rate as a function of the step.

use ankh_hlo::{DType, Tensor};

use crate::config::{Schedule, ScheduleKind};

/// The learning rate of the step after `step` steps (float32), in a run of `steps`.
///
/// As optax joins its schedules in Hugging Face's T5 script: a line from 0 (at the first step) to the peak after
/// `warmup_steps`, then the rest of the run by `kind`. A schedule that begins later counts from there.
pub fn learning_rate<'g>(schedule: &Schedule, steps: u64, step: Tensor<'g>) -> Tensor<'g> {
    debug_assert_eq!(step.dtype(), DType::F32);
    let step = match schedule.start_step {
        0 => step,
        start => (step - start as f64).maximum(step.full_like(0.0)),
    };
    let peak = schedule.peak_learning_rate;
    let warmup = schedule.warmup_steps as f64;
    let left = schedule.decay_steps(steps).max(1) as f64;
    let done = ((step - warmup) * (1.0 / left)).minimum(step.full_like(1.0));
    let after = match schedule.kind {
        ScheduleKind::Linear => (1.0 - done) * peak,
        ScheduleKind::Constant => step.full_like(peak),
        ScheduleKind::Cosine => ((done * std::f64::consts::PI).cos() + 1.0) * (0.5 * peak),
    };
    if schedule.warmup_steps == 0 {
        return after;
    }
    step.less(step.full_like(warmup))
        .select(step * (peak / warmup), after)
}

/// [`learning_rate`] as a number, for who asks before there is a program.
pub fn learning_rate_at(schedule: &Schedule, steps: u64, step: u64) -> f64 {
    let step = step.saturating_sub(schedule.start_step) as f64;
    let peak = schedule.peak_learning_rate;
    let warmup = schedule.warmup_steps as f64;
    if step < warmup {
        return peak * step / warmup;
    }
    let left = schedule.decay_steps(steps).max(1) as f64;
    let done = ((step - warmup) / left).min(1.0);
    match schedule.kind {
        ScheduleKind::Linear => peak * (1.0 - done),
        ScheduleKind::Constant => peak,
        ScheduleKind::Cosine => peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
    }
}
