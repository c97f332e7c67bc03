//! The training loop.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use ankh_data::{Seen, Split};
use ankh_pjrt::Event;
use serde_json::json;

use super::TrainError;
use super::feed::{Fed, Feed, Source};
use super::order::DataOrder;
use super::pace::Pace;
use super::program::{BatchSize, EVALUATION, METRICS, Programs};
use super::resume::Beginning;
use super::saving::Saves;
use super::state::State;
use super::summary::{self, Summary};
use crate::checkpoint::{Guard, Store};
use crate::config::Config;
use crate::fleet::{Compiled, DeviceArray, DeviceError, Fleet, Input};
use crate::run::{Fence, Requests, RunDirectory, RunError};
use crate::telemetry::{
    EventLog, Log, Meter, Metrics, MetricsLog, StepCost, StepProgress, Validation,
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// At its last step.
    Finished(Summary),
    /// Before it, on request, with its state saved.
    Stopped(Summary),
}

/// Steps whose metrics may be outstanding: enough that the device has its next step before the last one ends. Where steps are
/// long, [`Pace`] makes it fewer.
const STEPS_AHEAD: usize = 2;

/// While a batch is waited for, saves and requests are looked at this often.
const LOOK: Duration = Duration::from_millis(100);

/// While the device is waited for, it is looked at this often.
const LOOK_AT_DEVICE: Duration = Duration::from_millis(5);

/// Pauses before each try to save the state that a run ends with.
const LAST_TRIES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Trains until the configured last step, or until somebody asks to stop, in the run directory; goes on from its newest
/// checkpoint if there is one. A training step compiled before can be given as a file.
pub fn train(
    config: &Config,
    run: &RunDirectory,
    fleet: &Fleet,
    executable: Option<&Path>,
    requests: &Requests,
) -> Result<Outcome, TrainError> {
    let programs = Programs::of(config, fleet.platform(), fleet.layout());
    let training = Source::open(&programs, Split::Train, fleet)?;
    for reason in DataOrder::of(&training.whole).reasons(config.data.memory) {
        tracing::info!("{reason}");
    }
    let mut session = Session::start(&programs, run, fleet, executable, &training, requests)?;
    if let Err(error) = session.train() {
        session.rescue(&error);
        return Err(error);
    }
    let stopped = session.step < config.train.steps;
    let summary = session.finish()?;
    match stopped {
        false => Ok(Outcome::Finished(summary)),
        true => {
            training.abandon();
            Ok(Outcome::Stopped(summary))
        }
    }
}

struct Session<'a> {
    config: &'a Config,
    run: &'a RunDirectory,
    fleet: &'a Fleet,
    program: Compiled,
    evaluation: Option<Evaluation>,
    state: State,
    /// Steps started.
    step: u64,
    feed: Feed<'a>,
    training: &'a Source,
    requests: &'a Requests,
    fence: Fence,
    /// Residues shown up to the last step whose metrics were read.
    residues: u64,
    /// The step that what the optimizer keeps began at.
    optimizer_start: u64,
    /// Steps whose metrics have not been read, oldest first.
    pending: VecDeque<Pending>,
    pace: Pace,
    meter: Meter,
    metrics: MetricsLog,
    events: EventLog,
    progress: StepProgress,
    saves: Saves,
    /// The last step whose state was read back to be saved, here or on another host.
    fetched: Option<u64>,
    summary: Summary,
    began: Instant,
}

/// A step that the device may still be working on.
struct Pending {
    step: u64,
    metrics: DeviceArray,
    started: Instant,
    ended: Event,
    epoch: u64,
    seen: Seen,
    waited: Duration,
}

struct Evaluation {
    program: Compiled,
    source: Source,
}

