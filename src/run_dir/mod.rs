//! The run directory: everything that a training run writes, in one place.
//!
//! Opening one checks, before any work, that it can be written and that it may hold this run: a
//! directory belongs to one model and one data order, recorded in its `config.toml` and its
//! checkpoints. It also belongs to one process at a time: see `lease`.

mod benchmarks;
mod contents;
mod identity;
mod lease;
mod requests;
mod unused;

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use ankh_storage::{Location, atomic};

use crate::checkpoint::{self, Store};
use crate::config::{Config, Versions};

pub use benchmarks::{benchmark_result, benchmarks_of, step_of_benchmark_result};
pub use contents::Contents;
pub(crate) use identity::saved_config;
pub use identity::{Damage, Difference, Recorded};
pub(crate) use lease::machine;
pub use lease::{Fence, Holder, Lost, Tenancy, tenancy};
pub(crate) use requests::is_ignored;
pub use requests::{Request, Requests};
pub use unused::Unused;

use identity::{Changes, check_same, listed, states_elsewhere};
use lease::{Lease, Refusal};
use unused::Made;

/// A directory that holds a run, or is about to: this process's, until this is dropped.
#[derive(Debug)]
pub struct RunDirectory {
    paths: Paths,
    lease: Lease,
    /// The name of the run that is there, if there is one.
    earlier: Option<String>,
    unused: Unused,
}

/// Where the files of one worker of a run are.
#[derive(Clone, Debug)]
struct Paths {
    /// This worker's own files.
    own: PathBuf,
    /// Where the saved states of the whole run are.
    checkpoints: Location,
    /// The file with the run's name.
    name: PathBuf,
    worker: usize,
}

/// What the caller expects to find in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// No run yet.
    New,
    /// A run of the same model, to be continued; or none yet, so that one command both starts and
    /// restarts a job.
    Resume,
    /// The same, also where its batch size or its optimizer was another.
    ResumeChanged,
}

