//! How a run goes back: from numbers that are not finite to its last saved state, and from saved
//! states that are damaged or bad to earlier ones.

use std::time::Instant;

use super::{Job, STEPS_AHEAD, Trainer};
use crate::checkpoint::{self, Store};
use crate::programs::Programs;
use crate::supervision::{Phase, Pulse};
use crate::telemetry::Lost;
use crate::train::TrainError;
use crate::train::first_state::first_state;
use crate::train::health::{Fault, Health};
use crate::train::in_flight::InFlight;
use crate::train::local_states::LocalStates;
use crate::train::resume::ResumePoint;
use crate::train::saving::{Newest, Saves};
use crate::train::state::State;

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

impl Job<'_> {
    /// Where the run resumes: after the newest saved state that is whole.
    pub(super) fn resume_point(&self, store: &Store) -> Result<ResumePoint, TrainError> {
        for directory in store.incomplete()? {
            tracing::warn!("{directory} has no commit.json: it is no saved state");
        }
        loop {
            let point = ResumePoint::of(self.config, self.run, store, self.processes, self.loader);
            if let Some(point) = self.settle(point, store)? {
                return Ok(point);
            }
        }
    }

    /// The same, or after a local state that is newer.
    pub(super) fn newest_point(
        &self,
        store: &Store,
        local: &Option<LocalStates<'_>>,
    ) -> Result<ResumePoint, TrainError> {
        let from = self.resume_point(store)?;
        let parts = match local {
            Some(local) => local.newest(from.step, self.mesh)?,
            None => None,
        };
        match parts {
            Some(parts) => {
                let saved = Newest(from.checkpoint());
                let point = from.of_local(self.config, parts, self.loader)?;
                tracing::info!(
                    "going on from the local state of step {}; {saved}",
                    point.step
                );
                Ok(point)
            }
            None => Ok(from),
        }
    }

    /// The state of a point, or of an earlier one where its files turn out to be damaged.
    pub(super) fn load(
        &self,
        mut from: ResumePoint,
        store: &Store,
        local: &mut Option<LocalStates<'_>>,
        programs: &Programs<'_>,
    ) -> Result<(ResumePoint, State), TrainError> {
        Pulse::phase(Phase::Loading);
        loop {
            let state = self.state(&from, programs);
            let state = match local {
                Some(local) if from.is_local() => {
                    let state = local.agree(state)?;
                    if state.is_none() {
                        local.discard();
                    }
                    state
                }
                _ => self.settle(state, store)?,
            };
            if let Some(state) = state {
                return Ok((from, state));
            }
            from = self.resume_point(store)?;
            if from.optimizer_start != programs.optimizer_start {
                return Err(TrainError::OtherOptimizer { step: from.step });
            }
        }
    }

    /// The saved state of a point, or the first of the run.
    fn state(&self, from: &ResumePoint, programs: &Programs<'_>) -> Result<State, TrainError> {
        match from.state(programs, self.mesh)? {
            Some(state) => Ok(state),
            None => first_state(programs, self.mesh, self.processes),
        }
    }

    /// What this host found in the saved states, if all hosts found what they need. Where one of
    /// them found damage and an earlier state is whole, the newer ones are set aside, and there is
    /// nothing; any other error is given back.
    fn settle<T>(
        &self,
        found: Result<T, TrainError>,
        store: &Store,
    ) -> Result<Option<T>, TrainError> {
        let fallback = match &found {
            Ok(_) => None,
            Err(TrainError::Checkpoint(checkpoint::Error::Damaged(damage))) => damage.fallback(),
            Err(_) => return found.map(Some),
        };
        let found = match (found, fallback) {
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => {
                if let TrainError::Checkpoint(checkpoint::Error::Damaged(damage)) = &error {
                    tracing::error!("{}", damage.finding());
                }
                None
            }
            (Ok(found), _) => Some(found),
        };
        // A step is below this.
        let own = fallback.unwrap_or(u64::MAX);
        let all = self.processes.all_gather("the saved state is read", own)?;
        let Some(intact) = all.into_iter().min().filter(|step| *step < u64::MAX) else {
            return Ok(found);
        };
        if self.processes.leads() {
            for directory in store.fall_back_to(intact)? {
                tracing::error!("it is not resumed from, and set aside as {directory}");
            }
        }
        self.processes
            .all_gather("the damaged state is set aside", intact)?;
        Ok(None)
    }
}
