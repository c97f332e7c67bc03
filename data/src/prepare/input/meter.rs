//! Bytes that go by, counted and hashed.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ankh_storage::hex;
use sha2::{Digest, Sha256};

/// How many bytes went by, and their hash so far.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Mutex<(u64, Sha256)>>);

impl Meter {
    fn lock(&self) -> MutexGuard<'_, (u64, Sha256)> {
        // Counting cannot panic half-way, so a poisoned value is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lock().0
    }

    pub(crate) fn sha256(&self) -> String {
        hex(&self.lock().1.clone().finalize())
    }

    pub(crate) fn count(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.0 += bytes.len() as u64;
        state.1.update(bytes);
    }
}

/// A reader whose bytes are metered.
pub(super) struct Metered<R> {
    pub(super) inner: R,
    pub(super) meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.count(&buffer[..count]);
        Ok(count)
    }
}
