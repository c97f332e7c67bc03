//! Progress of long work on standard error, and requests to stop it.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::output::count;
use super::{CliError, Exit};
use crate::run_dir::{Request, Requests};
use crate::telemetry::print_line;

/// Listens for requests to stop. Until [`Requests::begin`] there is nothing to lose, and a request
/// ends the process at once; from then on the work looks at them between batches.
pub(super) fn stop_requests() -> Result<Requests, CliError> {
    let requests = Requests::from_signals(Request::Stop, Exit::Stopped as u8, || {});
    requests.map_err(CliError::failed)
}

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

/// How far work is that consists of so many equal parts.
pub(super) struct WorkProgress {
    what: &'static str,
    bar: Option<ProgressBar>,
    /// When this process began, and what was done then.
    began: Option<(Instant, u64)>,
    told: Instant,
}

impl WorkProgress {
    /// Of parts that are called `what`.
    pub(super) fn new(what: &'static str) -> WorkProgress {
        let bar = stderr().is_terminal().then(|| {
            let style = format!("{{bar:24}} {{human_pos}}/{{human_len}} {what}  {{eta}} left");
            let style = ProgressStyle::with_template(&style);
            ProgressBar::new(0).with_style(style.expect("the template is well formed"))
        });
        WorkProgress {
            what,
            bar,
            began: None,
            told: Instant::now(),
        }
    }

    /// Shows that so many of all parts are done.
    pub(super) fn show(&mut self, done: u64, total: u64) {
        let (began, before) = *self.began.get_or_insert((Instant::now(), done));
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            if done == before {
                // Parts of an earlier process were not done at this one's pace.
                bar.reset_eta();
            }
            bar.set_position(done);
        } else if self.told.elapsed() >= EVERY && done > before {
            self.told = Instant::now();
            let each = began.elapsed().as_secs_f64() / (done - before) as f64;
            let left = Duration::from_secs_f64(each * total.saturating_sub(done) as f64);
            print_line(&format!(
                "{} of {} {}, {} left",
                count(done),
                count(total),
                self.what,
                HumanDuration(left)
            ));
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
