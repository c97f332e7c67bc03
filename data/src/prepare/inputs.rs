//! The inputs before they are read: what they are called, how large they are, when they changed.

use std::time::UNIX_EPOCH;

use super::PrepareOptions;
use super::notes::PlannedInput;
use crate::error::Result;
use crate::input::{ColumnNames, Input};
use crate::storage::{Location, Storage, StorageOptions};

/// An input that is there.
#[derive(Clone)]
pub(super) struct Named {
    /// Its name, without the directory.
    pub(super) name: String,
    bytes: u64,
    modified: Option<u64>,
    location: Location,
    options: StorageOptions,
    columns: ColumnNames,
}

/// All inputs, in their order.
pub(super) type Inputs = Vec<Named>;

impl Named {
    /// Finds out how large an input is.
    pub(super) fn look(location: &Location, options: &PrepareOptions) -> Result<Named> {
        let (storage, name) = Storage::of_file(location, &options.storage)?;
        let modified = location.local().and_then(|path| {
            let time = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            let since = time.ok()?.duration_since(UNIX_EPOCH).ok()?;
            u64::try_from(since.as_nanos()).ok()
        });
        Ok(Named {
            bytes: storage.size(&name)?,
            name,
            modified,
            location: location.clone(),
            options: options.storage.clone(),
            columns: options.columns.clone(),
        })
    }

    pub(super) fn open(&self) -> Result<Input> {
        Input::open_with(&self.location, &self.options, &self.columns)
    }

    /// Whether it can be read only once, as a pipe.
    pub(super) fn passes(&self) -> bool {
        let metadata = self.location.local().map(std::fs::metadata);
        metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| !metadata.is_file()))
    }

    pub(super) fn planned(&self) -> PlannedInput {
        PlannedInput {
            name: self.name.clone(),
            bytes: self.bytes,
            modified: self.modified,
        }
    }
}
