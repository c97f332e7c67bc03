//! The run directory: everything a training run leaves behind, in one place.
//!
//! Opening one answers, before any work, whether it can be written and whether it may hold this run: a directory belongs to one model and one stream
//! of data. Its `config.toml` says which.

mod requests;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::config::{Config, ConfigError, Versions, resolve};

pub use requests::{Request, Requests};

/// A directory that holds a run, or is about to.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    /// This worker's own files.
    path: PathBuf,
    /// Where the saved states of the whole run are.
    checkpoints: PathBuf,
    worker: usize,
}

/// What the caller expects to find in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No run yet.
    New,
    /// A run of the same model, to be continued; or none yet, so that one command both starts and restarts a job.
    Resume,
}

/// A directory that cannot hold the run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory cannot be written.
    #[error("cannot write to the run directory {}", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A run of the same model is there and was not asked for.
    #[error("{} holds a run already", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// A run of something else is there.
    #[error("{} holds another model's run: {key} is {there} there and {here} here", path.display())]
    AnotherRun {
        /// The directory.
        path: PathBuf,
        /// The first setting that differs.
        key: String,
        /// Its value in the directory's `config.toml`.
        there: String,
        /// Its value in this configuration.
        here: String,
    },
    /// There are traces of a run whose configuration cannot be read.
    #[error("{} holds a run whose config.toml cannot be read", path.display())]
    UnreadableConfig {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ConfigError>,
    },
    /// A file of the run cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RunDirectory {
    /// Opens `path` for a run of `config`, creating it where needed. Nothing else is written yet.
    pub fn open(path: impl Into<PathBuf>, config: &Config, start: Start) -> Result<Self, RunError> {
        Self::open_for(0, path, config, start)
    }

    /// Opens `path` for one worker of a run on several hosts. Worker 0 writes what all have computed and the saved states; the
    /// others keep their logs in `worker-N/` below, and read the saved states where worker 0 writes them.
    pub fn open_for(
        worker: usize,
        path: impl Into<PathBuf>,
        config: &Config,
        start: Start,
    ) -> Result<Self, RunError> {
        let path = path.into();
        let run = Self {
            checkpoints: path.join("checkpoints"),
            path: match worker {
                0 => path,
                worker => path.join(format!("worker-{worker}")),
            },
            worker,
        };
        if run.holds_run() {
            run.check_same(config)?;
            if start == Start::New {
                return Err(RunError::Occupied { path: run.path });
            }
        }
        run.check_writable()?;
        Ok(run)
    }

    /// Writes the resolved configuration and the versions that run it.
    pub fn record(&self, config: &Config, versions: &Versions) -> Result<(), RunError> {
        self.write(&self.config(), config.to_toml(versions).as_bytes())
    }

    /// Writes a program as text and as a serialised `HloModuleProto` to `hlo/`.
    pub fn record_program(&self, name: &str, text: &str, proto: &[u8]) -> Result<(), RunError> {
        let directory = self.path.join("hlo");
        fs::create_dir_all(&directory).map_err(|source| RunError::Write {
            path: directory.clone(),
            source,
        })?;
        self.write(&directory.join(format!("{name}.txt")), text.as_bytes())?;
        self.write(&directory.join(format!("{name}.pb")), proto)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// One JSON object per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One JSON object per message.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// Holds one directory per saved step.
    pub fn checkpoints(&self) -> PathBuf {
        self.checkpoints.clone()
    }

    /// Whether this worker writes the saved states.
    pub fn saves(&self) -> bool {
        self.worker == 0
    }

    /// The saved state after `step`.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step_{step:08}"))
    }

    /// Whether there is anything to lose. A run that ended before its first result, because its program did not fit or its data was not there, is
    /// not held against the next attempt.
    fn holds_run(&self) -> bool {
        let metrics = fs::metadata(self.metrics()).is_ok_and(|file| file.len() > 0);
        if !self.saves() {
            return metrics;
        }
        let mut checkpoints = fs::read_dir(self.checkpoints()).into_iter().flatten();
        metrics || checkpoints.next().is_some()
    }

    fn check_same(&self, config: &Config) -> Result<(), RunError> {
        let file = self.config();
        let there = resolve(Some(&file.to_string_lossy()), &[]);
        let there = there.map_err(|source| RunError::UnreadableConfig {
            path: self.path.clone(),
            source: Box::new(source),
        })?;
        match first_difference(&there, config) {
            None => Ok(()),
            Some((key, there, here)) => Err(RunError::AnotherRun {
                path: self.path.clone(),
                key,
                there,
                here,
            }),
        }
    }

    /// Writes and removes a file: permissions alone do not tell (file systems are mounted read-only, and root may do anything).
    fn check_writable(&self) -> Result<(), RunError> {
        let probe = self.path.join(format!(".writable-{}", std::process::id()));
        fs::create_dir_all(&self.path)
            .and_then(|()| fs::write(&probe, b"ankh"))
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|source| RunError::Unwritable {
                path: self.path.clone(),
                source,
            })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), RunError> {
        replace_file(path, bytes).map_err(|source| RunError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

/// Replaces a file's content in one step: readers, and a crash, find the old bytes or the new ones.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The settings that make a run the run it is: the model first, by which one recognises it, then what its optimizer remembers and
/// the stream of batches. An empty list is the whole section. The other settings may change between two starts.
const IDENTITY: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("objective", &[]),
    ("mixture", &[]),
    (
        "data",
        &[
            "tokenizer",
            "input_length",
            "target_length",
            "rows",
            "long_sequences",
            "seed",
        ],
    ),
    ("optimizer", &["name", "min_dim_size_to_factor"]),
    ("train", &["batch_size", "seed"]),
];

/// The first setting of [`IDENTITY`] that differs, with both values.
fn first_difference(there: &Config, here: &Config) -> Option<(String, String, String)> {
    let [there, here] = [there, here].map(|config| Table::try_from(config).unwrap_or_default());
    let show = |value: Option<&Value>| value.map_or("unset".into(), Value::to_string);
    // Where data lies may change.
    let in_place = |value: &Value| match value {
        Value::Table(part) => {
            let mut part = part.clone();
            part.remove("dir");
            Value::Table(part)
        }
        other => other.clone(),
    };
    for (section, names) in IDENTITY {
        let table = |config: &Table| config.get(section).and_then(Value::as_table).cloned();
        let [there, here] = [table(&there), table(&here)].map(Option::unwrap_or_default);
        let all: Vec<&str> = there
            .keys()
            .chain(here.keys())
            .map(String::as_str)
            .collect();
        let names = if names.is_empty() {
            all.as_slice()
        } else {
            names
        };
        for name in names {
            let [there, here] = [&there, &here].map(|table| table.get(*name).map(in_place));
            if there != here {
                let [there, here] = [there, here].map(|value| show(value.as_ref()));
                return Some((format!("{section}.{name}"), there, here));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(set: &[&str]) -> Config {
        let set: Vec<String> = set.iter().map(|argument| (*argument).to_owned()).collect();
        resolve(Some("tiny"), &set).unwrap()
    }

    fn versions() -> Versions {
        Versions {
            ankh: "0.1.0".into(),
            plugin_api: "0.115".into(),
            platform: "cpu".into(),
        }
    }

    fn recorded(config: &Config) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(directory.path(), config, Start::New).unwrap();
        run.record(config, &versions()).unwrap();
        fs::write(run.metrics(), "{\"step\":1}\n").unwrap();
        directory
    }

    #[test]
    fn a_run_resumes_with_other_lengths_of_training_but_is_never_overwritten() {
        let directory = recorded(&tiny(&[]));
        let longer = tiny(&[
            "train.steps=40",
            "schedule.peak_learning_rate=1",
            "checkpoint.keep=1",
        ]);
        RunDirectory::open(directory.path(), &longer, Start::Resume).unwrap();
        let error = RunDirectory::open(directory.path(), &longer, Start::New).unwrap_err();
        assert!(matches!(error, RunError::Occupied { .. }), "{error}");
    }

    #[test]
    fn another_models_run_is_refused_and_the_difference_named() {
        let directory = recorded(&tiny(&[]));
        for (setting, key) in [
            ("model.d_model=64", "model.d_model is 24 there and 64 here"),
            (
                "objective.masking_rate=0.15",
                "objective.masking_rate is 0.2 there and 0.15 here",
            ),
            ("data.seed=3", "data.seed is 0 there and 3 here"),
            (
                "data.rows=packed",
                "data.rows is \"padded\" there and \"packed\" here",
            ),
            (
                "train.batch_size=8",
                "train.batch_size is 4 there and 8 here",
            ),
            (
                "optimizer.name=adamw",
                "optimizer.name is \"adafactor\" there",
            ),
            (
                "objective.task=nlu",
                "objective.task is unset there and \"nlu\" here",
            ),
        ] {
            for start in [Start::New, Start::Resume] {
                let error =
                    RunDirectory::open(directory.path(), &tiny(&[setting]), start).unwrap_err();
                assert!(error.to_string().contains(key), "{error}");
            }
        }
    }

    #[test]
    fn a_run_without_a_result_is_begun_again() {
        let directory = recorded(&tiny(&[]));
        fs::write(directory.path().join("metrics.jsonl"), "").unwrap();
        let smaller = tiny(&["train.batch_size=2"]);
        RunDirectory::open(directory.path(), &smaller, Start::New).unwrap();
        fs::create_dir_all(directory.path().join("checkpoints/step_00000010")).unwrap();
        RunDirectory::open(directory.path(), &smaller, Start::New).unwrap_err();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_unwritable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error =
            RunDirectory::open(file.path().join("run"), &tiny(&[]), Start::New).unwrap_err();
        assert!(matches!(error, RunError::Unwritable { .. }), "{error}");
    }

    #[test]
    fn opening_leaves_nothing_behind_but_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        RunDirectory::open(&path, &tiny(&[]), Start::Resume).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_run_without_a_readable_configuration_is_refused() {
        let directory = recorded(&tiny(&[]));
        fs::write(directory.path().join("config.toml"), "nonsense").unwrap();
        let error = RunDirectory::open(directory.path(), &tiny(&[]), Start::Resume).unwrap_err();
        assert!(
            matches!(error, RunError::UnreadableConfig { .. }),
            "{error}"
        );
    }
}
