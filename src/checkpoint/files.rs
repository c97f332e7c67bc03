//! What the commit protocol needs of a file system: durable directory trees, atomic renames, and
//! names for unfinished work.

use std::fs;
use std::path::{Path, PathBuf};

use ankh_storage::atomic;

use super::error::{Error, Result};

/// A directory that is being written, replaced or removed: hidden, beside the final name, on the
/// same file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Being written; never complete.
    Partial,
    /// A complete checkpoint that a newer one of the same name is about to replace.
    Replaced,
    /// A checkpoint on its way out.
    Removed,
}

impl Remains {
    const ALL: [Remains; 3] = [Remains::Partial, Remains::Replaced, Remains::Removed];

    fn suffix(self) -> &'static str {
        match self {
            Remains::Partial => ".partial",
            Remains::Replaced => ".replaced",
            Remains::Removed => ".removed",
        }
    }

    /// Where these remains of `target` are.
    pub(crate) fn beside(self, target: &Path) -> PathBuf {
        self.beside_for(target, None)
    }

    /// Where one of several writers, each with a number of its own, has them.
    pub(super) fn beside_for(self, target: &Path, writer: Option<u64>) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        target.with_file_name(self.name_of(&name, writer))
    }

    /// What these remains of a directory of this name are called.
    pub(super) fn name_of(self, target: &str, writer: Option<u64>) -> String {
        let writer = writer.map_or_else(String::new, |writer| format!(".{writer}"));
        format!(".{target}{writer}{}", self.suffix())
    }

    /// The reverse of [`Remains::beside`] and [`Remains::beside_for`] on a bare name without dots.
    pub(crate) fn parse(name: &str) -> Option<(Remains, &str)> {
        let name = name.strip_prefix('.')?;
        let parse = |kind: Remains| Some((kind, name.strip_suffix(kind.suffix())?));
        let (kind, target) = Remains::ALL.into_iter().find_map(parse)?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match target.rsplit_once('.') {
            Some((target, writer)) if is_number(writer) => Some((kind, target)),
            _ => Some((kind, target)),
        }
    }
}

/// Makes every file and directory under `directory`, and itself, durable.
pub(crate) fn sync_tree(directory: &Path) -> Result<()> {
    atomic::sync_tree(directory).map_err(Error::io("flush", directory))
}

/// Makes one file, or the list of names in one directory, durable.
pub(crate) fn sync(path: &Path) -> Result<()> {
    atomic::sync(path).map_err(Error::io("flush", path))
}

/// Renames, which is atomic on one file system, and makes the new name durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    atomic::rename(from, to).map_err(Error::io("rename", from))
}

/// Whether nothing would be lost by writing a directory at `path`.
pub(crate) fn is_vacant(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        Err(e) => Err(Error::io("open", path)(e)),
    }
}

/// Creates a directory and its ancestors.
pub(crate) fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))
}

/// Removes a directory tree; a missing one is no error.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    atomic::remove_tree(directory).map_err(Error::io("remove", directory))
}
