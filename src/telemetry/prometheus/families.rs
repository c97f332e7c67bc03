//! The metrics by name: what has been observed of a process, and the table of what is served of it.
//!
//! Counters begin at zero with each process, as Prometheus expects of a program that is started
//! again; gauges tell of the run. A number that is not known yet is not served.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ankh_data::RowCounts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::super::{Goodput, Metrics, Validation};

/// What has been observed of a training process.
#[derive(Clone, Debug)]
pub struct Observed {
    began: SystemTime,
    planned: u64,
    restarts: u64,
    /// The last step that ended, and when.
    step: u64,
    stepped: SystemTime,
    /// Counted since the process began.
    steps: u64,
    sequences: u64,
    tokens: u64,
    residues: u64,
    skipped: u64,
    waited: Duration,
    rollbacks: u64,
    /// Seconds by what took them.
    time: Vec<(&'static str, f64)>,
    line: Option<Metrics>,
    validation: Option<Validation>,
    saved: Option<u64>,
    saved_at: SystemTime,
    failed_saves: u64,
}

impl Observed {
    /// Of a process that begins now, after so many restarts by its launcher, and trains until step
    /// `planned`.
    pub fn start(planned: u64, restarts: u64) -> Observed {
        let now = SystemTime::now();
        Observed {
            began: now,
            planned,
            restarts,
            step: 0,
            stepped: now,
            steps: 0,
            sequences: 0,
            tokens: 0,
            residues: 0,
            skipped: 0,
            waited: Duration::ZERO,
            rollbacks: 0,
            time: Vec::new(),
            line: None,
            validation: None,
            saved: None,
            saved_at: now,
            failed_saves: 0,
        }
    }

    /// The run goes on after this step, which is the last one saved.
    pub fn resume(&mut self, step: u64) {
        self.step = step;
        self.stepped = SystemTime::now();
    }

    /// A step ended: what it showed, how long its batch was waited for, and whether its update was
    /// skipped.
    pub fn step(
        &mut self,
        step: u64,
        seen: RowCounts,
        tokens: u64,
        waited: Duration,
        skipped: bool,
    ) {
        self.step = step;
        self.stepped = SystemTime::now();
        self.steps += 1;
        self.sequences += seen.sequences;
        self.tokens += tokens;
        self.residues += seen.residues;
        self.waited += waited;
        self.skipped += u64::from(skipped);
    }

    /// Where the time of the process went.
    pub fn time(&mut self, goodput: &Goodput) {
        self.time = goodput.seconds().to_vec();
    }

    /// A line of metrics.
    pub fn line(&mut self, line: &Metrics) {
        self.line = Some(line.clone());
    }

    /// An evaluation.
    pub fn evaluation(&mut self, validation: &Validation) {
        self.validation = Some(validation.clone());
    }

    /// The newest step that is known to be saved, and how many saves of this process failed.
    pub fn saves(&mut self, saved: Option<u64>, failed: u64) {
        if saved != self.saved {
            self.saved = saved;
            self.saved_at = SystemTime::now();
        }
        self.failed_saves = failed;
    }

    /// The run goes back to an earlier step.
    pub fn roll_back(&mut self, step: u64) {
        self.rollbacks += 1;
        self.resume(step);
    }
}

/// A metric that is served.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the prefix `ankh_`, the unit, and the `_total` of counters.
    pub name: &'static str,
    unit: Option<&'static str>,
    pub help: &'static str,
    value: Value,
}

/// Where its number comes from.
enum Value {
    Counter(fn(&Observed) -> f64),
    Gauge(fn(&Observed) -> Option<f64>),
    /// A gauge for each value of a label.
    Gauges(&'static str, fn(&Observed) -> Vec<(&'static str, f64)>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Value::Counter(_) => "Counter",
            Value::Gauge(_) => "Gauge",
            Value::Gauges(..) => "Gauges",
        })
    }
}

/// Those without a unit, and with one.
macro_rules! family {
    ($kind:ident $name:literal, $help:literal, $value:expr) => {
        Family {
            name: $name,
            unit: None,
            help: $help,
            value: Value::$kind($value),
        }
    };
    ($kind:ident $name:literal in $unit:literal, $help:literal, $value:expr) => {
        Family {
            name: $name,
            unit: Some($unit),
            help: $help,
            value: Value::$kind($value),
        }
    };
}

