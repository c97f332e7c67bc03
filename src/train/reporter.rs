//! Reports the steps of a run: lines of metrics, TensorBoard events, the progress line on the
//! terminal, and the summary at the end.

use std::time::{Duration, Instant};

use super::TrainError;
use super::in_flight::BatchInfo;
use super::summary::Summary;
use crate::config::Config;
use crate::programs::{BatchShape, Histogram, StepMetrics};
use crate::run_dir::RunDirectory;
use crate::supervision::{Phase, Pulse};
use crate::telemetry::{
    EventLog, Exposition, Goodput, Lost, Meter, Metrics, MetricsLog, StepProgress, Validation,
};

/// Where the metrics of steps go.
pub(super) struct Reporter {
    size: BatchShape,
    steps: u64,
    log_every: u64,
    /// Residues shown up to the last step that was reported.
    residues: u64,
    /// Skipped updates since the last line.
    skipped: u64,
    meter: Meter,
    goodput: Goodput,
    metrics: MetricsLog,
    events: EventLog,
    settings: Settings,
    progress: StepProgress,
    exposition: Exposition,
    summary: Summary,
    began: Instant,
}

/// What a run is configured as, for its events.
struct Settings {
    file: String,
    json: serde_json::Value,
    run: String,
}

impl Settings {
    /// A file of events for the steps after `step`, which begins with these settings.
    fn events_after(&self, step: u64, run: &RunDirectory) -> Result<EventLog, TrainError> {
        let mut events = EventLog::after(step, run.path())?;
        // With the first step that they hold for: a start from an earlier step voids them.
        events.write_configuration(step + 1, &self.file, &self.json, &self.run);
        Ok(events)
    }
}

/// What is known of the evaluation after a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Evaluated {
    /// There is to be none.
    NotDue,
    /// Its result.
    Here(Validation),
    /// There is to be one, and it has been put off.
    Later,
}

impl Reporter {
    /// For the steps after `step`, up to which the run has shown `residues`. `peak_flops` is that
    /// of all devices together, where it is known. `goodput` has counted what the process did so
    /// far.
    pub fn open(
        config: &Config,
        run: &RunDirectory,
        peak_flops: Option<f64>,
        step: u64,
        residues: u64,
        goodput: Goodput,
        exposition: Exposition,
    ) -> Result<Reporter, TrainError> {
        exposition.note(|observed| observed.resume(step));
        let settings = Settings {
            file: config.to_text(),
            // Structs of numbers, strings and named variants: serde_json has no way to fail.
            json: serde_json::to_value(config).expect("a configuration is plain JSON"),
            run: run.title(),
        };
        Ok(Reporter {
            size: BatchShape::of(config),
            steps: config.train.steps,
            log_every: config.train.log_every,
            residues,
            skipped: 0,
            meter: Meter::start(config.step_flops(), peak_flops),
            goodput,
            metrics: MetricsLog::after(step, run.metrics())?,
            events: settings.events_after(step, run)?,
            settings,
            progress: StepProgress::start(step, config.train.steps),
            exposition,
            summary: Summary {
                steps: step,
                metrics: run.metrics(),
                ..Summary::default()
            },
            began: Instant::now(),
        })
    }

    /// Counts a step, and writes a line where one is due: every so many steps, at the last one, and
    /// with an evaluation.
    pub fn step(
        &mut self,
        step: u64,
        numbers: StepMetrics<f32>,
        batch: BatchInfo,
        evaluation: Evaluated,
    ) {
        let is_evaluation_due = evaluation != Evaluated::NotDue;
        let validation = match evaluation {
            Evaluated::Here(validation) => Some(validation),
            Evaluated::NotDue | Evaluated::Later => None,
        };
        Pulse::step(step);
        let loss = numbers.loss;
        let tokens = f64::from(numbers.input_tokens) + f64::from(numbers.target_tokens);
        let BatchInfo {
            epoch,
            seen,
            waited,
        } = batch;
        self.residues += seen.residues;
        self.skipped += u64::from(numbers.skipped != 0.0);
        self.meter.step(seen.sequences, tokens as u64, waited);
        self.exposition.note(|observed| {
            let skipped = numbers.skipped != 0.0;
            observed.step(step, seen, tokens as u64, waited, skipped);
            observed.time(&self.goodput);
        });
        let due = step.is_multiple_of(self.log_every) || is_evaluation_due || step == self.steps;
        if !due {
            return;
        }
        let line = Metrics {
            step,
            epoch,
            residues: self.residues,
            numbers,
            padding_efficiency: tokens / self.size.positions() as f64,
            skipped_updates: std::mem::take(&mut self.skipped),
            goodput: self.goodput.shares().training,
            rates: self.meter.read(),
            validation,
        };
        self.metrics.write(&line);
        self.events.write(&line);
        self.progress.show(&line);
        self.exposition.note(|observed| observed.line(&line));
        if self.summary.training_loss.is_none() {
            tracing::info!(
                "step {step} shows {} sequences in {} rows, which fill {:.1} % of their positions",
                seen.sequences,
                self.size.rows,
                100.0 * line.padding_efficiency
            );
        }
        let first = self.summary.training_loss.map_or(loss, |l| l.0);
        self.summary.training_loss = Some((first, loss));
    }

