//! A run directory as it is read: its metrics, its log, its configuration and what they come to.
//!
//! Reading takes nothing and locks nothing, and what is damaged or missing becomes a note: a run
//! that went wrong is the one that people look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ReportError;
use super::benchmarks::Benchmarks;
use super::columns::{Columns, Quantity};
use super::history::History;
use super::plan_file::PlanFile;
use super::settings::{Settings, settings};
use super::tail::{Part, Tail};
use crate::run_dir::{Tenancy, tenancy};

/// A run, as far as it has been read.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    name: String,
    metrics: Tail,
    log: Tail,
    columns: Columns,
    history: History,
    config: Stamped<Settings>,
    plan: Stamped<PlanFile>,
    benchmarks: Benchmarks,
    tenancy: Tenancy,
    last_write: Option<SystemTime>,
    checkpoints: Vec<u64>,
    read_error: Option<String>,
    version: u64,
    /// Of each quantity that has a middle: taking it of a million rows takes a while.
    medians: [Option<f32>; Quantity::RATES.len()],
}

/// Something read from a small file, again whenever that changes.
#[derive(Debug)]
struct Stamped<T> {
    path: PathBuf,
    stamp: Option<(SystemTime, u64)>,
    value: Option<T>,
    error: Option<String>,
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A process trains, and has logged no step yet.
    Starting,
    /// A process trains.
    Running,
    /// All steps are done.
    Finished,
    /// The last process ended in order, before the last step.
    Stopped,
    /// The last process is gone without a word.
    Stale,
}

impl Run {
    /// Reads the run in a directory, to be called `name`.
    pub fn open(path: &Path, name: &str) -> Run {
        let mut run = Run {
            path: path.to_owned(),
            name: name.to_owned(),
            metrics: Tail::of(path.join("metrics.jsonl")),
            log: Tail::of(path.join("log.jsonl")),
            columns: Columns::default(),
            history: History::default(),
            config: Stamped::of(path.join("config.toml")),
            plan: Stamped::of(path.join("plan.json")),
            benchmarks: Benchmarks::of(path),
            tenancy: Tenancy::Free,
            last_write: None,
            checkpoints: Vec::new(),
            read_error: None,
            version: 0,
            medians: Default::default(),
        };
        run.refresh();
        run
    }

    /// Whether a directory holds a run, or what is left of one.
    pub fn is_in(path: &Path) -> bool {
        let has = |name: &str| path.join(name).is_file();
        has("metrics.jsonl") || (has("config.toml") && (has(".run") || has("log.jsonl")))
    }

    /// Reads what is new.
    pub fn refresh(&mut self) {
        let mut changed = self.config.refresh(parse_config);
        changed |= self.plan.refresh(|path, _| read_plan(path));
        changed |= self.benchmarks.refresh();
        let columns = &mut self.columns;
        let metrics = self.metrics.read(|part| {
            changed = true;
            match part {
                Part::Anew => *columns = Columns::default(),
                Part::Lines(lines) => columns.extend(lines),
            }
        });
        let history = &mut self.history;
        let log = self.log.read(|part| {
            changed = true;
            match part {
                Part::Anew => *history = History::default(),
                Part::Lines(lines) => history.extend(lines),
            }
        });
        let failed = |name: &str, read: std::io::Result<()>| {
            read.err()
                .map(|error| format!("cannot read {name}: {error}"))
        };
        self.read_error = failed("metrics.jsonl", metrics).or(failed("log.jsonl", log));
        let written = fs::metadata(self.path.join("metrics.jsonl"));
        self.last_write = written.and_then(|file| file.modified()).ok();
        self.checkpoints = checkpoints(&self.checkpoints_directory());
        self.tenancy = tenancy(&self.path);
        if changed {
            self.version += 1;
            self.medians = Quantity::RATES.map(|quantity| self.columns.median(quantity));
        }
    }

