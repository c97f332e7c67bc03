//! The progress line on the terminal; one line per logged step where standard error is not a
//! terminal.

use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use tracing::Level;

use super::Metrics;
use super::log::{LogFormat, TERMINAL, print_line, print_with};

/// How training goes.
pub struct StepProgress {
    steps: u64,
    bar: Option<ProgressBar>,
    pace: RecentPace,
}

/// When the last steps were shown, the newest last. The time left is told by all of them: by one,
/// a single slow step or an evaluation would count for all that are left, or for none.
struct RecentPace(VecDeque<(u64, Instant)>);

/// Lines by which the pace is told.
const RECENT: usize = 20;

impl StepProgress {
    /// Shows progress from `done` of `steps`.
    pub fn start(done: u64, steps: u64) -> Self {
        let draws = stderr().is_terminal() && LogFormat::chosen() == LogFormat::Text;
        let bar = draws.then(|| {
            let bar = TERMINAL.add(ProgressBar::new(steps).with_position(done));
            let style = ProgressStyle::with_template("{bar:24} step {pos}/{len}  {wide_msg}");
            bar.set_style(style.expect("the template is well formed"));
            bar
        });
        Self {
            steps,
            bar,
            pace: RecentPace(VecDeque::new()),
        }
    }

    /// Training begins or goes on now, with the steps after `step`.
    pub fn begin(&mut self, step: u64) {
        self.pace = RecentPace([(step, Instant::now())].into());
    }

    /// Shows a line of metrics.
    pub fn show(&mut self, metrics: &Metrics) {
        self.pace.push(metrics.step, Instant::now());
        let line = self.line(metrics);
        let whole = format!("step {}/{}  {line}", metrics.step, self.steps);
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(line);
                if metrics.validation.is_some() {
                    print_line(&whole);
                }
            }
            None => print_with(Level::INFO, &whole, numbers(metrics)),
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, metrics: &Metrics) -> String {
        let (numbers, rates) = (&metrics.numbers, &metrics.rates);
        let mut line = format!(
            "loss {:.4}  accuracy {:.3}  rate {:.2e}  {:.0} tokens/s",
            numbers.loss, numbers.accuracy, numbers.learning_rate, rates.tokens_per_second
        );
        if let Some(mfu) = rates.mfu {
            line += &format!("  mfu {:.1} %", 100.0 * mfu);
        }
        if let Some(validation) = &metrics.validation {
            line += &format!(
                "  held out: loss {:.4}, accuracy {:.3}",
                validation.validation_loss, validation.validation_accuracy
            );
        }
        if metrics.step < self.steps {
            let left = self.pace.time_for(self.steps - metrics.step);
            line += &format!("  {} left", HumanDuration(left));
        }
        line
    }
}

impl RecentPace {
    fn push(&mut self, step: u64, now: Instant) {
        self.0.push_back((step, now));
        if self.0.len() > RECENT {
            self.0.pop_front();
        }
    }

    /// How long so many steps take, evaluations and saves between them included.
    fn time_for(&self, steps: u64) -> Duration {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return Duration::ZERO;
        };
        let seen = last.0.saturating_sub(first.0).max(1) as f64;
        let each = (last.1 - first.1).as_secs_f64() / seen;
        let all = (each * steps as f64).round();
        Duration::try_from_secs_f64(all).unwrap_or(Duration::MAX)
    }
}

/// The fields of a line.
fn numbers(metrics: &Metrics) -> Map<String, Value> {
    match serde_json::to_value(metrics) {
        Ok(Value::Object(fields)) => fields,
        // A struct with named fields is an object.
        other => unreachable!("metrics serialise to an object: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_does_not_follow_one_slow_step() {
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = RecentPace(VecDeque::new());
        // A resumed run: the pace is that of its own steps.
        pace.push(1000, began);
        let mut now = began;
        for step in 1001..1100 {
            now += second;
            pace.push(step, now);
        }
        assert_eq!(pace.time_for(50), 50 * second);
        // One step of 20 takes twenty times as long.
        now += 20 * second;
        pace.push(1100, now);
        let left = pace.time_for(100);
        assert!((199 * second..201 * second).contains(&left), "{left:?}");
        // It is forgotten again.
        for step in 1101..1121 {
            now += second;
            pace.push(step, now);
        }
        assert_eq!(pace.time_for(50), 50 * second);
        assert_eq!(RecentPace(VecDeque::new()).time_for(5), Duration::ZERO);
    }
}
