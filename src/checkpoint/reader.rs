//! Reading one checkpoint, with every byte checked against the marker.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ankh_pjrt::{ElementType, HostTensor};
use serde_json::Value;
use zarrs::filesystem::FilesystemStore;

use super::commit::{ArrayRecord, Commit};
use super::error::{Damage, Error, Fault, Result};
use super::parallel::in_parallel;
use super::{Checkpoint, Store, array, step_of};

/// An open checkpoint: its marker and small files are checked, its tensors are read on demand.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    storage: Arc<FilesystemStore>,
    commit: Commit,
    /// Where in the marker each name is.
    places: HashMap<String, usize>,
    bytes_read: AtomicU64,
}

impl Reader {
    /// Opens the checkpoint in `directory`, the one with `commit.json` (see [`super::locate`] to
    /// find it).
    pub fn open(directory: impl Into<PathBuf>) -> Result<Reader> {
        let directory = directory.into();
        Reader::open_plainly(&directory)?.map_err(|fault| damaged(&directory, fault))
    }

    /// Like [`Reader::open`], without looking for a step to recommend.
    fn open_plainly(directory: &Path) -> Result<Result<Reader, Fault>> {
        if !directory.is_dir() {
            return Err(Error::NotACheckpoint(directory.to_path_buf()));
        }
        let storage = FilesystemStore::new(directory).map_err(|e| Error::Io {
            action: "open",
            path: directory.to_path_buf(),
            source: std::io::Error::other(e),
        })?;
        let read = || {
            let commit = Commit::read(directory)?;
            for group in &commit.groups {
                group.read(directory)?;
            }
            for array in &commit.arrays {
                array
                    .metadata
                    .read(directory)
                    .map_err(|fault| fault.of(&array.name))?;
            }
            let places = commit
                .arrays
                .iter()
                .enumerate()
                .map(|(place, array)| (array.name.clone(), place))
                .collect();
            Ok(Reader {
                directory: directory.to_path_buf(),
                storage: Arc::new(storage),
                commit,
                places,
                bytes_read: AtomicU64::new(0),
            })
        };
        Ok(read())
    }

    /// The directory read.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The training step.
    pub fn step(&self) -> u64 {
        self.commit.step
    }

    /// What was saved beside the tensors.
    pub fn metadata(&self) -> &Value {
        &self.commit.metadata
    }

