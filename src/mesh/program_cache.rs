//! Compiled programs kept on disk, so that a run that starts again compiles nothing.
//!
//! An entry is a file of a compiled program (see `executable_file`), named by a hash of all that
//! the compiler was given: the program, flags, plugin, slice, mesh and devices, and what a file
//! does not record, the environment and the processor of this machine. A cache may be slow or
//! useless, but it cannot fail a run: whatever is wrong with an entry makes it one to compile.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ankh_hlo::Module;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::executable_file::{self, ExecutableFileError, Identity};
use super::{DeviceMesh, LoadedExecutable};

/// What the programs of a cache may take together: dozens of steps of large models.
const LIMIT: u64 = 8 << 30;

/// Environment variables that plugins take flags from.
const FLAGS: [&str; 2] = ["XLA_FLAGS", "LIBTPU_INIT_ARGS"];

/// A directory of compiled programs. Processes and machines may share one.
#[derive(Debug)]
pub struct ProgramCache {
    directory: PathBuf,
    /// Bytes that the files may take together.
    limit: u64,
    entries: Entries,
    /// Whether it was said that it cannot be written.
    said: AtomicBool,
}

/// What is done with the entries there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    /// They are loaded.
    Used,
    /// They are replaced, because one of them may be at fault.
    Replaced,
}

/// What an entry is the compilation of.
#[derive(Serialize)]
struct Key<'a> {
    identity: &'a Identity,
    /// The host, where each has a process of its own.
    host: Option<usize>,
    environment: [Option<String>; FLAGS.len()],
    processor: &'a str,
}

impl ProgramCache {
    /// Programs in this directory; it is made when the first one comes.
    pub fn at(directory: &Path, entries: Entries) -> ProgramCache {
        ProgramCache {
            directory: directory.to_owned(),
            limit: LIMIT,
            entries,
            said: AtomicBool::new(false),
        }
    }

    /// An entry's program.
    fn read(&self, file: &Path, identity: &Identity) -> Option<Vec<u8>> {
        if self.entries == Entries::Replaced {
            return None;
        }
        match executable_file::load(file, identity) {
            Ok(program) => {
                // Where that fails, the entry only goes sooner.
                let _ = File::open(file).and_then(|file| file.set_modified(SystemTime::now()));
                Some(program)
            }
            Err(ExecutableFileError::File { source, .. })
                if source.kind() == ErrorKind::NotFound =>
            {
                None
            }
            Err(error) => {
                self.discard(file, &error);
                None
            }
        }
    }

    /// Removes an entry that cannot be used.
    fn discard(&self, file: &Path, error: &dyn std::error::Error) {
        tracing::warn!(
            "the program kept in {} cannot be used, and is compiled again: {error}",
            file.display()
        );
        // One that stays is replaced by what is compiled.
        let _ = fs::remove_file(file);
    }

    /// Keeps a program, and makes room for it.
    fn write(&self, file: &Path, identity: &Identity, program: &[u8]) {
        if program.len() as u64 > self.limit {
            return;
        }
        let kept = fs::create_dir_all(&self.directory)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                self.make_room(program.len() as u64)
                    .map_err(|error| error.to_string())
            })
            .and_then(|()| {
                executable_file::save(file, identity, program).map_err(|error| error.to_string())
            });
        if let Err(error) = kept
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "compiled programs are not kept in {}: {error}",
                self.directory.display()
            );
        }
    }

    /// Removes files, those used longest ago first, until there is room for so many bytes.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Another process may have removed it.
            if let Ok(about) = entry.metadata()
                && about.is_file()
            {
                files.push((about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total + bytes <= self.limit {
                break;
            }
            total -= length;
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

impl DeviceMesh {
    /// Whether the plugin loads programs as it compiled them, so that they can be kept.
    pub fn keeps_programs(&self) -> bool {
        self.check_keeps_programs().is_ok()
    }

    /// Keeps every program that is compiled from now on, and loads those that are kept already.
    pub fn keep_programs_in(&mut self, cache: ProgramCache) {
        if let Err(reason) = self.check_keeps_programs() {
            tracing::info!("programs are compiled at every start: {reason}");
            return;
        }
        self.cache = Some(cache);
    }

    /// A program that is kept.
    pub(super) fn kept(&self, module: &Module) -> Option<LoadedExecutable> {
        let (cache, identity, file) = self.entry(module)?;
        let program = cache.read(&file, &identity)?;
        let loaded = self.client.load(&program).map_err(Into::into);
        match loaded.and_then(|executable| self.ready(module, executable)) {
            Ok(program) => Some(program),
            Err(error) => {
                cache.discard(&file, &error);
                None
            }
        }
    }

    /// Keeps a program.
    pub(super) fn keep(&self, program: &LoadedExecutable) {
        let Some((cache, identity, file)) = self.entry(&program.module) else {
            return;
        };
        match program.executable.program().serialize() {
            Ok(bytes) => cache.write(&file, &identity, &bytes),
            Err(error) => tracing::info!("{} is not kept: {error}", identity.name),
        }
    }

    fn entry(&self, module: &Module) -> Option<(&ProgramCache, Identity, PathBuf)> {
        let cache = self.cache.as_ref()?;
        // A plugin that cannot be read again has been replaced since it was loaded.
        let identity = self.identity(module).ok()?;
        let key = Key {
            identity: &identity,
            host: self.own_host().map(|host| host.index),
            environment: FLAGS.map(|name| std::env::var(name).ok()),
            processor: &PROCESSOR,
        };
        let key = serde_json::to_vec(&key).expect("names and numbers are JSON");
        let name = ankh_storage::hex(&Sha256::digest(key));
        let file = cache.directory.join(format!("{name}.program"));
        Some((cache, identity, file))
    }
}

/// What a program for the CPU may depend on: the processor's model and extensions, and how many
/// there are.
static PROCESSOR: LazyLock<String> = LazyLock::new(|| {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = about.split("\n\n").next().unwrap_or_default().lines();
    let told = ["model name", "flags", "CPU part", "Features"];
    let mut told: Vec<&str> = first
        .filter(|line| told.iter().any(|name| line.starts_with(name)))
        .collect();
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let count = count.to_string();
    told.push(&count);
    told.join("\n")
});

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = ProgramCache::at(directory.path(), Entries::Used);
        cache.limit = 1000;
        let path = |name: &str| directory.path().join(name);
        let now = SystemTime::now();
        for (name, age) in [("b", 3), ("a", 2), ("c", 1)] {
            fs::write(path(name), [0; 300]).unwrap();
            let file = File::open(path(name)).unwrap();
            file.set_modified(now - Duration::from_secs(60 * age))
                .unwrap();
        }
        let left = |names: [&str; 3]| names.map(|name| path(name).exists());
        cache.make_room(100).unwrap();
        assert_eq!(left(["b", "a", "c"]), [true; 3]);
        cache.make_room(500).unwrap();
        assert_eq!(left(["b", "a", "c"]), [false, false, true]);
        cache.make_room(5000).unwrap();
        assert_eq!(left(["b", "a", "c"]), [false; 3]);
    }
}