/// A directory that cannot hold the run.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory cannot be written.
    #[error("cannot write to the run directory {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The directory's name is not UTF-8, in which the run's files and results name it.
    #[error("the run directory's name {} is not UTF-8", path.display())]
    NotUnicode { path: PathBuf },
    /// The directory is named by a URL; a path of that name would be made on this machine.
    #[error("the run directory {} is a URL; a run directory is a path", path.display())]
    Url { path: PathBuf },
    /// Another process trains in the directory.
    #[error("{} is in use: it belongs to {}", path.display(), who(holder))]
    Held {
        path: PathBuf,
        /// The process; unknown if it has only just begun.
        holder: Option<Holder>,
    },
    /// The directory is something else than a run's.
    #[error("{} is no run directory: it {contents}", path.display())]
    NotARun { path: PathBuf, contents: Contents },
    /// A run of the same model is there and was not asked for.
    #[error("{} holds a run already", path.display())]
    Occupied { path: PathBuf },
    /// A run of something else is there.
    #[error("{} holds another model's run: {}", path.display(), listed(differences))]
    AnotherRun {
        path: PathBuf,
        /// The settings that differ, those first that make it another run.
        differences: Vec<Difference>,
    },
    /// The directory became another process's.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The run there can go on as this configuration says, and would not be the run it was.
    #[error("{} holds a run with other settings: {}", path.display(), listed(differences))]
    Changed {
        path: PathBuf,
        differences: Vec<Difference>,
    },
    /// There are traces of a run whose configuration cannot be told.
    #[error("cannot use {}, the configuration of this run", path.join("config.toml").display())]
    UnreadableConfig { path: PathBuf, source: Box<Damage> },
    /// The run saved its states elsewhere, and none is where this configuration says.
    #[error("the saved states of {} are in {there}, and there are none in {here}", path.display())]
    StatesElsewhere {
        path: PathBuf,
        there: Box<Location>,
        here: Box<Location>,
    },
    /// The saved states of the run cannot be looked at.
    #[error(transparent)]
    Checkpoints(#[from] checkpoint::Error),
    /// A file of the run cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl RunDirectory {
    /// Opens `path` for a run of `config`, creating it where needed. Nothing but the lease is
    /// written yet; where nothing is recorded before this is dropped, all of it is removed again.
    pub fn open(
        path: impl Into<PathBuf>,
        config: &Config,
        start: RunMode,
    ) -> Result<Self, RunError> {
        Self::open_for(0, path, config, start)
    }

    /// Opens `path` for one worker of a run on several hosts. Worker 0 writes what all have
    /// computed and the saved states; the others keep their logs in `worker-N/` below, and read the
    /// saved states where worker 0 writes them.
    pub fn open_for(
        worker: usize,
        path: impl Into<PathBuf>,
        config: &Config,
        start: RunMode,
    ) -> Result<Self, RunError> {
        let paths = Paths::of(worker, path.into(), config)?;
        // Looked at before, since a directory that is something else is left as it is, and after,
        // since until then it may have been another process's.
        paths.check_contents(config, start)?;
        let path = &paths.own;
        let made = Made::at(path)?;
        let lease = Lease::take(path).map_err(|refusal| match refusal {
            Refusal::Held(holder) => RunError::Held {
                path: path.clone(),
                holder,
            },
            Refusal::Io(path, source) => RunError::Unwritable { path, source },
        })?;
        let unused = Unused::new(&paths, made, lease.fence());
        let mut run = Self {
            paths,
            lease,
            earlier: None,
            unused,
        };
        let paths = &run.paths;
        paths.check_contents(config, start)?;
        paths.check_writable()?;
        // What was named and began no run is none.
        let is_run = !paths.saves() || paths.holds_run()?;
        run.earlier = is_run.then(|| paths.run_name()).flatten();
        Ok(run)
    }

    /// Whether [`RunDirectory::open`] would resume or begin a run of `config` at `path` now. Takes
    /// nothing.
    pub fn check(path: impl Into<PathBuf>, config: &Config) -> Result<(), RunError> {
        let paths = Paths::of(0, path.into(), config)?;
        paths.check_contents(config, RunMode::Resume)?;
        if let Some(holder) = lease::holder(&paths.own) {
            return Err(RunError::Held {
                path: paths.own,
                holder: Some(holder),
            });
        }
        let made = Made::at(&paths.own)?;
        let is_writable = paths.check_writable();
        made.remove();
        is_writable
    }

    /// What takes back that this was opened, where the process ends without dropping it.
    pub fn unused(&self) -> Unused {
        self.unused.clone()
    }

    /// What tells whether the directory is still this process's.
    pub fn fence(&self) -> Fence {
        self.lease.fence()
    }

    /// Writes the resolved configuration, the versions that run it and, where the run has none yet,
    /// its name.
    pub fn record(&self, config: &Config, versions: &Versions) -> Result<(), RunError> {
        if self.saves() && self.earlier.is_none() {
            write(&self.paths.name, drawn_name().as_bytes())?;
        }
        write(&self.config(), config.to_toml(versions).as_bytes())
    }

    /// A name that no other run has, wherever its directory is; nothing before it is recorded.
    pub fn name(&self) -> Option<String> {
        self.paths.run_name()
    }

    /// The same of the run that was there when this was opened.
    pub fn earlier_name(&self) -> Option<&str> {
        self.earlier.as_deref()
    }

    /// Writes a program as text and as a serialised `HloModuleProto` to `hlo/`.
    pub fn record_program(&self, name: &str, text: &str, proto: &[u8]) -> Result<(), RunError> {
        let directory = self.path().join("hlo");
        fs::create_dir_all(&directory).map_err(|source| RunError::Write {
            path: directory.clone(),
            source,
        })?;
        write(&directory.join(format!("{name}.txt")), text.as_bytes())?;
        write(&directory.join(format!("{name}.pb")), proto)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.paths.own
    }

    /// What people call the run: the last part of the directory's path.
    pub fn title(&self) -> String {
        let whole = self.paths.name.parent();
        let name = whole.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.paths.config()
    }

    /// One JSON object per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.paths.metrics()
    }

    /// One JSON object per message.
    pub fn log(&self) -> PathBuf {
        self.path().join("log.jsonl")
    }

    /// Holds one directory per profile, with a file of each host: where TensorBoard looks for them.
    pub fn profiles(&self) -> PathBuf {
        let whole = self.paths.name.parent().unwrap_or(&self.paths.own);
        whole.join("plugins/profile")
    }

    /// Holds one directory per saved step.
    pub fn checkpoints(&self) -> &Location {
        &self.paths.checkpoints
    }

    /// Whether this worker writes the saved states.
    pub fn saves(&self) -> bool {
        self.paths.saves()
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        self.unused.remove();
    }
}

impl Paths {
    fn of(worker: usize, path: PathBuf, config: &Config) -> Result<Self, RunError> {
        match path.to_str() {
            None => return Err(RunError::NotUnicode { path }),
            Some(name) if name.contains("://") => return Err(RunError::Url { path }),
            Some(_) => {}
        }
        Ok(Self {
            checkpoints: checkpoints_of(&path, config),
            name: path.join(".run"),
            own: match worker {
                0 => path,
                worker => path.join(format!("worker-{worker}")),
            },
            worker,
        })
    }

    fn config(&self) -> PathBuf {
        self.own.join("config.toml")
    }

    fn metrics(&self) -> PathBuf {
        self.own.join("metrics.jsonl")
    }

    fn saves(&self) -> bool {
        self.worker == 0
    }