    /// Compares with the plan in this file where the run directory has none.
    pub fn plan_by_default(&mut self, plan: &PlanFile) {
        if self.plan.value.is_none() {
            self.plan.value = Some(plan.clone());
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its numbers.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The middle of the values of each quantity that has one.
    pub fn medians(&self) -> impl Iterator<Item = (Quantity, f32)> {
        let each = Quantity::RATES.into_iter().zip(self.medians);
        each.filter_map(|(quantity, median)| Some((quantity, median?)))
    }

    /// What happened to it.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Its configuration.
    pub fn settings(&self) -> Option<&Settings> {
        self.config.value.as_ref()
    }

    /// What was expected of it.
    pub fn plan(&self) -> Option<&PlanFile> {
        self.plan.value.as_ref()
    }

    /// What benchmarks found of its checkpoints.
    pub fn benchmarks(&self) -> &Benchmarks {
        &self.benchmarks
    }

    /// Steps of the saved states on this machine.
    pub fn checkpoints(&self) -> &[u64] {
        &self.checkpoints
    }

    /// Grows with each change of what was read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When a line of metrics was last written.
    pub fn last_write(&self) -> Option<SystemTime> {
        self.last_write
    }

    /// The step after which the run ends.
    pub fn total_steps(&self) -> Option<u64> {
        self.settings()?.get("train.steps")?.parse().ok()
    }

    /// Whether it goes on.
    pub fn status(&self) -> Status {
        let step = self.columns.steps().last().copied();
        let done = step.is_some() && step >= self.total_steps() && self.total_steps().is_some();
        match (&self.tenancy, step) {
            (Tenancy::Held(_), None) => Status::Starting,
            (Tenancy::Held(_), _) => Status::Running,
            _ if done => Status::Finished,
            (Tenancy::Free, _) => Status::Stopped,
            (Tenancy::Abandoned(_), _) => Status::Stale,
        }
    }

    /// What could not be read.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match self.columns.unreadable() {
            0 => {}
            1 => notes.push("1 line of metrics.jsonl cannot be read".into()),
            lines => notes.push(format!("{lines} lines of metrics.jsonl cannot be read")),
        }
        notes.extend(self.read_error.clone());
        notes.extend(self.config.error.clone());
        notes.extend(self.plan.error.clone());
        notes.extend(self.benchmarks.notes());
        notes
    }

    fn checkpoints_directory(&self) -> PathBuf {
        let elsewhere = self.settings().and_then(|s| s.get("checkpoint.directory"));
        let local = elsewhere.filter(|place| !place.contains("://"));
        local.map_or_else(|| self.path.join("checkpoints"), PathBuf::from)
    }
}

impl<T> Stamped<T> {
    fn of(path: PathBuf) -> Self {
        Stamped {
            path,
            stamp: None,
            value: None,
            error: None,
        }
    }

    /// Reads the file if it is another than before, and tells whether it is.
    fn refresh(&mut self, read: impl FnOnce(&Path, &str) -> Result<T, String>) -> bool {
        let file = fs::metadata(&self.path);
        let stamp = file
            .and_then(|file| Ok((file.modified()?, file.len())))
            .ok();
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&self.path);
        let value = match (stamp, text) {
            (None, _) => Err(None),
            (_, Err(error)) => Err(Some(format!("cannot read {name}: {error}"))),
            (_, Ok(text)) => read(&self.path, &text).map_err(Some),
        };
        (self.value, self.error) = match value {
            Ok(value) => (Some(value), None),
            Err(error) => (None, error),
        };
        true
    }
}

fn parse_config(_: &Path, text: &str) -> Result<Settings, String> {
    // The parser shows the line over several ones.
    settings(text).map_err(|error| format!("config.toml cannot be read: {}", error.message()))
}

fn read_plan(path: &Path) -> Result<PlanFile, String> {
    let missing = || "plan.json is gone".to_owned();
    let plan = PlanFile::read(path).map_err(|error| match error {
        ReportError::NoPlan { source, .. } => format!("plan.json is no plan: {source}"),
        error => error.to_string(),
    })?;
    plan.ok_or_else(missing)
}

/// The committed steps in a directory of checkpoints.
fn checkpoints(directory: &Path) -> Vec<u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let step = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let step = name.to_str()?.strip_prefix("step_")?.parse().ok()?;
        entry.path().join("commit.json").is_file().then_some(step)
    };
    let mut steps: Vec<u64> = entries.filter_map(step).collect();
    steps.sort_unstable();
    steps
}
