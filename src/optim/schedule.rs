//! The learning rate as a function of the step.

use ankh_hlo::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The learning rate: a linear warm-up from 0 to the peak, then `kind` until the last step. A
/// resumed run can be given another length, or a schedule of its own that begins where it is.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The rate at the end of the warm-up.
    pub peak_learning_rate: f64,
    /// Steps from 0 to the peak.
    pub warmup_steps: u64,
    /// What follows the warm-up.
    pub kind: ScheduleKind,
    /// The step that the warm-up begins at: 0, unless a run is warmed up again.
    pub start_step: u64,
    /// The step at which the rate reaches 0; `train.steps` where none is given.
    pub steps: Option<u64>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            peak_learning_rate: 4e-3,
            warmup_steps: 10_000,
            kind: ScheduleKind::Linear,
            start_step: 0,
            steps: None,
        }
    }
}

impl Schedule {
    /// The step at which the rate reaches 0, in a run of `steps`.
    pub fn horizon(&self, steps: u64) -> u64 {
        self.steps.unwrap_or(steps)
    }

    /// The steps from the end of the warm-up to the horizon, in a run of `steps`; 0 where the rate
    /// never leaves the warm-up.
    pub fn decay_steps(&self, steps: u64) -> u64 {
        let warm = self.start_step.saturating_add(self.warmup_steps);
        self.horizon(steps).saturating_sub(warm)
    }
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// A straight line to 0 at `schedule.steps`: Ankh.
    Linear,
    /// The peak, kept.
    Constant,
    /// Half a cosine to 0 at `schedule.steps`.
    Cosine,
}

/// The learning rate of the step after `step` steps (float32), in a run of `steps`.
///
/// As optax joins its schedules in Hugging Face's T5 script: a line from 0 (at the first step) to
/// the peak after `warmup_steps`, then the rest of the run by `kind`. A schedule that begins later
/// counts from there.
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

/// [`learning_rate`] as a number, outside a program.
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
