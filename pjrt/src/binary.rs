//! A look at a shared library before it is loaded: the dynamic loader's own messages say little,
//! and loading a truncated file ends in a bus error.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// This machine's number in an ELF header, with its name.
#[cfg(target_arch = "x86_64")]
const HOST: (u16, &str) = (62, "x86-64");
#[cfg(target_arch = "aarch64")]
const HOST: (u16, &str) = (183, "AArch64");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const HOST: (u16, &str) = (0, "another architecture");

/// The size of an ELF header of 64 bits, and of one entry of its program header table.
const HEADER_SIZE: usize = 64;
const SEGMENT_SIZE: usize = 56;

/// Fails unless the file is a whole ELF library for this machine.
pub(crate) fn check(path: &Path) -> Result<()> {
    let unreadable = |error: std::io::Error| Error::UnreadablePlugin {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Error::UnreadablePlugin {
            path: path.to_owned(),
            reason: "it is a directory".to_owned(),
        });
    }
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let size = metadata.len();
    let truncated = |expected: u64| Error::TruncatedPlugin {
        path: path.to_owned(),
        expected,
        found: size,
    };
    let not_a_plugin = |reason: &str| Error::NotAPlugin {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };

    let mut header = [0; HEADER_SIZE];
    let mut magic = [0; 4];
    match file.read_exact(&mut magic) {
        Ok(()) if &magic == b"\x7fELF" => {}
        Ok(()) => return Err(not_a_plugin("it is no shared library (no ELF header)")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(not_a_plugin("it is no shared library (too short)"));
        }
        Err(error) => return Err(unreadable(error)),
    }
    if size < HEADER_SIZE as u64 {
        return Err(truncated(HEADER_SIZE as u64));
    }
    file.rewind().map_err(unreadable)?;
    file.read_exact(&mut header).map_err(unreadable)?;

    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    let machine = u16::from_le_bytes([header[18], header[19]]);
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || machine != HOST.0 {
        return Err(Error::WrongArchitecture {
            path: path.to_owned(),
            found: machine_name(header[4], header[5], machine),
            expected: HOST.1,
        });
    }
    const SHARED_OBJECT: u16 = 3;
    if u16::from_le_bytes([header[16], header[17]]) != SHARED_OBJECT {
        return Err(not_a_plugin("it is an ELF file but no shared library"));
    }

    let segments = u64_at(&header, 32);
    let count = u16::from_le_bytes([header[56], header[57]]);
    let table_end = segments.saturating_add(u64::from(count) * SEGMENT_SIZE as u64);
    if table_end > size {
        return Err(truncated(table_end));
    }
    file.seek(SeekFrom::Start(segments)).map_err(unreadable)?;
    let mut end = 0;
    for _ in 0..count {
        let mut segment = [0; SEGMENT_SIZE];
        file.read_exact(&mut segment).map_err(unreadable)?;
        end = end.max(u64_at(&segment, 8).saturating_add(u64_at(&segment, 32)));
    }
    if end > size {
        return Err(truncated(end));
    }
    Ok(())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(array)
}

fn machine_name(class: u8, order: u8, machine: u16) -> String {
    if order == 2 {
        return "a big-endian machine".to_owned();
    }
    match (class, machine) {
        (2, 62) => "x86-64".to_owned(),
        (2, 183) => "AArch64".to_owned(),
        (2, 243) => "RISC-V".to_owned(),
        (1, 3) => "32-bit x86".to_owned(),
        (1, 40) => "32-bit ARM".to_owned(),
        (1, _) => format!("a 32-bit machine (ELF machine {machine})"),
        _ => format!("another machine (ELF machine {machine})"),
    }
}
