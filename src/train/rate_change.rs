//! Checks that the learning rate continues smoothly when a run resumes with another configuration.
//!
//! A schedule stretches over the whole run, so more steps stretch it. A run that had reached the
//! end of its schedule then jumps back up: with a linear decay, a run of 300 steps that becomes one
//! of 400 continues at a quarter of its peak, some seventy times the rate of its last step. That
//! destroys what the last steps achieved. So a rate more than [`SUDDEN`] times the previous one is
//! refused unless `[schedule]` was changed, and the error lists the options. Smaller changes, and
//! those from a changed `[schedule]`, are logged.

use std::fmt;

use crate::config::Config;
use crate::optim::learning_rate_at;

/// How many times the rate may grow from one step to the next without being asked for.
const SUDDEN: f64 = 2.0;

/// Two schedules that give the next step these rates apart are the same one, computed differently.
const ROUNDING: f64 = 1e-9;

/// The learning rates around the step at which a run resumes, if they change there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateChange {
    /// The last step that was done.
    step: u64,
    /// Its rate.
    last: f64,
    /// The rate of the next step, had nothing been changed.
    expected: f64,
    /// The rate of the next step.
    next: f64,
}

impl RateChange {
    /// The change of the rate after `step`, if it differs from that of `before`.
    pub(super) fn of(before: &Config, now: &Config, step: u64) -> Option<RateChange> {
        let rate =
            |config: &Config, step| learning_rate_at(&config.schedule, config.train.steps, step);
        let (expected, next) = (rate(before, step), rate(now, step));
        let scale = before.schedule.peak_learning_rate;
        // A run that does nothing more has no next step.
        let goes_on = (1..now.train.steps).contains(&step);
        (goes_on && (next - expected).abs() > ROUNDING * scale).then(|| RateChange {
            step,
            last: rate(before, step - 1),
            expected,
            next,
        })
    }

    /// Whether the rate jumps up without anybody having asked for it.
    pub(super) fn is_sudden(&self, before: &Config, now: &Config) -> bool {
        before.schedule == now.schedule && self.next > SUDDEN * self.last.max(self.expected)
    }

    /// What can be meant, with what to type for it.
    pub(super) fn choices(&self, before: &Config, now: &Config) -> Vec<String> {
        let (step, schedule) = (self.step, &now.schedule);
        let horizon = before.schedule.horizon(before.train.steps);
        let steps = now.schedule.horizon(now.train.steps);
        let mut choices = Vec::new();
        if horizon > step {
            choices.push(format!(
                "--set schedule.steps={horizon} keeps the old schedule, which ends at step {horizon}"
            ));
        }
        let left = steps.saturating_sub(step);
        // As long as it was, where it leaves room to come down again.
        let warmup = match schedule.warmup_steps < left {
            true => String::new(),
            false => format!(" --set schedule.warmup_steps={}", left / 10),
        };
        choices.push(format!(
            "--set schedule.start_step={step}{warmup} warms up anew from here, to {:.2e} and down to 0 at step {steps}",
            schedule.peak_learning_rate
        ));
        if self.last > 0.0 {
            let warm = match step < schedule.start_step + schedule.warmup_steps {
                true => " --set schedule.warmup_steps=0",
                false => "",
            };
            choices.push(format!(
                "--set schedule.kind=constant --set schedule.peak_learning_rate={:.2e}{warm} stays at the rate of the last step",
                self.last
            ));
        }
        choices.push(format!(
            "--set schedule.steps={steps} stretches the schedule over all {steps} steps, and takes the jump to {:.2e}",
            self.next
        ));
        choices
    }
}

