//! Reading one checkpoint, with every byte checked against the marker.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use ankh_pjrt::{ElementType, HostTensor};
use ankh_storage::{Location, StorageOptions};
use serde_json::Value;

use super::commit::{ArrayRecord, Commit, FileRecord};
use super::directory::{self, Directory};
use super::error::{Damage, Error, Fault, Result};
use super::guard::Guard;
use super::parallel::in_parallel;
use super::{Checkpoint, Store, array, step_of};

/// An open checkpoint: its marker and small files are checked, its tensors are read on demand.
#[derive(Debug)]
pub struct Reader {
    directory: Directory,
    commit: Commit,
    /// Where in the marker each name is.
    places: HashMap<String, usize>,
    /// The text of each array's own file.
    metadata: Vec<Vec<u8>>,
    bytes_read: AtomicU64,
}

impl Reader {
    /// Opens the checkpoint in `directory`, the one with `commit.json` (see [`super::locate`] to
    /// find it).
    pub fn open(directory: impl Into<Location>) -> Result<Reader> {
        let options = StorageOptions::default();
        Reader::at(&directory::open(&directory.into(), &options)?)
    }

    pub(super) fn at(directory: &Directory) -> Result<Reader> {
        Reader::open_plainly(directory)?.map_err(|fault| damaged(directory, fault))
    }

    /// Like [`Reader::at`], without looking for a step to recommend.
    fn open_plainly(directory: &Directory) -> Result<Result<Reader, Fault>> {
        let commit = match Commit::read(directory) {
            Ok(commit) => commit,
            Err(_) if !directory.is_marked()? && !directory.exists()? => {
                return Err(Error::NotACheckpoint(directory.location().clone()));
            }
            Err(fault) => return Ok(Err(fault)),
        };
        let groups = commit.groups.iter().map(|group| (None, group));
        let arrays = commit.arrays.iter();
        let arrays = arrays.map(|array| (Some(array.name.as_str()), &array.metadata));
        let files: Vec<(Option<&str>, &FileRecord)> = groups.chain(arrays).collect();
        let read = in_parallel(files.len(), |i| {
            let (array, file) = files[i];
            file.read(directory).map_err(|fault| match array {
                Some(array) => fault.of(array),
                None => fault,
            })
        });
        let metadata = match read {
            Ok(mut texts) => texts.split_off(commit.groups.len()),
            Err(fault) => return Ok(Err(fault)),
        };
        let names = commit.arrays.iter().enumerate();
        let places = names.map(|(place, array)| (array.name.clone(), place));
        Ok(Ok(Reader {
            directory: directory.clone(),
            places: places.collect(),
            commit,
            metadata,
            bytes_read: AtomicU64::new(0),
        }))
    }

    /// Opens it anew, by the same way.
    pub fn reopen(&self) -> Result<Reader> {
        Reader::at(&self.directory)
    }

    /// The directory read.
    pub fn directory(&self) -> &Location {
        self.directory.location()
    }

    /// The training step.
    pub fn step(&self) -> u64 {
        self.commit.step
    }

    /// What was saved beside the tensors.
    pub fn metadata(&self) -> &Value {
        &self.commit.metadata
    }

    /// A number that tells the tensors of this checkpoint from other ones: made of the checksums of
    /// all their files.
    pub fn digest(&self) -> u32 {
        // Names and numbers: serde_json has no way to fail on them.
        let arrays = serde_json::to_vec(&self.commit.arrays).expect("records are plain JSON");
        crc32c::crc32c(&arrays)
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
        let whole = self.shape(name)?.iter().map(|&size| 0..size);
        self.read(name, &whole.collect::<Vec<_>>())
    }

    /// Reads a part of a tensor, a range for each dimension. Files that hold nothing of it are not
    /// read.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a part that does not lie in the tensor.
    pub fn part(&self, name: &str, part: &[Range<i64>]) -> Result<HostTensor> {
        self.read(name, &self.within(name, part)?)
    }

    /// Whether the checkpoint has a part of a tensor: always, unless it was written as a part of a
    /// state ([`super::Share::Part`]).
    ///
    /// # Errors
    /// Those of [`Reader::part`].
    pub fn holds(&self, name: &str, part: &[Range<i64>]) -> Result<bool> {
        let (part, place) = (self.within(name, part)?, self.place(name)?);
        array::holds(&self.commit.arrays[place], &self.metadata[place], &part)
            .map_err(|fault| damaged(&self.directory, fault.of(name)))
    }

    /// A part of a tensor, if it lies in it.
    fn within(&self, name: &str, part: &[Range<i64>]) -> Result<Vec<Range<u64>>> {
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
        Ok(part.iter().map(range).collect())
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
            array::verify(&self.directory, &arrays[i], &self.metadata[i])
                .map_err(|fault| fault.of(&arrays[i].name))
        };
        in_parallel(arrays.len(), verify).map(drop)
    }

    fn record(&self, name: &str) -> Result<&ArrayRecord> {
        Ok(&self.commit.arrays[self.place(name)?])
    }

    fn place(&self, name: &str) -> Result<usize> {
        let place = self.places.get(name).copied();
        place.ok_or_else(|| Error::NoTensor {
            name: name.to_owned(),
            checkpoint: self.directory().clone(),
        })
    }

    fn read(&self, name: &str, part: &[Range<u64>]) -> Result<HostTensor> {
        let place = self.place(name)?;
        let (record, metadata) = (&self.commit.arrays[place], &self.metadata[place]);
        let (tensor, bytes) = array::read(&self.directory, record, metadata, part)
            .map_err(|fault| damaged(&self.directory, fault.of(&record.name)))?;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(tensor)
    }
}

/// The error for a fault found in `directory`, with the newest earlier step beside it that is
/// whole; or why nothing is known of it.
pub(super) fn damaged(directory: &Directory, fault: Fault) -> Error {
    if let Some(error) = fault.unreached {
        return Error::Storage(*error);
    }
    Error::Damaged(Box::new(Damage {
        checkpoint: directory.location().clone(),
        array: fault.array,
        file: fault.file,
        problem: fault.problem,
        certain: fault.certain,
        intact: newest_intact_before(directory),
    }))
}

fn newest_intact_before(directory: &Directory) -> Option<u64> {
    let step = step_of(directory.location())?;
    let parent = directory.location().parent()?;
    let store = Store {
        directory: directory.beside(&parent),
        guard: Guard::default(),
    };
    let is_intact = |step: &u64| {
        let reader = Reader::open_plainly(&store.step(*step));
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
