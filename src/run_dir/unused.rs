//! Takes back what opening a run directory made, where no run came of it: an attempt that ends
//! before anything is recorded, because its weights are damaged or its program does not fit, leaves
//! no directory that looks like a run's.

use std::fs;
use std::path::{Path, PathBuf};

use super::lease::Fence;
use super::{Paths, RunError};

/// What opening a directory has made. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Unused {
    /// Of the run: it exists as soon as anything is recorded.
    config: PathBuf,
    made: Made,
    fence: Fence,
}

/// Directories that were not there before, the innermost first.
#[derive(Clone, Debug)]
pub(super) struct Made(Vec<PathBuf>);

impl Unused {
    pub(super) fn new(paths: &Paths, made: Made, fence: Fence) -> Unused {
        Unused {
            config: paths.config(),
            made,
            fence,
        }
    }

    /// Removes the lease and the directories that were made for it, unless something is recorded or
    /// somebody put other files there. To be called when this process writes nothing there any
    /// more; from any thread, and as often as one likes.
    pub fn remove(&self) {
        if !self.config.exists() {
            self.fence.withdraw();
            self.made.remove();
        }
    }
}

impl Made {
    /// Makes a directory and those that it is in.
    pub fn at(path: &Path) -> Result<Made, RunError> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made = path.ancestors().take_while(missing).map(Path::to_owned);
        let made = Made(made.collect());
        fs::create_dir_all(path).map_err(|source| {
            made.remove();
            RunError::Unwritable {
                path: path.to_owned(),
                source,
            }
        })?;
        Ok(made)
    }

    /// Removes those that are empty.
    pub fn remove(&self) {
        // What is not empty is somebody's, and so is what it is in.
        let _ = self.0.iter().try_for_each(fs::remove_dir);
    }
}
