//! Checkpoints in a bucket: an object appears whole, none is renamed, and the marker is put last.
//!
//! A new step is written where it will be: without its marker it is none. One that takes the place
//! of another is written under a hidden name first, its marker included. Only then are the old
//! marker removed, the objects copied within the bucket, and the new marker put. So no marker ever
//! stands beside objects that it does not describe, and whoever finds the hidden copy later can
//! finish.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ankh_storage::{Error as StorageError, Location, Storage, StorageOptions};

use super::{Directory, Files};
use crate::checkpoint::commit::{self, Checksum, Commit};
use crate::checkpoint::error::{Error, Fault, Result};
use crate::checkpoint::files::Remains;
use crate::checkpoint::guard::Guard;
use crate::checkpoint::parallel::{Permits, in_parallel};

/// What the marker of a rejected checkpoint is called.
const REJECTED: &str = "rejected.json";

/// Files on their way to the bucket or from it at once: at most a chunk of each is in memory.
const TRANSFERS: usize = 8;

/// The objects of a bucket whose keys begin with that of a directory.
#[derive(Clone)]
pub(super) struct Bucket {
    location: Location,
    storage: Storage,
    transfers: Arc<Permits>,
    /// What was begun, will not be published and is still to be removed.
    discarded: Arc<Mutex<BTreeSet<Location>>>,
}

impl Bucket {
    pub(super) fn open(location: &Location, options: &StorageOptions) -> Result<Bucket> {
        Ok(Bucket {
            location: location.clone(),
            storage: Storage::open(location, options)?,
            transfers: Arc::new(Permits::new(TRANSFERS)),
            discarded: Arc::default(),
        })
    }

    fn at(&self, location: &Location) -> Bucket {
        let storage = self.storage.beside(location);
        Bucket {
            location: location.clone(),
            // What is beside a directory of a bucket, or in it, is in that bucket.
            storage: storage.unwrap_or_else(|| self.storage.clone()),
            transfers: self.transfers.clone(),
            discarded: self.discarded.clone(),
        }
    }

    /// The directory that this one is in: the bucket itself is not that of a checkpoint.
    fn parent(&self) -> Bucket {
        self.at(&self.location.parent().unwrap_or(self.location.clone()))
    }

    fn has(&self, file: &str) -> Result<bool> {
        match self.storage.size(file) {
            Ok(_) => Ok(true),
            Err(StorageError::NoSuchObject { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The files and their sizes.
    fn files(&self) -> Result<BTreeMap<String, u64>> {
        let entries = self.storage.list("")?.into_iter();
        Ok(entries.map(|entry| (entry.name, entry.size)).collect())
    }

    fn delete<'f>(&self, files: impl Iterator<Item = &'f String>) -> Result<()> {
        let files: Vec<&String> = files.collect();
        in_parallel(files.len(), |i| self.storage.delete(files[i]))?;
        Ok(())
    }

    /// Makes what was written exactly what the marker lists: each file of its length, and no other.
    fn settle(&self, marker: &Commit) -> Result<()> {
        let found = self.files()?;
        let mut listed = BTreeSet::new();
        for record in marker.files() {
            if found.get(&record.file) != Some(&record.bytes) {
                return Err(Error::Incomplete {
                    file: self.location.join(&record.file),
                    bytes: record.bytes,
                    found: found.get(&record.file).copied(),
                });
            }
            listed.insert(&record.file);
        }
        self.delete(found.keys().filter(|file| !listed.contains(file)))
    }

    /// Removes what could not be removed when its save failed. What cannot be removed now either is
    /// left to the next save, or to [`Files::clean`].
    fn discard_earlier(&self) {
        let earlier = std::mem::take(&mut *self.discarded());
        for location in earlier.into_iter().filter(|of| *of != self.location) {
            if self.at(&location).discard(false).is_err() {
                self.discarded().insert(location);
            }
        }
    }

    fn discarded(&self) -> MutexGuard<'_, BTreeSet<Location>> {
        // No code that can panic holds it.
        let discarded = self.discarded.lock();
        discarded.unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a whole checkpoint that has a hidden name into this place.
    fn take(&self, hidden: &Bucket) -> Result<()> {
        self.storage.delete(commit::FILE)?;
        let mut new = hidden.files()?;
        new.remove(commit::FILE);
        let old = self.files()?;
        self.delete(old.keys().filter(|file| !new.contains_key(*file)))?;
        let parent = self.parent();
        let copy = |file: &str| {
            let name = |of: &Bucket| format!("{}/{file}", of.location.name());
            parent.storage.copy(&name(hidden), &name(self))
        };
        let new: Vec<String> = new.into_keys().collect();
        in_parallel(new.len(), |i| copy(&new[i]))?;
        copy(commit::FILE)?;
        hidden.remove_all()
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.location)
    }
}

impl Files for Bucket {
    fn location(&self) -> &Location {
        &self.location
    }

    fn beside(&self, location: &Location) -> Directory {
        Arc::new(self.at(location))
    }

    fn exists(&self) -> Result<bool> {
        Ok(!self.is_vacant()?)
    }

    fn is_vacant(&self) -> Result<bool> {
        Ok(self.storage.list("")?.is_empty())
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.storage.directories()?)
    }

    fn is_marked(&self) -> Result<bool> {
        self.has(commit::FILE)
    }

    fn marker(&self) -> Result<Option<String>> {
        // Two of the same contents list the same objects.
        let text = self.read_if_there(commit::FILE)?;
        Ok(text.map(|text| Checksum::of(&text).into()))
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, Fault> {
        match self.storage.read(file) {
            Ok(contents) => Ok(contents.into()),
            Err(error) => Err(Fault::unreachable(file, error)),
        }
    }

    fn read_into(&self, file: &str, buffers: &mut [&mut [u8]]) -> Result<(), Fault> {
        let _permit = self.transfers.take();
        let unreachable = |error| Fault::unreachable(file, error);
        let mut reader = self.storage.reader(file).map_err(unreachable)?;
        let mut read = || {
            buffers
                .iter_mut()
                .try_for_each(|buffer| reader.read_exact(buffer))?;
            // It ends here.
            Ok::<_, io::Error>(reader.read(&mut [0])? == 0)
        };
        match read() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                let location = self.storage.location(file);
                return Err(unreachable(StorageError::reading(&location, error)));
            }
        }
        let found = self.storage.size(file).map_err(unreachable)?;
        let expected = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        Err(Fault::length(file, expected, found))
    }

