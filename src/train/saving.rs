//! Saves the state of a run, and keeps training when a save fails.
//!
//! A state in device memory is worth more than a clean exit. So a save that fails for a reason that
//! may pass (a full disk, a server that is down, permissions) is logged, training continues, and
//! the state of a later step is saved instead: after a pause that grows with each failure, or when
//! the next save is due. The state is fetched anew for each try, so that waiting needs no memory.

use std::time::{Duration, Instant};

use ankh_storage::Location;
use serde_json::Value;

use super::TrainError;
use crate::checkpoint::{self, Ended, Retention, Saver, Share, Store, TensorParts, Verdict};
use crate::config;

/// The saves of a run.
pub(super) struct Saves {
    store: Store,
    saver: Saver,
    /// The newest step that is known to be saved.
    saved: Option<u64>,
    /// The last step whose state was read back to be saved, here or on another host.
    fetched: Option<u64>,
    failing: Option<Failing>,
    /// Saves that failed.
    failures: u64,
}

/// Saves that failed, since the last that did not.
struct Failing {
    tries: u32,
    error: checkpoint::Error,
    retry_at: Instant,
}

/// The first pause before a failed save is tried again; it doubles each time, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// A pause is so many times what the failed save took, so that trying takes no more than this part
/// of a run.
const SHARE: u32 = 10;

/// Where a checkpoint's metadata has the held-out loss of its state.
pub(super) const SCORE: &str = "validation_loss";

/// A save that the next one waits for longer than this is logged.
const LONG_WAIT: Duration = Duration::from_secs(1);

impl Saves {
    /// For a run that goes on from a saved step, where there is one.
    pub fn new(
        store: Store,
        config: &config::Checkpoint,
        share: Share,
        saved: Option<u64>,
    ) -> Saves {
        let retention = Retention {
            last: config.keep,
            every: config.keep_every,
            best: config.keep_best,
            score: |metadata| metadata[SCORE].as_f64(),
        };
        Saves {
            saver: Saver::new(store.clone(), retention, share),
            store,
            saved,
            fetched: None,
            failing: None,
            failures: 0,
        }
    }

    /// The newest step that is known to be saved.
    pub fn saved(&self) -> Option<u64> {
        self.saved
    }

    /// Where the checkpoint of `step` is or would be.
    pub fn directory_of(&self, step: u64) -> Location {
        self.store.directory_of(step)
    }

    /// The last step whose state was read back to be saved, here or on another host.
    pub fn fetched(&self) -> Option<u64> {
        self.fetched
    }

    /// How many saves have failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Handles saves that have ended. An error is one that every later save would have too.
    pub fn poll(&mut self) -> Result<(), TrainError> {
        while let Some(ended) = self.saver.poll() {
            self.handle(ended)?;
        }
        Ok(())
    }

    /// Waits for the save under way.
    pub fn wait(&mut self) -> Result<(), TrainError> {
        while let Some(ended) = self.saver.wait() {
            self.handle(ended)?;
        }
        Ok(())
    }

    /// Whether it is time to retry a failed save.
    pub fn is_retry_due(&self) -> bool {
        let waited = |failing: &Failing| failing.retry_at <= Instant::now();
        self.saver.under_way().is_none() && self.failing.as_ref().is_some_and(waited)
    }

    /// Waits for the save under way, then fetches the state of `step` and starts saving it.
    pub fn save(
        &mut self,
        step: u64,
        metadata: Value,
        fetch: impl FnOnce() -> Result<Vec<TensorParts<'static>>, TrainError>,
    ) -> Result<(), TrainError> {
        if let Some((before, _)) = self.saver.under_way() {
            let start = Instant::now();
            self.wait()?;
            let waited = start.elapsed();
            if waited > LONG_WAIT {
                tracing::warn!(
                    "step {step} waited {:.1} s for the save of step {before} to end: steps are to be saved faster than they are written; raise checkpoint.every",
                    waited.as_secs_f64()
                );
            }
        }
        self.saver.save(step, metadata, fetch)?;
        self.fetched = Some(step);
        Ok(())
    }

    /// Says whether the state of `step` turned out to be good: it is committed, or discarded.
    pub fn judge(&mut self, step: u64, is_good: bool) {
        self.saver.judge(step, Verdict::on(is_good));
    }

    /// The error of a run that ends at `step`, which could not be saved.
    pub fn give_up(&mut self, step: u64) -> Option<TrainError> {
        let failing = self.failing.take()?;
        Some(TrainError::Unsaved {
            step,
            saved: self.saved,
            source: Box::new(failing.error),
        })
    }

    fn handle(&mut self, ended: Ended) -> Result<(), TrainError> {
        let step = ended.step;
        if let Err(error) = ended.tidied {
            tracing::warn!("step {step} is saved, but older steps cannot be removed: {error}");
        }
        match ended.saved {
            Ok(()) => {
                self.saved = Some(step);
                if let Some(failing) = self.failing.take() {
                    tracing::info!(
                        "step {step} is saved, after {} failed",
                        saves(failing.tries)
                    );
                }
                Ok(())
            }
            Err(checkpoint::Error::Refused { step }) => {
                tracing::warn!("step {step} is not saved: the step from it was not good");
                Ok(())
            }
            Err(error) if error.may_pass() => {
                self.failures += 1;
                let tries = self.failing.take().map_or(0, |failing| failing.tries) + 1;
                let pause = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(16));
                let pause = pause.max(ended.took.saturating_mul(SHARE)).min(LAST_PAUSE);
                tracing::error!(
                    "step {step} cannot be saved: {error}; {}; another try follows in {} s, or when a save is due, with the state of then",
                    Newest(self.saved),
                    pause.as_secs()
                );
                self.failing = Some(Failing {
                    tries,
                    error,
                    retry_at: Instant::now() + pause,
                });
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The newest saved step in words.
pub(super) struct Newest(pub Option<u64>);

impl std::fmt::Display for Newest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(step) => write!(f, "the last saved step is {step}"),
            None => write!(f, "no step is saved"),
        }
    }
}

fn saves(count: u32) -> String {
    match count {
        1 => "1 save".into(),
        count => format!("{count} saves"),
    }
}
