//! A directory that appears whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Existing;
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, Manifest};
use crate::storage::Storage;

/// An output directory in the making: a temporary directory beside it, removed on drop.
pub(super) struct Output {
    target: PathBuf,
    work: TempDir,
}

impl Output {
    /// Checks that the target may be written, before any work is done.
    pub(super) fn begin(target: &Path, existing: Existing) -> Result<Output> {
        if replaceable(target)? && existing == Existing::Keep {
            return Err(Error::AlreadyPrepared {
                path: target.to_path_buf(),
                rows: Manifest::read(&Storage::local(target)).map_or(0, |manifest| manifest.rows),
            });
        }
        let absolute = std::path::absolute(target).map_err(Error::io("create", target))?;
        let parent = match absolute.parent() {
            Some(parent) => parent.to_path_buf(),
            None => {
                return Err(Error::ForeignOutput {
                    path: target.to_path_buf(),
                });
            }
        };
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let work = tempfile::Builder::new()
            .prefix(".ankh-prepare-")
            .tempdir_in(&parent)
            .map_err(Error::io("create a directory in", &parent))?;
        Ok(Output {
            target: absolute,
            work,
        })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        self.work.path()
    }

    /// Writes the manifest and moves everything into place.
    pub(super) fn commit(self, manifest: &[u8]) -> Result<()> {
        let path = self.work.path().join(MANIFEST);
        let mut file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        file.write_all(manifest)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", &path))?;
        open_to_others(self.work.path())?;
        // Looked at again: much may have happened since the work began.
        let old = match replaceable(&self.target)? {
            false => None,
            true => {
                let parent = self.target.parent().unwrap_or(Path::new("."));
                let aside = tempfile::Builder::new()
                    .prefix(".ankh-replaced-")
                    .tempdir_in(parent)
                    .map_err(Error::io("create a directory in", parent))?;
                fs::rename(&self.target, aside.path().join("old"))
                    .map_err(Error::io("replace", &self.target))?;
                Some(aside)
            }
        };
        let work = self.work.keep();
        if let Err(error) = fs::rename(&work, &self.target) {
            // What was there comes back as far as the system allows; the error is the first one.
            if let Some(aside) = &old {
                let _ = fs::rename(aside.path().join("old"), &self.target);
            }
            let _ = fs::remove_dir_all(&work);
            return Err(Error::io("create", &self.target)(error));
        }
        Ok(())
    }
}

/// Whether there is prepared data at a path that new data could take the place of. An error if
/// there is anything else but an empty directory.
fn replaceable(path: &Path) -> Result<bool> {
    let foreign = || Error::ForeignOutput {
        path: path.to_path_buf(),
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("look at", path)(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(foreign()),
        Ok(_) => {}
    }
    let mut entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    if entries.next().is_none() {
        return Ok(false);
    }
    match Manifest::read(&Storage::local(path)) {
        Ok(_) => Ok(true),
        Err(_) => Err(foreign()),
    }
}

/// Temporary directories are private; what takes their place should be as readable as the user's
/// other directories.
#[cfg(unix)]
fn open_to_others(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A directory made the ordinary way shows which permissions the user's umask leaves.
    let probe = directory.join(".probe");
    fs::create_dir(&probe)
        .and_then(|()| fs::metadata(&probe))
        .and_then(|metadata| {
            let mode = metadata.permissions().mode();
            fs::remove_dir(&probe)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(mode))
        })
        .map_err(Error::io("set the permissions of", directory))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> Result<()> {
    Ok(())
}
