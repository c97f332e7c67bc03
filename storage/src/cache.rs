//! A cache on a local disk for what was read from buckets.
//!
//! An entry is a file named by a hash of its key: the object, its version and the range of bytes.
//! So a changed object has new entries, and its old ones are evicted in time. Eviction is by least
//! recent use, when the directory would exceed its limit. A file `total`, locked while it is
//! changed, counts for all processes. Each entry has its checksum, and any fault of an entry makes
//! it a miss: the cache can be slow or useless, but it cannot give wrong bytes or fail a read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::hex::hex;
use crate::version::Version;
use crate::{CacheOptions, Location};

/// A directory of entries.
pub(crate) struct Cache {
    directory: PathBuf,
    /// Bytes that the entries may take together.
    limit: u64,
    /// The bytes they do take, or will when those being written are; locked while it is changed.
    total: Mutex<File>,
}

/// An entry begins with this, the crc32c of its bytes, and their number.
const MAGIC: &[u8; 4] = b"ankh";
const HEADER: usize = 16;

/// How the names of unfinished entries begin.
const UNFINISHED: &str = ".unfinished-";

/// Unfinished entries this old are nobody's.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Cache {
    pub(crate) fn open(options: &CacheOptions) -> Result<Cache> {
        let directory = options.directory.clone();
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let path = directory.join("total");
        let total = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let cache = Cache {
            directory,
            limit: options.bytes,
            total: Mutex::new(total),
        };
        // The limit may be lower than last time.
        let trimmed = cache.locked(|total| match total {
            total if total > cache.limit => cache.evict(cache.limit),
            total => Ok(total),
        });
        trimmed.map_err(Error::io("open", &path))?;
        Ok(cache)
    }

    /// An entry's bytes.
    pub(crate) fn find(
        &self,
        location: &Location,
        version: &Version,
        range: &Range<u64>,
    ) -> Option<Bytes> {
        let path = self.path(location, version, range);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::with_capacity(HEADER + (range.end - range.start) as usize);
        file.read_to_end(&mut bytes).ok()?;
        let (header, body) = bytes.split_at_checked(HEADER)?;
        if header != self::header(body) || body.len() as u64 != range.end - range.start {
            // Makes room for a good one. Its bytes stay counted until the next count.
            let _ = fs::remove_file(&path);
            return None;
        }
        // Where that fails, the entry only goes sooner.
        let _ = file.set_modified(SystemTime::now());
        Some(Bytes::from(bytes).slice(HEADER..))
    }

    /// Keeps an entry if it can.
    pub(crate) fn keep(
        &self,
        location: &Location,
        version: &Version,
        range: &Range<u64>,
        bytes: &Bytes,
    ) {
        let size = (HEADER + bytes.len()) as u64;
        // One that would push out all others is not worth it.
        if size <= self.limit / 2 {
            let path = self.path(location, version, range);
            // Nothing depends on it.
            let _ = self.store(&path, size, bytes);
        }
    }

    fn store(&self, path: &Path, size: u64, bytes: &[u8]) -> io::Result<()> {
        // Entries are there for all to read, whatever the mode of a temporary file is.
        let mut unfinished = tempfile::Builder::new();
        unfinished.prefix(UNFINISHED);
        let mut file = None;
        self.locked(|mut total| {
            if total + size > self.limit {
                // Some more, so that not every entry has to look for another to go.
                total = self.evict((self.limit - self.limit / 8).min(self.limit - size))?;
            }
            let created = unfinished.tempfile_in(&self.directory)?;
            created.as_file().set_len(size)?;
            file = Some(created);
            Ok(total + size)
        })?;
        let Some(mut file) = file else {
            return Ok(());
        };
        file.write_all(&header(bytes))?;
        file.write_all(bytes)?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        file.persist(path)?;
        Ok(())
    }

    /// Deletes the least recently used entries until those that stay take no more than some bytes.
    /// Returns what they take.
    fn evict(&self, limit: u64) -> io::Result<u64> {
        let mut entries = Vec::new();
        let now = SystemTime::now();
        for directory in fs::read_dir(&self.directory)? {
            let directory = directory?;
            let name = directory.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with(UNFINISHED))
            {
                entries.extend(entry(&directory.path(), now));
            } else if directory.file_type()?.is_dir() {
                for file in fs::read_dir(directory.path())? {
                    entries.extend(entry(&file?.path(), now));
                }
            }
        }
        entries.sort();
        let mut total = entries.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in entries {
            if total <= limit {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= size;
            }
        }
        match total <= limit {
            true => Ok(total),
            false => Err(io::Error::other("the cache cannot be emptied")),
        }
    }

    /// Changes the number of bytes, alone among all threads and processes.
    fn locked(&self, change: impl FnOnce(u64) -> io::Result<u64>) -> io::Result<()> {
        // What a panic could leave half done is the number, which is read anew.
        let file = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        file.lock()?;
        let mut number = [0; 8];
        let known = file.read_exact_at(&mut number, 0);
        let changed = known
            .or_else(|_| {
                number = self.evict(u64::MAX)?.to_le_bytes();
                Ok(())
            })
            .and_then(|()| change(u64::from_le_bytes(number)))
            .and_then(|total| file.write_all_at(&total.to_le_bytes(), 0));
        file.unlock()?;
        changed
    }

    fn path(&self, location: &Location, version: &Version, range: &Range<u64>) -> PathBuf {
        let Version { size, tag } = version;
        let Range { start, end } = range;
        let key = format!("{location}\n{size}\n{tag}\n{start}\n{end}");
        let name = hex(&Sha256::digest(key.as_bytes())[..16]);
        let (directory, file) = name.split_at(2);
        self.directory.join(directory).join(file)
    }
}

fn header(bytes: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    header[8..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    header
}

/// When an entry was used, its size and its path. None for one that went meanwhile.
fn entry(path: &Path, now: SystemTime) -> Option<(SystemTime, u64, PathBuf)> {
    let metadata = fs::metadata(path).ok()?;
    let used = metadata.modified().ok()?;
    let name = path.file_name()?.to_str()?;
    let young = now.duration_since(used).is_ok_and(|age| age < ABANDONED);
    // One that is being written goes last.
    let used = match name.starts_with(UNFINISHED) && young {
        true => now + ABANDONED,
        false => used,
    };
    Some((used, metadata.len(), path.to_owned()))
}
