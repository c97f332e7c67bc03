//! What is done of a long piece of work, kept beside its output until that is whole.
//!
//! The file begins with a line of JSON that describes the work. A record for each finished batch
//! follows: its length in bytes, its bytes, and a checksum. Numbers are little-endian. A record
//! that was cut short is dropped, and what is behind it. The file is locked while a process works
//! on it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Why what is done cannot be kept, or cannot be gone on from.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another command began it.
    #[error(
        "{path} is unfinished work of another command: it differs in {}",
        different.join(", "),
        path = path.display()
    )]
    Other {
        path: PathBuf,
        different: Vec<String>,
    },
    /// Another process is at it.
    #[error("another process is writing {output}", output = output.display())]
    Busy { output: PathBuf },
    /// It could not be read or written.
    #[error("cannot {verb} {path}", path = path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl JournalError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        JournalError::of_file("read", path)
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        JournalError::of_file("write", path)
    }

    fn of_file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        let path = path.to_owned();
        move |source| JournalError::File { verb, path, source }
    }
}

/// An open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Records of an earlier process that have not been taken.
    kept: VecDeque<Vec<u8>>,
}

/// What becomes of work that another command began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It stays, and is an error if it is other work than this.
    Continue,
    /// It is thrown away.
    Discard,
}

impl Journal {
    /// The journal of work whose result goes to `output`: begun, or continued if `description` is
    /// that of the work which is there.
    pub fn open(
        output: &Path,
        description: &Map<String, Value>,
        unfinished: Unfinished,
    ) -> Result<Journal, JournalError> {
        let path = path_beside(output);
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = open.map_err(JournalError::write(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Busy {
                    output: output.into(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(JournalError::write(&path)(error)),
        }
        let mut content = Vec::new();
        if unfinished == Unfinished::Continue {
            file.read_to_end(&mut content)
                .map_err(JournalError::read(&path))?;
        }
        let header = serde_json::to_string(description).expect("a JSON object");
        let (kept, end) = match content.iter().position(|&byte| byte == b'\n') {
            // Nothing, or a beginning that was cut short.
            None => (VecDeque::new(), 0),
            Some(end) => {
                check_same(&path, &content[..end], description)?;
                let (kept, bytes) = records(&content[end + 1..]);
                (kept, end + 1 + bytes)
            }
        };
        let mut continue_at = || -> io::Result<()> {
            file.set_len(end as u64)?;
            file.seek(SeekFrom::Start(end as u64))?;
            if end == 0 {
                file.write_all(format!("{header}\n").as_bytes())?;
            }
            Ok(())
        };
        continue_at().map_err(JournalError::write(&path))?;
        Ok(Journal { path, file, kept })
    }

    /// The bytes of the next batch that an earlier process did.
    pub fn next_kept(&mut self) -> Option<Vec<u8>> {
        self.kept.pop_front()
    }

    /// How many batches are kept and were not taken.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Adds a finished batch, of less than 4 GiB. It is in the system's hands when this returns.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let mut record = (bytes.len() as u32).to_le_bytes().to_vec();
        record.extend(bytes);
        record.extend(crc32c::crc32c(&record).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(JournalError::write(&self.path))
    }

    /// Ends the work: its result is whole.
    pub fn remove(self) -> Result<(), JournalError> {
        std::fs::remove_file(&self.path).map_err(JournalError::write(&self.path))
    }
}

/// Removes the journal of an output that is whole. A process that is killed leaves one where it has
/// written its output and not yet removed what that was made of.
pub fn remove_journal_of(output: &Path) -> Result<(), JournalError> {
    let path = path_beside(output);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(JournalError::of_file("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

/// Where the journal of an output is.
fn path_beside(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!(".{name}.unfinished"))
}

fn check_same(
    path: &Path,
    found: &[u8],
    expected: &Map<String, Value>,
) -> Result<(), JournalError> {
    let found: Map<String, Value> = serde_json::from_slice(found).unwrap_or_default();
    let keys = expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let different = keys.filter(|key| found.get(*key) != expected.get(*key));
    let different: Vec<String> = different.cloned().collect();
    match different.is_empty() {
        true => Ok(()),
        false => Err(JournalError::Other {
            path: path.into(),
            different,
        }),
    }
}

/// The whole records at the beginning, and how many bytes they take.
fn records(mut bytes: &[u8]) -> (VecDeque<Vec<u8>>, usize) {
    let all = bytes.len();
    let mut found = VecDeque::new();
    while let Some((batch, rest)) = record(bytes) {
        found.push_back(batch);
        bytes = rest;
    }
    (found, all - bytes.len())
}

fn record(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (count, _) = bytes.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (content, rest) = bytes.split_at_checked(count.checked_add(4)?)?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let is_whole = crc32c::crc32c(content) == u32::from_le_bytes(*checksum);
    is_whole.then(|| (content[4..].to_vec(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(method: &str) -> Map<String, Value> {
        [("method".to_owned(), Value::from(method))]
            .into_iter()
            .collect()
    }

    fn open(output: &Path, method: &str) -> Result<Journal, JournalError> {
        Journal::open(output, &description(method), Unfinished::Continue)
    }

    #[test]
    fn whatever_is_cut_off_the_whole_records_before_it_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("scores.csv");
        let batches = [vec![1u8, 255], vec![], vec![3]];
        let mut journal = open(&output, "a").unwrap();
        for batch in &batches {
            journal.append(batch).unwrap();
        }
        drop(journal);
        let path = path_beside(&output);
        let whole = std::fs::read(&path).unwrap();
        let mut kept_before = batches.len();
        for end in (0..=whole.len()).rev() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let mut journal = open(&output, "a").unwrap();
            let kept = journal.kept();
            assert!(
                kept == kept_before || kept + 1 == kept_before,
                "{end}: {kept}"
            );
            kept_before = kept;
            for batch in &batches[..kept] {
                assert_eq!(journal.next_kept().as_ref(), Some(batch));
            }
            assert_eq!(journal.next_kept(), None);
            // What is missing is added behind.
            for batch in &batches[kept..] {
                journal.append(batch).unwrap();
            }
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "{end}");
        }
        assert_eq!(kept_before, 0);
        let mut wrong = whole.clone();
        let last = wrong.len() - 5;
        wrong[last] ^= 1;
        std::fs::write(&path, wrong).unwrap();
        assert_eq!(open(&output, "a").unwrap().kept(), 2);
    }

    #[test]
    fn other_work_is_refused_and_so_is_a_second_process() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("scores.csv");
        let journal = open(&output, "a").unwrap();
        let busy = open(&output, "a").err().unwrap().to_string();
        assert!(busy.starts_with("another process is writing"), "{busy}");
        drop(journal);
        let other = open(&output, "b").err().unwrap().to_string();
        assert!(
            other.ends_with("of another command: it differs in method"),
            "{other}"
        );
        let journal = Journal::open(&output, &description("b"), Unfinished::Discard).unwrap();
        journal.remove().unwrap();
        drop(open(&output, "a").unwrap());
        remove_journal_of(&output).unwrap();
        remove_journal_of(&output).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
