//! What long work shows of itself, and how it is asked to stop.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, Exit};
use crate::run_dir::{Request, Requests};
use crate::telemetry::print_line;

/// Listens for requests to stop, which the work looks at between batches. Until
/// [`Requests::begin`] there is nothing to lose, and a request ends the process at once.
pub(super) fn stop_requests() -> Result<Requests, CliError> {
    let requests = Requests::from_signals(Request::Stop, Exit::Stopped as u8, || {});
    let requests = requests.map_err(CliError::failed)?;
    requests.begin();
    Ok(requests)
}

/// Batches done: a bar on a terminal, a line now and then elsewhere.
pub(super) struct BatchProgress {
    unit: &'static str,
    bar: Option<ProgressBar>,
    started: Option<(usize, Instant)>,
    shown: Option<Instant>,
}

/// How often a line is printed where standard error is no terminal.
const LINES: Duration = Duration::from_secs(10);

impl BatchProgress {
    /// Of work that is counted in this unit.
    pub fn new(unit: &'static str) -> BatchProgress {
        BatchProgress {
            unit,
            bar: None,
            started: None,
            shown: None,
        }
    }

    /// Shows that `done` of `all` are done.
    pub fn show(&mut self, done: usize, all: usize) {
        let (first, start) = *self.started.get_or_insert_with(|| (done, Instant::now()));
        if stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let template = format!("{{bar:24}} {} {{pos}}/{{len}}  {{eta}} left", self.unit);
                let style = ProgressStyle::with_template(&template);
                let bar = ProgressBar::new(all as u64);
                bar.set_style(style.expect("the template is well formed"));
                bar
            });
            bar.set_position(done as u64);
            return;
        }
        let now = Instant::now();
        let is_due = self.shown.is_none_or(|shown| now - shown >= LINES);
        if !is_due || done >= all {
            return;
        }
        self.shown = Some(now);
        let left = match done.checked_sub(first) {
            None | Some(0) => String::new(),
            Some(since) => {
                let left = start.elapsed().mul_f64((all - done) as f64 / since as f64);
                format!(", {} s left", left.as_secs())
            }
        };
        print_line(&format!("{} {done}/{all}{left}", self.unit));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
