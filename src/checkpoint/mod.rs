//! Checkpoints: named tensors and a JSON value, saved so that they are either there, complete and
//! unaltered, or not there at all.
//!
//! Each step is a Zarr version 3 group that any Zarr reader opens, with one array per tensor, and a
//! marker `commit.json` that is written last and lists every file with its length and checksum. The
//! idea: a directory gets its final name by one rename, after everything in it is on disk. The
//! argument is in `docs/design/checkpoints.md`. This module does not know what the tensors mean:
//! parameters, optimizer state and counters are the same to it.

mod array;
mod commit;
mod error;
pub(crate) mod files;
mod grid;
mod guard;
mod newest;
mod parallel;
mod parts;
mod reader;
mod retention;
mod saver;
mod team;
mod writer;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::path::{Path, PathBuf};

use ankh_pjrt::HostTensor;
use serde_json::Value;

pub use error::{Damage, Error, Result};
pub use guard::Guard;
pub use newest::read;
pub use parts::TensorParts;
pub use reader::Reader;
pub use retention::Retention;
pub use saver::{Ended, Saver, Verdict};
pub use team::{Messenger, Report, Reports, Team};
pub use writer::Writer;

use error::Fault;
use files::Remains;
use team::TeamSave;

/// A checkpoint in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The training step.
    pub step: u64,
    /// What was saved beside the tensors.
    pub metadata: Value,
    /// The tensors, in the order they were saved.
    pub tensors: Vec<(String, HostTensor)>,
}

/// A directory of checkpoints, `step_<8 digits>/` each.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    guard: Guard,
}

impl Store {
    /// The checkpoints in `directory`, which the first save creates.
    pub fn open(directory: impl Into<PathBuf>) -> Store {
        Store {
            directory: directory.into(),
            guard: Guard::default(),
        }
    }

    /// The same, for one of several writers of which only one is allowed: what the guard refuses is
    /// not done.
    pub fn guarded(self, guard: Guard) -> Store {
        Store { guard, ..self }
    }

    /// Where the checkpoints are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the checkpoint of `step` is or would be.
    pub fn directory_of(&self, step: u64) -> PathBuf {
        self.directory.join(format!("step_{step:08}"))
    }

    /// The complete steps, ascending.
    pub fn list(&self) -> Result<Vec<u64>> {
        let is_complete = |step: &u64| is_checkpoint(&self.directory_of(*step));
        let mut steps: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| parse_step(name))
            .filter(is_complete)
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Directories of steps that have no marker: half written, or half removed by somebody.
    pub fn incomplete(&self) -> Result<Vec<PathBuf>> {
        let steps = self.names()?.into_iter();
        let steps = steps.filter(|name| parse_step(name).is_some());
        let directories = steps.map(|name| self.directory.join(name));
        Ok(directories.filter(|path| !is_checkpoint(path)).collect())
    }

    /// The newest complete step.
    pub fn latest(&self) -> Result<Option<u64>> {
        Ok(self.list()?.pop())
    }

    /// Saves `tensors` and `metadata` as the checkpoint of `step` and returns its directory. A
    /// checkpoint of that step that is already there is replaced, and stays until the new one is
    /// complete. Takes tensors one by one, owned or borrowed: `(String, HostTensor)` or `(&str,
    /// &HostTensor)`.
    pub fn save<N, T>(
        &self,
        step: u64,
        metadata: &Value,
        tensors: impl IntoIterator<Item = (N, T)>,
    ) -> Result<PathBuf>
    where
        N: AsRef<str>,
        T: Borrow<HostTensor>,
    {
        let mut writer = self.begin(step)?;
        for (name, tensor) in tensors {
            writer.add(name.as_ref(), tensor.borrow())?;
        }
        writer.commit(metadata)
    }

    /// Starts the checkpoint of `step` for a caller that makes its tensors one at a time.
    pub fn begin(&self, step: u64) -> Result<Writer> {
        Writer::replace(self.directory_of(step), step, self.guard.clone())
    }

    /// The same as one of several processes that write it together.
    fn begin_together(&self, step: u64, team: TeamSave) -> Result<Writer> {
        Writer::together(self.directory_of(step), step, self.guard.clone(), team)
    }