impl fmt::Display for RateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateChange {
            step,
            last,
            expected,
            next,
        } = self;
        write!(
            f,
            "the learning rate of step {} is {next:.2e}: that of step {step} was {last:.2e}, and would now be {expected:.2e} by the schedule the run had",
            step + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Schedule, ScheduleKind, resolve_over};

    fn config(steps: u64, schedule: Schedule) -> Config {
        let mut config = Config::default();
        config.train.steps = steps;
        config.schedule = schedule;
        config
    }

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule {
            peak_learning_rate: 2e-2,
            warmup_steps: 20,
            kind,
            ..Schedule::default()
        }
    }

    #[test]
    fn a_finished_run_is_not_thrown_back_up_unasked() {
        for kind in [ScheduleKind::Linear, ScheduleKind::Cosine] {
            let (before, now) = (config(300, schedule(kind)), config(400, schedule(kind)));
            let change = RateChange::of(&before, &now, 300).unwrap();
            assert!(change.is_sudden(&before, &now), "{change}");
            assert!(change.next > 10.0 * change.last, "{change}");
        }
        // What has no end has no jump.
        let constant = |steps| config(steps, schedule(ScheduleKind::Constant));
        assert_eq!(RateChange::of(&constant(300), &constant(400), 300), None);
    }

    #[test]
    fn what_changes_nothing_is_not_spoken_of() {
        let linear = || schedule(ScheduleKind::Linear);
        let run = config(300, linear());
        for step in [0, 1, 10, 150, 299, 300, 301] {
            assert_eq!(RateChange::of(&run, &run, step), None, "step {step}");
            // Nor is the schedule of a run that has no step left.
            assert_eq!(
                RateChange::of(&run, &config(step.min(200), linear()), step),
                None
            );
        }
        // In the warm-up, the length of the run does not matter.
        assert_eq!(RateChange::of(&run, &config(3000, linear()), 10), None);
    }

    #[test]
    fn less_and_what_was_asked_for_goes_on() {
        let linear = || schedule(ScheduleKind::Linear);
        let run = config(300, linear());
        for (steps, step) in [(600, 100), (200, 100), (301, 150)] {
            let now = config(steps, linear());
            let change = RateChange::of(&run, &now, step).unwrap();
            assert!(!change.is_sudden(&run, &now), "{change}");
        }
        let hotter = Schedule {
            peak_learning_rate: 2e-1,
            ..linear()
        };
        let now = config(300, hotter);
        let change = RateChange::of(&run, &now, 150).unwrap();
        assert!(!change.is_sudden(&run, &now), "{change}");
    }

    #[test]
    fn each_choice_can_be_typed_and_does_what_it_says() {
        for kind in [ScheduleKind::Linear, ScheduleKind::Cosine] {
            for (before, steps, step) in [(300, 400, 300), (300, 4000, 299), (300, 310, 300)] {
                let before = config(before, schedule(kind));
                let now = config(steps, schedule(kind));
                let change = RateChange::of(&before, &now, step).unwrap();
                let choices = change.choices(&before, &now);
                let keeps = choices.iter().any(|choice| choice.contains("keeps"));
                assert_eq!(keeps, step < 300, "{choices:?}");
                for choice in &choices {
                    let words: Vec<&str> = choice.split(' ').collect();
                    let set = words.chunks(2).take_while(|pair| pair[0] == "--set");
                    let set: Vec<String> = set.map(|pair| pair[1].to_owned()).collect();
                    assert!(!set.is_empty(), "{choice}");
                    let chosen = resolve_over(now.clone(), &set).unwrap();
                    chosen.validate().unwrap();
                    let after = RateChange::of(&before, &chosen, step);
                    assert!(after.is_none_or(|change| !change.is_sudden(&before, &chosen)));
                    let next = after.map_or(change.expected, |change| change.next);
                    let right = match choice {
                        keeps if keeps.contains("keeps") => next == change.expected,
                        stays if stays.contains("stays") => (next / change.last - 1.0).abs() < 0.01,
                        anew if anew.contains("anew") => {
                            let end = learning_rate_at(&chosen.schedule, steps, steps);
                            next <= change.last.max(change.next) && end < 1e-12
                        }
                        jump => jump.contains("takes the jump") && next == change.next,
                    };
                    assert!(right, "{choice}: {next}");
                    // Chosen once, it stays chosen.
                    assert_eq!(RateChange::of(&chosen, &chosen, step), None);
                }
            }
        }
    }
}
