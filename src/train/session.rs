//! The training loop.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ankh_data::{Seen, Split};
use serde::Deserialize as _;
use serde_json::json;

use super::TrainError;
use super::feed::{Fed, Feed, Source};
use super::order::DataOrder;
use super::program::{BatchSize, EVALUATION, METRICS, Programs};
use super::state::{Rest, State};
use super::summary::{self, Summary};
use crate::checkpoint::{Saver, Store};
use crate::config::Config;
use crate::fleet::{Compiled, DeviceArray, DeviceError, Fleet, Input};
use crate::run::RunDirectory;
use crate::telemetry::{EventLog, Meter, Metrics, MetricsLog, StepCost, StepProgress, Validation};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// At its last step.
    Finished(Summary),
    /// Before it, on request, with its state saved.
    Stopped(Summary),
}

/// Steps whose metrics may be outstanding: enough that the device has its next step before the last one ends.
const STEPS_AHEAD: usize = 2;

/// Trains until the configured last step, or until `stop` is set, in the run directory; goes on from its newest checkpoint
/// if there is one. A training step compiled before can be given as a file.
pub fn train(
    config: &Config,
    run: &RunDirectory,
    fleet: &Fleet,
    executable: Option<&Path>,
    stop: &AtomicBool,
) -> Result<Outcome, TrainError> {
    let programs = Programs::of(config, fleet.platform(), fleet.layout());
    let training = Source::open(&programs, Split::Train, fleet)?;
    for reason in DataOrder::of(&training.whole).reasons(config.data.memory) {
        tracing::info!("{reason}");
    }
    let mut session = Session::start(&programs, run, fleet, executable, &training)?;
    while session.step < config.train.steps {
        let batch = session.next_batch()?;
        session.run(batch)?;
        let evaluated = session.evaluate_if_due()?;
        session.log(evaluated)?;
        session.save_if_due()?;
        if stop.load(Ordering::Relaxed) && session.step < config.train.steps {
            return Ok(Outcome::Stopped(session.finish()?));
        }
    }
    Ok(Outcome::Finished(session.finish()?))
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
    /// Residues shown up to the last step whose metrics were read.
    residues: u64,
    /// Steps whose metrics have not been read, oldest first.
    pending: VecDeque<Pending>,
    meter: Meter,
    metrics: MetricsLog,
    events: EventLog,
    progress: StepProgress,
    saver: Saver,
    saved: Option<u64>,
    summary: Summary,
    began: Instant,
}

/// A step that the device may still be working on.
struct Pending {
    step: u64,
    metrics: DeviceArray,
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
    ) -> Result<Session<'a>, TrainError> {
        let config = programs.config;
        let held_out = match config.evaluation.every {
            0 => None,
            _ => Some(Source::open(programs, Split::Validation, fleet)?),
        };
        let module = programs.step()?;
        run.record(config, &fleet.versions())?;
        run.record_program("train_step", &module.text(), &module.to_bytes())?;
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

        let store = Store::open(run.checkpoints());
        if run.saves() {
            store.clean()?;
        }
        let latest = store.latest()?;
        let begins = latest.unwrap_or(0);
        let (first, last) = fleet.extremes(begins)?;
        if first != last {
            return Err(TrainError::OtherStep {
                checkpoints: run.checkpoints(),
                begins,
                first,
                last,
            });
        }
        let (step, state, residues) = match latest {
            Some(step) => {
                let (state, residues) = resume(programs, fleet, &store, step, training)?;
                (step, state, residues)
            }
            None => (0, State::initial(programs, fleet)?, 0),
        };
        let keep = if config.checkpoint.keep == 0 {
            usize::MAX
        } else {
            config.checkpoint.keep
        };
        let mut session = Session {
            feed: training.after(step, config.data.prefetch),
            meter: Meter::start(StepCost::of(config), fleet.peak_flops()),
            metrics: MetricsLog::after(step, run.metrics())?,
            events: EventLog::after(step, run.path())?,
            progress: StepProgress::start(step, config.train.steps),
            saver: Saver::new(store, keep),
            saved: None,
            summary: Summary {
                steps: step,
                metrics: run.metrics(),
                ..Summary::default()
            },
            pending: VecDeque::new(),
            began: Instant::now(),
            config,
            run,
            fleet,
            program,
            evaluation,
            state,
            step,
            training,
            residues,
        };
        if step < config.train.steps {
            session.evaluate()?;
        }
        session.meter.read();
        Ok(session)
    }

    fn next_batch(&mut self) -> Result<Fed, TrainError> {
        Ok(self
            .feed
            .next(self.fleet)?
            .expect("training batches never end"))
    }

    /// Starts a step; the device works on while this returns.
    fn run(&mut self, batch: Fed) -> Result<(), TrainError> {
        let Fed {
            arrays,
            epoch,
            seen,
            waited,
        } = batch;
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
        self.pending.push_back(Pending {
            step: self.step,
            metrics,
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
        Ok(validation)
    }

    /// The held-out split's loss and accuracy under the present weights.
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

    fn save_if_due(&mut self) -> Result<(), TrainError> {
        let every = self.config.checkpoint.every;
        let due =
            (every > 0 && self.step.is_multiple_of(every)) || self.step == self.config.train.steps;
        if due { self.save() } else { Ok(()) }
    }

    /// Copies the state to the host and writes it in the background.
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
            "residues": self.residues,
        });
        // Every process takes part in reading the state back; one writes it.
        let state = self.state.to_host(self.fleet)?;
        if self.run.saves() {
            self.saver.save(self.step, metadata, state)?;
        }
        self.saved = Some(self.step);
        self.meter.skip(start.elapsed());
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, TrainError> {
        if self.saved != Some(self.step) && self.step > self.summary.steps {
            self.save()?;
        }
        self.saver.finish()?;
        self.progress.finish();
        let mut summary = self.summary;
        summary.seconds = self.began.elapsed().as_secs_f64();
        summary.steps = self.step;
        summary.checkpoint = Some(self.run.checkpoint(self.step)).filter(|p| p.exists());
        if let Some(evaluation) = &self.evaluation {
            let vocabulary = self.config.model.vocabulary;
            summary.frequency_loss = summary::frequency_loss(
                &self.training.whole,
                &evaluation.source.whole,
                vocabulary,
            )?;
        }
        Ok(summary)
    }
}

/// Loads the state of a step, made by a run on the same data in the same order, and how many residues it was shown.
fn resume(
    programs: &Programs<'_>,
    fleet: &Fleet,
    store: &Store,
    step: u64,
    training: &Source,
) -> Result<(State, u64), TrainError> {
    let checkpoint = store.load(step)?;
    let metadata = &checkpoint.metadata;
    let is = training.whole.examples_per_epoch();
    let was = metadata["examples_per_epoch"].as_u64();
    if let Some(was) = was.filter(|was| *was != is) {
        return Err(TrainError::OtherData {
            checkpoint: store.directory_of(step),
            was,
            is,
        });
    }
    // A checkpoint that was imported has no order yet.
    if let Ok(before) = DataOrder::deserialize(&metadata["order"]) {
        let difference = DataOrder::of(&training.whole).difference(&before);
        if let Some((was, is)) = difference {
            return Err(TrainError::OtherOrder {
                checkpoint: store.directory_of(step),
                was,
                is,
            });
        }
    }
    let residues = metadata["residues"].as_u64().unwrap_or(0);
    tracing::info!(step, "resuming");
    let state = State::from_tensors(programs, fleet, &checkpoint.tensors, Rest::Required)?;
    Ok((state, residues))
}