    /// Writes the histograms of a step.
    pub fn histograms(&mut self, step: u64, histograms: &[Histogram]) {
        self.events.write_histograms(step, histograms);
    }

    /// Goes back to the step that a state was loaded of, up to which the run has shown `residues`:
    /// what was written of later steps is void.
    pub fn go_back(
        &mut self,
        run: &RunDirectory,
        step: u64,
        residues: u64,
    ) -> Result<(), TrainError> {
        self.flush();
        self.exposition.note(|observed| observed.roll_back(step));
        self.residues = residues;
        self.metrics = MetricsLog::after(step, run.metrics())?;
        self.events = self.settings.events_after(step, run)?;
        self.begin(step);
        Ok(())
    }

    /// Whether the line of `step`, the last one, waits for an evaluation.
    pub fn lacks_evaluation(&self, step: u64) -> bool {
        self.metrics.lacks_evaluation(step)
    }

    /// Adds an evaluation to the line of `step`, the last one.
    pub fn add_evaluation(&mut self, step: u64, validation: &Validation) -> Result<(), TrainError> {
        if self.metrics.add_evaluation(step, validation)? {
            self.events.write_evaluation(step, validation);
        }
        Ok(())
    }

    /// Notes an evaluation for the summary.
    pub fn evaluated(&mut self, validation: &Validation) {
        let loss = validation.validation_loss;
        self.exposition
            .note(|observed| observed.evaluation(validation));
        let first = self.summary.held_out_loss.map_or(loss, |l| l.0);
        self.summary.held_out_loss = Some((first, loss));
    }

    /// Residues shown up to the last step that was reported.
    pub fn residues(&self) -> u64 {
        self.residues
    }

    /// Training begins or goes on now, with the steps after `step`: rates are counted anew.
    pub fn begin(&mut self, step: u64) {
        self.meter.read();
        self.progress.begin(step);
    }

    /// Leaves a time out of the rates, and counts what took it. Training goes on.
    pub fn skip(&mut self, what: Lost, duration: Duration) {
        self.meter.skip(duration);
        self.lose(what, duration);
    }

    /// Counts time that passed between steps. Training goes on.
    pub fn lose(&mut self, what: Lost, duration: Duration) {
        Pulse::phase(Phase::Training);
        self.goodput.lose(what, duration);
    }

    /// The state was saved: the steps up to now are not lost any more.
    pub fn keep(&mut self) {
        self.goodput.keep();
    }

    /// Notes the newest step that is known to be saved, and how many saves failed.
    pub fn saves(&self, saved: Option<u64>, failed: u64) {
        self.exposition
            .note(|observed| observed.saves(saved, failed));
    }

    /// The run goes back: the steps since its state was last saved or loaded are lost.
    pub fn roll_back(&mut self) {
        Pulse::phase(Phase::Loading);
        self.goodput.roll_back();
    }

    /// Retries what there was no room for; the log reports what is missing.
    pub fn flush(&mut self) {
        self.metrics.finish();
        self.events.finish();
    }

    /// Takes the line off the terminal.
    pub fn end_progress(&self) {
        self.progress.finish();
    }

    /// The summary of a run that ends at `step`.
    pub fn into_summary(self, step: u64) -> Summary {
        Summary {
            steps: step,
            seconds: self.began.elapsed().as_secs_f64(),
            time: Some(self.goodput.shares()),
            ..self.summary
        }
    }
}
