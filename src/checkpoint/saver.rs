//! Saves in the background of the training loop: one thread, one save at a time.
//!
//! A save is written and then waits to be accepted or refused before it is committed, since
//! whether a state is good is known only later, from the step that begins with it.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::team::TeamSave;
use super::{Error, Result, Retention, Store, Team, TensorParts};

/// Saves checkpoints in the background and removes those that are not to be kept.
///
/// At most one save is under way, and the state it writes is the only copy in the host's memory:
/// [`Saver::save`] is given not a state but what fetches one, and calls that when the save before
/// has ended.
#[derive(Debug)]
pub struct Saver {
    store: Store,
    retention: Retention,
    /// The processes that save together, where they are several.
    team: Option<Team>,
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

#[derive(Debug)]
struct Running {
    step: u64,
    since: Instant,
    /// Takes what becomes of it; there no more once that is said.
    verdict: Option<Sender<Verdict>>,
    team: Option<TeamSave>,
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

impl Saver {
    /// A saver that leaves the checkpoints in `store` that these rules keep, alone or in a team.
    pub fn new(store: Store, retention: Retention, team: Option<Team>) -> Saver {
        Saver {
            store,
            retention,
            team,
            running: None,
            ended: VecDeque::new(),
        }
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
        let save = self.team.as_ref().map(Team::next_save);
        let team = save.clone();
        let tidies = team.as_ref().is_none_or(TeamSave::leads);
        let (sender, verdict) = channel();
        let work = move || {
            let write = || {
                let mut writer = match &team {
                    None => store.begin(step)?,
                    Some(team) => store.begin_together(step, team.clone())?,
                };
                for tensor in tensors {
                    writer.add_parts(&tensor)?;
                }
                // One whose sender is gone without a word is accepted.
                match verdict.recv().unwrap_or(Verdict::Accepted) {
                    Verdict::Accepted => writer.commit(&metadata).map(drop),
                    Verdict::Refused => Err(Error::Refused { step }),
                }
            };
            let saved = write();
            if let Some(team) = &team {
                team.report(&saved);
            }
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
                    team: save,
                    thread,
                });
            }
            Err(error) => {
                let error = Error::io("start a thread to write", self.store.directory())(error);
                let saved = Err(error);
                if let Some(save) = save {
                    save.report(&saved);
                }
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
            if let Some(team) = save.team {
                team.abandon();
            }
            drop(save.verdict);
            let _ = save.thread.join();
        }
    }
}
