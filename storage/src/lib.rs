//! Files on local disks, and in buckets of Google Cloud Storage or of S3-compatible servers.
//!
//! A [`Location`] names a file or directory, local or remote. A [`Storage`] is a directory; files
//! in it have relative names with `/`. The interface is synchronous and may be called from any
//! thread; a small runtime of its own waits for the network. Failed requests are retried, bodies
//! that end early are continued, ranges are read several at a time, and a local disk can cache what
//! was read. [`atomic`] writes local files and directories whole or not at all. The crate does not
//! know what a file means, nor any setting of the program that uses it.

pub mod atomic;
mod cache;
mod error;
mod hex;
mod local;
mod location;
mod reader;
mod remote;
mod retry;
mod runtime;
mod transfer;
mod version;

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use error::{Error, Result};
pub use hex::hex;
use location::Address;
pub use location::Location;
use remote::Remote;

/// How a network is dealt with. Local files need none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// Attempts in a row that get nowhere before an operation fails; at least one is made.
    pub attempts: u32,
    /// Time for one attempt. What arrived of a body until then is kept, and the next attempt goes
    /// on.
    pub timeout: Duration,
    /// Time for an operation with all its attempts (a large file is many operations).
    pub patience: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Keep what was read on a local disk.
    pub cache: Option<CacheOptions>,
    /// Settings by the names of environment variables (`AWS_ENDPOINT_URL`,
    /// `GOOGLE_SERVICE_ACCOUNT`), which they stand before.
    pub settings: BTreeMap<String, String>,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            attempts: 10,
            timeout: Duration::from_secs(30),
            patience: Duration::from_secs(300),
            concurrency: 16,
            cache: None,
            settings: BTreeMap::new(),
        }
    }
}

/// A local directory that keeps what was read from afar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// It is created when missing, and may serve several processes.
    pub directory: PathBuf,
    /// What its files may hold together, in bytes.
    pub bytes: u64,
}

/// A file of a [`Storage`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Relative to the storage.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// A directory of files. Clones are the same storage.
///
/// Ranges of a remote file are all of the version that was seen first (or when [`Storage::size`],
/// [`Storage::read`] or [`Storage::reader`] last asked for it); when the file changes meanwhile,
/// they fail with [`Error::Changed`].
#[derive(Clone)]
pub struct Storage {
    location: Location,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Local(PathBuf),
    Remote(Arc<Remote>),
}

impl Storage {
    /// The storage at a location, which need not exist. No request is made yet.
    ///
    /// # Errors
    /// Settings and credentials that cannot be understood, a runtime that cannot start.
    pub fn open(location: &Location, options: &StorageOptions) -> Result<Storage> {
        let backend = match location.address() {
            Address::Local(path) => Backend::Local(path.clone()),
            Address::Remote { .. } => Backend::Remote(Remote::open(location, options)?),
        };
        Ok(Storage {
            location: location.clone(),
            backend,
        })
    }

    /// A directory on a local disk.
    pub fn local(directory: impl Into<PathBuf>) -> Storage {
        let directory = directory.into();
        Storage {
            location: Location::from(directory.clone()),
            backend: Backend::Local(directory),
        }
    }

    /// The directory that a file is in, and its name there.
    ///
    /// # Errors
    /// Those of [`Storage::open`]; a location that is no file, such as a bucket.
    pub fn of_file(file: &Location, options: &StorageOptions) -> Result<(Storage, String)> {
        let parent = file.parent().filter(|_| !file.name().is_empty());
        let parent = parent.ok_or_else(|| Error::Location {
            text: file.to_string(),
            reason: "it names no file".to_owned(),
        })?;
        Ok((Storage::open(&parent, options)?, file.name().to_owned()))
    }

    /// Another directory in the same bucket, or on a local disk, for which no new client is made.
    /// `None` where the two have no client in common.
    pub fn beside(&self, location: &Location) -> Option<Storage> {
        let backend = match (&self.backend, location.address()) {
            (Backend::Local(_), Address::Local(path)) => Backend::Local(path.clone()),
            (Backend::Remote(remote), Address::Remote { .. })
                if self.location.bucket() == location.bucket() =>
            {
                Backend::Remote(remote.clone())
            }
            _ => return None,
        };
        Some(Storage {
            location: location.clone(),
            backend,
        })
    }

    /// Where a file of this storage is.
    pub fn location(&self, name: &str) -> Location {
        self.location.join(name)
    }

