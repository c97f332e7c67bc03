//! The SHA-256 of bytes and files, in hexadecimal.

use std::io::Read;
use std::path::Path;

use ankh_storage::hex;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, Error> {
    let mut digest = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(Error::file(path))?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).map_err(Error::file(path))?;
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&piece[..read]);
    }
}
