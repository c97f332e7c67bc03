//! The training loop.
//!
//! [`train`] prepares a run and then repeats: take a batch, start a step (which returns while the
//! devices work), read the metrics of an earlier step, evaluate, save, stop. Each is a function
//! below, or in `recovery` where the run goes back. What comes before the first step is in `job`.
//! What a step computes is in `src/programs/step.rs`.

mod job;
mod recovery;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use ankh_cluster::Request;
use ankh_data::Split;
use serde_json::{Value, json};

use super::TrainError;
use super::data_loader::{DataLoader, DeviceBatch, Prefetcher};
use super::data_order::DataOrder;
use super::evaluation::{self, Evaluation, NextBatch};
use super::first_state::check_weights;
use super::health::Health;
use super::in_flight::{InFlight, StartedStep};
use super::local_states::LocalStates;
use super::processes::Processes;
use super::profiling::{Activity, Profiling};
use super::reporter::{Evaluated, Reporter};
use super::saving::{SCORE, Saves};
use super::state::State;
use super::summary::{self, Summary};
use crate::checkpoint::Share;
use crate::config::Config;
use crate::mesh::{DeviceMesh, Input, LoadedExecutable, WhichParts};
use crate::programs::{Histogram, Programs, SkipReason};
use crate::run_dir::{RunDirectory, RunError};
use crate::supervision::{Phase, Pulse, Restart};
use crate::telemetry::{Goodput, Lost, Validation};

use job::{Job, log_attention};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// At its last step.
    Finished(Summary),
    /// Before it, on request, with its state saved.
    Stopped(Summary),
}

/// Steps whose metrics may be outstanding: enough that the devices have their next step before the
/// last one ends. Where steps are long, [`InFlight::wait_to_start`] makes it fewer.
const STEPS_AHEAD: usize = 2;

/// While a batch is waited for, saves and requests are looked at this often.
const POLL: Duration = Duration::from_millis(100);

/// A save is accepted without the next step where its batch is waited for longer than this: nothing
/// may tell more of the state for hours.
const VERDICT_PATIENCE: Duration = Duration::from_secs(5);

/// While the devices are waited for, they are looked at this often.
const POLL_DEVICES: Duration = Duration::from_millis(5);

/// How long the host that leads waits for the others to write their parts of a state.
const SAVE_PATIENCE: Duration = Duration::from_secs(600);

/// Pauses before each try to save the state that a run ends with.
const LAST_TRIES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Trains until the configured last step, or until a request to stop, in the run directory;
/// resumes from its newest checkpoint if there is one. A training step compiled before can be given
/// as a file.
pub fn train(
    config: &Config,
    run: &RunDirectory,
    mesh: &DeviceMesh,
    executable: Option<&Path>,
    processes: &Processes,
) -> Result<Outcome, TrainError> {
    let programs = Programs::of(config, mesh.platform(), mesh.rules());
    log_attention(&programs, mesh);
    let loader = DataLoader::open(&programs, Split::Train, mesh)?;
    for reason in DataOrder::of(&loader.whole).reasons(config.data.memory) {
        tracing::info!("{reason}");
    }
    let job = Job {
        config,
        run,
        mesh,
        loader: &loader,
        processes,
        fence: run.fence(),
    };
    let mut trainer = Trainer::start(job, &programs, executable)?;
    if let Err(error) = trainer.train() {
        trainer.rescue(&error);
        return Err(error);
    }
    let stopped = trainer.step < config.train.steps;
    let summary = trainer.finish()?;
    match stopped {
        false => Ok(Outcome::Finished(summary)),
        true => {
            loader.abandon();
            Ok(Outcome::Stopped(summary))
        }
    }
}