    /// A file's size in bytes.
    ///
    /// # Errors
    /// A missing file ([`Error::is_missing`]), a refused or failed request.
    pub fn size(&self, name: &str) -> Result<u64> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::size(&root.join(name)),
            Backend::Remote(remote) => Ok(remote.look(&location)?.size),
        }
    }

    /// A whole file.
    ///
    /// # Errors
    /// As [`Storage::size`].
    pub fn read(&self, name: &str) -> Result<Bytes> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::read(&root.join(name)),
            Backend::Remote(remote) => remote.read(&location),
        }
    }

    /// Some bytes of a file.
    ///
    /// # Errors
    /// As [`Storage::size`]; a range beyond the file's end.
    pub fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let read = self.read_ranges(name, std::slice::from_ref(&range))?;
        // One range gives one result.
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// Several ranges of a file, in the order asked for. Neighbors are read together, and several
    /// at once.
    ///
    /// # Errors
    /// As [`Storage::read_range`].
    pub fn read_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::read_ranges(&root.join(name), ranges),
            Backend::Remote(remote) => remote.read_ranges(&location, ranges),
        }
    }

    /// Reads a file from its beginning, ahead of what is asked for where it is remote.
    /// [`Error::reading`] turns the reader's errors back into this crate's.
    ///
    /// # Errors
    /// As [`Storage::size`].
    pub fn reader(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        let location = self.checked(name)?;
        Ok(match &self.backend {
            Backend::Local(root) => Box::new(local::reader(&root.join(name))?),
            Backend::Remote(remote) => Box::new(reader::Reader::open(remote, &location)?),
        })
    }

    /// The files whose names begin with a prefix, by name; those in directories below too. None
    /// where there is no such directory.
    ///
    /// # Errors
    /// A missing bucket, a refused or failed request.
    pub fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = match &self.backend {
            Backend::Local(root) => local::list(root)?,
            Backend::Remote(remote) => remote.list(&self.location, prefix)?,
        };
        entries.retain(|entry| entry.name.starts_with(prefix));
        entries.sort();
        Ok(entries)
    }

    /// The directories right below this one that hold files, by name. None where there is no such
    /// directory.
    ///
    /// # Errors
    /// As [`Storage::list`].
    pub fn directories(&self) -> Result<Vec<String>> {
        let mut names = match &self.backend {
            Backend::Local(root) => local::directories(root)?,
            Backend::Remote(remote) => remote.directories(&self.location)?,
        };
        names.sort();
        Ok(names)
    }

    /// Writes a file, replacing what was there. Nobody sees it half written.
    ///
    /// # Errors
    /// A refused or failed request, a full disk.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match &self.backend {
            Backend::Local(root) => {
                self.checked(name)?;
                local::write(&root.join(name), bytes)
            }
            Backend::Remote(_) => self.write_bytes(name, Bytes::copy_from_slice(bytes)),
        }
    }

    /// As [`Storage::write`], without a copy of the bytes in memory.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn write_bytes(&self, name: &str, bytes: Bytes) -> Result<()> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::write(&root.join(name), &bytes),
            Backend::Remote(remote) => remote.write(&location, bytes),
        }
    }

    /// Writes what a file holds to another, replacing what was there. The bytes of a remote file do
    /// not pass through this machine.
    ///
    /// # Errors
    /// As [`Storage::write`]; a file that is missing.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.checked(from)?, self.checked(to)?);
        match &self.backend {
            Backend::Local(root) => local::upload(&root.join(to), &root.join(from)),
            Backend::Remote(remote) => remote.copy(&source, &target),
        }
    }

    /// As [`Storage::write`], with the bytes of a local file. The file must not be changed
    /// afterwards, as the two may be one; deleting it is fine.
    ///
    /// # Errors
    /// As [`Storage::write`]; a file that cannot be read.
    pub fn upload(&self, name: &str, file: &Path) -> Result<()> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::upload(&root.join(name), file),
            Backend::Remote(remote) => remote.upload(&location, file),
        }
    }

    /// Deletes a file; that there is none is fine.
    ///
    /// # Errors
    /// A refused or failed request.
    pub fn delete(&self, name: &str) -> Result<()> {
        let location = self.checked(name)?;
        match &self.backend {
            Backend::Local(root) => local::delete(&root.join(name)),
            Backend::Remote(remote) => remote.delete(&location),
        }
    }

    /// Removes what was left of files by writers that were killed. Only while nobody writes; a
    /// remote storage has none.
    ///
    /// # Errors
    /// A missing directory, a file that cannot be deleted.
    pub fn sweep(&self) -> Result<()> {
        match &self.backend {
            Backend::Local(root) => local::sweep(root),
            Backend::Remote(_) => Ok(()),
        }
    }

    /// Attempts that failed and were followed by another, so far.
    pub fn retries(&self) -> u64 {
        match &self.backend {
            Backend::Local(_) => 0,
            Backend::Remote(remote) => remote.retries(),
        }
    }

    /// The location of a name that stays within this storage, whoever chose it.
    fn checked(&self, name: &str) -> Result<Location> {
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::Location {
                text: name.to_owned(),
                reason: format!("it names no file within {}", self.location),
            });
        }
        Ok(self.location(name))
    }
}
