//! The inputs of a run, and what is made of them before its first step: its saved states and where
//! it resumes, its programs, and what is recorded of them. A saved state that turns out to be
//! damaged is set aside here, and an earlier one is taken.

use std::path::Path;
use std::time::Instant;

use ankh_hlo::Module;

use crate::checkpoint::{self, Guard, Store};
use crate::config::{Config, Versions};
use crate::mesh::{DeviceMesh, LoadedExecutable};
use crate::programs::{self, NoKernel, Programs};
use crate::run_dir::{Fence, RunDirectory};
use crate::supervision::{Phase, Pulse, Restart};
use crate::telemetry::{Exposition, Log, Observed};
use crate::train::TrainError;
use crate::train::data_loader::DataLoader;
use crate::train::data_order::DataOrder;
use crate::train::evaluation::Evaluation;
use crate::train::first_state::first_state;
use crate::train::local_states::LocalStates;
use crate::train::processes::Processes;
use crate::train::resume::ResumePoint;
use crate::train::saving::Newest;
use crate::train::state::State;

/// The inputs of a run, which do not change.
pub(super) struct Job<'a> {
    pub config: &'a Config,
    pub run: &'a RunDirectory,
    pub mesh: &'a DeviceMesh,
    pub loader: &'a DataLoader,
    pub processes: &'a Processes,
    pub fence: Fence,
}

impl Job<'_> {
    /// The run's checkpoints, which only the holder of the run directory may write.
    pub fn store(&self) -> Result<Store, TrainError> {
        let fence = self.fence.clone();
        let guard = Guard::new(self.fence.number(), move || fence.check());
        let store = Store::at(self.run.checkpoints())?.guarded(guard);
        if self.processes.leads() {
            store.clean()?;
        }
        Ok(store)
    }

    /// What this host tells Prometheus, where it is asked to.
    pub fn exposition(&self) -> Exposition {
        let Some(listen) = self.config.telemetry.prometheus_listen else {
            return Exposition::none();
        };
        let restarts = Restart::of_this_process().map_or(0, |restart| restart.number);
        let observed = Observed::start(self.config.train.steps, restarts);
        let (host, _) = self.processes.place();
        Exposition::serve(listen.0, &self.run.title(), host, observed)
    }

    /// Fails if the hosts have different data of this kind.
    pub fn compare_data(&self, data: &'static str, loader: &DataLoader) -> Result<(), TrainError> {
        let order = DataOrder::of(&loader.whole);
        // A tree of numbers and strings: serde_json has no way to fail on it.
        let order = serde_json::to_vec(&order).expect("an order is plain JSON");
        let rows = loader.whole.examples_per_epoch();
        let own = rows ^ (u64::from(crc32c::crc32c(&order)) << 32);
        let all = self.processes.all_gather(&format!("the {data}"), own)?;
        let Some(host) = all.iter().position(|other| *other != all[0]) else {
            return Ok(());
        };
        self.processes.part();
        Err(TrainError::DataOfHosts { host, data })
    }

    /// Compiles the training step, or loads it from a file, and the evaluation of held-out
    /// sequences.
    pub fn compile(
        &self,
        programs: &Programs<'_>,
        step: &Module,
        held_out: Option<DataLoader>,
        executable: Option<&Path>,
    ) -> Result<(LoadedExecutable, Option<Evaluation>), TrainError> {
        let mesh = self.mesh;
        Pulse::phase(Phase::Compiling);
        tracing::info!(
            "compiling the training step for {}, mesh {}",
            mesh.platform(),
            mesh.shape()
        );
        let (began, compilations) = (Instant::now(), mesh.compilations());
        let program = match executable {
            Some(file) => mesh.load(step, file)?,
            None => mesh.compile(step)?,
        };
        let evaluation = held_out.map(|loader| Evaluation::compile(programs, mesh, loader));
        let evaluation = evaluation.transpose()?;
        let done = match mesh.compilations() == compilations {
            true => "loaded what was compiled before",
            false => "compiled",
        };
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "{done}");
        Ok((program, evaluation))
    }

    /// Writes the configuration, the versions and the program to the run directory, and begins its
    /// log.
    pub fn record(&self, step: &Module) -> Result<(), TrainError> {
        let versions = Versions {
            ankh: env!("CARGO_PKG_VERSION").into(),
            plugin_api: self.mesh.plugin_api(),
            platform: self.mesh.platform_version(),
        };
        self.run.record(self.config, &versions)?;
        self.run
            .record_program("train_step", &step.text(), &step.to_bytes())?;
        Log::record_to(&self.run.log())?;
        Ok(())
    }

    /// Where the run resumes: after the newest saved state that is whole.
    pub fn resume_point(&self, store: &Store) -> Result<ResumePoint, TrainError> {
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
    pub fn newest_point(
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
    pub fn load(
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

/// Says how attention is computed where one might expect the other way.
pub(super) fn log_attention(programs: &Programs<'_>, mesh: &DeviceMesh) {
    let Programs {
        config,
        size,
        compute,
        ..
    } = *programs;
    match programs::attention(config, size, compute, mesh.platform(), mesh.rules()) {
        Ok(_) => tracing::info!("attention is computed by kernels"),
        Err(NoKernel::Configured | NoKernel::NoTpu) => {}
        Err(reason) => {
            tracing::warn!("attention is computed by the formula, not by kernels: {reason}");
        }
    }
}
