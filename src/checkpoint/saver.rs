//! Saving beside the training loop: one thread, one save at a time.

use std::thread::JoinHandle;

use ankh_pjrt::HostTensor;
use serde_json::Value;

use super::{Result, Store};

/// Saves checkpoints in the background and keeps the newest few. At most one save is under way: a second waits for the first, so that memory holds no
/// more than one copy of the state.
#[derive(Debug)]
pub struct Saver {
    store: Store,
    keep: usize,
    running: Option<JoinHandle<Result<u64>>>,
}

impl Saver {
    /// A saver that leaves the newest `keep` checkpoints in `store`.
    pub fn new(store: Store, keep: usize) -> Saver {
        Saver {
            store,
            keep,
            running: None,
        }
    }

    /// Starts saving and returns, after waiting for the save before. An error is that one's; the new save has then not been started.
    pub fn save(
        &mut self,
        step: u64,
        metadata: Value,
        tensors: Vec<(String, HostTensor)>,
    ) -> Result<()> {
        self.finish()?;
        let (store, keep) = (self.store.clone(), self.keep);
        let work = move || {
            store.save(step, &metadata, tensors)?;
            store.keep(keep)?;
            Ok(step)
        };
        self.running = Some(std::thread::spawn(work));
        Ok(())
    }

    /// Waits for the save under way; returns its step, or none if there was none since the last call.
    pub fn finish(&mut self) -> Result<Option<u64>> {
        match self.running.take() {
            None => Ok(None),
            Some(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map(Some),
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // Dropped while an error unwinds: let the save complete, it is worth having. Its own error has no one left to hear it.
        if let Some(thread) = self.running.take() {
            let _ = thread.join();
        }
    }
}