impl<'a> Session<'a> {
    fn start(
        programs: &Programs<'a>,
        run: &'a RunDirectory,
        fleet: &'a Fleet,
        executable: Option<&Path>,
        training: &'a Source,
        requests: &'a Requests,
    ) -> Result<Session<'a>, TrainError> {
        let config = programs.config;
        let fence = run.fence();
        let asked = fence.clone();
        let guard = Guard::new(fence.number(), move || asked.check());
        let store = Store::open(run.checkpoints()).guarded(guard);
        if run.saves() {
            store.clean()?;
        }
        let beginning = Beginning::of(config, run, &store, fleet, training)?;
        let programs = &beginning.programs(programs);
        let held_out = match config.evaluation.every {
            0 => None,
            _ => Some(Source::open(programs, Split::Validation, fleet)?),
        };
        let module = programs.step()?;
        tracing::info!(
            "compiling the training step for {}, mesh {}",
            fleet.platform(),
            fleet.mesh()
        );
        let began = Instant::now();
        let program = match executable {
            Some(file) => fleet.load(&module, file)?,
            None => fleet.compile(&module)?,
        };
        let evaluation = match held_out {
            Some(source) => {
                let module = programs.evaluation()?;
                Some(Evaluation {
                    program: fleet.compile(&module)?,
                    source,
                })
            }
            None => None,
        };
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "compiled");

        let state = beginning.state(programs, fleet)?;
        let latest = beginning.checkpoint();
        // Not before the first step can run: an attempt that fails leaves the run as it was.
        run.record(config, &fleet.versions())?;
        run.record_program("train_step", &module.text(), &module.to_bytes())?;
        Log::record_to(&run.log())?;
        let Beginning {
            step,
            rows,
            residues,
            optimizer_start,
            ..
        } = beginning;
        let keep = if config.checkpoint.keep == 0 {
            usize::MAX
        } else {
            config.checkpoint.keep
        };
        let mut session = Session {
            feed: training.after_rows(step, rows, config.data.prefetch),
            meter: Meter::start(StepCost::of(config), fleet.peak_flops()),
            metrics: MetricsLog::after(step, run.metrics())?,
            events: EventLog::after(step, run.path())?,
            progress: StepProgress::start(step, config.train.steps),
            saves: Saves::new(store, keep, latest),
            fetched: None,
            summary: Summary {
                steps: step,
                metrics: run.metrics(),
                ..Summary::default()
            },
            pending: VecDeque::new(),
            pace: Pace::new(Instant::now()),
            began: Instant::now(),
            config,
            run,
            fleet,
            program,
            evaluation,
            state,
            step,
            training,
            requests,
            fence,
            residues,
            optimizer_start,
        };
        if step < config.train.steps {
            session.evaluate()?;
        }
        session.meter.read();
        Ok(session)
    }

    /// Trains until the last step, or until somebody asks to stop.
    fn train(&mut self) -> Result<(), TrainError> {
        while self.step < self.config.train.steps && !self.requests.stop() {
            self.fence.known().map_err(RunError::from)?;
            let Some(batch) = self.next_batch()? else {
                break;
            };
            self.run(batch)?;
            let evaluated = self.evaluate_if_due()?;
            self.log(evaluated)?;
            self.save_if_due()?;
            self.keep_pace()?;
        }
        Ok(())
    }

    /// Waits, where steps are long, until the device has little left to do.
    fn keep_pace(&mut self) -> Result<(), TrainError> {
        loop {
            while let Some(ended) = self.pending.pop_front_if(|p| p.ended.is_ready()) {
                self.log_step(ended, None)?;
            }
            let wait = self.pace.wait(self.pending.len(), Instant::now());
            if wait.is_zero() || self.requests.stop() {
                return Ok(());
            }
            self.saves.look()?;
            std::thread::sleep(wait.min(LOOK_AT_DEVICE));
        }
    }

    /// The next batch; none where somebody asks to stop while it is waited for.
    fn next_batch(&mut self) -> Result<Option<Fed>, TrainError> {
        while !self.feed.wait(LOOK) {
            if self.requests.stop() {
                return Ok(None);
            }
            if self.is_save_wanted()? {
                self.save()?;
            }
        }
        let batch = self.feed.next(self.fleet)?;
        Ok(Some(batch.expect("training batches never end")))
    }

    /// Starts a step; the device works on while this returns.
    fn run(&mut self, batch: Fed) -> Result<(), TrainError> {
        let Fed {
            arrays,
            epoch,
            seen,
            waited,
        } = batch;
        // From here on a request to stop is for this loop to hear.
        self.requests.begin();
        let mut metrics = None;
        let program = &self.program;
        self.state.replace(|state| {
            let arguments = state.into_iter().chain(arrays).map(Input::Donate);
            let mut outputs = program.start(arguments.collect())?;
            metrics = outputs.pop();
            Ok(outputs)
        })?;
        self.step += 1;
        let metrics = metrics.expect("a step's last output");
        let ended = metrics.first().ready().map_err(DeviceError::from)?;
        self.pending.push_back(Pending {
            step: self.step,
            metrics,
            started: Instant::now(),
            ended,
            epoch,
            seen,
            waited,
        });
        Ok(())
    }

    /// Reads the metrics of steps that are `STEPS_AHEAD` behind; of all, where this step was evaluated or is the last.
    fn log(&mut self, validation: Option<Validation>) -> Result<(), TrainError> {
        let all = validation.is_some() || self.step == self.config.train.steps;
        while self.pending.len() > if all { 0 } else { STEPS_AHEAD } {
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            let validation = validation.filter(|_| pending.step == self.step);
            self.log_step(pending, validation)?;
        }
        Ok(())
    }

    fn log_step(
        &mut self,
        pending: Pending,
        validation: Option<Validation>,
    ) -> Result<(), TrainError> {
        let values = pending
            .metrics
            .first()
            .to_host()
            .and_then(|t| t.to_vec_f32())
            .map_err(DeviceError::from)?;
        self.pace.ended(pending.started, Instant::now());
        let [loss, accuracy, grad_norm, learning_rate, inputs, targets]: [f32; METRICS.len()] =
            values
                .try_into()
                .expect("the program gives as many metrics as there are names");
        let tokens = f64::from(inputs) + f64::from(targets);
        let size = BatchSize::of(self.config);
        let step = pending.step;
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step, loss });
        }
        let seen = pending.seen;
        self.residues += seen.residues;
        self.meter
            .step(seen.sequences, tokens as u64, pending.waited);
        let due = step.is_multiple_of(self.config.train.log_every)
            || validation.is_some()
            || step == self.config.train.steps;
        if !due {
            return Ok(());
        }
        let rates = self.meter.read();
        let line = Metrics {
            step,
            epoch: pending.epoch,
            residues: self.residues,
            loss,
            accuracy,
            learning_rate,
            grad_norm,
            padding_efficiency: tokens / size.positions() as f64,
            step_seconds: rates.step_seconds,
            examples_per_second: rates.examples_per_second,
            tokens_per_second: rates.tokens_per_second,
            mfu: rates.mfu,
            data_wait_seconds: rates.data_wait_seconds,
            validation,
        };
        self.metrics.write(&line);
        self.events.write(&line);
        self.progress.show(&line);
        if self.summary.training_loss.is_none() {
            tracing::info!(
                "step {step} shows {} sequences in {} rows, which fill {:.1} % of their positions",
                seen.sequences,
                size.rows,
                100.0 * line.padding_efficiency
            );
        }
        let first = self.summary.training_loss.map_or(loss, |l| l.0);
        self.summary.training_loss = Some((first, loss));
        Ok(())
    }

    fn evaluate_if_due(&mut self) -> Result<Option<Validation>, TrainError> {
        let every = self.config.evaluation.every;
        let due =
            every > 0 && (self.step.is_multiple_of(every) || self.step == self.config.train.steps);
        if !due {
            return Ok(None);
        }
        // What the steps before took is read first, so that the evaluation's time is not counted as theirs.
        while let Some(pending) = self.pending.pop_front_if(|p| p.step < self.step) {
            self.log_step(pending, None)?;
        }
        if let Some(last) = self.pending.back() {
            last.metrics
                .first()
                .ready()
                .and_then(|e| e.wait())
                .map_err(DeviceError::from)?;
        }
        let start = Instant::now();
        let validation = self.evaluate()?;
        self.meter.skip(start.elapsed());
        self.pace.idle(Instant::now());
        Ok(validation)
    }

    /// The held-out split's loss and accuracy under the present weights; none where a request cannot wait for them.
    fn evaluate(&mut self) -> Result<Option<Validation>, TrainError> {
        let Some(Evaluation { program, source }) = &self.evaluation else {
            return Ok(None);
        };
        let limit = if self.config.evaluation.batches == 0 {
            usize::MAX
        } else {
            self.config.evaluation.batches
        };
        let mut feed = source.after(0, self.config.data.prefetch);
        let mut sums = [0.0f64; EVALUATION.len()];
        for _ in 0..limit {
            while !feed.wait(LOOK) && !self.is_wanted_elsewhere() {
                self.saves.look()?;
            }
            self.saves.look()?;
            if self.is_wanted_elsewhere() {
                tracing::info!("the evaluation at step {} is given up", self.step);
                feed.abandon();
                return Ok(None);
            }
            let Some(batch) = feed.next(self.fleet)? else {
                break;
            };
            let parameters = self.state.parameters().iter().map(Input::Keep);
            let arrays = batch.arrays.into_iter().map(Input::Donate);
            let outputs = program.start(parameters.chain(arrays).collect())?;
            let values = outputs[0]
                .first()
                .to_host()
                .and_then(|t| t.to_vec_f32())
                .map_err(DeviceError::from)?;
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        }
        let [cross_entropy, correct, tokens] = sums;
        let loss = cross_entropy / tokens;
        let first = self.summary.held_out_loss.map_or(loss, |l| l.0);
        self.summary.held_out_loss = Some((first, loss));
        Ok(Some(Validation::new(loss, correct / tokens)))
    }

    /// Whether somebody asks for something that an evaluation is not worth to be kept waiting for.
    fn is_wanted_elsewhere(&self) -> bool {
        self.requests.stop() || (self.requests.save() && self.fleet.is_whole())
    }

    fn save_if_due(&mut self) -> Result<(), TrainError> {
        let every = self.config.checkpoint.every;
        let due =
            (every > 0 && self.step.is_multiple_of(every)) || self.step == self.config.train.steps;
        if self.is_save_wanted()? || due {
            self.save()?;
        }
        Ok(())
    }

    /// Whether to save at any step: somebody asks for it, or a save that failed is to be tried again. Hears of saves that ended.
    fn is_save_wanted(&mut self) -> Result<bool, TrainError> {
        self.saves.look()?;
        let asked = self.requests.take_save();
        // Processes that hold parts of one state read it back together, at steps that all of them know.
        if !self.fleet.is_whole() {
            if asked {
                let every = self.config.checkpoint.every;
                tracing::info!("the hosts of a run save together, every {every} steps");
            }
            return Ok(false);
        }
        Ok(asked || self.saves.is_again_due())
    }

    /// Copies the state to the host and writes it in the background, after the save that may be under way.
    fn save(&mut self) -> Result<(), TrainError> {
        // Lines up to this step reach the file before a state that claims them does.
        while let Some(pending) = self.pending.pop_front() {
            self.log_step(pending, None)?;
        }
        let start = Instant::now();
        let metadata = json!({
            "config": self.config,
            "examples_per_epoch": self.training.whole.examples_per_epoch(),
            "order": DataOrder::of(&self.training.whole),
            "rows": self.feed.rows_before(self.step),
            "residues": self.residues,
            "optimizer_start": self.optimizer_start,
        });
        // Every process takes part in reading the state back; one writes it.
        let fetch = || self.state.to_host(self.fleet);
        match self.run.saves() {
            true => self.saves.save(self.step, metadata, fetch)?,
            false => drop(fetch()?),
        }
        self.fetched = Some(self.step);
        self.meter.skip(start.elapsed());
        self.pace.idle(Instant::now());
        Ok(())
    }

    /// Saves the state that the run ends with.
    fn save_last(&mut self) -> Result<(), TrainError> {
        self.saves.settle()?;
        let begins = self.summary.steps;
        for pause in LAST_TRIES {
            let saved = self.saves.saved() == Some(self.step) || self.step == begins;
            let fetched = self.fetched == Some(self.step);
            if saved || (fetched && !(self.run.saves() && self.fleet.is_whole())) {
                break;
            }
            if fetched {
                std::thread::sleep(pause);
            }
            self.save()?;
            self.saves.settle()?;
        }
        match self.saves.give_up(self.step) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Keeps what can be kept of a run that ends with an error; the log says what is lost.
    fn rescue(&mut self, error: &TrainError) {
        // The state is whole where only the next batch is missing.
        let whole = matches!(error, TrainError::Data(_) | TrainError::Batch(_));
        let kept = match whole && self.fleet.is_whole() {
            true => self.save_last(),
            false => self.saves.settle(),
        };
        if let Err(lost) = kept {
            tracing::error!("{lost}");
        }
        self.metrics.finish();
        self.events.finish();
    }

    fn finish(mut self) -> Result<Summary, TrainError> {
        let saved = self.save_last();
        self.metrics.finish();
        self.events.finish();
        self.progress.finish();
        saved?;
        let stopped = self.step < self.config.train.steps;
        let mut summary = self.summary;
        summary.seconds = self.began.elapsed().as_secs_f64();
        summary.steps = self.step;
        summary.checkpoint = Some(self.run.checkpoint(self.step)).filter(|p| p.exists());
        self.feed.abandon();
        if let Some(Evaluation { source, .. }) = self.evaluation {
            if stopped {
                source.abandon();
            } else {
                let vocabulary = self.config.model.vocabulary;
                let loss = summary::frequency_loss(
                    &self.training.whole,
                    &source.whole,
                    vocabulary,
                    self.requests,
                );
                // The run is finished and saved, whatever becomes of its summary.
                summary.frequency_loss = loss.unwrap_or_else(|error| {
                    tracing::warn!("the token frequencies cannot be counted: {error}");
                    None
                });
            }
        }
        Ok(summary)
    }
}
