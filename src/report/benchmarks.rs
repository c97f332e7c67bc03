//! The figures of benchmarks over a run, as `pretrain benchmark --during` leaves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::run_dir::{benchmarks_of, step_of_benchmark_result};

/// All that was found of a run, and what it was read from.
#[derive(Debug)]
pub struct Benchmarks {
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    curves: BTreeMap<String, Curve>,
}

/// A figure by the step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curve {
    /// Rising steps.
    pub steps: Vec<u64>,
    /// The value at each.
    pub values: Vec<f32>,
    /// Its interval at each, where there is one.
    pub intervals: Vec<Option<[f32; 2]>>,
}

/// A value and its interval.
type Point = (f32, Option<[f32; 2]>);

/// A file as it was when it was read.
#[derive(Debug)]
struct File {
    stamp: Option<(SystemTime, u64)>,
    content: Result<Measured, String>,
}

/// What is read of a result.
#[derive(Debug, Deserialize)]
struct Measured {
    benchmark: String,
    step: u64,
    tests: BTreeMap<String, Test>,
}

#[derive(Debug, Deserialize)]
struct Test {
    figures: Vec<Figure>,
}

#[derive(Debug, Deserialize)]
struct Figure {
    measure: String,
    /// None where it is undefined.
    value: Option<f32>,
    interval: Option<[f32; 2]>,
}

impl Benchmarks {
    /// Of the run in a directory, which need not have any. Nothing is read yet.
    pub fn of(run: &Path) -> Benchmarks {
        Benchmarks {
            directory: benchmarks_of(run),
            files: BTreeMap::new(),
            curves: BTreeMap::new(),
        }
    }

    /// Reads what is new, and tells whether anything is.
    pub fn refresh(&mut self) -> bool {
        let found: Vec<PathBuf> = entries(&self.directory)
            .flat_map(|path| entries(&path).collect::<Vec<_>>())
            .filter(|path| is_result(path))
            .collect();
        let before = self.files.len();
        self.files.retain(|path, _| found.contains(path));
        let mut changed = self.files.len() < before;
        for path in found {
            let metadata = fs::metadata(&path);
            let stamp = metadata
                .and_then(|file| Ok((file.modified()?, file.len())))
                .ok();
            if self
                .files
                .get(&path)
                .is_some_and(|file| file.stamp == stamp)
            {
                continue;
            }
            changed = true;
            let content = read(&path);
            self.files.insert(path, File { stamp, content });
        }
        if changed {
            self.curves = self.curves_of_files();
        }
        changed
    }

    /// By what is measured, such as "q3 accuracy".
    pub fn curves(&self) -> &BTreeMap<String, Curve> {
        &self.curves
    }

    /// What could not be read.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let each = self.files.iter();
        each.filter_map(|(path, file)| {
            let error = file.content.as_ref().err()?;
            let name = path.strip_prefix(self.directory.parent()?).unwrap_or(path);
            Some(format!("{} cannot be read: {error}", name.display()))
        })
    }

    fn curves_of_files(&self) -> BTreeMap<String, Curve> {
        let mut points: BTreeMap<String, BTreeMap<u64, Point>> = BTreeMap::new();
        for measured in self
            .files
            .values()
            .filter_map(|file| file.content.as_ref().ok())
        {
            for (test, of_test) in &measured.tests {
                for figure in &of_test.figures {
                    let Some(value) = figure.value else { continue };
                    let (benchmark, measure) = (&measured.benchmark, &figure.measure);
                    // A single test set is called that where it has no name of its own.
                    let name = match test.as_str() {
                        "test" => format!("{benchmark} {measure}"),
                        test => format!("{benchmark} {test} {measure}"),
                    };
                    let of_name = points.entry(name).or_default();
                    of_name.insert(measured.step, (value, figure.interval));
                }
            }
        }
        let curve = |points: BTreeMap<u64, Point>| {
            let mut curve = Curve::default();
            for (step, (value, interval)) in points {
                curve.steps.push(step);
                curve.values.push(value);
                curve.intervals.push(interval);
            }
            curve
        };
        let named = points.into_iter();
        named.map(|(name, points)| (name, curve(points))).collect()
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn is_result(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    step_of_benchmark_result(&name).is_some()
}

fn read(path: &Path) -> Result<Measured, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn write(run: &Path, name: &str, text: &str) {
        let path = run.join("benchmarks/q3").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        ankh_storage::atomic::replace_file(&path, text.as_bytes()).unwrap();
    }

    fn result(step: u64, value: Value) -> String {
        let figure = json!({ "measure": "accuracy", "value": value, "interval": [0.25, 0.75] });
        let tests = json!({ "test": { "figures": [figure] }, "casp12": { "figures": [figure] } });
        json!({ "benchmark": "q3", "step": step, "tests": tests }).to_string()
    }

    #[test]
    fn results_become_curves_as_they_come_change_and_go() {
        let run = tempfile::tempdir().unwrap();
        let mut benchmarks = Benchmarks::of(run.path());
        assert!(!benchmarks.refresh() && benchmarks.curves().is_empty());
        write(run.path(), "step_00000020.json", &result(20, 0.5.into()));
        write(run.path(), "step_00000010.json", &result(10, 0.375.into()));
        // Work that is under way, and a figure that is undefined.
        write(run.path(), ".step_00000030.json.unfinished", "{}");
        write(run.path(), "step_00000030.json", &result(30, Value::Null));
        assert!(benchmarks.refresh() && !benchmarks.refresh());
        let names: Vec<&str> = benchmarks.curves().keys().map(String::as_str).collect();
        assert_eq!(names, ["q3 accuracy", "q3 casp12 accuracy"]);
        let curve = &benchmarks.curves()["q3 accuracy"];
        assert_eq!(curve.steps, [10, 20]);
        assert_eq!(curve.values, [0.375, 0.5]);
        assert_eq!(curve.intervals, [Some([0.25, 0.75]); 2]);
        assert_eq!(benchmarks.notes().count(), 0);

        write(run.path(), "step_00000020.json", &result(20, 0.625.into()));
        write(run.path(), "step_00000030.json", "torn");
        fs::remove_file(run.path().join("benchmarks/q3/step_00000010.json")).unwrap();
        assert!(benchmarks.refresh());
        let curve = &benchmarks.curves()["q3 accuracy"];
        assert_eq!(
            (&curve.steps[..], &curve.values[..]),
            (&[20][..], &[0.625][..])
        );
        let notes: Vec<String> = benchmarks.notes().collect();
        let begin = "benchmarks/q3/step_00000030.json cannot be read: ";
        assert!(notes.len() == 1 && notes[0].starts_with(begin), "{notes:?}");
    }
}
