//! What the page gets to see of runs, as JSON: the figures of each, and the points of its charts.
//!
//! The page's script (`page/`) reads these fields by their names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::benchmarks::Curve;
use super::columns::{Columns, Quantity};
use super::downsample::{Points, downsample};
use super::history::{Event, Mark};
use super::plan_file::PlanFile;
use super::run::{Run, Status};
use super::settings::{Difference, Settings, differences};

/// All runs at a time.
#[derive(Debug, Serialize)]
pub struct State<'r> {
    /// When, in seconds since 1970.
    pub time: f64,
    /// The version of the program.
    pub program: &'static str,
    /// Each run.
    pub runs: Vec<RunView<'r>>,
    /// The settings that differ.
    pub differences: Vec<Difference>,
}

/// The figures of a run.
#[derive(Debug, Serialize)]
pub struct RunView<'r> {
    /// Its place among the runs, which stays.
    pub id: usize,
    name: &'r str,
    path: String,
    version: u64,
    status: Status,
    step: Option<u64>,
    steps: Option<u64>,
    residues: Option<u64>,
    epoch: Option<u64>,
    /// Hours that its steps took.
    hours: f64,
    /// Hours from the first process of the run to the last sign of it.
    elapsed_hours: Option<f64>,
    /// Seconds of training that are left at the pace of the last lines.
    seconds_left: Option<f64>,
    /// Seconds since 1970.
    last_write: Option<f64>,
    devices: Option<u64>,
    platform: Option<&'r str>,
    restarts: u64,
    /// The last value of each quantity.
    last: BTreeMap<&'static str, f32>,
    /// The middle value of each quantity that varies around one.
    median: BTreeMap<&'static str, f32>,
    /// The newest figure of each benchmark.
    benchmarks: BTreeMap<&'r str, f32>,
    best: Option<Best>,
    checkpoints: &'r [u64],
    marks: &'r [Mark],
    events: Vec<&'r Event>,
    notes: Vec<String>,
    plan: Option<&'r PlanFile>,
    settings: Option<&'r Settings>,
}

/// The lowest held-out loss.
#[derive(Debug, Serialize)]
struct Best {
    step: u64,
    validation_loss: f32,
}

/// The points of a run in a range of steps.
#[derive(Debug, Serialize)]
pub struct Series {
    run: usize,
    version: u64,
    quantities: BTreeMap<&'static str, Points>,
    /// All of them, whatever the range is.
    benchmarks: BTreeMap<String, Curve>,
    axes: Axes,
}

/// What steps are on the other axes: between two entries they go on evenly.
#[derive(Debug, Serialize)]
struct Axes {
    steps: Vec<u64>,
    residues: Vec<u64>,
    hours: Vec<f64>,
}

/// How many entries the table of axes has.
const AXES: usize = 1000;

/// The lines over which the pace is taken.
const PACE: usize = 20;

impl<'r> State<'r> {
    /// Of all runs, now.
    pub fn of(runs: &'r [Run]) -> State<'r> {
        // One that was removed keeps its number, and is not shown.
        let there = || {
            runs.iter()
                .enumerate()
                .filter(|(_, run)| run.path().is_dir())
        };
        let settings: Vec<_> = there().map(|(_, run)| run.settings()).collect();
        State {
            time: seconds(SystemTime::now()),
            program: env!("CARGO_PKG_VERSION"),
            runs: there().map(|(id, run)| RunView::of(id, run)).collect(),
            differences: differences(&settings),
        }
    }
}

impl<'r> RunView<'r> {
    fn of(id: usize, run: &'r Run) -> RunView<'r> {
        let (columns, history) = (run.columns(), run.history());
        let step = columns.steps().last().copied();
        let last = |quantity: Quantity| {
            let (_, value) = columns.known(quantity).next_back()?;
            Some((quantity.name(), value))
        };
        let best = columns.known(Quantity::ValidationLoss);
        let best = best.min_by(|a, b| a.1.total_cmp(&b.1));
        let benchmarks = run.benchmarks().curves().iter();
        let benchmarks =
            benchmarks.filter_map(|(name, curve)| Some((name.as_str(), *curve.values.last()?)));
        let elapsed = history.span().map(|(began, last)| {
            let last = run.last_write().map_or(last, |write| write.max(last));
            last.duration_since(began).unwrap_or_default().as_secs_f64() / 3600.0
        });
        RunView {
            id,
            name: run.name(),
            path: run.path().display().to_string(),
            version: run.version(),
            status: run.status(),
            step,
            steps: run.total_steps(),
            residues: columns.residues().last().copied(),
            epoch: columns.epoch(),
            hours: columns.hours().last().copied().unwrap_or(0.0),
            elapsed_hours: elapsed,
            seconds_left: seconds_left(columns, run.total_steps()),
            last_write: run.last_write().map(seconds),
            devices: history.devices(),
            platform: history.platform(),
            restarts: history.restarts(),
            last: Quantity::ALL.into_iter().filter_map(last).collect(),
            median: run
                .medians()
                .map(|(quantity, median)| (quantity.name(), median))
                .collect(),
            benchmarks: benchmarks.collect(),
            best: best.map(|(step, validation_loss)| Best {
                step,
                validation_loss,
            }),
            checkpoints: run.checkpoints(),
            marks: history.marks(),
            events: history.events().collect(),
            notes: run.notes(),
            plan: run.plan(),
            settings: run.settings(),
        }
    }
}

/// The training that is left, at the pace of the last lines.
fn seconds_left(columns: &Columns, total: Option<u64>) -> Option<f64> {
    let (steps, hours) = (columns.steps(), columns.hours());
    let (last, total) = (*steps.last()?, total?);
    let first = steps.len().saturating_sub(PACE + 1);
    let taken = 3600.0 * (hours.last()? - hours[first]);
    let done = last - steps[first];
    match (total.checked_sub(last)?, done) {
        (0, _) => Some(0.0),
        (_, 0) => None,
        (left, done) => Some(taken / done as f64 * left as f64),
    }
}

impl Series {
    /// The points of the run `id` in a range of steps, at most some two for each of `buckets`. The
    /// next ones on both sides are there too, so that lines go on to the edges.
    pub fn of(id: usize, run: &Run, range: RangeInclusive<u64>, buckets: usize) -> Series {
        let columns = run.columns();
        let steps = columns.steps();
        let start = steps.partition_point(|step| step < range.start());
        let end = steps.partition_point(|step| step <= range.end());
        // An empty range is between two rows.
        let rows = start.saturating_sub(1)..(end + 1).min(steps.len()).max(start);
        let points = |quantity: Quantity| {
            let values = columns.values(quantity);
            let rows = rows.start.min(values.len())..rows.end.min(values.len());
            let points = downsample(&steps[rows.clone()], &values[rows], buckets);
            (!points.steps.is_empty()).then_some((quantity.name(), points))
        };
        // Evenly spaced rows, and the last one.
        let entries = rows.len().min(AXES);
        let row = |entry: usize| match entries {
            0 | 1 => rows.start + entry,
            _ => rows.start + entry * (rows.len() - 1) / (entries - 1),
        };
        let entries = || (0..entries).map(row);
        Series {
            run: id,
            version: run.version(),
            quantities: Quantity::ALL.into_iter().filter_map(points).collect(),
            benchmarks: run.benchmarks().curves().clone(),
            axes: Axes {
                steps: entries().map(|row| steps[row]).collect(),
                residues: entries().map(|row| columns.residues()[row]).collect(),
                hours: entries().map(|row| columns.hours()[row]).collect(),
            },
        }
    }
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
