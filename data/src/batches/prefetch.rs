//! Batches made ahead of time.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Batches};
use crate::error::{Error, Result};

/// The batches from a step on, made on a thread of their own and kept in a bounded queue. Training
/// batches never end; evaluation batches end with the data. An error is the last item. Dropping it
/// stops the thread.
pub struct Prefetch {
    // None once the thread has ended.
    queue: Option<Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
}

impl Batches {
    /// The batches from `step` on, with up to `depth` of them (at least one) waiting.
    pub fn prefetch(&self, step: u64, depth: usize) -> Prefetch {
        let (sender, queue) = sync_channel(depth.max(1));
        let batches = self.clone();
        let work = move || {
            for step in step..batches.steps().unwrap_or(u64::MAX) {
                let batch = batches.batch(step);
                let failed = batch.is_err();
                // Nobody listens any more: the receiver was dropped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new()
            .name("batches".into())
            .spawn(work);
        Prefetch {
            queue: Some(queue),
            // If no thread can be had the sender is gone, and the first item says so.
            worker: worker.ok(),
        }
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.queue.as_ref()?.recv() {
            Ok(batch) => Some(batch),
            Err(_) => {
                self.queue = None;
                match self.worker.take().map(JoinHandle::join) {
                    Some(Ok(())) => None,
                    Some(Err(_)) | None => Some(Err(Error::WorkerDied)),
                }
            }
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // First the queue, so that a thread waiting for room in it wakes up.
        self.queue = None;
        if let Some(worker) = self.worker.take() {
            // A panic of the thread has been printed, and nobody wants its batches.
            let _ = worker.join();
        }
    }
}