/// A run in progress.
struct Trainer<'a> {
    job: Job<'a>,
    programs: Programs<'a>,
    program: LoadedExecutable,
    evaluation: Option<Evaluation>,
    state: State,
    /// Steps started.
    step: u64,
    batches: Prefetcher<'a>,
    in_flight: InFlight,
    reporter: Reporter,
    profiling: Profiling,
    saves: Saves,
    local: Option<LocalStates<'a>>,
    /// What this process saves of a state.
    share: Share,
    health: Health,
    /// The step last evaluated, and the held-out loss after it.
    held_out_loss: Option<(u64, f64)>,
    /// When the last save began.
    last_save: Instant,
    /// The evaluation after this step was given up.
    evaluation_is_owed: bool,
    /// A save was due while the state was in doubt.
    save_is_owed: bool,
    /// The saved step that the state was loaded of; none where it was drawn.
    loaded: Option<u64>,
    /// How often the run has gone back there.
    rollbacks: u64,
}

impl<'a> Trainer<'a> {
    /// Makes everything ready for the first step, and evaluates the weights it starts from.
    fn start(
        job: Job<'a>,
        programs: &Programs<'a>,
        executable: Option<&Path>,
    ) -> Result<Trainer<'a>, TrainError> {
        let Job {
            config, run, mesh, ..
        } = job;
        let began = Instant::now();
        let mut goodput = Goodput::start_after(Restart::time_lost());
        let exposition = job.exposition();
        job.compare_data("data", job.loader)?;
        let store = job.store()?;
        let mut local = LocalStates::open(&config.checkpoint, run, job.processes);
        let from = job.newest_point(&store, &local)?;
        if !from.is_saved() {
            check_weights(config)?;
        }
        let programs = from.programs(programs);
        let held_out = evaluation::held_out(&programs, mesh)?;
        if let Some(held_out) = &held_out {
            job.compare_data("held-out data", held_out)?;
        }
        let module = programs.step()?;
        let (program, evaluation) = job.compile(&programs, &module, held_out, executable)?;
        let compiled = Instant::now();
        goodput.lose(Lost::Compiling, compiled - began);
        let (from, state) = job.load(from, &store, &mut local, &programs)?;
        goodput.lose(Lost::Loading, compiled.elapsed());
        // Not before the first step can run: an attempt that fails leaves the run as it was.
        job.record(&module)?;
        let share = job.processes.share(SAVE_PATIENCE);
        let step = from.step;
        let is_local = from.is_local();
        goodput.keep();
        let peak = mesh.peak_flops();
        let reporter = Reporter::open(config, run, peak, step, from.residues, goodput, exposition)?;
        reporter.saves(from.checkpoint(), 0);
        let (host, _) = job.processes.place();
        let steps = config.telemetry.profile_steps;
        let mut trainer = Trainer {
            batches: job.loader.after_rows(step, from.rows, config.data.prefetch),
            saves: Saves::new(store, &config.checkpoint, share.clone(), from.checkpoint()),
            local,
            share,
            health: Health::new(&config.recovery),
            held_out_loss: None,
            last_save: Instant::now(),
            evaluation_is_owed: false,
            save_is_owed: false,
            loaded: from.checkpoint().filter(|_| !is_local),
            rollbacks: 0,
            in_flight: InFlight::new(),
            job,
            programs,
            program,
            evaluation,
            state,
            step,
            reporter,
            profiling: Profiling::of(steps, run.profiles(), host),
        };
        trainer.job.processes.begin()?;
        if let Some(local) = &mut trainer.local {
            local.begin(run, is_local.then_some(step));
        }
        trainer.evaluation_is_owed = trainer.is_evaluation_missing()?;
        if step < config.train.steps && !trainer.evaluation_is_owed {
            let start = Instant::now();
            trainer.evaluate()?;
            trainer.reporter.lose(Lost::Evaluating, start.elapsed());
        }
        trainer.reporter.begin(step);
        Ok(trainer)
    }

    /// Trains until the last step, or until a request to stop.
    fn train(&mut self) -> Result<(), TrainError> {
        self.evaluate_late()?;
        while self.step < self.job.config.train.steps && !self.job.processes.stop() {
            self.job.fence.known().map_err(RunError::from)?;
            self.profile_if_due()?;
            let Some(batch) = self.next_batch()? else {
                break;
            };
            if self.pass()?.is_break() {
                break;
            }
            self.start_step(batch)?;
            let evaluated = self.evaluate_if_due()?;
            self.report(evaluated)?;
            self.save_if_due()?;
            self.evaluate_late()?;
            self.save_locally_if_due()?;
            match self.fault() {
                Some(fault) => self.roll_back(fault)?,
                None => self.keep_pace()?,
            }
        }
        Ok(())
    }

    /// Begins or ends the profile, where one is asked for.
    fn profile_if_due(&mut self) -> Result<(), TrainError> {
        let next = self.step + 1;
        if !self.profiling.is_due_before(next) {
            return Ok(());
        }
        self.report_all_started()?;
        let start = Instant::now();
        // What was recorded of many devices takes a while to be written.
        Pulse::phase(Phase::Saving);
        self.profiling.begin_or_end(next, self.job.mesh);
        self.reporter.skip(Lost::Saving, start.elapsed());
        self.in_flight.resume();
        Ok(())
    }

    /// Does what all processes do before the next step; breaks where they stop.
    fn pass(&mut self) -> Result<ControlFlow<()>, TrainError> {
        loop {
            match self.job.processes.pass()? {
                None => return Ok(ControlFlow::Continue(())),
                Some(Request::Stop) => return Ok(ControlFlow::Break(())),
                Some(Request::Save) if self.is_save_wanted()? => self.save()?,
                Some(Request::Save) => {}
                Some(Request::SaveLocally) => self.save_locally_if_due()?,
            }
        }
    }

    /// The next batch; `None` on a request to stop while waiting for it.
    fn next_batch(&mut self) -> Result<Option<DeviceBatch>, TrainError> {
        self.profiling.enter(Activity::WaitForBatch);
        let start = Instant::now();
        let mut idle = None;
        while !self.batches.wait(POLL) {
            if !self.in_flight.is_busy() {
                idle.get_or_insert_with(|| {
                    Pulse::phase(Phase::Waiting);
                    Instant::now()
                });
            }
            if self.job.processes.stop() {
                return Ok(None);
            }
            if self.is_save_wanted()? {
                self.lose_waiting(&mut idle);
                self.save()?;
            }
            // Where hosts save together, all have to say the same.
            if start.elapsed() > VERDICT_PATIENCE && self.job.processes.is_alone() {
                self.saves.judge(self.step, true);
            }
        }
        self.lose_waiting(&mut idle);
        let batch = self.batches.next(self.job.mesh)?;
        Ok(Some(batch.expect("training batches never end")))
    }

    /// Counts the time since the devices had nothing to do, if they have.
    fn lose_waiting(&mut self, idle: &mut Option<Instant>) {
        if let Some(idle) = idle.take() {
            self.reporter.lose(Lost::Waiting, idle.elapsed());
        }
    }

    /// Starts a step; the devices work on while this returns.
    fn start_step(&mut self, batch: DeviceBatch) -> Result<(), TrainError> {
        self.profiling.enter(Activity::StartStep(self.step + 1));
        let DeviceBatch { arrays, info } = batch;
        // From here on this loop handles requests to stop.
        self.job.processes.requests().begin();
        let mut metrics = None;
        let program = &self.program;
        self.state.replace(|state| {
            let arguments = state.into_iter().chain(arrays).map(Input::Donate);
            let mut outputs = program.execute(arguments.collect())?;
            metrics = outputs.pop();
            Ok(outputs)
        })?;
        self.step += 1;
        let metrics = metrics.expect("a step's last result is its metrics");
        self.in_flight.push(self.step, info, metrics)
    }

    /// Reports steps that are `STEPS_AHEAD` behind; all, where this step was evaluated or is the
    /// last.
    fn report(&mut self, evaluated: Evaluated) -> Result<(), TrainError> {
        let all = evaluated != Evaluated::NotDue || self.step == self.job.config.train.steps;
        let limit = if all { 0 } else { STEPS_AHEAD };
        while let Some(started) = self.in_flight.pop_beyond(limit) {
            let evaluated = match started.step == self.step {
                true => evaluated.clone(),
                false => Evaluated::NotDue,
            };
            self.report_step(started, evaluated)?;
        }
        Ok(())
    }

    fn report_step(
        &mut self,
        started: StartedStep,
        evaluated: Evaluated,
    ) -> Result<(), TrainError> {
        self.profiling.enter(Activity::Report(started.step));
        let (numbers, counts) = self.in_flight.read(&started)?;
        let StartedStep { step, batch, .. } = started;
        let skipped = numbers.skip_reason();
        if let Some(reason) = skipped {
            let spike = match reason {
                SkipReason::NotFinite => "",
                SkipReason::LossSpike => "; the loss spikes",
                SkipReason::GradNormSpike => "; the norm spikes",
            };
            tracing::warn!(
                "the update of step {step} is skipped: its loss is {}, the norm of its gradients {}{spike}",
                numbers.loss,
                numbers.grad_norm
            );
        }
        self.health.step(step, &numbers);
        // Its loss and gradients are those of the state before.
        let is_good = skipped.is_none();
        self.saves.judge(step - 1, is_good);
        if let Some(local) = &mut self.local {
            local.judge(step - 1, is_good);
        }
        self.reporter.step(step, numbers, batch, evaluated);
        if self.job.config.telemetry.has_histograms(step) {
            self.reporter
                .histograms(step, &Histogram::of_step(self.job.config, &counts));
        }
        self.reporter
            .saves(self.saves.saved(), self.saves.failures());
        Ok(())
    }

    /// Waits, where steps are long, until the devices have little left to do.
    fn keep_pace(&mut self) -> Result<(), TrainError> {
        loop {
            while let Some(ended) = self.in_flight.pop_ended() {
                self.report_step(ended, Evaluated::NotDue)?;
            }
            let wait = self.in_flight.wait_to_start();
            if wait.is_zero() || self.job.processes.stop() {
                return Ok(());
            }
            self.saves.poll()?;
            self.profiling.enter(Activity::KeepPace);
            std::thread::sleep(wait.min(POLL_DEVICES));
        }
    }

    fn evaluate_if_due(&mut self) -> Result<Evaluated, TrainError> {
        if !self.is_evaluation_due() {
            return Ok(Evaluated::NotDue);
        }
        // The steps before are reported first, so that the evaluation's time is not counted as
        // theirs.
        while let Some(started) = self.in_flight.pop_before(self.step) {
            self.report_step(started, Evaluated::NotDue)?;
        }
        self.in_flight.wait_for_last()?;
        let start = Instant::now();
        let validation = self.evaluate()?;
        self.reporter.skip(Lost::Evaluating, start.elapsed());
        self.in_flight.resume();
        self.evaluation_is_owed = validation.is_none();
        Ok(validation.map_or(Evaluated::Later, Evaluated::Here))
    }

    fn is_evaluation_due(&self) -> bool {
        let every = self.job.config.evaluation.every;
        let last = self.step == self.job.config.train.steps;
        let is_due = every > 0 && (self.step.is_multiple_of(every) || last);
        is_due && self.evaluation.is_some()
    }

    /// Whether the process before ended between a step and its evaluation, as far as any host can
    /// tell.
    fn is_evaluation_missing(&self) -> Result<bool, TrainError> {
        let own = self.is_evaluation_due() && self.reporter.lacks_evaluation(self.step);
        let processes = self.job.processes;
        let all = processes.all_gather("an evaluation that is missing", own.into())?;
        Ok(all.into_iter().any(|missing| missing == 1))
    }

    /// Makes up for an evaluation after this step that was given up.
    fn evaluate_late(&mut self) -> Result<(), TrainError> {
        while self.evaluation_is_owed && !self.job.processes.stop() {
            if self.is_save_wanted()? {
                self.save()?;
            }
            let start = Instant::now();
            let validation = self.evaluate()?;
            self.reporter.skip(Lost::Evaluating, start.elapsed());
            self.in_flight.resume();
            self.evaluation_is_owed = validation.is_none();
            if let Some(validation) = validation {
                self.reporter.add_evaluation(self.step, &validation)?;
            }
        }
        Ok(())
    }

    /// The held-out loss and accuracy under the present weights; none where a request cannot wait
    /// for them.
    fn evaluate(&mut self) -> Result<Option<Validation>, TrainError> {
        let Some(evaluation) = &self.evaluation else {
            return Ok(None);
        };
        Pulse::phase(Phase::Evaluating);
        self.profiling.enter(Activity::Evaluate);
        let (saves, processes, step) = (&mut self.saves, self.job.processes, self.step);
        let poll = |batch: NextBatch| -> Result<_, TrainError> {
            saves.poll()?;
            // What all processes do before the next program, they do before this one.
            let is_request = match batch {
                // A local save waits for the end of the evaluation.
                NextBatch::Here => loop {
                    match processes.pass()? {
                        Some(Request::SaveLocally) => {}
                        request => break request.is_some(),
                    }
                },
                NextBatch::Awaited => processes.stop(),
            };
            Ok(match is_request || processes.save() {
                true => {
                    tracing::info!("the evaluation at step {step} is given up");
                    ControlFlow::Break(())
                }
                false => ControlFlow::Continue(()),
            })
        };
        let mesh = self.job.mesh;
        let validation = evaluation.run(mesh, self.state.parameters(), POLL, poll)?;
        if let Some(validation) = &validation {
            self.held_out_loss = Some((step, validation.validation_loss));
            self.health.evaluation(step, validation.validation_loss);
            self.reporter.evaluated(validation);
        }
        Ok(validation)
    }

    fn save_if_due(&mut self) -> Result<(), TrainError> {
        let every = self.job.config.checkpoint.every;
        let last = self.step == self.job.config.train.steps;
        let due = (every > 0 && self.step.is_multiple_of(every)) || last || self.save_is_owed;
        if self.is_save_wanted()? || due {
            self.save()?;
        }
        Ok(())
    }

    /// Whether to save at any step: somebody asks for it, a save that failed is to be tried again,
    /// or it is time. Hears of saves that ended.
    fn is_save_wanted(&mut self) -> Result<bool, TrainError> {
        self.saves.poll()?;
        let processes = self.job.processes;
        if processes.take_save()? {
            return Ok(true);
        }
        let minutes = self.job.config.checkpoint.minutes;
        let is_time = minutes > 0.0 && self.last_save.elapsed().as_secs_f64() >= 60.0 * minutes;
        let is_new =
            self.saves.fetched() != Some(self.step) && self.loaded.unwrap_or(0) < self.step;
        if self.saves.is_retry_due() {
            return Ok(processes.ask_to_save("a save has failed"));
        }
        // One clock is enough.
        if is_time && is_new && processes.leads() {
            return Ok(processes.ask_to_save("it is time to save"));
        }
        Ok(false)
    }

    /// Copies the state to the host and writes it in the background, after the save that may be
    /// under way.
    fn save(&mut self) -> Result<(), TrainError> {
        self.report_all_started()?;
        self.save_is_owed = self.health.doubt().is_some();
        if let Some(fault) = self.health.doubt() {
            tracing::warn!("step {} is not saved: {fault}", self.step);
            return Ok(());
        }
        let start = Instant::now();
        Pulse::phase(Phase::Saving);
        self.profiling.enter(Activity::Save);
        let metadata = self.metadata();
        let fetch = || self.state.parts_to_host(self.job.mesh, WhichParts::Once);
        self.saves.save(self.step, metadata, fetch)?;
        self.last_save = start;
        self.resume_after_save(start);
        Ok(())
    }

    /// Waits for the steps under way, and reports them: their lines reach the file before a state
    /// that claims them does.
    fn report_all_started(&mut self) -> Result<(), TrainError> {
        while let Some(started) = self.in_flight.pop_beyond(0) {
            self.report_step(started, Evaluated::NotDue)?;
        }
        Ok(())
    }

    /// Training has stood still for a save since then.
    fn resume_after_save(&mut self, start: Instant) {
        self.reporter.skip(Lost::Saving, start.elapsed());
        self.reporter.keep();
        self.in_flight.resume();
    }

    /// What is saved with the state.
    fn metadata(&self) -> Value {
        let whole = &self.job.loader.whole;
        json!({
            "config": self.job.config,
            "examples_per_epoch": whole.examples_per_epoch(),
            "order": DataOrder::of(whole),
            "rows": self.batches.rows_before(self.step),
            "residues": self.reporter.residues(),
            "optimizer_start": self.programs.optimizer_start,
            SCORE: self.held_out_loss.filter(|(step, _)| *step == self.step).map(|(_, loss)| loss),
        })
    }

    /// Saves what this host's devices hold in its own memory, where it is time to.
    fn save_locally_if_due(&mut self) -> Result<(), TrainError> {
        if !self.local.as_mut().is_some_and(LocalStates::is_due) {
            return Ok(());
        }
        self.report_all_started()?;
        if let Some(fault) = self.health.doubt() {
            tracing::warn!("step {} is not saved locally: {fault}", self.step);
            return Ok(());
        }
        let start = Instant::now();
        Pulse::phase(Phase::Saving);
        self.profiling.enter(Activity::Save);
        let metadata = self.metadata();
        if let Some(local) = &mut self.local {
            let fetch = || self.state.parts_to_host(self.job.mesh, WhichParts::Held);
            local.save(self.step, metadata, fetch)?;
        }
        self.resume_after_save(start);
        Ok(())
    }

    /// Saves the state that the run ends with.
    fn save_last(&mut self) -> Result<(), TrainError> {
        if let Some(local) = &mut self.local {
            local.wait();
        }
        self.saves.wait()?;
        for pause in LAST_TRIES {
            let saved = self.saves.saved() == Some(self.step) || self.step == 0;
            let fetched = self.saves.fetched() == Some(self.step);
            let missing = !(saved || self.save_is_owed);
            // All save again where one has to.
            let all = self
                .job
                .processes
                .all_gather("the last save", missing.into())?;
            if all.into_iter().all(|missing| missing == 0) {
                break;
            }
            if fetched {
                std::thread::sleep(pause);
            }
            self.save()?;
            self.saves.wait()?;
        }
        if let Some(error) = self.saves.give_up(self.step) {
            return Err(error);
        }
        // None says that it has saved before all have.
        self.job.processes.all_gather("saved", self.step)?;
        Ok(())
    }

    /// Saves what can be saved of a run that ends with an error; the log reports what is lost.
    fn rescue(&mut self, error: &TrainError) {
        Pulse::phase(Phase::Ending);
        // The state is whole where only the next batch is missing.
        let whole = matches!(error, TrainError::Data(_) | TrainError::Batch(_));
        let kept = match (self.job.processes.is_alone(), whole) {
            (true, true) => self.save_last(),
            (true, false) => self.saves.wait(),
            // The others end too, and wait for no save.
            (false, _) => Ok(()),
        };
        if let Err(lost) = kept {
            tracing::error!("{lost}");
        }
        self.reporter.flush();
    }

    fn finish(mut self) -> Result<Summary, TrainError> {
        Pulse::phase(Phase::Ending);
        self.profiling.end();
        let saved = self.save_last();
        self.reporter.flush();
        self.reporter.end_progress();
        saved?;
        self.job.processes.part();
        if let Some(local) = self.local.take() {
            local.end();
        }
        let stopped = self.step < self.job.config.train.steps;
        let mut summary = self.reporter.into_summary(self.step);
        let saved = self.saves.saved() == Some(self.step);
        summary.checkpoint = saved.then(|| self.saves.directory_of(self.step));
        self.batches.abandon();
        match self.evaluation {
            Some(evaluation) if stopped => evaluation.abandon(),
            Some(evaluation) => {
                let loss = summary::frequency_loss(
                    &self.job.loader.whole,
                    &evaluation.loader().whole,
                    self.job.config.model.vocabulary,
                    self.job.processes.requests(),
                );
                // The run is finished and saved, whatever becomes of its summary.
                summary.frequency_loss = loss.unwrap_or_else(|error| {
                    tracing::warn!("the token frequencies cannot be counted: {error}");
                    None
                });
            }
            None => {}
        }
        Ok(summary)
    }
}