    /// The bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.commit.bytes
    }

    /// The tensors' names, in the order they were saved.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.commit.arrays.iter().map(|array| array.name.as_str())
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[u64]> {
        Ok(&self.record(name)?.shape)
    }

    /// The element type of a tensor, as Zarr calls it: `float32`, `int32` ...
    pub fn data_type(&self, name: &str) -> Result<&str> {
        Ok(&self.record(name)?.data_type)
    }

    /// The same as a type; none for one that no checkpoint can hold.
    pub fn element_type(&self, name: &str) -> Result<Option<ElementType>> {
        Ok(array::element_type(self.data_type(name)?))
    }

    /// Reads one tensor.
    pub fn tensor(&self, name: &str) -> Result<HostTensor> {
        let record = self.record(name)?;
        let whole: Vec<Range<u64>> = record.shape.iter().map(|&size| 0..size).collect();
        self.read(record, &whole)
    }

    /// Reads a part of a tensor, a range for each dimension. Files that hold nothing of it are not
    /// read.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a part that does not lie in the tensor.
    pub fn part(&self, name: &str, part: &[Range<i64>]) -> Result<HostTensor> {
        let (record, part) = self.locate_part(name, part)?;
        self.read(record, &part)
    }

    /// Whether the checkpoint has a part of a tensor: always, unless it was written as a part of a
    /// state ([`super::Share::Part`]).
    ///
    /// # Errors
    /// Those of [`Reader::part`].
    pub fn holds(&self, name: &str, part: &[Range<i64>]) -> Result<bool> {
        let (record, part) = self.locate_part(name, part)?;
        array::holds(&self.storage, &self.directory, record, &part)
            .map_err(|fault| damaged(&self.directory, fault.of(name)))
    }

    fn locate_part(
        &self,
        name: &str,
        part: &[Range<i64>],
    ) -> Result<(&ArrayRecord, Vec<Range<u64>>)> {
        let record = self.record(name)?;
        let inside = part.len() == record.shape.len()
            && part.iter().zip(&record.shape).all(|(range, &size)| {
                0 <= range.start && range.start <= range.end && range.end as u64 <= size
            });
        if !inside {
            return Err(Error::Tensor {
                name: name.to_owned(),
                problem: format!("{part:?} is no part of {:?}", record.shape),
            });
        }
        let range = |range: &Range<i64>| range.start as u64..range.end as u64;
        Ok((record, part.iter().map(range).collect()))
    }

    /// Reads parts of several tensors at once, in the order of `parts`.
    pub fn parts(&self, parts: &[(&str, Vec<Range<i64>>)]) -> Result<Vec<HostTensor>> {
        in_parallel(parts.len(), |i| self.part(parts[i].0, &parts[i].1))
    }

    /// The bytes of chunks that were read up to now.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Reads several tensors at once, in the order of `names`.
    pub fn tensors(&self, names: &[&str]) -> Result<Vec<(String, HostTensor)>> {
        in_parallel(names.len(), |i| {
            Ok((names[i].to_owned(), self.tensor(names[i])?))
        })
    }

    /// Reads everything.
    pub fn load(&self) -> Result<Checkpoint> {
        let names: Vec<&str> = self.names().collect();
        Ok(Checkpoint {
            step: self.step(),
            metadata: self.metadata().clone(),
            tensors: self.tensors(&names)?,
        })
    }

    /// Reads and checks every byte, and keeps none.
    pub fn verify(&self) -> Result<()> {
        self.verify_plainly()
            .map_err(|fault| damaged(&self.directory, fault))
    }

    fn verify_plainly(&self) -> Result<(), Fault> {
        let arrays = &self.commit.arrays;
        let verify = |i: usize| {
            array::verify(&self.storage, &self.directory, &arrays[i])
                .map_err(|fault| fault.of(&arrays[i].name))
        };
        in_parallel(arrays.len(), verify).map(drop)
    }

    fn record(&self, name: &str) -> Result<&ArrayRecord> {
        match self.places.get(name) {
            Some(&place) => Ok(&self.commit.arrays[place]),
            None => Err(Error::NoTensor {
                name: name.to_owned(),
                checkpoint: self.directory.clone(),
            }),
        }
    }

    fn read(&self, record: &ArrayRecord, part: &[Range<u64>]) -> Result<HostTensor> {
        let (tensor, bytes) = array::read(&self.storage, &self.directory, record, part)
            .map_err(|fault| damaged(&self.directory, fault.of(&record.name)))?;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(tensor)
    }
}

/// The error for a fault found in `directory`, with the newest earlier step beside it that is
/// whole.
pub(super) fn damaged(directory: &Path, fault: Fault) -> Error {
    Error::Damaged(Box::new(Damage {
        checkpoint: directory.to_path_buf(),
        array: fault.array,
        file: fault.file,
        problem: fault.problem,
        certain: fault.certain,
        intact: newest_intact_before(directory),
    }))
}

fn newest_intact_before(directory: &Path) -> Option<u64> {
    let step = step_of(directory)?;
    let store = Store::open(ankh_storage::atomic::parent(directory));
    let is_intact = |step: &u64| {
        let reader = Reader::open_plainly(&store.directory_of(*step));
        matches!(reader, Ok(Ok(reader)) if reader.step() == *step && reader.verify_plainly().is_ok())
    };
    store
        .list()
        .ok()?
        .into_iter()
        .rev()
        .filter(|other| *other < step)
        .find(is_intact)
}
