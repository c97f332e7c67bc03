//! Reads the lines that were added to a file since the last look.
//!
//! Files of a run grow by whole lines, and are replaced as a whole where a run resumes. The file
//! that was read is kept open: as long as it is, no other file can have its inode. So comparing
//! inodes tells a file that has grown from one that took its place.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

/// A file of lines, and how far it was read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
}

/// What a look at the file finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The file is another one, or gone: what was read of it before is void.
    Anew,
    /// Whole lines, each with its end.
    Lines(&'a [u8]),
}

/// How much is read at once.
const CHUNK: usize = 8 << 20;

/// The longest line.
const LONGEST: usize = 8 * CHUNK;

impl Tail {
    /// Of a file that need not exist.
    pub fn of(path: impl Into<PathBuf>) -> Tail {
        Tail {
            path: path.into(),
            file: None,
            offset: 0,
        }
    }

    /// Gives `take` what is new. A last line without its end is left for the next look.
    pub fn read(&mut self, mut take: impl FnMut(Part<'_>)) -> io::Result<()> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.forget() {
                    take(Part::Anew);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !self.goes_on(&found)? && self.forget() {
            take(Part::Anew);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        let length = usize::try_from(found.len().saturating_sub(self.offset)).unwrap_or(CHUNK);
        let mut buffer = vec![0; length.clamp(1, CHUNK)];
        loop {
            let read = fill(file, &mut buffer, self.offset)?;
            match buffer[..read].iter().rposition(|&byte| byte == b'\n') {
                Some(end) => {
                    take(Part::Lines(&buffer[..=end]));
                    self.offset += end as u64 + 1;
                }
                None if read < buffer.len() => return Ok(()),
                None if buffer.len() < LONGEST => buffer.resize(2 * buffer.len(), 0),
                None => return Err(io::Error::new(ErrorKind::InvalidData, "it has no lines")),
            }
        }
    }

    /// Whether the file at the path is the one that was read so far, and has what was read of it.
    fn goes_on(&self, found: &Metadata) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(true);
        };
        let read = file.metadata()?;
        if (read.dev(), read.ino()) != (found.dev(), found.ino()) || found.len() < self.offset {
            return Ok(false);
        }
        // One that was emptied and has grown again shows it where the last line ended.
        let mut end = [b'\n'];
        if let Some(last) = self.offset.checked_sub(1) {
            fill(file, &mut end, last)?;
        }
        Ok(end == [b'\n'])
    }

    /// Forgets the file, and tells whether anything was read of it.
    fn forget(&mut self) -> bool {
        self.file = None;
        std::mem::take(&mut self.offset) > 0
    }
}

/// Reads at `offset` until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    /// What a look finds, with "!" for a file that is another.
    fn look(tail: &mut Tail) -> String {
        let mut found = String::new();
        tail.read(|part| match part {
            Part::Anew => found.push('!'),
            Part::Lines(lines) => found.push_str(std::str::from_utf8(lines).unwrap()),
        })
        .unwrap();
        found
    }

    #[test]
    fn each_line_is_read_once_and_a_torn_one_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let mut tail = Tail::of(&path);
        assert_eq!(look(&mut tail), "");
        let append = |text: &str| {
            let mut file = OpenOptions::new().create(true).append(true).open(&path);
            file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("one\ntwo\nthr");
        assert_eq!(look(&mut tail), "one\ntwo\n");
        assert_eq!(look(&mut tail), "");
        append("ee\nfour\n");
        assert_eq!(look(&mut tail), "three\nfour\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut tail), "!");
        assert_eq!(look(&mut tail), "");
    }

    #[test]
    fn a_file_that_was_replaced_or_emptied_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let replace = |text: &str| ankh_storage::atomic::replace_file(&path, text.as_bytes());
        replace("one\ntwo\n").unwrap();
        let mut tail = Tail::of(&path);
        assert_eq!(look(&mut tail), "one\ntwo\n");
        // A longer one that begins as the old one does; twice, so that the first inode is free.
        replace("one\n").unwrap();
        replace("one\ntwo\nthree\n").unwrap();
        assert_eq!(look(&mut tail), "!one\ntwo\nthree\n");
        fs::write(&path, "1\n").unwrap();
        assert_eq!(look(&mut tail), "!1\n");
        fs::write(&path, "longer than before\n").unwrap();
        assert_eq!(look(&mut tail), "!longer than before\n");
    }
}
