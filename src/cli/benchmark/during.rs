//! `pretrain benchmark --during`: the same benchmark of every checkpoint of a run.
//!
//! The run may go on meanwhile, and save and remove checkpoints: they are only read. Results go to
//! `benchmarks/BENCHMARK/` in its directory, and outlive their checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ankh_storage::Location;
use serde_json::{Map, Value};

use super::{BenchmarkArgs, Work, stopped};
use crate::benchmark::{describe, discard};
use crate::checkpoint::Store;
use crate::cli::model::read_weights;
use crate::cli::output::{count, json, line_of};
use crate::cli::{CliError, Exit};
use crate::run_dir::{
    Recorded, benchmark_result, benchmarks_of, checkpoints_of, step_of_benchmark_result,
};
use crate::telemetry::print_line;

pub(super) fn run(arguments: &BenchmarkArgs, run: &Path) -> Result<Exit, CliError> {
    let store = Store::at(&checkpoints(run)?)?;
    let work = Work::prepare(arguments)?;
    let directory = benchmarks_of(run).join(&arguments.benchmark);
    let options = arguments.options(&directory);
    let place = Place {
        settings: describe(&options, &work.dataset, arguments.description()),
        directory,
        replace: arguments.replace,
    };
    let mut kept = place.kept(&store)?;
    if kept.is_empty() && store.list()?.is_empty() {
        let error = format!("{} has no checkpoint yet", run.display());
        return Err(CliError::usage(error).help("run it again when the run has saved one"));
    }
    place.prepare(&store, &kept)?;
    let mut table = Table::new(arguments.json);
    let mut after = None;
    // What is saved while others are measured is measured too.
    while let Some(step) = next(&store, after)? {
        after = Some(step);
        while let Some(entry) = kept.first_entry()
            && *entry.key() <= step
        {
            table.show(&entry.remove())?;
        }
        if table.last == Some(step) {
            continue;
        }
        if work.requests.stop() {
            return Ok(stopped());
        }
        // The checksum comes first: if the checkpoint is saved anew meanwhile, the result is stale.
        let found = store
            .checksum(step)
            .map_err(CliError::from)
            .and_then(|checksum| Ok((checksum, read_weights(&store.directory_of(step))?)));
        let (checksum, weights) = match found {
            Ok(found) => found,
            Err(_) if !store.list()?.contains(&step) => {
                print_line(&format!("note: the run removed step {}", count(step)));
                continue;
            }
            Err(error) => return Err(error),
        };
        print_line(&format!("step {}", count(step)));
        let more = place.fields(step, checksum);
        match work.measure(weights, &place.result(step), more)? {
            Some((report, _)) => table.show(&report)?,
            None => return Ok(stopped()),
        }
    }
    kept.values().try_for_each(|result| table.show(result))?;
    Ok(Exit::Done)
}

/// Where a run has its checkpoints.
fn checkpoints(run: &Path) -> Result<Location, CliError> {
    match Recorded::of(run)? {
        Some(Recorded::Whole(config) | Recorded::Restored { config, .. }) => {
            Ok(checkpoints_of(run, &config))
        }
        None => {
            let error = CliError::usage(format!("there is no run in {}", run.display()));
            Err(error.help("give --during the directory that `--run-dir` named"))
        }
    }
}

/// The first step behind another.
fn next(store: &Store, after: Option<u64>) -> Result<Option<u64>, CliError> {
    let mut steps = store.list()?.into_iter();
    Ok(steps.find(|step| Some(*step) > after))
}

/// The results of one benchmark of a run.
struct Place {
    directory: PathBuf,
    /// What they follow from beside the checkpoint.
    settings: Map<String, Value>,
    replace: bool,
}

impl Place {
    fn result(&self, step: u64) -> PathBuf {
        self.directory.join(benchmark_result(step))
    }

    /// What a result has beside that of any weights.
    fn fields(&self, step: u64, checksum: u32) -> Map<String, Value> {
        let fields = [
            ("step", Value::from(step)),
            ("checkpoint", format!("{checksum:08x}").into()),
            ("settings", self.settings.clone().into()),
        ];
        fields
            .map(|(name, value)| (name.into(), value))
            .into_iter()
            .collect()
    }

