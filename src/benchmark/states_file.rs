//! The file of the encoder's states, which another process can go on with.
//!
//! First the states, float32, little-endian, example by example. Then a byte for each example: 1
//! once its states are on the disk. Then a checksum of what the states follow from, so that those
//! of other weights or other proteins are never taken for these.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;

/// What a power cut may cost.
const KEPT_EACH: Duration = Duration::from_secs(1);

/// An open file of states.
pub struct StatesFile {
    file: File,
    path: PathBuf,
    /// The first byte of each example, and of what follows the last.
    starts: Vec<u64>,
    kept: Vec<bool>,
    /// Written since the last of those that are kept.
    written: Vec<usize>,
    kept_at: Instant,
}

impl StatesFile {
    /// The file at `path`, with what is kept in it of the same `identity`; new where it is none of
    /// that. `starts` are the first bytes of the examples, and the end of the last.
    pub fn open(path: &Path, starts: Vec<u64>, identity: &str) -> Result<StatesFile, Error> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = opened.map_err(|source| Error::file("write", path, source))?;
        let mut found = StatesFile {
            kept: vec![false; starts.len() - 1],
            file,
            path: path.to_owned(),
            starts,
            written: vec![],
            kept_at: Instant::now(),
        };
        let is_kept = found.begin(crc32c::crc32c(identity.as_bytes()));
        found.kept = is_kept.map_err(|source| Error::file("write", path, source))?;
        Ok(found)
    }

    /// Which examples are kept. The file is made anew where it has another size or checksum.
    fn begin(&self, checksum: u32) -> io::Result<Vec<bool>> {
        let (marks, examples) = (self.marks(), self.kept.len());
        let mut end = vec![0; examples + size_of::<u32>()];
        let bytes = marks + end.len() as u64;
        let checksum = checksum.to_le_bytes();
        if self.file.metadata()?.len() == bytes {
            self.file.read_exact_at(&mut end, marks)?;
            if end.ends_with(&checksum) {
                return Ok(end[..examples].iter().map(|&mark| mark == 1).collect());
            }
        }
        // What a file grows by is 0: no example is kept.
        self.file.set_len(0)?;
        self.file.set_len(bytes)?;
        self.file.write_all_at(&checksum, marks + examples as u64)?;
        Ok(vec![false; examples])
    }

    /// Where the bytes of examples begin: the end of the states.
    fn marks(&self) -> u64 {
        *self.starts.last().expect("the end is one of them")
    }

    /// Whether the states of an example are there.
    pub fn has(&self, example: usize) -> bool {
        self.kept[example]
    }

    /// Examples whose states are there.
    pub fn count(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    /// Writes the states of an example.
    pub fn write(&mut self, example: usize, states: &[u8]) -> Result<(), Error> {
        self.written.push(example);
        self.file
            .write_all_at(states, self.starts[example])
            .map_err(|source| Error::file("write", &self.path, source))
    }

    /// [`StatesFile::keep`] from time to time.
    pub fn keep_now_and_then(&mut self) -> Result<(), Error> {
        match self.kept_at.elapsed() < KEPT_EACH {
            true => Ok(()),
            false => self.keep(),
        }
    }

    /// Marks what was written as kept, once it is on the disk.
    pub fn keep(&mut self) -> Result<(), Error> {
        let kept = self.mark_written();
        kept.map_err(|source| Error::file("write", &self.path, source))
    }

    fn mark_written(&mut self) -> io::Result<()> {
        if !self.written.is_empty() {
            self.file.sync_data()?;
        }
        let marks = self.marks();
        for example in std::mem::take(&mut self.written) {
            self.file.write_all_at(&[1], marks + example as u64)?;
            self.kept[example] = true;
        }
        self.kept_at = Instant::now();
        Ok(())
    }

    /// The states of an example.
    pub fn read(&self, example: usize) -> Result<Vec<u8>, Error> {
        let (start, end) = (self.starts[example], self.starts[example + 1]);
        let mut states = vec![0; (end - start) as usize];
        self.file
            .read_exact_at(&mut states, start)
            .map_err(|source| Error::file("read", &self.path, source))?;
        Ok(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_again_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("states");
        let starts = vec![0, 4, 12, 16];
        let open = |identity| StatesFile::open(&path, starts.clone(), identity).unwrap();
        let mut file = open("a");
        assert_eq!(file.count(), 0);
        file.write(1, &[7; 8]).unwrap();
        file.keep().unwrap();
        // A process that is killed now has written this in vain.
        file.write(2, &[8; 4]).unwrap();
        drop(file);
        let mut file = open("a");
        assert_eq!([0, 1, 2].map(|i| file.has(i)), [false, true, false]);
        assert_eq!(file.read(1).unwrap(), [7; 8]);
        file.write(0, &[6; 4]).unwrap();
        file.write(2, &[9; 4]).unwrap();
        file.keep().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let file = open("a");
        assert_eq!(file.count(), 3);
        assert_eq!(file.read(0).unwrap(), [6; 4]);
        assert_eq!(file.read(2).unwrap(), [9; 4]);

        // Of other weights, cut short, or of other proteins.
        assert_eq!(open("b").count(), 0);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(open("a").count(), 3);
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(open("a").count(), 0);
        std::fs::write(&path, &whole).unwrap();
        let longer = StatesFile::open(&path, vec![0, 4, 12, 20], "a").unwrap();
        assert_eq!(longer.count(), 0);
    }
}
