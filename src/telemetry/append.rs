//! Files that grow by whole records, even while the disk is full.
//!
//! A run is worth more than its logs, so a record that cannot be written is not an error: it waits
//! in memory, and is written in order with the first record that finds room. A partly written
//! record is removed, so that the file holds whole records only.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};

/// Bytes that may wait. When more would, the oldest records are given up and counted.
const WAITING: usize = 16 << 20;

/// A file open for appending.
pub(super) struct Appending<F = File> {
    file: F,
    /// Where the last whole record ends.
    end: u64,
    /// Whether there may be part of a record behind that.
    torn: bool,
    /// Records without room, oldest first, and their bytes.
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Records given up since the file last took one.
    lost: u64,
    failing: bool,
}

/// What changed with a record.
#[derive(Debug)]
pub(super) enum Turn {
    /// The file does not take records any more.
    Failing(io::Error),
    /// It takes them again, and got all but `lost` of those that waited.
    Recovered {
        /// Records given up.
        lost: u64,
    },
}

/// What records are appended to.
pub(super) trait Sink {
    /// Appends some of the bytes, and returns how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Takes back everything after the first `length` bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Sink for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl Appending {
    /// Goes on at the end of a file that was opened for appending.
    pub(super) fn to(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self::after(end, file))
    }
}

impl<F: Sink> Appending<F> {
    fn after(end: u64, file: F) -> Self {
        Self {
            file,
            end,
            torn: false,
            waiting: VecDeque::new(),
            bytes: 0,
            lost: 0,
            failing: false,
        }
    }

    /// Appends a record, after those that wait. It is in the system's hands when this returns, or
    /// waits.
    pub(super) fn record(&mut self, record: Vec<u8>) -> Option<Turn> {
        self.bytes += record.len();
        self.waiting.push_back(record);
        let turn = self.flush();
        while self.bytes > WAITING {
            let Some(oldest) = self.waiting.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.lost += 1;
        }
        turn
    }

    /// Tries to write what waits.
    pub(super) fn flush(&mut self) -> Option<Turn> {
        let written = self.write_waiting();
        let failing = std::mem::replace(&mut self.failing, written.is_err());
        match written {
            Err(error) => (!failing).then_some(Turn::Failing(error)),
            Ok(()) => {
                let lost = std::mem::take(&mut self.lost);
                failing.then_some(Turn::Recovered { lost })
            }
        }
    }

    /// Records that were given up or still wait.
    pub(super) fn missing(&self) -> u64 {
        self.lost + self.waiting.len() as u64
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while let Some(record) = self.waiting.front() {
            if self.torn {
                self.file.cut(self.end)?;
                self.torn = false;
            }
            let mut rest = record.as_slice();
            self.torn = true;
            while !rest.is_empty() {
                match self.file.append(rest) {
                    Ok(0) => return Err(self.take_back(io::ErrorKind::WriteZero.into())),
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.take_back(error)),
                }
            }
            self.torn = false;
            self.end += record.len() as u64;
            self.bytes -= record.len();
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Takes back what there is of a record, now if that succeeds, else before the next.
    fn take_back(&mut self, error: io::Error) -> io::Error {
        self.torn = self.file.cut(self.end).is_err();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        /// Whether bytes can be taken back.
        cuts: bool,
    }

    impl Sink for Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.room.saturating_sub(self.bytes.len());
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let some = &bytes[..bytes.len().min(free)];
            self.bytes.extend_from_slice(some);
            Ok(some.len())
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.bytes.truncate(length as usize);
            Ok(())
        }
    }

    fn disk(room: usize) -> Appending<Disk> {
        let disk = Disk {
            bytes: Vec::new(),
            room,
            cuts: true,
        };
        Appending::after(0, disk)
    }

    #[test]
    fn a_full_disk_holds_whole_records_and_gets_the_others_when_there_is_room() {
        for room in 0..40 {
            let mut log = disk(room);
            let lines: Vec<Vec<u8>> = (0..12).map(|i| format!("line {i}\n").into()).collect();
            let turns: Vec<_> = lines[..8]
                .iter()
                .filter_map(|l| log.record(l.clone()))
                .collect();
            assert!(matches!(turns[..], [Turn::Failing(_)]), "{turns:?}");
            assert_eq!(log.file.bytes, lines[..room / 7].concat(), "room {room}");
            assert_eq!(log.missing(), 8 - room as u64 / 7);
            log.file.room = 1000;
            let turn = log.record(lines[8].clone());
            assert!(matches!(turn, Some(Turn::Recovered { lost: 0 })));
            assert!(
                lines[9..]
                    .iter()
                    .all(|line| log.record(line.clone()).is_none())
            );
            assert_eq!(log.file.bytes, lines.concat(), "room {room}");
        }
    }

    #[test]
    fn what_cannot_be_taken_back_at_once_is_taken_back_before_the_next_record() {
        let mut log = disk(10);
        log.file.cuts = false;
        log.record(b"first\n".to_vec());
        log.record(b"second\n".to_vec());
        assert_eq!(log.file.bytes, b"first\nseco");
        log.file.room = 1000;
        log.record(b"third\n".to_vec());
        assert_eq!(log.file.bytes, b"first\nseco");
        log.file.cuts = true;
        log.record(b"fourth\n".to_vec());
        assert_eq!(log.file.bytes, b"first\nsecond\nthird\nfourth\n");
    }

    #[test]
    fn memory_is_bounded_and_what_is_given_up_is_counted() {
        let mut log = disk(0);
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.record(megabyte.clone());
        }
        assert_eq!((log.waiting.len(), log.bytes, log.lost), (16, WAITING, 4));
        assert_eq!(log.missing(), 20);
        log.file.room = usize::MAX;
        assert!(matches!(log.flush(), Some(Turn::Recovered { lost: 4 })));
        assert_eq!(log.file.bytes.len(), WAITING);
    }
}
