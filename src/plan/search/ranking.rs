//! The result of a search, best first.

use std::fmt;
use std::time::Duration;

use indicatif::HumanDuration;
use serde::Serialize;

use super::{Measured, Outcome, Progress, Trial};
use crate::config::{Config, Layout};
use crate::mesh::slice::Slice;
use crate::named_variants::serialized_name;
use crate::plan::compile::CompileError;

/// The choices that were tried, best first; those that failed last.
#[derive(Clone, Debug, Serialize)]
pub struct Ranking {
    /// The slice.
    pub slice: String,
    /// Its chips.
    pub chips: usize,
    /// Rows of a batch.
    pub rows: usize,
    /// The steps of the run.
    pub steps: u64,
    /// What the configuration had chosen.
    pub own: Layout,
    /// The choices.
    pub tried: Vec<Trial>,
    /// Choices left out because they cannot fit.
    pub pruned: usize,
    /// Choices not tried, because they seemed worse or for want of time.
    pub left: usize,
    /// The time it took.
    pub search_seconds: f64,
}

impl Ranking {
    pub(super) fn of(
        slice: Slice,
        config: &Config,
        own: Layout,
        mut tried: Vec<Trial>,
        pruned: usize,
        left: usize,
        took: Duration,
    ) -> Ranking {
        let seconds = |tried: &Trial| {
            tried
                .outcome
                .measured()
                .map_or(f64::INFINITY, |m| m.seconds)
        };
        tried.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        Ranking {
            slice: slice.to_string(),
            chips: slice.chips(),
            rows: config.batch_rows(),
            steps: config.train.steps,
            own,
            tried,
            pruned,
            left,
            search_seconds: took.as_secs_f64(),
        }
    }

    /// The best one, if any could be compiled.
    pub fn best(&self) -> Option<&Trial> {
        self.tried
            .first()
            .filter(|t| t.outcome.measured().is_some())
    }

    /// The chip-hours of the whole run, if nothing that is sent is hidden.
    fn chip_hours(&self, measured: &Measured) -> f64 {
        measured.seconds * (self.chips as u64 * self.steps) as f64 / 3600.0
    }

    /// Whether every choice needs more memory than there is.
    pub fn nothing_fits(&self) -> bool {
        let exhausted = |tried: &Trial| {
            matches!(
                tried.outcome,
                Outcome::Failed(CompileError::Exhausted { .. })
            )
        };
        self.left == 0 && self.tried.iter().all(exhausted)
    }

    /// How many times faster the best one is than the user's own.
    pub fn gain(&self) -> Option<f64> {
        let own = self.tried.iter().find(|tried| tried.choice == self.own)?;
        let best = self.best()?.outcome.measured()?;
        Some(own.outcome.measured()?.seconds / best.seconds)
    }
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "      step s   cycles M   sent s    MFU   memory GiB  chip-hours  fsdp  model  zero  gradients  remat        gradient accumulation"
        )?;
        for (place, tried) in self.tried.iter().enumerate() {
            let choice = &tried.choice;
            let figures = match &tried.outcome {
                Outcome::Compiled(m) => {
                    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "-".into());
                    format!(
                        "{:>8.3}  {:>9}  {:>7}  {:>5}  {:>11.1}  {:>10.0}",
                        m.seconds,
                        or_unknown(m.cycles.map(|c| format!("{:.1}", c as f64 / 1e6))),
                        or_unknown(m.communication_seconds.map(|s| format!("{s:.3}"))),
                        or_unknown(m.mfu.map(|mfu| format!("{:.1}%", 100.0 * mfu))),
                        m.peak as f64 / (1u64 << 30) as f64,
                        self.chip_hours(m)
                    )
                }
                Outcome::Failed(error) => format!("{:>60}", failure(error)),
            };
            let own = if *choice == self.own {
                "  (as configured)"
            } else {
                ""
            };
            let zero = if choice.zero { "yes" } else { "no" };
            let remat = serialized_name(&choice.remat);
            let gradients = serialized_name(&choice.gradients);
            writeln!(
                f,
                "{:>3} {figures}  {:>4}  {:>5}  {zero:>4}  {gradients:9}  {remat:11}  {}{own}",
                place + 1,
                choice.fsdp,
                choice.model,
                choice.gradient_accumulation
            )?;
        }
        write!(
            f,
            "{} tried in {:.0} s; {} cannot fit, {} others seemed worse or were left for want of time",
            self.tried.len(),
            self.search_seconds,
            self.pruned,
            self.left
        )?;
        match self.gain() {
            Some(gain) if gain > 1.0 => write!(
                f,
                "\nthe first takes {:.1} % less time than the configured one",
                100.0 * (1.0 - 1.0 / gain)
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of at most {}: {}", self.done + 1, self.of, self.now)?;
        if let Some(best) = self.best {
            write!(f, "; best so far {best:.3} s a step")?;
        }
        write!(f, "; {} left at most", HumanDuration(self.left))
    }
}

fn failure(error: &CompileError) -> String {
    match error {
        CompileError::Exhausted { .. } => "does not fit".into(),
        CompileError::Died { how, .. } => format!("the compiler ended with {how}"),
        CompileError::TimedOut { .. } => "not done in time".into(),
        other => other.to_string().chars().take(46).collect(),
    }
}
