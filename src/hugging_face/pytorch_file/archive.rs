//! The zip archive that `torch.save` writes: `NAME/data.pkl`, and `NAME/data/KEY` for each storage.
//! Nothing in it is compressed, so that a storage is a range of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rawzip::{CompressionMethod, Crc32, ErrorKind, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::hugging_face::error::{Error, Result};

/// Bytes that are verified at a time.
const BLOCK: u64 = 1 << 20;

/// A file in the archive.
#[derive(Debug)]
pub(in crate::hugging_face) struct Member {
    /// Where its first byte is.
    offset: u64,
    /// How many bytes it has.
    pub length: u64,
    crc32: u32,
    is_verified: AtomicBool,
}

/// The files of the archive in `file`, which has `length` bytes, by their names without the folder
/// that all are in.
pub(super) fn members(path: &Path, file: &File, length: u64) -> Result<HashMap<String, Member>> {
    let malformed = |problem: String| Error::Malformed {
        file: path.to_path_buf(),
        problem,
    };
    let unreadable = |error: rawzip::Error| match error.kind() {
        ErrorKind::MissingEndOfCentralDirectory => malformed(
            "cut short, as by an unfinished download: it has no list of what is in it; fetch it \
             again"
                .to_owned(),
        ),
        _ => malformed(format!("the archive is damaged: {error}; fetch it again")),
    };
    let own = file.try_clone().map_err(Error::io("read", path))?;
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(own, &mut buffer).map_err(unreadable)?;
    let mut entries = archive.entries(&mut buffer);
    let mut members = HashMap::new();
    while let Some(entry) = entries.next_entry().map_err(unreadable)? {
        let bytes = entry.file_path();
        let name = std::str::from_utf8(bytes.as_ref());
        let name = name.map_err(|_| malformed("a name in it is not UTF-8".to_owned()))?;
        let Some((_, name)) = name.split_once('/').filter(|_| !entry.is_dir()) else {
            continue;
        };
        if entry.compression_method() != CompressionMethod::STORE {
            return Err(malformed(format!(
                "`{name}` in it is compressed, which `torch.save` does not do"
            )));
        }
        let place = archive.get_entry(entry.wayfinder()).map_err(unreadable)?;
        let (start, end) = place.compressed_data_range();
        if end > length || end - start != entry.uncompressed_size_hint() {
            return Err(malformed(format!(
                "`{name}` in it does not lie in the file: fetch it again"
            )));
        }
        let member = Member {
            offset: start,
            length: end - start,
            crc32: entry.crc32(),
            is_verified: AtomicBool::new(false),
        };
        if members.insert(name.to_owned(), member).is_some() {
            return Err(malformed(format!("`{name}` is in it twice")));
        }
    }
    Ok(members)
}

impl Member {
    /// Reads `length` bytes from the byte `start` on, which have to be there. When it is read
    /// first, all of it is compared with its checksum.
    pub fn read(&self, path: &Path, file: &File, start: u64, length: u64) -> Result<Vec<u8>> {
        let is_changed = || Error::Malformed {
            file: path.to_path_buf(),
            problem: "its checksum does not match: it is damaged; fetch it again".to_owned(),
        };
        if !self.is_verified.load(Ordering::Relaxed) {
            let crc32 = self.checksum(file).map_err(Error::io("read", path))?;
            if crc32 != self.crc32 {
                return Err(is_changed());
            }
            self.is_verified.store(true, Ordering::Relaxed);
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, self.offset + start)
            .map_err(Error::io("read", path))?;
        Ok(bytes)
    }

    fn checksum(&self, file: &File) -> io::Result<u32> {
        let mut crc32 = Crc32::new();
        let mut buffer = vec![0; self.length.min(BLOCK) as usize];
        let mut done = 0;
        while done < self.length {
            let block = (self.length - done).min(BLOCK);
            let block = &mut buffer[..block as usize];
            file.read_exact_at(block, self.offset + done)?;
            crc32.update(block);
            done += block.len() as u64;
        }
        Ok(crc32.checksum())
    }
}
