//! What is made before the file is: parts beside it, and what is known of them.
//!
//! `OUTPUT.parts` holds `job.json`, which says what is made and of what, and for each window of
//! the input a file of values and, once it is complete, an index of its sequences. Where in the
//! file of values a sequence's are, the input tells. So an unfinished part needs only the number
//! of its batches that are done, written after their values have reached the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ankh_storage::atomic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// At most so much work is lost when the process is killed, and what is in flight.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The directory of parts of one output, held by this process alone.
pub struct Parts {
    directory: PathBuf,
    output: PathBuf,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

/// How far the work of an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Parts are to be made, or some of them.
    Begun,
    /// The file is complete; it may have to be given its name.
    Complete,
}

/// A part in the making.
pub struct Part {
    values: File,
    path: PathBuf,
    progress: PathBuf,
    batches: usize,
    saved: Instant,
}

/// A sequence of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexed {
    /// Its id.
    pub id: String,
    /// Its residues.
    pub length: usize,
    /// What biotrainer names it by.
    pub hash: String,
}

/// Where the parts of an output are.
pub fn directory_of(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".parts");
    name.into()
}

impl Parts {
    /// Opens the parts of an output, or begins them. Those of another job are refused, or thrown
    /// away with `restart`.
    pub fn open(output: &Path, job: &Value, restart: bool) -> Result<(Parts, State), Error> {
        let directory = directory_of(output);
        fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let path = directory.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::Busy { path });
        }
        let parts = Parts {
            directory,
            output: output.to_path_buf(),
            _lock: lock,
        };
        match fs::read(parts.job()) {
            Ok(begun) if !restart => {
                let begun: Value = serde_json::from_slice(&begun).unwrap_or_default();
                if begun != *job {
                    return Err(Error::OtherParts {
                        path: parts.directory.clone(),
                        differences: differences(job, &begun),
                    });
                }
            }
            _ => {
                // The job last: until it is there, nothing here counts.
                parts.clear()?;
                parts.replace(&parts.job(), &json(job))?;
            }
        }
        let state = match parts.marker().exists() {
            true => State::Complete,
            false => State::Begun,
        };
        Ok((parts, state))
    }

    /// The sequences of a part that is complete.
    pub fn index(&self, part: usize) -> Result<Option<Vec<Indexed>>, Error> {
        let path = self.file(part, "json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|_| Error::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// A part to be made, or the rest of it, with room for `bytes` of values.
    pub fn part(&self, part: usize, bytes: u64) -> Result<Part, Error> {
        let (path, progress) = (self.file(part, "values"), self.file(part, "progress"));
        let done = fs::read_to_string(&progress).unwrap_or_default();
        let mut options = OpenOptions::new();
        let values = options.write(true).create(true).truncate(false).open(&path);
        let values = values.map_err(Error::io("create", &path))?;
        values.set_len(bytes).map_err(Error::io("write", &path))?;
        Ok(Part {
            values,
            batches: done.trim().parse().unwrap_or(0),
            path,
            progress,
            saved: Instant::now(),
        })
    }

    /// Records that a part is complete.
    pub fn complete(&self, part: usize, made: Part, index: &[Indexed]) -> Result<(), Error> {
        made.values
            .sync_all()
            .map_err(Error::io("write", &made.path))?;
        self.replace(&self.file(part, "json"), &json(&index))
    }

    /// The values of a complete part.
    pub fn values(&self, part: usize) -> Result<Values, Error> {
        let path = self.file(part, "values");
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Ok(Values {
            file: BufReader::with_capacity(1 << 20, file),
            path,
        })
    }

    /// Where the file is made that will be the output.
    pub fn joined(&self) -> PathBuf {
        self.directory.join("joined")
    }

    /// Gives the complete file its name, and removes the parts. After [`State::Complete`] this may
    /// have been done in part.
    pub fn commit(self) -> Result<(), Error> {
        let joined = self.joined();
        if !self.marker().exists() {
            atomic::sync(&joined).map_err(Error::io("write", &joined))?;
            self.replace(&self.marker(), b"")?;
        }
        if joined.exists() {
            atomic::rename(&joined, &self.output).map_err(Error::io("write", &self.output))?;
        }
        atomic::remove_tree(&self.directory).map_err(Error::io("remove", &self.directory))
    }

    fn job(&self) -> PathBuf {
        self.directory.join("job.json")
    }

    fn marker(&self) -> PathBuf {
        self.directory.join("complete")
    }

    fn file(&self, part: usize, extension: &str) -> PathBuf {
        self.directory.join(format!("part-{part:05}.{extension}"))
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        atomic::replace_file(path, content).map_err(Error::io("write", path))
    }

    /// Removes everything but the lock.
    fn clear(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io("list", &self.directory))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // What says that the others count comes first.
        paths.sort_by_key(|path| *path != self.job());
        for path in paths.iter().filter(|path| !path.ends_with("lock")) {
            fs::remove_file(path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

impl Part {
    /// How many of its batches are done.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// Writes values where they belong.
    pub fn write(&self, offset: u64, values: &[u8]) -> Result<(), Error> {
        let written = self.values.write_all_at(values, offset);
        written.map_err(Error::io("write", &self.path))
    }

    /// One more batch is done. It is recorded now and then.
    pub fn finish_batch(&mut self) -> Result<(), Error> {
        self.batches += 1;
        match self.saved.elapsed() >= SAVE_EVERY {
            true => self.save(),
            false => Ok(()),
        }
    }

    /// Records which batches are done.
    pub fn save(&mut self) -> Result<(), Error> {
        self.values
            .sync_data()
            .map_err(Error::io("write", &self.path))?;
        let done = self.batches.to_string();
        let written = atomic::replace_file(&self.progress, done.as_bytes());
        written.map_err(Error::io("write", &self.progress))?;
        self.saved = Instant::now();
        Ok(())
    }
}

/// The values of a part, in the order of its sequences.
pub struct Values {
    file: BufReader<File>,
    path: PathBuf,
}

impl Values {
    /// The next ones: as many bytes as `to` has.
    pub fn read(&mut self, to: &mut [u8]) -> Result<(), Error> {
        let path = &self.path;
        self.file
            .read_exact(to)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::Damaged { path: path.clone() },
                _ => Error::io("read", path)(error),
            })
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings and numbers alone.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    let _ = text.write_all(b"\n");
    text
}

/// What is different, by the names of the entries.
fn differences(now: &Value, then: &Value) -> String {
    let (Value::Object(now), Value::Object(then)) = (now, then) else {
        return "what they are of is not known".into();
    };
    let differing = |(name, value): (&String, &Value)| {
        let before = then.get(name).unwrap_or(&Value::Null);
        (before != value).then(|| match (before, value) {
            (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
                format!("{name} differ")
            }
            _ => format!("{name} was {before}, and is {value} now"),
        })
    };
    let all: Vec<String> = now.iter().filter_map(differing).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_another_job_are_refused_by_what_differs() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out.parquet");
        let job = json!({ "pooling": "mean", "inputs": ["a"] });
        let (parts, state) = Parts::open(&output, &job, false).unwrap();
        assert_eq!(state, State::Begun);
        let Err(error) = Parts::open(&output, &job, false).map(|_| ()) else {
            panic!("two at once");
        };
        assert!(error.to_string().contains("another process"), "{error}");
        drop(parts);
        assert!(Parts::open(&output, &job, false).is_ok());
        let other = json!({ "pooling": "none", "inputs": ["b"] });
        let error = Parts::open(&output, &other, false).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(r#"pooling was "mean", and is "none" now"#),
            "{text}"
        );
        assert!(text.contains("inputs differ"), "{text}");
        assert!(Parts::open(&output, &other, true).is_ok());
    }

    #[test]
    fn a_file_gets_its_name_however_often_the_last_steps_are_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out.parquet");
        let open = || Parts::open(&output, &Value::Null, false).unwrap();
        let (parts, _) = open();
        fs::write(parts.joined(), "all").unwrap();
        fs::write(parts.marker(), "").unwrap();
        drop(parts);
        // Before the file was renamed.
        let (parts, state) = open();
        assert_eq!(state, State::Complete);
        fs::rename(parts.joined(), &output).unwrap();
        drop(parts);
        // Before the parts were removed.
        let (parts, state) = open();
        assert_eq!(state, State::Complete);
        parts.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"all");
        assert!(!directory_of(&output).exists());
    }
}
