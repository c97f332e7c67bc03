//! Checkpoints: named tensors and a JSON value, saved so that they are either there, complete and
//! unaltered, or not there at all.
//!
//! Each step is a Zarr version 3 group that any Zarr reader opens, with one array per tensor, and a
//! marker `commit.json` that is written last and lists every file with its length and checksum. The
//! idea: on a disk a directory gets its final name by one rename, after everything in it is on
//! disk; in a bucket the marker is the last object. The argument is in
//! `docs/design/checkpoints.md`. This module does not know what the tensors mean: parameters,
//! optimizer state and counters are the same to it.

mod array;
mod commit;
mod directory;
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
use ankh_storage::{Location, StorageOptions};
use serde_json::Value;

pub use error::{Damage, Error, Result};
pub use guard::Guard;
pub use newest::read;
pub use parts::TensorParts;
pub use reader::Reader;
pub use retention::Retention;
pub use saver::{Ended, Saver, Verdict};
pub use team::{Messenger, Report, Reports, Share, Team};
pub use writer::Writer;

use commit::Commit;
use directory::Directory;
use error::Fault;
use parallel::in_parallel;
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

/// A directory of checkpoints, `step_<8 digits>/` each, on a disk or in a bucket.
#[derive(Debug, Clone)]
pub struct Store {
    directory: Directory,
    guard: Guard,
}

impl Store {
    /// The checkpoints in a directory of a disk, which the first save creates.
    pub fn open(directory: impl Into<PathBuf>) -> Store {
        Store {
            directory: directory::on_disk(&directory.into()),
            guard: Guard::default(),
        }
    }

    /// The checkpoints at a location. No request is made yet.
    ///
    /// # Errors
    /// Settings and credentials of a bucket's service that cannot be understood.
    pub fn at(location: &Location) -> Result<Store> {
        Store::with(location, &StorageOptions::default())
    }

    /// The same, with other ways to deal with a network.
    ///
    /// # Errors
    /// As [`Store::at`].
    pub fn with(location: &Location, options: &StorageOptions) -> Result<Store> {
        Ok(Store {
            directory: directory::open(location, options)?,
            guard: Guard::default(),
        })
    }

    /// The same, for one of several writers of which only one is allowed: what the guard refuses is
    /// not done.
    pub fn guarded(self, guard: Guard) -> Store {
        Store { guard, ..self }
    }

    /// Where the checkpoints are.
    pub fn directory(&self) -> &Location {
        self.directory.location()
    }

    /// Where the checkpoint of `step` is or would be.
    pub fn directory_of(&self, step: u64) -> Location {
        self.directory().join(&name_of(step))
    }

    fn step(&self, step: u64) -> Directory {
        self.directory.child(&name_of(step))
    }

    /// The complete steps, ascending.
    pub fn list(&self) -> Result<Vec<u64>> {
        let (mut complete, _) = self.steps()?;
        complete.sort_unstable();
        Ok(complete)
    }

    /// Directories of steps that have no marker: half written, or half removed by somebody.
    pub fn incomplete(&self) -> Result<Vec<Location>> {
        let (_, unmarked) = self.steps()?;
        let mut directories = Vec::new();
        for step in unmarked {
            if !self.step(step).is_rejected()? {
                directories.push(self.directory_of(step));
            }
        }
        Ok(directories)
    }