    fn run_name(&self) -> Option<String> {
        let name = fs::read_to_string(&self.name).ok()?;
        // It becomes part of a path.
        let is_name = |c: char| c.is_ascii_hexdigit();
        (!name.is_empty() && name.chars().all(is_name)).then_some(name)
    }

    /// Whether a run of `config` may live here.
    fn check_contents(&self, config: &Config, start: RunMode) -> Result<(), RunError> {
        if let Some(contents) = Contents::of(&self.own, &self.checkpoints) {
            return Err(RunError::NotARun {
                path: self.own.clone(),
                contents,
            });
        }
        if self.holds_run()? {
            let changes = match start {
                RunMode::New | RunMode::Resume => Changes::Refused,
                RunMode::ResumeChanged => Changes::Accepted,
            };
            check_same(&self.own, &self.checkpoints, config, changes)?;
            if self.saves()
                && let Some(there) = states_elsewhere(&self.own, config)?
            {
                return Err(RunError::StatesElsewhere {
                    path: self.own.clone(),
                    there: Box::new(there),
                    here: Box::new(self.checkpoints.clone()),
                });
            }
            if start == RunMode::New {
                return Err(RunError::Occupied {
                    path: self.own.clone(),
                });
            }
        }
        Ok(())
    }

    /// Whether there is anything to lose. A run that ended before its first result, because its
    /// program did not fit or its data was not there, is not held against the next attempt.
    fn holds_run(&self) -> Result<bool, RunError> {
        let metrics = fs::metadata(self.metrics()).is_ok_and(|file| file.len() > 0);
        if metrics || !self.saves() {
            return Ok(metrics);
        }
        match self.checkpoints.local() {
            Some(path) => Ok(fs::read_dir(path).into_iter().flatten().next().is_some()),
            None => Ok(Store::at(&self.checkpoints)?.latest()?.is_some()),
        }
    }

    /// Writes and removes a file: permissions alone do not tell (file systems are mounted
    /// read-only, and root may do anything).
    fn check_writable(&self) -> Result<(), RunError> {
        let probe = self.own.join(format!(".writable-{}", std::process::id()));
        fs::write(&probe, b"ankh")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|source| RunError::Unwritable {
                path: self.own.clone(),
                source,
            })
    }
}

fn drawn_name() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Where a run in `path` has its saved states.
pub fn checkpoints_of(path: &Path, config: &Config) -> Location {
    let elsewhere = config.checkpoint.directory.clone();
    elsewhere.unwrap_or_else(|| path.join("checkpoints").into())
}