/// All of them.
pub(super) const FAMILIES: &[Family] = &[
    family!(Gauge "step", "The last training step that ended, over all starts of the run.", |o| {
        Some(o.step as f64)
    }),
    family!(Gauge "planned_steps", "The last step of the run.", |o| Some(o.planned as f64)),
    family!(Counter "steps", "Steps that ended in this process.", |o| o.steps as f64),
    family!(Gauge "last_step_timestamp" in "seconds", "When the last step ended, or this process began to train.", |o| {
        seconds_since_1970(o.stepped)
    }),
    family!(Gauge "start_timestamp" in "seconds", "When this process began.", |o| {
        seconds_since_1970(o.began)
    }),
    family!(Gauge "epoch", "The pass over the data that the step belongs to, from 0.", |o| {
        of_line(o, |line| line.epoch as f64)
    }),
    family!(Counter "sequences", "Sequences shown by this process, those of other hosts included.", |o| {
        o.sequences as f64
    }),
    family!(Counter "tokens", "Input and target tokens, padding not counted.", |o| o.tokens as f64),
    family!(Counter "residues", "Residues shown, masked ones included.", |o| o.residues as f64),
    family!(Gauge "loss" in "nats", "Mean cross-entropy over the target tokens of the last logged step.", |o| {
        of_line(o, |line| line.numbers.loss.into())
    }),
    family!(Gauge "accuracy" in "ratio", "Share of its target tokens predicted first.", |o| {
        of_line(o, |line| line.numbers.accuracy.into())
    }),
    family!(Gauge "learning_rate", "The rate of the last logged step.", |o| {
        of_line(o, |line| line.numbers.learning_rate.into())
    }),
    family!(Gauge "gradient_norm", "Norm of all gradients together, before clipping.", |o| {
        of_line(o, |line| line.numbers.grad_norm.into())
    }),
    family!(Gauge "padding_efficiency" in "ratio", "Share of the positions of the last logged step that hold a token.", |o| {
        of_line(o, |line| line.padding_efficiency)
    }),
    family!(Gauge "validation_loss" in "nats", "Held-out loss of the last evaluation.", |o| {
        o.validation.as_ref().map(|validation| validation.validation_loss)
    }),
    family!(Gauge "validation_accuracy" in "ratio", "Held-out accuracy of the last evaluation.", |o| {
        o.validation.as_ref().map(|validation| validation.validation_accuracy)
    }),
    family!(Gauge "validation_perplexity", "Exponential of the held-out loss.", |o| {
        o.validation.as_ref().map(|validation| validation.validation_perplexity)
    }),
    family!(Gauge "step_duration" in "seconds", "Wall time per step since the line of metrics before.", |o| {
        of_line(o, |line| line.rates.step_seconds)
    }),
    family!(Counter "data_wait" in "seconds", "Time that the training loop of this host waited for batches.", |o| {
        o.waited.as_secs_f64()
    }),
    family!(Gauge "mfu" in "ratio", "Share of the devices' peak that the model's matrix products make up.", |o| {
        o.line.as_ref().and_then(|line| line.rates.mfu)
    }),
    family!(Gauge "goodput" in "ratio", "Share of the time of this process that trained and was not lost.", |o| {
        of_line(o, |line| line.goodput)
    }),
    Family {
        name: "time",
        unit: Some("seconds"),
        help: "Time of this process by activity; going back moves some from training to rolled_back.",
        value: Value::Gauges("activity", |o| o.time.clone()),
    },
    family!(Counter "skipped_updates", "Updates skipped for a loss or gradients that were not finite or spikes.", |o| {
        o.skipped as f64
    }),
    family!(Counter "rollbacks", "Times that the run went back to a saved state.", |o| {
        o.rollbacks as f64
    }),
    family!(Gauge "restarts", "Times that the launcher has started a process again.", |o| {
        Some(o.restarts as f64)
    }),
    family!(Gauge "checkpoint_step", "The newest step that is known to be saved.", |o| {
        o.saved.map(|step| step as f64)
    }),
    family!(Gauge "checkpoint_timestamp" in "seconds", "When a step was last saved, or this process began.", |o| {
        seconds_since_1970(o.saved_at)
    }),
    family!(Counter "checkpoint_failures", "Saves of this process that failed.", |o| {
        o.failed_saves as f64
    }),
];

fn of_line(observed: &Observed, number: fn(&Metrics) -> f64) -> Option<f64> {
    observed.line.as_ref().map(number)
}

fn seconds_since_1970(time: SystemTime) -> Option<f64> {
    let since = time.duration_since(UNIX_EPOCH);
    since.ok().map(|since| since.as_secs_f64())
}

/// The names of all samples that may be served.
#[cfg(test)]
pub(super) fn names() -> Vec<String> {
    let name = |family: &Family| {
        let unit = family.unit.map(|unit| format!("_{unit}"));
        let total = match family.value {
            Value::Counter(_) => "_total",
            Value::Gauge(_) | Value::Gauges(..) => "",
        };
        format!("ankh_{}{}{total}", family.name, unit.unwrap_or_default())
    };
    FAMILIES.iter().map(name).collect()
}

/// Encodes what has been observed at the time of a request.
#[derive(Debug)]
pub(super) struct Families(pub Arc<Mutex<Observed>>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The training loop waits for no more than this copy.
        let observed = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for family in FAMILIES {
            let Family { name, help, .. } = family;
            let unit = family.unit.map(|unit| Unit::Other(unit.into()));
            let unit = unit.as_ref();
            match family.value {
                Value::Counter(value) => {
                    let metric = ConstCounter::new(value(&observed));
                    let of = encoder.encode_descriptor(name, help, unit, metric.metric_type())?;
                    metric.encode(of)?;
                }
                Value::Gauge(value) => {
                    if let Some(value) = value(&observed) {
                        let metric = ConstGauge::new(value);
                        let of =
                            encoder.encode_descriptor(name, help, unit, metric.metric_type())?;
                        metric.encode(of)?;
                    }
                }
                Value::Gauges(label, values) => {
                    let values = values(&observed);
                    if values.is_empty() {
                        continue;
                    }
                    let mut of = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
                    for (activity, value) in values {
                        let metric = ConstGauge::new(value);
                        metric.encode(of.encode_family(&[(label, activity)])?)?;
                    }
                }
            }
        }
        Ok(())
    }
}
