//! Searches for the fastest way to run a step on a slice: layouts (mesh, optimizer sharding, type
//! of gradients, remat policy and gradient accumulation) are compiled, the most promising first,
//! until none of the rest can win.
//!
//! Compiling a large step takes about a minute, so few are compiled. Choices that cannot fit are
//! left out. The others are ordered by a cheap prediction, which each result corrects for similar
//! choices. A choice that differs from all tried ones may be better than predicted, by an allowance
//! that grows with the differences; the search ends when even with it no choice beats the best.

mod cache;
mod choice;
mod predict;
mod ranking;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::compile::{CompileError, Compiler, Executable, Job};
use super::{LoweredStep, Plan, PlanError};
use crate::config::{Config, GradientType, Layout};
use crate::mesh::slice::Slice;

pub use cache::Cache;
pub use ranking::Ranking;

use cache::Key;
use predict::{Prediction, Predictor};

/// A search for one run on one slice.
pub struct Search<'a> {
    /// The run.
    pub config: &'a Config,
    /// What it is to run on.
    pub slice: Slice,
    /// What compiles.
    pub compiler: Compiler,
    /// Where answers are kept.
    pub cache: Option<Cache>,
    /// The most compilations.
    pub limit: usize,
    /// The longest time; a compilation that is under way then is stopped.
    pub time: Duration,
}

/// What came of a choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was compiled.
    Compiled(Measured),
    /// It was not.
    Failed(CompileError),
}

/// What a compiler reports about a choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Cycles of a step, where the compiler estimates them.
    pub cycles: Option<u64>,
    /// Seconds of a step: its cycles, and what chips send if none of it is hidden. Our own
    /// prediction without cycles.
    pub seconds: f64,
    /// What chips send, in seconds.
    pub communication_seconds: Option<f64>,
    /// Model FLOPs utilization by the compiler's cycles.
    pub mfu: Option<f64>,
    /// The most memory of a chip held at once.
    pub peak: u64,
}

impl Outcome {
    /// Whether another compilation would come to the same.
    fn is_lasting(&self) -> bool {
        match self {
            Outcome::Compiled(_) => true,
            Outcome::Failed(error) => matches!(
                error,
                CompileError::Exhausted { .. } | CompileError::Refused { .. }
            ),
        }
    }

    /// What the compiler reports, if it compiled.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Outcome::Compiled(measured) => Some(measured),
            Outcome::Failed(_) => None,
        }
    }
}

/// A choice that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The choice.
    pub choice: Layout,
    /// What it was thought to take, in seconds.
    pub predicted_seconds: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// How a search goes, for whoever watches.
#[derive(Clone, Debug)]
pub struct Progress<'p> {
    /// Choices answered.
    pub done: usize,
    /// Choices that may be answered, at most.
    pub of: usize,
    /// The choice that is compiled now.
    pub now: &'p Layout,
    /// The best so far.
    pub best: Option<f64>,
    /// The longest the rest will take.
    pub left: Duration,
}

/// A choice with what is thought of it.
struct Candidate {
    choice: Layout,
    prediction: Prediction,
}

/// How much better than predicted a choice may be for each point in which it differs from all that
/// were tried.
const DOUBT: f64 = 0.97;

