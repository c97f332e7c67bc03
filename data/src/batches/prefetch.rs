//! Batches made ahead of time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Batch, Batches};
use crate::error::{Error, Result};

/// Batches that are made at once, at most. A batch of few rows does not keep many threads busy, nor
/// does one whose rows are waited for.
const AT_ONCE: usize = 4;

/// The batches from a step on, made on threads of their own and kept in bounded queues. Training
/// batches never end; evaluation batches end with the data. An error is the last item. Dropping it
/// stops the threads.
pub struct Prefetch {
    /// One a thread, taken in turn: thread `i` of `n` makes the steps `i`, `i + n`, `i + 2 n`, ...
    workers: Vec<Worker>,
    turn: usize,
}

struct Worker {
    // None once the thread has ended.
    queue: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    /// A batch that was waited for and not taken yet.
    here: Option<Result<Batch>>,
}

impl Batches {
    /// The batches from `step` on, with up to `depth` of them (at least one) waiting.
    pub fn prefetch(&self, step: u64, depth: usize) -> Prefetch {
        let depth = depth.max(1);
        let count = depth.min(self.threads()).min(AT_ONCE);
        let worker = |number: usize| {
            let waiting = depth / count + usize::from(number < depth % count);
            let first = step.saturating_add(number as u64);
            Worker::start(self.clone(), first, count, waiting)
        };
        Prefetch {
            workers: (0..count).map(worker).collect(),
            turn: 0,
        }
    }
}

impl Worker {
    /// Makes every `stride`th batch from `first` on.
    fn start(batches: Batches, first: u64, stride: usize, waiting: usize) -> Worker {
        let (sender, queue) = sync_channel(waiting);
        let work = move || {
            let steps = first..batches.steps().unwrap_or(u64::MAX);
            for step in steps.step_by(stride) {
                let batch = batches.batch(step);
                let failed = batch.is_err();
                // Nobody listens any more: the receiver was dropped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("batches".into())
            .spawn(work);
        Worker {
            queue: Some(queue),
            // If no thread can be had the sender is gone, and the first item says so.
            thread: thread.ok(),
            here: None,
        }
    }

    /// Whether the next item can be had without waiting, waiting for it so long.
    fn wait(&mut self, patience: Duration) -> bool {
        let Some(queue) = self.queue.as_ref().filter(|_| self.here.is_none()) else {
            return true;
        };
        match queue.recv_timeout(patience) {
            Ok(batch) => self.here = Some(batch),
            Err(RecvTimeoutError::Timeout) => return false,
            // The end can be had without waiting too.
            Err(RecvTimeoutError::Disconnected) => {}
        }
        true
    }

    fn next(&mut self) -> Option<Result<Batch>> {
        if let Some(batch) = self.here.take() {
            return Some(batch);
        }
        match self.queue.as_ref()?.recv() {
            Ok(batch) => Some(batch),
            Err(_) => {
                self.queue = None;
                match self.thread.take().map(JoinHandle::join) {
                    Some(Ok(())) => None,
                    Some(Err(_)) | None => Some(Err(Error::WorkerDied)),
                }
            }
        }
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.workers.get_mut(self.turn)?.next();
        self.turn = (self.turn + 1) % self.workers.len();
        if !matches!(next, Some(Ok(_))) {
            // The end, or an error, which is the last item.
            self.stop();
        }
        next
    }
}

impl Prefetch {
    /// Whether the next item, or the end, can be had without waiting; waits for it no longer than
    /// `patience`.
    pub fn wait(&mut self, patience: Duration) -> bool {
        match self.workers.get_mut(self.turn) {
            Some(worker) => worker.wait(patience),
            None => true,
        }
    }

    /// Gives the batches up without waiting for the threads, which end with what they are doing.
    pub fn abandon(mut self) {
        self.workers.clear();
    }

    fn stop(&mut self) {
        // First the queues, so that threads waiting for room in one wake up.
        self.workers
            .iter_mut()
            .for_each(|worker| worker.queue = None);
        for mut worker in self.workers.drain(..) {
            if let Some(thread) = worker.thread.take() {
                // A panic of the thread has been printed, and nobody wants its batches.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop();
    }
}
