//! What is kept of a benchmark that is under way.

use std::path::{Path, PathBuf};

use ankh_storage::atomic;
use serde_json::Map;

use super::Error;
use crate::inference::{Journal, JournalError, Unfinished};

/// Removes what is kept of the unfinished work of an output, unless a process is at it.
pub fn discard(output: &Path) -> Result<(), Error> {
    match Journal::open(output, &Map::new(), Unfinished::Discard) {
        Err(JournalError::Busy { .. }) => Ok(()),
        journal => Finished::of(output).with(journal?).remove(),
    }
}

/// What is kept of work beside its output. The journal tells whose it is, and goes last.
pub struct Finished {
    journal: Option<Journal>,
    /// The encoder's states.
    pub(super) states: PathBuf,
    /// The epochs of the training that is under way.
    pub(super) epochs: PathBuf,
}

impl Finished {
    pub(super) fn of(output: &Path) -> Finished {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        Finished {
            journal: None,
            states: output.with_file_name(format!(".{name}.states")),
            epochs: output.with_file_name(format!(".{name}.epochs")),
        }
    }

    /// The same with the journal, which is removed with it.
    pub(super) fn with(self, journal: Journal) -> Finished {
        Finished {
            journal: Some(journal),
            ..self
        }
    }

    /// Removes what was computed, but for the journal.
    pub(super) fn forget(&self) -> Result<(), Error> {
        let begun = atomic::beginning(&self.epochs);
        for path in [&self.states, &self.epochs, &begun] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes them: the output is there.
    pub fn remove(self) -> Result<(), Error> {
        self.forget()?;
        self.journal.map_or(Ok(()), |journal| Ok(journal.remove()?))
    }
}
