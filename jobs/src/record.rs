//! Which jobs were submitted from here, and how: one file for each.
//!
//! A record is a memory of what was asked for, not of how things stand; that is asked of the tools.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ankh_storage::atomic;
use serde::{Deserialize, Serialize};

use crate::{Error, Job, Name, Shell};

/// The directory of records.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

/// What is known here of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was asked for.
    pub job: Job,
    /// When, in seconds since 1970.
    pub submitted: u64,
}

/// The right to act on a job, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] Option<File>);

impl Records {
    /// Those in a directory, which need not be there.
    pub fn at(directory: impl Into<PathBuf>) -> Records {
        Records(directory.into())
    }

    /// Those of this user: `ankh/jobs` in `XDG_STATE_HOME`, or in `~/.local/state`.
    pub fn of_user(environment: impl Fn(&str) -> Option<String>) -> Option<Records> {
        let set = |name| environment(name).filter(|value| !value.is_empty());
        let state = set("XDG_STATE_HOME").filter(|path| Path::new(path).is_absolute());
        let home = || set("HOME").map(|home| Path::new(&home).join(".local/state"));
        let state = state.map(PathBuf::from).or_else(home)?;
        Some(Records(state.join("ankh/jobs")))
    }

    /// Where files that belong to a job are written.
    pub(crate) fn directory_of(&self, name: &Name) -> PathBuf {
        self.0.join(name.as_str())
    }

    fn file(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// Writes down that a job is submitted. The time of an earlier submission stays.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn write(&self, shell: &dyn Shell, job: &Job) -> Result<(), Error> {
        let file = self.file(&job.name);
        if shell.is_dry() {
            shell.say(&format!("the job is written down in {}", file.display()));
            return Ok(());
        }
        let earlier = self.read(&job.name).ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let record = Record {
            job: job.clone(),
            submitted: earlier.map_or_else(
                || now.unwrap_or(Duration::ZERO).as_secs(),
                |earlier| earlier.submitted,
            ),
        };
        let text = serde_json::to_string_pretty(&record).expect("words and numbers are JSON");
        shell.write(&file, &(text + "\n"))
    }

    /// What is known of a job.
    ///
    /// # Errors
    /// A job that was not submitted from here, and a file that cannot be read.
    pub fn read(&self, name: &Name) -> Result<Record, Error> {
        let file = self.file(name);
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoJob(name.to_string()));
            }
            text => text.map_err(Error::file(&file))?,
        };
        let read = serde_json::from_str(&text).map_err(io::Error::other);
        read.map_err(Error::file(&file))
    }

    /// The names of all jobs.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn names(&self) -> Result<Vec<Name>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::file(&self.0))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file(&self.0))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".json").map(str::parse::<Name>);
            names.extend(name.and_then(Result::ok));
        }
        names.sort();
        Ok(names)
    }

    /// Takes the right to act on a job, so that two processes on this machine do not do the same at
    /// once. The system gives it back however the process ends.
    ///
    /// # Errors
    /// Another process has it.
    pub fn lock(&self, shell: &dyn Shell, name: &Name) -> Result<Lock, Error> {
        if shell.is_dry() {
            return Ok(Lock(None));
        }
        let path = self.directory_of(name).join("lock");
        let directory = atomic::parent(&path);
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(Error::file(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(Some(file))),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(name.to_string())),
            // Not every file system has locks; the machine's name is one too.
            Err(TryLockError::Error(_)) => Ok(Lock(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_where_the_user_keeps_state() {
        let of = |pairs: &'static [(&str, &str)]| {
            let value = |name: &str| {
                let found = pairs.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Records::of_user(value).map(|records| records.0)
        };
        assert_eq!(
            of(&[("HOME", "/h")]).unwrap(),
            Path::new("/h/.local/state/ankh/jobs")
        );
        let both = of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]).unwrap();
        assert_eq!(both, Path::new("/s/ankh/jobs"));
        assert_eq!(of(&[]), None);
    }
}