impl Search<'_> {
    /// Searches, and shows `watch` each choice before it is compiled.
    pub fn run(&self, mut watch: impl FnMut(Progress<'_>)) -> Result<Ranking, SearchError> {
        let start = Instant::now();
        let plugin = self.compiler.plugin(self.slice)?;
        let predictor = Predictor::new(self.config, self.slice).map_err(PlanError::from)?;
        let own = Layout::of(self.config);
        let considered = choice::all(self.config, self.slice);
        if considered.is_empty() {
            // What stands in the way of the configured one stands in the way of all.
            LoweredStep::new(self.config, self.slice)?;
        }
        let mut candidates = self.fitting(&predictor, &considered);
        let pruned = considered.len() - candidates.len();
        let mut tried: Vec<Trial> = Vec::new();
        let mut compiled = 0;
        while compiled < self.limit && start.elapsed() < self.time {
            let Some(next) = next(&candidates, &tried, &own) else {
                break;
            };
            let candidate = candidates.remove(next);
            watch(Progress {
                done: tried.len(),
                of: tried.len() + (candidates.len() + 1).min(self.limit - compiled),
                now: &candidate.choice,
                best: best(&tried).map(|(_, seconds)| seconds),
                left: self.time_left(start, compiled, candidates.len() + 1),
            });
            let left = self.time.saturating_sub(start.elapsed());
            let (outcome, source) = self.answer(&candidate, &plugin, left)?;
            compiled += usize::from(source == Source::Compiler);
            if let Outcome::Failed(CompileError::Exhausted { .. }) = &outcome {
                let choice = candidate.choice;
                candidates.retain(|other| !needs_as_much(&other.choice, &choice));
            }
            tried.push(Trial {
                choice: candidate.choice,
                predicted_seconds: candidate.prediction.seconds,
                outcome,
            });
        }
        let left = candidates.len();
        Ok(Ranking::of(
            self.slice,
            self.config,
            own,
            tried,
            pruned,
            left,
            start.elapsed(),
        ))
    }

    /// The choices that may fit; the user's own among them, so that there is something to compare
    /// with.
    fn fitting(&self, predictor: &Predictor<'_>, considered: &[Layout]) -> Vec<Candidate> {
        let fits = |prediction: &Prediction| {
            let memory = predictor.memory();
            memory.is_none_or(|memory| prediction.least_memory <= memory)
        };
        let candidates = considered.iter().filter_map(|choice| {
            let prediction = predictor.predict(choice)?;
            fits(&prediction).then_some(Candidate {
                choice: *choice,
                prediction,
            })
        });
        candidates.collect()
    }

    /// The outcome of a choice: from the cache, or from the compiler.
    fn answer(
        &self,
        candidate: &Candidate,
        plugin: &str,
        left: Duration,
    ) -> Result<(Outcome, Source), SearchError> {
        let config = candidate.choice.apply(self.config);
        let lowered = LoweredStep::new(&config, self.slice)?;
        let key = Key::of(&lowered, plugin);
        if let Some(outcome) = self.cache.as_ref().and_then(|cache| cache.get(&key)) {
            return Ok((outcome, Source::Cache));
        }
        let compiler = self.compiler.clone().with_limit(left);
        let compilation = compiler.compile(Job {
            config: &config,
            slice: self.slice,
            executable: Executable::Unwanted,
        });
        let outcome = match compilation {
            Ok(compilation) => {
                let plan = lowered.plan(&compilation);
                Outcome::Compiled(Measured::of(&plan, candidate.prediction.seconds))
            }
            // None would be better.
            Err(error @ (CompileError::NoPlugin { .. } | CompileError::Process { .. })) => {
                return Err(error.into());
            }
            Err(error) => Outcome::Failed(error),
        };
        if let Some(cache) = &self.cache {
            cache.put(&key, &outcome);
        }
        Ok((outcome, Source::Compiler))
    }

    fn time_left(&self, start: Instant, compiled: usize, candidates: usize) -> Duration {
        let left = self.time.saturating_sub(start.elapsed());
        if compiled == 0 {
            return left;
        }
        let each = start.elapsed() / compiled as u32;
        left.min(each * candidates.min(self.limit - compiled) as u32)
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Cache,
    Compiler,
}

/// What can end a search.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A step cannot be built.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no compiler.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Measured {
    fn of(plan: &Plan, predicted: f64) -> Measured {
        let estimate = plan.estimate.as_ref();
        Measured {
            cycles: estimate.map(|e| e.cycles),
            seconds: estimate.map_or(predicted, |e| e.step_seconds_without_overlap()),
            communication_seconds: estimate.map(|e| e.communication_seconds),
            mfu: estimate.map(|e| e.mfu),
            peak: plan.memory.peak,
        }
    }
}

/// The candidate to compile next: the user's own first, then the one that may be best. `None` where
/// none may be better than the best so far.
fn next(candidates: &[Candidate], tried: &[Trial], own: &Layout) -> Option<usize> {
    if let Some(first) = candidates.iter().position(|c| c.choice == *own) {
        return Some(first);
    }
    let hopes = candidates.iter().map(|candidate| hope(candidate, tried));
    // The first of equals: plainer choices stand before others.
    let (next, hope) = hopes
        .enumerate()
        .reduce(|best, other| if other.1 < best.1 { other } else { best })?;
    match best(tried) {
        Some((_, best)) if hope >= best => None,
        _ => Some(next),
    }
}

/// The least seconds that a choice may take: as predicted, as far off as the prediction of the most
/// similar choice tried, and less for each difference.
fn hope(candidate: &Candidate, tried: &[Trial]) -> f64 {
    let compiled = tried
        .iter()
        .filter_map(|tried| Some((tried, tried.outcome.measured()?)));
    let nearest =
        compiled.min_by_key(|(tried, _)| choice::distance(&tried.choice, &candidate.choice));
    match nearest {
        Some((tried, measured)) => {
            let off = measured.seconds / tried.predicted_seconds;
            let distance = choice::distance(&tried.choice, &candidate.choice);
            candidate.prediction.seconds * off * DOUBT.powi(distance)
        }
        None => candidate.prediction.seconds,
    }
}

/// The best choice tried, by its place, with its seconds.
fn best(tried: &[Trial]) -> Option<(usize, f64)> {
    let compiled = tried.iter().enumerate();
    let compiled = compiled.filter_map(|(i, tried)| Some((i, tried.outcome.measured()?.seconds)));
    compiled.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Whether a choice needs at least the memory of another: it differs in keeping more, or in larger
/// parts, alone.
fn needs_as_much(choice: &Layout, other: &Layout) -> bool {
    let place = |choice: &Layout| {
        crate::config::Remat::ALL
            .iter()
            .position(|remat| *remat == choice.remat)
    };
    choice.fsdp == other.fsdp
        && choice.model == other.model
        && (other.zero || !choice.zero)
        && (choice.gradients == other.gradients || other.gradients == GradientType::Bfloat16)
        && choice.gradient_accumulation <= other.gradient_accumulation
        && place(choice) >= place(other)
}

#[cfg(test)]
mod tests;
