//! Progress of `prepare` on standard error: a bar on a terminal, otherwise a line from time to
//! time.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use ankh_data::ProgressUpdate;
use ankh_data::prepare::Pass;
use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::output::count;

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

pub(super) struct Bar {
    bar: ProgressBar,
    terminal: bool,
    /// When the pass began, and when a line was last written.
    began: Cell<(Pass, Instant)>,
    told: Cell<Instant>,
}

impl Bar {
    pub(super) fn new() -> Bar {
        let bar = ProgressBar::new(0);
        let style = "{bar:24} {binary_bytes}/{binary_total_bytes}  {msg}  {binary_bytes_per_sec}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
        let now = Instant::now();
        Bar {
            bar,
            terminal: stderr().is_terminal(),
            began: Cell::new((Pass::Write, now)),
            told: Cell::new(now),
        }
    }

    pub(super) fn show(&self, progress: &ProgressUpdate<'_>) {
        let now = Instant::now();
        if self.began.get().0 != progress.pass {
            self.began.set((progress.pass, now));
            self.bar.reset();
        }
        let message = match progress.pass {
            Pass::CompareIds => format!("{} records of one id", count(progress.records)),
            Pass::FindDuplicates => {
                format!(
                    "{} records searched for duplicates",
                    count(progress.records)
                )
            }
            Pass::Write => format!("{} sequences", count(progress.rows)),
        };
        if self.terminal {
            self.bar.set_length(progress.total_bytes);
            self.bar.set_position(progress.bytes);
            self.bar.set_message(message);
        } else if now - self.told.get() >= EVERY {
            self.told.set(now);
            let seconds = (now - self.began.get().1).as_secs_f64();
            let rate = progress.bytes as f64 / seconds.max(1e-9);
            let left = (progress.total_bytes - progress.bytes) as f64 / rate.max(1.0);
            eprintln!(
                "{} of {}, {message}, {}/s, {} left",
                BinaryBytes(progress.bytes),
                BinaryBytes(progress.total_bytes),
                BinaryBytes(rate as u64),
                HumanDuration(Duration::from_secs_f64(left)),
            );
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
