//! Saves in the background of the training loop: one thread, one save at a time.
//!
//! A save is written and then waits to be accepted or refused before it is committed, since
//! whether a state is good is known only later, from the step that begins with it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use ankh_storage::Location;
use serde_json::Value;

use super::team::TeamSave;
use super::{Error, Result, Retention, Share, Store, TensorParts};

/// Saves checkpoints in the background and removes those that are not to be kept.
///
/// At most one save is under way, and the state it writes is the only copy in the host's memory:
/// [`Saver::save`] is given not a state but what fetches one, and calls that when the save before
/// has ended.
#[derive(Debug)]
pub struct Saver {
    store: Store,
    retention: Retention,
    share: Share,
    then: Option<Then>,
    running: Option<Running>,
    /// Saves that ended and nobody has heard of, oldest first.
    ended: VecDeque<Ended>,
}

/// How a save ended.
#[derive(Debug)]
pub struct Ended {
    /// Its step.
    pub step: u64,
    /// Whether the step is there now.
    pub saved: Result<()>,
    /// Whether older steps were removed as they should.
    pub tidied: Result<()>,
    /// What it took.
    pub took: Duration,
}

/// What is done with each step that is committed.
#[derive(Clone)]
struct Then(Arc<Work>);

type Work = dyn Fn(u64, &Location) + Send + Sync;

impl fmt::Debug for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Then")
    }
}

#[derive(Debug)]
struct Running {
    step: u64,
    since: Instant,
    /// Takes what becomes of it; there no more once that is said.
    verdict: Option<Sender<Verdict>>,
    share: Share<TeamSave>,
    thread: JoinHandle<Ended>,
}

/// What becomes of a save that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is committed.
    Accepted,
    /// It is discarded.
    Refused,
}

impl Verdict {
    /// On a state that turned out to be good or not.
    pub fn on(is_good: bool) -> Verdict {
        match is_good {
            true => Verdict::Accepted,
            false => Verdict::Refused,
        }
    }
}

impl Saver {
    /// A saver of what this process has of a state, that leaves the checkpoints in `store` that
    /// these rules keep.
    pub fn new(store: Store, retention: Retention, share: Share) -> Saver {
        Saver {
            store,
            retention,
            share,
            then: None,
            running: None,
            ended: VecDeque::new(),
        }
    }

    /// With each step that is committed, and the directory it is in, `work` is done before its save
    /// ends.
    pub fn then(mut self, work: impl Fn(u64, &Location) + Send + Sync + 'static) -> Saver {
        self.then = Some(Then(Arc::new(work)));
        self
    }

    /// Accepts the save under way and waits for it, then fetches the state, starts saving it and
    /// returns.
    pub fn save<E>(
        &mut self,
        step: u64,
        metadata: Value,
        fetch: impl FnOnce() -> Result<Vec<TensorParts<'static>>, E>,
    ) -> Result<(), E> {
        self.join();
        let since = Instant::now();
        let tensors = fetch()?;
        let (store, retention) = (self.store.clone(), self.retention);
        let (save, then) = (self.share.next_save(), self.then.clone());
        let share = save.clone();
        let tidies = share.leads();
        let (sender, verdict) = channel();
        let work = move || {
            let write = || {
                let mut writer = store.begin_share(step, share.clone())?;
                writer.add_all(&tensors)?;
                // It is written, whatever becomes of it.
                drop(tensors);
                // One whose sender is gone without a word is accepted.
                match verdict.recv().unwrap_or(Verdict::Accepted) {
                    Verdict::Accepted => writer.commit(&metadata),
                    Verdict::Refused => Err(Error::Refused { step }),
                }
            };
            let saved = write().map(|directory| {
                if let Some(Then(work)) = then {
                    work(step, &directory);
                }
            });
            share.report(&saved);
            let tidied = match &saved {
                Ok(_) if tidies => store.keep(&retention).map(drop),
                _ => Ok(()),
            };
            Ended {
                step,
                saved,
                tidied,
                took: since.elapsed(),
            }
        };
        match Builder::new().name("save".into()).spawn(work) {
            Ok(thread) => {
                self.running = Some(Running {
                    step,
                    since,
                    verdict: Some(sender),
                    share: save,
                    thread,
                });
            }
            Err(error) => {
                let saved = Err(Error::Thread {
                    directory: self.store.directory().clone(),
                    source: error,
                });
                save.report(&saved);
                self.ended.push_back(Ended {
                    step,
                    saved,
                    tidied: Ok(()),
                    took: since.elapsed(),
                });
            }
        }
        Ok(())
    }

    /// The step whose save is under way, and since when.
    pub fn under_way(&self) -> Option<(u64, Instant)> {
        self.running.as_ref().map(|save| (save.step, save.since))
    }

    /// Says what becomes of the save under way, if there is one of `step`.
    pub fn judge(&mut self, step: u64, verdict: Verdict) {
        let running = self.running.as_mut().filter(|save| save.step == step);
        if let Some(sender) = running.and_then(|save| save.verdict.take()) {
            // A save that has failed does not listen any more.
            let _ = sender.send(verdict);
        }
    }

    /// How a save ended, as soon as it has; each is told once. Waits for nothing.
    pub fn poll(&mut self) -> Option<Ended> {
        if self
            .running
            .as_ref()
            .is_some_and(|save| save.thread.is_finished())
        {
            self.join();
        }
        self.ended.pop_front()
    }

    /// How a save ended, accepting one that is under way and waiting for it; none where all have
    /// been told.
    pub fn wait(&mut self) -> Option<Ended> {
        self.join();
        self.ended.pop_front()
    }

    fn join(&mut self) {
        if let Some(save) = self.running.take() {
            drop(save.verdict);
            let ended = save.thread.join();
            let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.ended.push_back(ended);
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // Dropped while an error unwinds: let the save complete, it is worth having, where it needs
        // no other process. Its own error has no one left to hear it.
        if let Some(save) = self.running.take() {
            save.share.abandon();
            drop(save.verdict);
            let _ = save.thread.join();
        }
    }
}
