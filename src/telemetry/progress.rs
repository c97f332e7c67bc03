//! The progress line on the terminal; one line per logged step where standard error is not a
//! terminal.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::Metrics;
use super::log::{TERMINAL, print_line};

/// How training goes.
pub struct StepProgress {
    steps: u64,
    bar: Option<ProgressBar>,
}

impl StepProgress {
    /// Shows progress from `done` of `steps`.
    pub fn start(done: u64, steps: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = TERMINAL.add(ProgressBar::new(steps).with_position(done));
            let style = ProgressStyle::with_template("{bar:24} step {pos}/{len}  {wide_msg}");
            bar.set_style(style.expect("the template is well formed"));
            bar
        });
        Self { steps, bar }
    }

    /// Shows a line of metrics.
    pub fn show(&self, metrics: &Metrics) {
        let line = self.line(metrics);
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(line);
                if metrics.validation.is_some() {
                    print_line(&format!(
                        "step {}/{}  {}",
                        metrics.step,
                        self.steps,
                        self.line(metrics)
                    ));
                }
            }
            None => print_line(&format!("step {}/{}  {line}", metrics.step, self.steps)),
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, metrics: &Metrics) -> String {
        let left = self.steps.saturating_sub(metrics.step) as f64 * metrics.rates.step_seconds;
        let left = Duration::try_from_secs_f64(left.round()).unwrap_or(Duration::MAX);
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
            line += &format!("  {} left", HumanDuration(left));
        }
        line
    }
}