    /// The names of the files there, in order; none where no result was written yet.
    fn names(&self) -> Result<Vec<String>, CliError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(self.cannot("read", error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        let names: io::Result<Vec<Option<String>>> = entries.map(name).collect();
        let names = names.map_err(|error| self.cannot("read", error))?;
        let mut names: Vec<String> = names.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    fn cannot(&self, verb: &str, error: io::Error) -> CliError {
        CliError::failed(format!(
            "cannot {verb} {}: {error}",
            self.directory.display()
        ))
    }

    /// The results that stay, by their steps.
    fn kept(&self, store: &Store) -> Result<BTreeMap<u64, Value>, CliError> {
        let there = store.list()?;
        let mut kept = BTreeMap::new();
        for step in self
            .names()?
            .iter()
            .filter_map(|name| step_of_benchmark_result(name))
        {
            let path = self.result(step);
            let is_there = there.contains(&step);
            let found = fs::read(&path).map_err(|error| self.cannot("read", error))?;
            let result = serde_json::from_slice::<Value>(&found).unwrap_or_default();
            let problem = match self.differences(&result) {
                None => Some(format!("{} is no result of a benchmark", path.display())),
                Some(differences) if differences.is_empty() => None,
                Some(differences) => Some(format!(
                    "{} was measured otherwise: {}",
                    path.display(),
                    differences.join("; ")
                )),
            };
            match problem {
                Some(_) if is_there && self.replace => continue,
                Some(problem) => {
                    let help = match is_there {
                        true => "give --replace to measure that checkpoint anew",
                        false => "its checkpoint is gone: move the file elsewhere",
                    };
                    return Err(CliError::usage(problem).help(help));
                }
                None => {}
            }
            // One that is removed at this moment keeps its result.
            let checksum = store.checksum(step).ok().filter(|_| is_there);
            let stale = checksum.is_some_and(|of| result["checkpoint"] != format!("{of:08x}"));
            match stale {
                true => print_line(&format!("note: step {} was saved anew", count(step))),
                false => drop(kept.insert(step, result)),
            }
        }
        Ok(kept)
    }

    /// In what a result was measured otherwise; nothing if it is none.
    fn differences(&self, result: &Value) -> Option<Vec<String>> {
        let found = result["settings"].as_object()?;
        let keys = self.settings.keys();
        let more = found.keys().filter(|key| !self.settings.contains_key(*key));
        let shown = |value: Option<&Value>| value.map_or("unset".into(), Value::to_string);
        let differs = keys.chain(more).filter_map(|key| {
            let (there, here) = (found.get(key), self.settings.get(key));
            let (there_text, here_text) = (shown(there), shown(here));
            (there != here).then(|| format!("{key} is {there_text} there and {here_text} here"))
        });
        Some(differs.collect())
    }

    /// Makes the directory. Removes what was begun of checkpoints that are gone, or whose result is
    /// there: a process may have been killed between writing it and removing the rest.
    fn prepare(&self, store: &Store, kept: &BTreeMap<u64, Value>) -> Result<(), CliError> {
        fs::create_dir_all(&self.directory).map_err(|error| self.cannot("create", error))?;
        let there = store.list()?;
        for name in self.names()? {
            let hidden = name.strip_prefix('.');
            let result = hidden.and_then(|name| name.strip_suffix(".unfinished"));
            match result.and_then(step_of_benchmark_result) {
                Some(step) if !there.contains(&step) || kept.contains_key(&step) => {
                    discard(&self.result(step))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is printed of results, one by one.
struct Table {
    json: bool,
    /// The step that was printed last.
    last: Option<u64>,
}

impl Table {
    fn new(json: bool) -> Table {
        Table { json, last: None }
    }

    fn show(&mut self, result: &Value) -> Result<(), CliError> {
        let first = self.last.is_none();
        self.last = result["step"].as_u64();
        if self.json {
            return json(result);
        }
        if first {
            line_of(&format!(
                "{:>10}  {:<24}{:<18}{:>8}  95 % interval",
                "step", "test", "measure", "value"
            ))?;
        }
        let number = |value: &Value| match value.as_f64() {
            Some(value) => format!("{value:.4}"),
            None => "undefined".into(),
        };
        for (name, test) in result["tests"].as_object().into_iter().flatten() {
            for figure in test["figures"].as_array().into_iter().flatten() {
                let interval = match &figure["interval"] {
                    Value::Null => "undefined".into(),
                    ends => format!("{} to {}", number(&ends[0]), number(&ends[1])),
                };
                line_of(&format!(
                    "{:>10}  {name:<24}{:<18}{:>8}  {interval}",
                    count(self.last.unwrap_or_default()),
                    figure["measure"].as_str().unwrap_or_default(),
                    number(&figure["value"])
                ))?;
            }
        }
        Ok(())
    }
}
