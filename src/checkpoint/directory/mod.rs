//! The directories of checkpoints, on a disk or in a bucket.
//!
//! Saving and reading are the same for both kinds. What differs is in one module each: how a
//! checkpoint becomes visible, and how one is replaced, removed, rejected or cleaned up. A disk
//! renames directories (`disk`). A bucket cannot; there an object appears whole, and the marker is
//! the last one (`bucket`).

mod bucket;
mod disk;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ankh_storage::{Location, StorageOptions};

use self::bucket::Bucket;
use self::disk::Disk;
use super::commit::Commit;
use super::error::{Fault, Result};
use super::guard::Guard;

/// A directory, which need not exist: that of one checkpoint, or that of all.
pub(super) type Directory = Arc<dyn Files>;

/// The directory at a location. No request is made yet.
pub(super) fn open(location: &Location, options: &StorageOptions) -> Result<Directory> {
    Ok(match location.local() {
        Some(path) => on_disk(path),
        None => Arc::new(Bucket::open(location, options)?),
    })
}

/// A directory on a disk.
pub(super) fn on_disk(path: &Path) -> Directory {
    Arc::new(Disk::new(path))
}

/// What checkpoints need of a directory. Names of files are relative to it, with `/`.
pub(super) trait Files: fmt::Debug + Send + Sync {
    /// Where it is.
    fn location(&self) -> &Location;

    /// Another directory on the same disk or in the same bucket.
    fn beside(&self, location: &Location) -> Directory;

    /// The directory of this name in this one.
    fn child(&self, name: &str) -> Directory {
        self.beside(&self.location().join(name))
    }

    /// Whether it is there.
    fn exists(&self) -> Result<bool>;

    /// Whether nothing would be lost by writing a directory here.
    fn is_vacant(&self) -> Result<bool>;

    /// The names in it that may be those of directories; none where it is not there.
    fn names(&self) -> Result<Vec<String>>;

    /// Whether it has the marker that makes it a checkpoint.
    fn is_marked(&self) -> Result<bool>;

    /// What tells its marker from that of another checkpoint of the same name; nothing without one.
    fn marker(&self) -> Result<Option<String>>;

    /// A whole file.
    fn read(&self, file: &str) -> Result<Vec<u8>, Fault>;

    /// A whole file, which must have exactly the length of these buffers, into them.
    fn read_into(&self, file: &str, buffers: &mut [&mut [u8]]) -> Result<(), Fault>;

    /// A whole file, if it is there yet.
    fn read_if_there(&self, file: &str) -> Result<Option<Vec<u8>>>;

    /// Writes a file of these parts, in a directory that nobody reads yet.
    fn write(&self, file: &str, parts: &[&[u8]]) -> Result<()>;

    /// Writes a file that others wait for: it appears whole.
    fn hand_over(&self, file: &str, contents: &[u8]) -> Result<()>;

    /// Makes files that were written last through a power failure.
    fn keep(&self, files: &[&str]) -> Result<()>;

    /// Removes it with everything in it; a missing one is no error.
    fn remove_all(&self) -> Result<()>;

    /// Removes what was begun and will not be published: now, or `later` where a service does not
    /// answer, when something else was published.
    fn discard(&self, later: bool) -> Result<()>;

    /// Removes what this process, one of several, wrote of a save that another has given up, where
    /// no later save can have begun in the same place.
    fn leave(&self) -> Result<()>;

    /// Where a new checkpoint that will be here is written until [`Files::publish`]. `writer` is a
    /// number that no other writer has, `alone` whether no other process writes the same
    /// checkpoint.
    fn begin(&self, writer: Option<u64>, alone: bool) -> Result<Directory>;

    /// Makes what was written to `unfinished` visible here, with its marker, and in the place of
    /// what was here.
    fn publish(&self, unfinished: &Directory, marker: &Commit, guard: &Guard) -> Result<()>;

    /// Removes a checkpoint: at no time does it look whole while files are missing.
    fn remove_checkpoint(&self) -> Result<()>;

    /// Sets a checkpoint aside, so that it counts no more, and says as what.
    fn reject(&self) -> Result<Location>;

    /// Whether this is what a rejected checkpoint became, under the name of its step.
    fn is_rejected(&self) -> Result<bool>;

    /// Puts this directory of checkpoints in order after a writer that died, and says what was
    /// removed. `is_step` tells the names of checkpoints.
    fn clean(&self, is_step: fn(&str) -> bool, guard: &Guard) -> Result<Vec<Location>>;
}
