//! Files of this machine. Each function takes the file's path.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use crate::Entry;
use crate::atomic::{self, is_unfinished};
use crate::error::{Error, Result};

const BUFFER: usize = 1 << 17;

pub(crate) fn size(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    Ok(metadata.len())
}

pub(crate) fn read(path: &Path) -> Result<Bytes> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(bytes.into())
}

pub(crate) fn read_ranges(path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("open", path))?;
    let read = |range: &Range<u64>| {
        if range.start > range.end || range.end > metadata.len() {
            return Err(Error::NoSuchBytes {
                location: path.into(),
                range: range.clone(),
                size: metadata.len(),
            });
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(Error::io("read", path))?;
        Ok(bytes.into())
    };
    ranges.iter().map(read).collect()
}

pub(crate) fn reader(path: &Path) -> Result<impl Read + Send + use<>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

/// All files below a directory. Files that are being written (see [`write`]) are none yet.
pub(crate) fn list(root: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        let files = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            files => files.map_err(Error::io("list", &path))?,
        };
        for file in files {
            let file = file.map_err(Error::io("list", &path))?;
            // A name that is not Unicode cannot be asked for.
            let Some(name) = file.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if is_unfinished(&name) {
                continue;
            }
            // Follows links, and passes over what vanished meanwhile.
            let metadata = match fs::metadata(file.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(Error::io("open", &file.path()))?,
            };
            let name = format!("{directory}{name}");
            if metadata.is_dir() {
                directories.push(name + "/");
            } else {
                let size = metadata.len();
                entries.push(Entry { name, size });
            }
        }
    }
    Ok(entries)
}

/// The names of the directories in a directory; none where that is missing.
pub(crate) fn directories(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", root))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", root))?;
        if let Some(name) = entry.file_name().to_str()
            && entry.path().is_dir()
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    create_parent(path)?;
    atomic::replace_file(path, bytes).map_err(Error::io("write", path))
}

/// Links the file under its new name, or copies it where that is another file system.
pub(crate) fn upload(path: &Path, file: &Path) -> Result<()> {
    create_parent(path)?;
    atomic::place_copy(file, path).map_err(|source| Error::Copy {
        from: file.to_owned(),
        to: path.to_owned(),
        source,
    })
}

pub(crate) fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::io("delete", path)),
    }
}

/// Removes the unfinished files in a directory.
pub(crate) fn sweep(root: &Path) -> Result<()> {
    for file in fs::read_dir(root).map_err(Error::io("list", root))? {
        let file = file.map_err(Error::io("list", root))?;
        if file.file_name().to_str().is_some_and(is_unfinished) {
            delete(&file.path())?;
        }
    }
    Ok(())
}

/// Makes the directory of a file that is to be written.
fn create_parent(path: &Path) -> Result<()> {
    let directory = atomic::parent(path);
    fs::create_dir_all(directory).map_err(Error::io("create", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{Location, Storage, StorageOptions};

    fn storage(directory: &Path) -> Storage {
        Storage::open(&Location::from(directory), &StorageOptions::default()).unwrap()
    }

    #[test]
    fn a_name_never_leaves_the_storage() {
        let directory = tempfile::tempdir().unwrap();
        let inside = storage(&directory.path().join("inside"));
        for name in ["../x", "a/../../x", "/etc/passwd", "", ".", "a//b"] {
            let message = inside.write(name, b"x").unwrap_err().to_string();
            assert!(message.contains("inside"), "{message}");
            assert!(inside.read(name).is_err());
        }
        assert!(!directory.path().join("x").exists());
    }

    #[test]
    fn an_upload_outlives_its_source() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::write(&source, b"abc").unwrap();
        let storage = storage(&directory.path().join("target"));
        storage.write("x/y", b"before").unwrap();
        storage.upload("x/y", &source).unwrap();
        fs::remove_file(&source).unwrap();
        assert_eq!(&storage.read("x/y").unwrap()[..], b"abc");
        assert_eq!(storage.list("").unwrap().len(), 1);
        let message = storage.upload("z", &source).unwrap_err().to_string();
        assert!(message.contains("source"), "{message}");
    }

    #[test]
    fn written_files_have_the_usual_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let usual = directory.path().join("usual");
        fs::write(&usual, b"").unwrap();
        storage(directory.path()).write("written", b"").unwrap();
        let mode = |name: &Path| fs::metadata(name).unwrap().permissions().mode();
        assert_eq!(mode(&usual), mode(&directory.path().join("written")));
    }
}
