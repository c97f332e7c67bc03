//! Checkpoints on a disk: a directory is written under a hidden name, and one rename makes it
//! visible.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankh_storage::{Location, atomic};

use super::{Directory, Files};
use crate::checkpoint::commit::{self, Commit};
use crate::checkpoint::error::{Error, Fault, Result};
use crate::checkpoint::files::{self, Remains};
use crate::checkpoint::guard::Guard;

/// Files of so many bytes are put on the disk as soon as they are written, smaller ones with all
/// others.
const SYNCED: usize = 1 << 20;

/// A directory of a file system.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    location: Location,
}

impl Disk {
    pub(super) fn new(path: &Path) -> Disk {
        Disk {
            path: path.to_owned(),
            location: path.into(),
        }
    }
}

impl Files for Disk {
    fn location(&self) -> &Location {
        &self.location
    }

    fn beside(&self, location: &Location) -> Directory {
        // What is beside a path, or in it, is a path.
        Arc::new(Disk::new(location.local().unwrap_or(&self.path)))
    }

    fn exists(&self) -> Result<bool> {
        Ok(self.path.is_dir())
    }

    fn is_vacant(&self) -> Result<bool> {
        files::is_vacant(&self.path)
    }

    fn names(&self) -> Result<Vec<String>> {
        let failed = || Error::io("list", &self.path);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed()(e)),
        };
        let names =
            entries.map(|entry| Ok(entry.map_err(failed())?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn is_marked(&self) -> Result<bool> {
        Ok(self.path.join(commit::FILE).is_file())
    }

    fn marker(&self) -> Result<Option<String>> {
        // A replaced checkpoint has another file, though it may hold the same.
        let file = fs::metadata(self.path.join(commit::FILE)).ok();
        Ok(file.and_then(|file| Some(format!("{} {:?}", file.ino(), file.modified().ok()?))))
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, Fault> {
        fs::read(self.path.join(file)).map_err(|e| Fault::unreadable(file, &e))
    }

    fn read_into(&self, file: &str, buffers: &mut [&mut [u8]]) -> Result<(), Fault> {
        let unreadable = |e: io::Error| Fault::unreadable(file, &e);
        let path = self.path.join(file);
        let found = fs::metadata(&path).map_err(unreadable)?;
        let expected = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        if !found.is_file() || found.len() != expected {
            return Err(Fault::length(file, expected, found.len()));
        }
        let mut open = File::open(path).map_err(unreadable)?;
        let mut buffers = buffers.iter_mut();
        buffers.try_for_each(|buffer| open.read_exact(buffer).map_err(unreadable))
    }

    fn read_if_there(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(file);
        match fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path)(e)),
        }
    }

    fn write(&self, file: &str, parts: &[&[u8]]) -> Result<()> {
        let path = self.path.join(file);
        write(&path, parts).map_err(Error::io("write", &path))
    }

    fn hand_over(&self, file: &str, contents: &[u8]) -> Result<()> {
        files::create(&self.path)?;
        let path = self.path.join(file);
        atomic::replace_file(&path, contents).map_err(Error::io("write", &path))
    }

    fn keep(&self, files: &[&str]) -> Result<()> {
        let mut paths = files.iter().map(|file| self.path.join(file));
        paths.try_for_each(|path| files::sync(&path))
    }

    fn remove_all(&self) -> Result<()> {
        files::remove_tree(&self.path)
    }

    fn discard(&self, _: bool) -> Result<()> {
        self.remove_all()
    }

    fn leave(&self) -> Result<()> {
        // Each save has a directory of its own.
        files::remove_tree(&self.path)
    }

    fn begin(&self, writer: Option<u64>, alone: bool) -> Result<Directory> {
        // One that was paused until another took its place may go on writing: each has its own.
        let partial = Remains::Partial.beside_for(&self.path, writer);
        if alone {
            files::remove_tree(&partial)?;
        }
        files::create(&partial)?;
        Ok(Arc::new(Disk::new(&partial)))
    }

    fn publish(&self, unfinished: &Directory, marker: &Commit, guard: &Guard) -> Result<()> {
        // What was begun for a path is a path.
        let partial = unfinished.location().local().unwrap_or(&self.path);
        files::sync_tree(partial)?;
        let path = partial.join(commit::FILE);
        fs::write(&path, marker.to_text()).map_err(Error::io("write", &path))?;
        files::sync(&path)?;
        files::sync(partial)?;

        guard.check()?;
        let replaced = Remains::Replaced.beside(&self.path);
        if self.path.exists() {
            files::remove_tree(&replaced)?;
            files::rename(&self.path, &replaced)?;
        }
        files::rename(partial, &self.path)?;
        files::remove_tree(&replaced)
    }

    fn remove_checkpoint(&self) -> Result<()> {
        // Renamed first, so that a removal cut short leaves no step with half its files.
        let removed = Remains::Removed.beside(&self.path);
        files::remove_tree(&removed)?;
        files::rename(&self.path, &removed)?;
        files::remove_tree(&removed)
    }

    /// The directory becomes `rejected_<8 digits>`, in place of one of that name.
    fn reject(&self) -> Result<Location> {
        let name = self.location.name();
        let rejected = name.replacen("step", "rejected", 1);
        let rejected = self.path.with_file_name(rejected);
        files::remove_tree(&rejected)?;
        files::rename(&self.path, &rejected)?;
        Ok(rejected.into())
    }

    fn is_rejected(&self) -> Result<bool> {
        // It has another name.
        Ok(false)
    }

    /// Brings back a checkpoint whose replacement never came, and removes what has a hidden name.
    fn clean(&self, is_step: fn(&str) -> bool, guard: &Guard) -> Result<Vec<Location>> {
        let mut removed = Vec::new();
        for name in self.names()? {
            let Some((kind, target)) = Remains::parse(&name) else {
                continue;
            };
            if !is_step(target) {
                continue;
            }
            guard.check()?;
            let (path, target) = (self.path.join(&name), self.path.join(target));
            let replacement_came = target.join(commit::FILE).is_file();
            match kind {
                Remains::Replaced if !replacement_came => files::rename(&path, &target)?,
                _ => {
                    files::remove_tree(&path)?;
                    removed.push(path.into());
                }
            }
        }
        Ok(removed)
    }
}

/// Writes a file without a copy of its parts, and its directory where that is missing.
fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = match File::create(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(atomic::parent(path))?;
            File::create(path)?
        }
        file => file?,
    };
    for part in parts {
        file.write_all(part)?;
    }
    // The disk works on while other threads prepare their chunks.
    match parts.iter().any(|part| part.len() >= SYNCED) {
        true => file.sync_all(),
        false => Ok(()),
    }
}
