//! Writes one checkpoint: first into a hidden sibling directory, which its marker and one rename
//! then make visible.
//!
//! Several processes can write one together, each the parts of tensors that it has. Each leaves a
//! list of what it wrote; the one that leads waits for all lists and makes the marker of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ankh_pjrt::HostTensor;
use ankh_storage::atomic;
use serde_json::Value;
use zarrs::filesystem::FilesystemStore;
use zarrs::group::GroupBuilder;

use super::array::{self, WrittenArray};
use super::commit::{self, ArrayRecord, Commit, FileRecord};
use super::error::{Error, Result};
use super::files::{self, Remains};
use super::guard::Guard;
use super::parts::TensorParts;
use super::team::{POLL, TeamSave};

/// Where the processes of a team list what they wrote, until it is in the marker.
const LISTS: &str = "lists";

/// A checkpoint being written, one tensor at a time, so that only one has to be in memory. Dropped
/// without [`Writer::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    team: Option<TeamSave>,
    target: PathBuf,
    partial: PathBuf,
    step: u64,
    guard: Guard,
    storage: Arc<FilesystemStore>,
    arrays: Vec<WrittenArray>,
    bytes: u64,
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Writer {
    /// Starts a checkpoint that will be the directory `target`, which must not exist yet or be
    /// empty.
    pub fn create(target: impl Into<PathBuf>, step: u64) -> Result<Writer> {
        let target = target.into();
        match files::is_vacant(&target)? {
            true => Writer::replace(target, step, Guard::default()),
            false => Err(Error::Occupied(target)),
        }
    }

    /// Like [`Writer::create`], but takes the place of what is there.
    pub(super) fn replace(target: PathBuf, step: u64, guard: Guard) -> Result<Writer> {
        // One that was paused until another took its place may go on writing: each has its own.
        let partial = match guard.writer() {
            None => Remains::Partial.beside(&target),
            Some(writer) => Remains::Partial.beside_for(&target, writer),
        };
        files::remove_tree(&partial)?;
        Writer::into(target, partial, step, guard, None)
    }

    /// Like [`Writer::replace`], as one of several processes.
    pub(super) fn together(
        target: PathBuf,
        step: u64,
        guard: Guard,
        team: TeamSave,
    ) -> Result<Writer> {
        let partial = Remains::Partial.beside_for(&target, team.writer());
        Writer::into(target, partial, step, guard, Some(team))
    }

    fn into(
        target: PathBuf,
        partial: PathBuf,
        step: u64,
        guard: Guard,
        team: Option<TeamSave>,
    ) -> Result<Writer> {
        files::create(&partial)?;
        let storage = FilesystemStore::new(&partial).map_err(|e| Error::Io {
            action: "open",
            path: partial.clone(),
            source: std::io::Error::other(e),
        })?;
        Ok(Writer {
            team,
            target,
            partial,
            step,
            guard,
            storage: Arc::new(storage),
            arrays: Vec::new(),
            bytes: 0,
            names: BTreeSet::new(),
            // The root group's path is empty.
            groups: BTreeSet::from([String::new()]),
        })
    }

    /// Writes one tensor. Its name may hold `.` and `/`; each `/` opens a Zarr group.
    pub fn add(&mut self, name: &str, tensor: &HostTensor) -> Result<()> {
        self.add_parts(&TensorParts::whole(name, tensor))
    }

    /// Writes the parts of a tensor that this process has. Every process adds every tensor, also
    /// one that it has no part of.
    pub fn add_parts(&mut self, tensor: &TensorParts<'_>) -> Result<()> {
        let name: &str = &tensor.name;
        array::check_name(name)?;
        let clash = |problem| Error::Name {
            name: name.to_owned(),
            problem,
        };
        if !self.names.insert(name.to_owned()) {
            return Err(clash("it is given twice"));
        }
        let ancestors: Vec<&str> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
        if self.groups.contains(name) || ancestors.iter().any(|group| self.names.contains(*group)) {
            return Err(clash("a tensor cannot also be the group of others"));
        }
        self.groups.extend(ancestors.into_iter().map(str::to_owned));
        let written = array::write(&self.storage, &self.partial, tensor, self.leads())?;
        self.bytes += tensor.bytes();
        self.arrays.push(written);
        Ok(())
    }

    fn leads(&self) -> bool {
        self.team.as_ref().is_none_or(TeamSave::leads)
    }

    /// Where a process lists what it wrote.
    fn list(&self, host: usize) -> PathBuf {
        self.partial.join(LISTS).join(format!("{host}.json"))
    }

    /// Makes what this process wrote durable and lists it for the one that leads.
    fn hand_in(&self, host: usize) -> Result<()> {
        for (_, chunk) in self.arrays.iter().flat_map(WrittenArray::chunks) {
            files::sync(&self.partial.join(&chunk.file))?;
        }
        let path = self.list(host);
        files::create(atomic::parent(&path))?;
        // A tree of strings and numbers: serde_json has no way to fail on it.
        let list = serde_json::to_vec(&self.arrays).expect("a list is plain JSON");
        atomic::replace_file(&path, &list).map_err(Error::io("write", &path))
    }

    /// Adds what the other processes of a team list, waiting for each.
    fn collect(&mut self, team: &TeamSave) -> Result<()> {
        let patience = team.team.patience;
        let deadline = Instant::now() + patience;
        for host in 1..team.team.hosts {
            let path = self.list(host);
            let list = loop {
                match std::fs::read(&path) {
                    Ok(list) => break list,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(Error::io("read", &path)(e)),
                }
                team.check_parts(self.step)?;
                if Instant::now() >= deadline {
                    return Err(Error::Late {
                        step: self.step,
                        host,
                        seconds: patience.as_secs(),
                    });
                }
                std::thread::sleep(POLL);
            };
            let unusable = |e: String| Error::io("use", &path)(std::io::Error::other(e));
            let list: Vec<WrittenArray> =
                serde_json::from_slice(&list).map_err(|e| unusable(e.to_string()))?;
            if list.len() != self.arrays.len() {
                return Err(unusable(format!("it lists {} tensors", list.len())));
            }
            for (array, other) in self.arrays.iter_mut().zip(list) {
                array.merge(other)?;
            }
        }
        files::remove_tree(&self.partial.join(LISTS))
    }

    /// Makes the checkpoint exist, with `metadata` for whoever reads it, and returns its directory.
    /// When this returns, the checkpoint survives a power failure; until then, it does not exist.
    ///
    /// Of several processes, the one that leads waits for what the others wrote; the others wait
    /// until it tells them that it has committed the checkpoint, where their team has reports.
    pub fn commit(mut self, metadata: &Value) -> Result<PathBuf> {
        if let Some(team) = self.team.clone() {
            if !team.leads() {
                self.hand_in(team.team.host)?;
                let committed = team.await_commit(self.step);
                if committed.is_err() {
                    // The one that leads may have removed it before this process wrote the rest.
                    let _ = files::remove_tree(&self.partial);
                }
                return committed.map(|()| self.target.clone());
            }
            self.collect(&team)?;
        }
        let arrays = std::mem::take(&mut self.arrays);
        let arrays = arrays.into_iter().map(WrittenArray::whole);
        let arrays: Vec<ArrayRecord> = arrays.collect::<Result<_>>()?;
        let groups = self
            .groups
            .iter()
            .map(|group| self.write_group(group))
            .collect::<Result<Vec<_>>>()?;
        files::sync_tree(&self.partial)?;
        let marker = Commit::new(self.step, self.bytes, metadata.clone(), groups, arrays);
        let path = self.partial.join(commit::FILE);
        std::fs::write(&path, marker.to_text()).map_err(Error::io("write", &path))?;
        files::sync(&path)?;
        files::sync(&self.partial)?;

        self.guard.check()?;
        let replaced = Remains::Replaced.beside(&self.target);
        if self.target.exists() {
            files::remove_tree(&replaced)?;
            files::rename(&self.target, &replaced)?;
        }
        files::rename(&self.partial, &self.target)?;
        files::remove_tree(&replaced)?;
        Ok(self.target.clone())
    }

    fn write_group(&self, group: &str) -> Result<FileRecord> {
        let failed = |problem: String| Error::Zarr {
            action: "write group",
            name: format!("/{group}"),
            checkpoint: self.target.clone(),
            problem,
        };
        let node = GroupBuilder::new()
            .build(self.storage.clone(), &format!("/{group}"))
            .map_err(|e| failed(e.to_string()))?;
        node.store_metadata().map_err(|e| failed(e.to_string()))?;
        let file = Path::new(group).join("zarr.json");
        let text = std::fs::read(self.partial.join(&file))
            .map_err(Error::io("read", &self.partial.join(&file)))?;
        Ok(FileRecord::of(file.to_string_lossy().into_owned(), &text))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a commit there is nothing left to remove; after a failure, the failure is reported.
        if self.leads() {
            let _ = files::remove_tree(&self.partial);
        }
    }
}
