//! Writes one checkpoint: first into a hidden sibling directory, which its marker and one rename
//! then make visible.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankh_pjrt::HostTensor;
use serde_json::Value;
use zarrs::filesystem::FilesystemStore;
use zarrs::group::GroupBuilder;

use super::array;
use super::commit::{self, ArrayRecord, Commit, FileRecord};
use super::error::{Error, Result};
use super::files::{self, Remains};
use super::guard::Guard;

/// A checkpoint being written, one tensor at a time, so that only one has to be in memory. Dropped
/// without [`Writer::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    partial: PathBuf,
    step: u64,
    guard: Guard,
    storage: Arc<FilesystemStore>,
    arrays: Vec<ArrayRecord>,
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
        files::create(&partial)?;
        let storage = FilesystemStore::new(&partial).map_err(|e| Error::Io {
            action: "open",
            path: partial.clone(),
            source: std::io::Error::other(e),
        })?;
        Ok(Writer {
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
        let record = array::write(&self.storage, &self.partial, name, tensor)?;
        self.bytes += tensor.bytes.len() as u64;
        self.arrays.push(record);
        Ok(())
    }

    /// Makes the checkpoint exist, with `metadata` for whoever reads it, and returns its directory.
    /// When this returns, the checkpoint survives a power failure; until then, it does not exist.
    pub fn commit(mut self, metadata: &Value) -> Result<PathBuf> {
        let groups = self
            .groups
            .iter()
            .map(|group| self.write_group(group))
            .collect::<Result<Vec<_>>>()?;
        files::sync_tree(&self.partial)?;
        let marker = Commit::new(
            self.step,
            self.bytes,
            metadata.clone(),
            groups,
            std::mem::take(&mut self.arrays),
        );
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
        let _ = files::remove_tree(&self.partial);
    }
}
