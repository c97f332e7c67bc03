//! Sorting more entries than memory holds.
//!
//! Entries of `N` bytes are sorted as bytes, a run at a time; runs are files, and are merged when
//! there are many, those of a size together. What is in memory is one run, or one buffer for each
//! run that is being merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Runs that are merged at once.
const FAN: usize = 64;
const BUFFER: usize = 1 << 16;

/// Takes entries in any order.
pub(super) struct Sorter<const N: usize> {
    directory: PathBuf,
    name: &'static str,
    most: usize,
    entries: Vec<[u8; N]>,
    /// Files by level: one of the next level is `FAN` of this one.
    runs: Vec<Vec<PathBuf>>,
    files: usize,
}

/// Gives entries in ascending order.
pub(super) struct Sorted<const N: usize> {
    runs: Vec<Run<N>>,
    heads: BinaryHeap<Reverse<([u8; N], usize)>>,
}

enum Run<const N: usize> {
    Memory(std::vec::IntoIter<[u8; N]>),
    File(PathBuf, BufReader<File>),
}

impl<const N: usize> Sorter<N> {
    /// Sorts `most` entries in memory, and writes files into `directory` when there are more.
    pub(super) fn new(directory: &Path, name: &'static str, most: usize) -> Sorter<N> {
        Sorter {
            directory: directory.to_path_buf(),
            name,
            most: most.max(1),
            entries: Vec::new(),
            runs: Vec::new(),
            files: 0,
        }
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: [u8; N]) -> Result<()> {
        if self.entries.len() == self.most {
            self.spill()?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// All entries.
    pub(super) fn sorted(mut self) -> Result<Sorted<N>> {
        self.entries.sort_unstable();
        let mut runs = vec![Run::Memory(std::mem::take(&mut self.entries).into_iter())];
        for path in self.runs.into_iter().flatten() {
            runs.push(Run::open(path)?);
        }
        Sorted::new(runs)
    }

    fn spill(&mut self) -> Result<()> {
        self.entries.sort_unstable();
        let path = self.path();
        write(&path, |file| {
            self.entries
                .iter()
                .try_for_each(|entry| file.write_all(entry))
        })?;
        self.entries.clear();
        self.add(0, path)
    }

    fn add(&mut self, level: usize, path: PathBuf) -> Result<()> {
        if self.runs.len() == level {
            self.runs.push(Vec::new());
        }
        self.runs[level].push(path);
        if self.runs[level].len() < FAN {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.runs[level]).into_iter();
        let runs = runs.map(Run::<N>::open).collect::<Result<_>>()?;
        let (path, mut sorted) = (self.path(), Sorted::new(runs)?);
        let mut failed = Ok(());
        write(&path, |file| {
            loop {
                match sorted.next() {
                    Ok(Some(entry)) => file.write_all(&entry)?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        failed = Err(error);
                        return Ok(());
                    }
                }
            }
        })?;
        failed?;
        self.add(level + 1, path)
    }

    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.directory.join(format!("{}-{}", self.name, self.files))
    }
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut file = BufWriter::with_capacity(BUFFER, file);
    content(&mut file)
        .and_then(|()| file.flush())
        .map_err(Error::io("write", path))
}

impl<const N: usize> Run<N> {
    fn open(path: PathBuf) -> Result<Run<N>> {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Ok(Run::File(path, BufReader::with_capacity(BUFFER, file)))
    }

    fn next(&mut self) -> Result<Option<[u8; N]>> {
        match self {
            Run::Memory(entries) => Ok(entries.next()),
            Run::File(path, file) => {
                let mut entry = [0; N];
                match file.read_exact(&mut entry) {
                    Ok(()) => Ok(Some(entry)),
                    // Files hold whole entries, so that this is the end.
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        fs::remove_file(&*path).map_err(Error::io("remove", path))?;
                        Ok(None)
                    }
                    Err(error) => Err(Error::io("read", path)(error)),
                }
            }
        }
    }
}

impl<const N: usize> Sorted<N> {
    fn new(mut runs: Vec<Run<N>>) -> Result<Sorted<N>> {
        let mut heads = BinaryHeap::new();
        for (index, run) in runs.iter_mut().enumerate() {
            if let Some(entry) = run.next()? {
                heads.push(Reverse((entry, index)));
            }
        }
        Ok(Sorted { runs, heads })
    }

    /// The next entry; nothing after the last.
    pub(super) fn next(&mut self) -> Result<Option<[u8; N]>> {
        let Some(Reverse((entry, index))) = self.heads.pop() else {
            return Ok(None);
        };
        if let Some(next) = self.runs[index].next()? {
            self.heads.push(Reverse((next, index)));
        }
        Ok(Some(entry))
    }
}
