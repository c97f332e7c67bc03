//! How a run goes back: from numbers that are not finite to its last saved state, and from a saved
//! state that is bad to an earlier one.

use std::time::Instant;

use super::job::Job;
use super::{STEPS_AHEAD, Trainer};
use crate::telemetry::Lost;
use crate::train::TrainError;
use crate::train::health::{Fault, Health};
use crate::train::in_flight::InFlight;
use crate::train::saving::Saves;

impl Trainer<'_> {
    /// What is wrong with the state, as far as all hosts of the run know: each has read the metrics
    /// of the steps that are `STEPS_AHEAD` behind, and of all at the last step.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self.step == self.job.config.train.steps {
            true => self.health.doubt(),
            false => self
                .health
                .fault_until(self.step.saturating_sub(STEPS_AHEAD as u64)),
        }
    }

    /// Goes back to the last saved state, or the first where none is saved, and goes on with the
    /// batches behind those that the run has seen.
    pub(super) fn roll_back(&mut self, fault: Fault) -> Result<(), TrainError> {
        let Job {
            config,
            run,
            processes,
            ..
        } = self.job;
        // What the steps under way give is void.
        self.in_flight = InFlight::new();
        self.reporter.roll_back();
        let start = Instant::now();
        self.saves.wait()?;
        // Each host has written what it was writing, and sees what the one that leads has done.
        processes.all_gather("go back", self.step)?;
        if let Some(local) = &mut self.local {
            local.discard();
        }
        let seen = self.batches.rows_before(self.step);
        let store = self.job.store()?;
        let saved = store.list()?;
        if saved.last().copied() != self.loaded {
            self.rollbacks = 0;
        }
        let diverged = TrainError::Diverged {
            fault,
            saved: saved.last().copied(),
            rollbacks: self.rollbacks,
        };
        let bad = self.loaded.filter(|_| self.is_loaded_to_blame(fault));
        if self.rollbacks == config.recovery.rollbacks || (bad.is_some() && saved.len() == 1) {
            return Err(diverged);
        }
        if let Some(step) = bad.filter(|_| processes.leads()) {
            let rejected = store.reject(step)?;
            tracing::error!(
                "no step from saved step {step} was good: it is set aside as {rejected}"
            );
        }
        processes.all_gather("the saved states are in order", 0)?;
        let from = self.job.resume_point(&store)?;
        tracing::error!(
            "{fault}: the run goes back to step {} and goes on behind the {seen} rows seen",
            from.step
        );
        // There may be no room on the devices for both.
        self.state.clear();
        let (from, state) = self
            .job
            .load(from, &store, &mut self.local, &self.programs)?;
        self.state = state;
        self.step = from.step;
        let batches = self
            .job
            .loader
            .after_rows(from.step, seen, config.data.prefetch);
        std::mem::replace(&mut self.batches, batches).abandon();
        let share = self.share.clone();
        self.saves = Saves::new(store, &config.checkpoint, share, from.checkpoint());
        self.health = Health::new(&config.recovery);
        self.save_is_owed = false;
        self.evaluation_is_owed = false;
        self.loaded = from.checkpoint();
        self.rollbacks += 1;
        self.reporter.lose(Lost::Loading, start.elapsed());
        self.reporter.keep();
        self.reporter.go_back(run, from.step, from.residues)
    }

    /// Whether the saved state that was loaded last is bad: no step from it was good, and it is not
    /// finite or other batches did not help.
    fn is_loaded_to_blame(&self, fault: Fault) -> bool {
        let would_blame = match fault {
            Fault::WasNotFinite { .. } => true,
            Fault::Skipped { .. } | Fault::Spiked { .. } => self.rollbacks > 0,
            Fault::NotFinite { .. } | Fault::HeldOut { .. } => false,
        };
        would_blame && !self.health.any_good()
    }
}
