//! The file by which libtpu keeps a second process off the chips of a machine. A process that is
//! killed leaves it behind.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where libtpu keeps it.
pub const LIBTPU_LOCK: &str = "/tmp/libtpu_lockfile";

/// What became of a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cleared {
    /// There was none.
    Absent,
    /// A process that lives has it open.
    Held(u32),
    /// It was removed.
    Removed,
}

/// Removes the lock of a process that has ended, unless one that lives has it open.
pub(super) fn clear(lock: &Path) -> io::Result<Cleared> {
    let file = match fs::metadata(lock) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cleared::Absent),
        file => file?,
    };
    match holder((file.dev(), file.ino()))? {
        Some(process) => Ok(Cleared::Held(process)),
        None => {
            fs::remove_file(lock)?;
            Ok(Cleared::Removed)
        }
    }
}

/// A process that has this file open. Other users' processes cannot be looked into; the system
/// does not let us remove their files either.
fn holder(file: (u64, u64)) -> io::Result<Option<u32>> {
    for process in fs::read_dir("/proc")?.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let is_it = |path: &Path| {
            // It follows the link, to the file that is open.
            fs::metadata(path).is_ok_and(|open| (open.dev(), open.ino()) == file)
        };
        if open.flatten().any(|entry| is_it(&entry.path())) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_lock_is_removed_when_no_living_process_has_it_open() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("lock");
        assert_eq!(clear(&lock).unwrap(), Cleared::Absent);
        let file = File::create(&lock).unwrap();
        let mut sleep = Command::new("sleep");
        let mut process = sleep.arg("600").stdin(file).spawn().unwrap();
        // This process's copy of it was the command's.
        drop(sleep);
        assert_eq!(clear(&lock).unwrap(), Cleared::Held(process.id()));
        assert!(lock.exists());
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(clear(&lock).unwrap(), Cleared::Removed);
        assert!(!lock.exists());
    }
}