fn who(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "another process, which has only just begun".into(),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    atomic::replace_file(path, bytes).map_err(|source| RunError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;

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
        let run = RunDirectory::open(directory.path(), config, RunMode::New).unwrap();
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
        RunDirectory::open(directory.path(), &longer, RunMode::Resume).unwrap();
        let error = RunDirectory::open(directory.path(), &longer, RunMode::New).unwrap_err();
        assert!(matches!(error, RunError::Occupied { .. }), "{error}");
    }

    #[test]
    fn a_run_whose_states_are_elsewhere_does_not_begin_anew() {
        let directory = recorded(&tiny(&[]));
        let elsewhere = tempfile::tempdir().unwrap();
        let moved = format!("checkpoint.directory={}", elsewhere.path().display());
        let open = || RunDirectory::open(directory.path(), &tiny(&[&moved]), RunMode::Resume);
        let save = |directory: &Path| {
            let tensor = ankh_pjrt::HostTensor::new::<f32>([1], &[0.0]);
            let tensors = [("step", &tensor)];
            let metadata = serde_json::Value::Null;
            Store::open(directory).save(2, &metadata, tensors).unwrap();
        };
        open().unwrap();
        save(&directory.path().join("checkpoints"));
        let error = open().unwrap_err();
        assert!(matches!(error, RunError::StatesElsewhere { .. }), "{error}");
        save(elsewhere.path());
        open().unwrap();
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
                "data.packing=packed",
                "data.packing is \"padded\" there and \"packed\" here",
            ),
            (
                "objective.task=nlu",
                "objective.task is unset there and \"nlu\" here",
            ),
        ] {
            for start in [RunMode::New, RunMode::Resume] {
                let error =
                    RunDirectory::open(directory.path(), &tiny(&[setting]), start).unwrap_err();
                assert!(matches!(error, RunError::AnotherRun { .. }), "{error}");
                assert!(error.to_string().contains(key), "{error}");
            }
        }
    }

    #[test]
    fn every_difference_is_shown_with_both_values() {
        let directory = recorded(&tiny(&[]));
        let open = |set: &[&str], start| RunDirectory::open(directory.path(), &tiny(set), start);
        let changed = ["train.batch_size=8", "optimizer.name=adamw"];
        let words = "train.batch_size is 4 there and 8 here; optimizer.name is \"adafactor\" there and \"adamw\" here";
        for start in [RunMode::New, RunMode::Resume] {
            let error = open(&changed, start).unwrap_err();
            assert!(matches!(error, RunError::Changed { .. }), "{error}");
            assert!(error.to_string().ends_with(words), "{error}");
        }
        let factored = ["optimizer.min_dim_size_to_factor=64"];
        let error = open(&factored, RunMode::Resume).unwrap_err().to_string();
        assert!(
            error.contains("min_dim_size_to_factor is 128 there and 64 here"),
            "{error}"
        );
        // Asked for, they are no obstacle, unless it is another model's run anyway.
        for set in [&changed[..], &factored] {
            open(set, RunMode::ResumeChanged).unwrap();
        }
        let both = [&changed[..], &["model.d_ff=64", "data.seed=3"]].concat();
        let error = open(&both, RunMode::ResumeChanged).unwrap_err().to_string();
        for words in ["another model's run", "d_ff is 48", "data.seed is 0", words] {
            assert!(error.contains(words), "{words} in {error}");
        }
        // An optimizer's other settings change its next steps, not what it kept.
        open(&["optimizer.decay_rate=0.7"], RunMode::Resume).unwrap();
    }

    #[test]
    fn a_run_without_a_result_is_begun_again() {
        let directory = recorded(&tiny(&[]));
        fs::write(directory.path().join("metrics.jsonl"), "").unwrap();
        let smaller = tiny(&["model.d_ff=24"]);
        RunDirectory::open(directory.path(), &smaller, RunMode::New).unwrap();
        fs::create_dir_all(directory.path().join("checkpoints/step_00000010")).unwrap();
        RunDirectory::open(directory.path(), &smaller, RunMode::New).unwrap_err();
    }

    #[test]
    fn a_run_keeps_its_name_and_the_next_one_has_another() {
        let directory = recorded(&tiny(&[]));
        let open = || RunDirectory::open(directory.path(), &tiny(&[]), RunMode::Resume).unwrap();
        let first = open().name().unwrap();
        assert_eq!(open().earlier_name(), Some(first.as_str()));
        open().record(&tiny(&[]), &versions()).unwrap();
        assert_eq!(open().name(), Some(first.clone()));
        // Somebody makes room for a run that begins anew.
        fs::remove_file(directory.path().join("metrics.jsonl")).unwrap();
        assert_eq!(open().earlier_name(), None);
        open().record(&tiny(&[]), &versions()).unwrap();
        assert_ne!(open().name().unwrap(), first);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_unwritable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error =
            RunDirectory::open(file.path().join("run"), &tiny(&[]), RunMode::New).unwrap_err();
        assert!(matches!(error, RunError::Unwritable { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_nothing_came_of_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        let open = |path: &Path| RunDirectory::open(path, &tiny(&[]), RunMode::Resume).unwrap();
        let path = directory.path().join("a/b");
        let run = open(&path);
        assert_eq!(names(&path), [lease::DIRECTORY]);
        drop(run);
        assert!(names(directory.path()).is_empty());

        // What was there stays: an empty directory, and what somebody put into it meanwhile.
        fs::create_dir_all(&path).unwrap();
        drop(open(&path));
        assert!(names(&path).is_empty());
        let deeper = path.join("c");
        let run = open(&deeper);
        fs::write(deeper.join("note"), "mine").unwrap();
        let unused = run.unused();
        drop(run);
        unused.remove();
        assert_eq!(names(&deeper), ["note"]);

        // A run that has recorded something keeps the numbers of its leases.
        let run = open(&path.join("d"));
        run.record(&tiny(&[]), &versions()).unwrap();
        assert_eq!(run.fence().number(), 1);
        drop(run);
        assert_eq!(open(&path.join("d")).fence().number(), 2);
        assert_eq!(open(&path.join("d")).fence().number(), 3);
    }

    #[test]
    fn checking_takes_nothing_and_tells_who_holds_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        RunDirectory::check(directory.path(), &tiny(&[])).unwrap();
        RunDirectory::check(directory.path().join("a/b"), &tiny(&[])).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let run = RunDirectory::open(directory.path(), &tiny(&[]), RunMode::New).unwrap();
        let error = RunDirectory::check(directory.path(), &tiny(&[])).unwrap_err();
        let me = format!("it belongs to process {} on ", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
        drop(run);
        RunDirectory::check(directory.path(), &tiny(&[])).unwrap();
    }

    #[test]
    fn a_run_without_a_readable_configuration_is_refused() {
        let directory = recorded(&tiny(&[]));
        fs::write(directory.path().join("config.toml"), "nonsense").unwrap();
        let error = RunDirectory::open(directory.path(), &tiny(&[]), RunMode::Resume).unwrap_err();
        assert!(
            matches!(error, RunError::UnreadableConfig { .. }),
            "{error}"
        );
    }
}
