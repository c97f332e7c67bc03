//! Keeps the compiler's answers by content: the same program, flags, plugin and slice give the same
//! answer.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Outcome;
use crate::mesh::executable_file::program_digest;
use crate::plan::LoweredStep;

/// Answers in a directory, one file each.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// What an answer is the answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

/// Changes when what is kept of an answer means something else.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Entry {
    outcome: Outcome,
}

impl Cache {
    /// Answers in this directory; it is made when the first one comes.
    pub fn at(directory: &Path) -> Cache {
        Cache {
            directory: directory.to_owned(),
        }
    }

    /// The user's own: `ankh/plans` in `XDG_CACHE_HOME`, or in `.cache` of the home directory.
    /// `None` where there is neither.
    pub fn of_user() -> Option<Cache> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let caches = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
        Some(Cache::at(&caches.join("ankh/plans")))
    }

    /// What was said before. An unreadable answer is none.
    pub(super) fn get(&self, key: &Key) -> Option<Outcome> {
        let bytes = fs::read(self.file(key)).ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        Some(entry.outcome)
    }

    /// Keeps an answer that would be the same again. A cache that cannot be written is done
    /// without.
    pub(super) fn put(&self, key: &Key, outcome: &Outcome) {
        if !outcome.is_lasting() {
            return;
        }
        let entry = Entry {
            outcome: outcome.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&entry) else {
            return;
        };
        let written = fs::create_dir_all(&self.directory)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                ankh_storage::atomic::replace_file(&self.file(key), &bytes)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = written {
            tracing::debug!("no answer kept in {}: {error}", self.directory.display());
        }
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.directory.join(format!("{}.json", key.0))
    }
}

impl Key {
    /// The key of a step for `plugin`.
    pub fn of(lowered: &LoweredStep<'_>, plugin: &str) -> Key {
        let given = &lowered.config.compiler.flags;
        let flags = crate::mesh::compiler_flags(lowered.slice.platform(), given).join(" ");
        let parts = [
            FORMAT.to_string(),
            env!("CARGO_PKG_VERSION").into(),
            program_digest(lowered.module()),
            flags,
            plugin.into(),
            lowered.slice.to_string(),
            lowered.mesh.to_string(),
        ];
        let hash = Sha256::digest(parts.join("\n"));
        Key(ankh_storage::hex(&hash))
    }
}
