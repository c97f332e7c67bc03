//! What is shown of making variants: progress on standard error, figures on standard output.

use crate::cli::output::count;
use crate::cli::progress::WorkProgress;
use crate::telemetry::print_line;
use crate::variants::{EntropyError, Range, Report, Stage};

/// Progress on standard error.
pub(super) struct Shown {
    bar: Option<(f32, WorkProgress)>,
}

impl Shown {
    pub fn new() -> Shown {
        Shown { bar: None }
    }

    pub fn show(&mut self, stage: Stage) {
        match stage {
            Stage::FineTuning => print_line("fine-tuning the decoder on the family"),
            Stage::Measuring => self.finish(),
            Stage::Generating {
                temperature,
                done,
                all,
            } => {
                if self
                    .bar
                    .as_ref()
                    .is_none_or(|(last, _)| *last != temperature)
                {
                    self.finish();
                    print_line(&format!("generating at temperature {temperature:?}"));
                    self.bar = Some((temperature, WorkProgress::new("batches")));
                }
                if let Some((_, bar)) = &mut self.bar {
                    bar.show(done as u64, all as u64);
                }
            }
        }
    }

    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish();
        }
    }
}

/// The figures of a report.
pub(super) fn in_words(report: &Report) -> String {
    let share = |value: f64| format!("{:.1} %", 100.0 * value);
    let mean = |range: Option<Range>| range.map_or("-".to_owned(), |range| share(range.mean));
    let error = |error: Option<EntropyError>| {
        let error = error.and_then(|error| error.mean_squared_error);
        error.map_or("-".to_owned(), |error| format!("{error:.3}"))
    };
    let mut lines = vec![format!(
        "{:<22}{:>10}{:>10}{:>11}{:>10}{:>10}{:>14}",
        "setting", "sequences", "distinct", "wild type", "generated", "nearest", "entropy error"
    )];
    for setting in &report.settings {
        let mask = setting.mask.map(|mask| format!("mask {mask}, "));
        let name = format!(
            "{}temperature {:?}",
            mask.unwrap_or_default(),
            setting.temperature
        );
        lines.push(format!(
            "{name:<22}{:>10}{:>10}{:>11}{:>10}{:>10}{:>14}",
            count(setting.sequences as u64),
            share(setting.unique_share),
            mean(setting.identity_to_wild_type),
            mean(setting.identity_where_generated),
            mean(setting.identity_to_nearest),
            error(setting.entropy_error)
        ));
    }
    lines.join("\n")
}