    /// The steps that have a marker, and those that have none.
    fn steps(&self) -> Result<(Vec<u64>, Vec<u64>)> {
        let names = self.directory.names()?;
        let steps: Vec<u64> = names.iter().filter_map(|name| parse_step(name)).collect();
        let marked = in_parallel(steps.len(), |i| self.step(steps[i]).is_marked())?;
        let marked = steps.into_iter().zip(marked);
        let (complete, incomplete): (Vec<_>, Vec<_>) = marked.partition(|(_, marked)| *marked);
        let numbers = |steps: Vec<(u64, bool)>| steps.into_iter().map(|(step, _)| step).collect();
        Ok((numbers(complete), numbers(incomplete)))
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
    ) -> Result<Location>
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
        self.begin_share(step, Share::Whole)
    }

    /// The same for a caller that may have only a share of the tensors.
    fn begin_share(&self, step: u64, share: Share<TeamSave>) -> Result<Writer> {
        Writer::begin(self.step(step), step, self.guard.clone(), share)
    }

    /// Opens the checkpoint of `step` to read single tensors.
    pub fn reader(&self, step: u64) -> Result<Reader> {
        let directory = self.step(step);
        let reader = match Reader::at(&directory) {
            Err(Error::NotACheckpoint(_)) => {
                return Err(Error::NoStep {
                    step,
                    directory: self.directory().clone(),
                    available: self.list()?,
                });
            }
            reader => reader?,
        };
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

    /// What was saved beside the tensors of `step`, by its marker alone.
    pub fn metadata(&self, step: u64) -> Result<Value> {
        Ok(self.marker(step)?.metadata)
    }

    /// The names of the tensors of `step`, by its marker alone.
    pub fn names(&self, step: u64) -> Result<Vec<String>> {
        let arrays = self.marker(step)?.arrays.into_iter();
        Ok(arrays.map(|array| array.name).collect())
    }

    /// A checksum of the tensors of `step`, by its marker alone: what tells it from another save of
    /// the same step.
    pub fn checksum(&self, step: u64) -> Result<u32> {
        let marker = self.marker(step)?;
        let chunks = marker.arrays.iter().flat_map(|array| &array.chunks);
        Ok(chunks.fold(0, |checksum, chunk| {
            let checksum = crc32c::crc32c_append(checksum, chunk.file.as_bytes());
            crc32c::crc32c_append(checksum, &chunk.crc32c.to_le_bytes())
        }))
    }

    fn marker(&self, step: u64) -> Result<Commit> {
        let directory = self.step(step);
        Commit::read(&directory).map_err(|fault| reader::damaged(&directory, fault))
    }

    /// Loads the checkpoint of `step`.
    pub fn load(&self, step: u64) -> Result<Checkpoint> {
        self.reader(step)?.load()
    }

    /// Removes the complete steps that no rule keeps, and never the newest; returns the steps
    /// removed.
    pub fn keep(&self, retention: &Retention) -> Result<Vec<u64>> {
        let metadata = |step| self.metadata(step).ok();
        let steps = retention.removed(&self.list()?, metadata);
        steps.iter().try_for_each(|&step| self.remove(step))?;
        Ok(steps)
    }

    /// Removes all complete steps but this one.
    pub fn keep_only(&self, step: Option<u64>) -> Result<()> {
        let mut steps = self.list()?.into_iter();
        steps.try_for_each(|other| match step == Some(other) {
            true => Ok(()),
            false => self.remove(other),
        })
    }

    fn remove(&self, step: u64) -> Result<()> {
        self.guard.check()?;
        self.step(step).remove_checkpoint()
    }

    /// Sets the checkpoint of `step` aside, so that no run goes on from it: on a disk its directory
    /// becomes `rejected_<8 digits>`, in place of one of that name; in a bucket its marker becomes
    /// `rejected.json`. Returns where that is.
    pub fn reject(&self, step: u64) -> Result<Location> {
        self.guard.check()?;
        self.step(step).reject()
    }

    /// Sets aside every step that is newer than this one, so that this one is the newest. Returns
    /// where they are.
    pub fn fall_back_to(&self, step: u64) -> Result<Vec<Location>> {
        let newer = self.list()?.into_iter().filter(|newer| *newer > step);
        newer.map(|step| self.reject(step)).collect()
    }

    /// Puts the directory in order after a process that died while saving or removing: brings back
    /// a checkpoint whose replacement never came, or finishes one that is whole, and removes what
    /// is half written. Returns the directories removed. No other process may be saving here
    /// meanwhile.
    pub fn clean(&self) -> Result<Vec<Location>> {
        let is_step = |name: &str| parse_step(name).is_some();
        self.directory.clean(is_step, &self.guard)
    }
}

/// Whether `path` itself is a checkpoint, whole as far as its marker tells.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join(commit::FILE).is_file()
}

/// The checkpoint that a location means: itself, or the newest step of a run directory or of a
/// directory of steps.
pub fn locate(location: &Location) -> Result<Location> {
    let directory = directory::open(location, &StorageOptions::default())?;
    Ok(located(&directory)?.location().clone())
}

fn located(directory: &Directory) -> Result<Directory> {
    let is_step = || Ok::<_, Error>(step_of(directory.location()).is_some() && directory.exists()?);
    if directory.is_marked()? || is_step()? {
        return Ok(directory.clone());
    }
    for directory in [directory.child("checkpoints"), directory.clone()] {
        let store = Store {
            directory,
            guard: Guard::default(),
        };
        if let Some(step) = store.latest()? {
            return Ok(store.step(step));
        }
    }
    Err(Error::NotACheckpoint(directory.location().clone()))
}

/// The step that a checkpoint's directory is named after.
pub(crate) fn step_of(directory: &Location) -> Option<u64> {
    parse_step(directory.name())
}

/// The name of the directory of a step.
fn name_of(step: u64) -> String {
    format!("step_{step:08}")
}

/// The step of a directory named as [`Store`] names it.
fn parse_step(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.parse().ok()?;
    (name == name_of(step)).then_some(step)
}