    /// Opens the checkpoint of `step` to read single tensors.
    pub fn reader(&self, step: u64) -> Result<Reader> {
        let directory = self.directory_of(step);
        if !directory.is_dir() {
            return Err(Error::NoStep {
                step,
                directory: self.directory.clone(),
                available: self.list()?,
            });
        }
        let reader = Reader::open(&directory)?;
        match reader.step() == step {
            true => Ok(reader),
            false => {
                let problem = format!("it is the marker of step {}", reader.step());
                Err(reader::damaged(
                    &directory,
                    Fault::new(commit::FILE, problem),
                ))
            }
        }
    }

    /// Loads the checkpoint of `step`.
    pub fn load(&self, step: u64) -> Result<Checkpoint> {
        self.reader(step)?.load()
    }

    /// Removes the complete steps that no rule keeps, and never the newest; returns the steps
    /// removed.
    pub fn keep(&self, retention: &Retention) -> Result<Vec<u64>> {
        let metadata = |step| Some(self.reader(step).ok()?.metadata().clone());
        let steps = retention.removed(&self.list()?, metadata);
        for &step in &steps {
            self.guard.check()?;
            // Renamed first, so that a removal cut short leaves no step with half its files.
            let directory = self.directory_of(step);
            let removed = Remains::Removed.beside(&directory);
            files::remove_tree(&removed)?;
            files::rename(&directory, &removed)?;
            files::remove_tree(&removed)?;
        }
        Ok(steps)
    }

    /// Sets the checkpoint of `step` aside, so that no run goes on from it: its directory becomes
    /// `rejected_<8 digits>`, in place of one of that name. Returns where it is.
    pub fn reject(&self, step: u64) -> Result<PathBuf> {
        self.guard.check()?;
        let rejected = self.directory.join(format!("rejected_{step:08}"));
        files::remove_tree(&rejected)?;
        files::rename(&self.directory_of(step), &rejected)?;
        Ok(rejected)
    }

    /// Sets aside every step that is newer than this one, so that this one is the newest. Returns
    /// where they are.
    pub fn fall_back_to(&self, step: u64) -> Result<Vec<PathBuf>> {
        let newer = self.list()?.into_iter().filter(|newer| *newer > step);
        newer.map(|step| self.reject(step)).collect()
    }

    /// Puts the directory in order after a process that died while saving or removing: brings back
    /// a checkpoint whose replacement never came, and removes what is half written. Returns the
    /// directories removed. No other process may be saving here meanwhile.
    pub fn clean(&self) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for name in self.names()? {
            let Some((kind, target)) = Remains::parse(&name) else {
                continue;
            };
            if parse_step(target).is_none() {
                continue;
            }
            self.guard.check()?;
            let (path, target) = (self.directory.join(&name), self.directory.join(target));
            let replacement_came = is_checkpoint(&target);
            match kind {
                Remains::Replaced if !replacement_came => {
                    files::rename(&path, &target)?;
                }
                _ => {
                    files::remove_tree(&path)?;
                    removed.push(path);
                }
            }
        }
        Ok(removed)
    }

    /// The names in the directory; none when it does not exist.
    fn names(&self) -> Result<Vec<String>> {
        let failed = || Error::io("list", &self.directory);
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed()(e)),
        };
        let names =
            entries.map(|entry| Ok(entry.map_err(failed())?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }
}

/// Whether `path` itself is a checkpoint, whole as far as its marker tells.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join(commit::FILE).is_file()
}

/// The checkpoint that `path` means: `path` itself, or the newest step of a run directory or of a
/// directory of steps.
pub fn locate(path: &Path) -> Result<PathBuf> {
    if is_checkpoint(path) || (step_of(path).is_some() && path.is_dir()) {
        return Ok(path.to_path_buf());
    }
    for directory in [path.join("checkpoints"), path.to_path_buf()] {
        let store = Store::open(directory);
        if let Some(step) = store.latest()? {
            return Ok(store.directory_of(step));
        }
    }
    Err(Error::NotACheckpoint(path.to_path_buf()))
}

/// The step that a checkpoint's directory is named after.
pub(crate) fn step_of(directory: &Path) -> Option<u64> {
    parse_step(directory.file_name()?.to_str()?)
}

/// The step of a directory named as [`Store`] names it.
fn parse_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.parse().ok()?;
    (name == format!("step_{step:08}")).then_some(step)
}
