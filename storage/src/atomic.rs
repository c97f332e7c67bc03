//! Files and directories that appear whole or not at all on a local disk.
//!
//! Everything is written under a temporary name beside the final one, so on the same file system,
//! flushed to the disk, and renamed, which is atomic. A reader finds the old content or the new,
//! and so does whoever looks after a crash. What may be replaced, and who may write, callers
//! decide.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How the names of files that are being written begin and end.
const UNFINISHED: (&str, &str) = (".ankh-", ".unfinished");

/// Replaces the content of a file, which need not exist, and makes that last through a power cut.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file_with(path, |file| file.write_all(content))
}

/// [`replace_file`] with what `write` puts into the file.
pub fn replace_file_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = parent(path);
    let mut file = unfinished()
        // As any new file; the system takes off what the user's mask says.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory)
}

/// [`replace_file`] by the only process that writes this file. What a killed one has begun lies at
/// [`beginning`], and is written over.
pub fn replace_own_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let beginning = beginning(path);
    let mut file = File::create(&beginning)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&beginning, path)
}

/// Where [`replace_own_file`] writes before the content is complete.
pub fn beginning(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}{}", UNFINISHED.1))
}

/// Puts a copy of the file `from` in the place of `to`: linked under its new name, or copied where
/// that is another file system.
pub(crate) fn place_copy(from: &Path, to: &Path) -> io::Result<()> {
    let directory = parent(to);
    let placed = unfinished().make_in(directory, |temporary: &Path| {
        if fs::hard_link(from, temporary).is_err() {
            fs::copy(from, temporary)?;
        }
        File::open(temporary)?.sync_all()
    })?;
    placed.into_temp_path().persist(to)?;
    sync(directory)
}

/// Renames a file or directory, which must be complete, and makes that last through a power cut.
/// What is at `to` is replaced if it is a file or an empty directory.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync(parent(to))
}

/// Makes every file and directory under `directory`, and itself, last through a power cut.
pub fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => sync(&path)?,
        }
    }
    sync(directory)
}

/// Makes one file, or the list of names in one directory, last through a power cut.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a directory with everything in it; a missing one is no error.
pub fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory that `path` lies in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a file's name is that of one that is being written, or was when its writer was killed.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1)
}

fn unfinished<'a>() -> tempfile::Builder<'a, 'a> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED.0).suffix(UNFINISHED.1);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_began_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(beginning(&path), "longer than what comes").unwrap();
        replace_own_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_keeps_its_content_until_the_new_one_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace_file(&path, b"old").unwrap();
        let failed = replace_file_with(&path, |file| {
            file.write_all(b"half of the ne")?;
            assert_eq!(fs::read(&path)?, b"old");
            Err(io::Error::other("no more room"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more room");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        replace_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // A failure leaves nothing behind.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_has_the_permissions_of_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, any] = ["ours", "any"].map(|name| directory.path().join(name));
        replace_file(&ours, b"x").unwrap();
        fs::write(&any, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&any));
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_error_to_remove() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        sync_tree(&tree).unwrap();
        rename(&tree, &directory.path().join("there")).unwrap();
        remove_tree(&directory.path().join("there")).unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