    fn read_if_there(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match self.storage.read(file) {
            Ok(contents) => Ok(Some(contents.into())),
            Err(StorageError::NoSuchObject { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, file: &str, parts: &[&[u8]]) -> Result<()> {
        let _permit = self.transfers.take();
        Ok(self.storage.write_bytes(file, parts.concat().into())?)
    }

    fn hand_over(&self, file: &str, contents: &[u8]) -> Result<()> {
        self.write(file, &[contents])
    }

    fn keep(&self, _: &[&str]) -> Result<()> {
        // What a service has accepted is durable.
        Ok(())
    }

    fn remove_all(&self) -> Result<()> {
        self.storage.delete(commit::FILE)?;
        self.delete(self.files()?.keys())
    }

    fn discard(&self, later: bool) -> Result<()> {
        if later {
            self.discarded().insert(self.location.clone());
            return Ok(());
        }
        // Its marker may have arrived though the answer did not, and a replacement that is whole
        // may be all there is of its step: `clean` finishes that.
        match self.is_marked()? {
            true => Ok(()),
            false => self.remove_all(),
        }
    }

    fn leave(&self) -> Result<()> {
        // The next save may have begun here; `clean` removes what stays.
        Ok(())
    }

    fn begin(&self, writer: Option<u64>, alone: bool) -> Result<Directory> {
        if !self.is_marked()? {
            // What was rejected goes where something new comes.
            self.storage.delete(REJECTED)?;
            return Ok(Arc::new(self.clone()));
        }
        let hidden = Remains::Partial.name_of(self.location.name(), writer);
        let hidden = self.parent().child(&hidden);
        if alone {
            hidden.remove_all()?;
        }
        Ok(hidden)
    }

    fn publish(&self, unfinished: &Directory, marker: &Commit, guard: &Guard) -> Result<()> {
        let written = self.at(unfinished.location());
        written.settle(marker)?;
        guard.check()?;
        written.write(commit::FILE, &[marker.to_text().as_bytes()])?;
        if written.location != self.location {
            self.take(&written)?;
        }
        self.discard_earlier();
        Ok(())
    }

    fn remove_checkpoint(&self) -> Result<()> {
        // Its marker goes first.
        self.remove_all()
    }

    /// The marker gets another name.
    fn reject(&self) -> Result<Location> {
        match self.storage.copy(commit::FILE, REJECTED) {
            Ok(()) | Err(StorageError::NoSuchObject { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.storage.delete(commit::FILE)?;
        Ok(self.location.join(REJECTED))
    }

    fn is_rejected(&self) -> Result<bool> {
        self.has(REJECTED)
    }

    /// Finishes replacements that are whole, and removes what has neither a marker nor one of its
    /// rejection.
    fn clean(&self, is_step: fn(&str) -> bool, guard: &Guard) -> Result<Vec<Location>> {
        let mut removed = Vec::new();
        for name in self.names()? {
            let target = match Remains::parse(&name) {
                Some((Remains::Partial, target)) if is_step(target) => Some(target),
                _ if is_step(&name) => None,
                _ => continue,
            };
            let directory = self.at(&self.location.join(&name));
            if let Some(target) = target
                && directory.is_marked()?
            {
                guard.check()?;
                self.at(&self.location.join(target)).take(&directory)?;
            } else if !directory.is_marked()? && !directory.is_rejected()? {
                guard.check()?;
                directory.remove_all()?;
                removed.push(directory.location);
            }
        }
        Ok(removed)
    }
}
