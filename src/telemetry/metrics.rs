//! `metrics.jsonl`: one object per logged step. A resumed run drops the lines after the step that
//! it resumes from, so that the file reads as if the run had never stopped.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::append::{Appending, Turn};
use super::{Rates, TelemetryError};
use crate::programs::StepMetrics;

/// A line of `metrics.jsonl`. What a resumed run must repeat bit by bit comes first; times and
/// rates, over the steps since the line before, follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The step, counted from 1.
    pub step: u64,
    /// The pass over the data that the step belongs to, counted from 0; with a mixture, over the
    /// data of its first part by name.
    pub epoch: u64,
    /// Residues shown since the run began, masked ones included.
    pub residues: u64,
    /// What the training step reports; null where it is not finite.
    #[serde(flatten)]
    pub numbers: StepMetrics<f32>,
    /// Share of the step's input and target positions that hold a token.
    pub padding_efficiency: f64,
    /// Updates skipped since the line before, for their loss or gradients were not finite or were
    /// spikes.
    pub skipped_updates: u64,
    /// Share of the process's time up to now that trained and was not lost: see
    /// [`super::TimeShares`].
    pub goodput: f64,
    /// How fast the steps since the line before were.
    #[serde(flatten)]
    pub rates: Rates,
    /// Results on the held-out split, at steps that evaluate.
    #[serde(flatten)]
    pub validation: Option<Validation>,
}

/// Results on the held-out split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean cross-entropy over the target tokens, in nats.
    pub validation_loss: f64,
    /// Share of the target tokens predicted first.
    pub validation_accuracy: f64,
    /// `exp(validation_loss)`.
    pub validation_perplexity: f64,
    /// Of each residue, where the run is configured so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_residues: Option<ValidationResidues>,
}

/// Predictions of residues on the held-out split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationResidues {
    /// The share of each residue's occurrences that were predicted first, by its letter.
    pub accuracy: BTreeMap<String, f64>,
    /// Spearman's correlation of the log-odds of confusions with BLOSUM62; null where it is
    /// undefined.
    pub blosum62: Option<f64>,
}

impl Validation {
    /// From the mean loss and the accuracy.
    pub fn new(loss: f64, accuracy: f64) -> Self {
        Self {
            validation_loss: loss,
            validation_accuracy: accuracy,
            validation_perplexity: loss.exp(),
            validation_residues: None,
        }
    }
}

impl Validation {
    /// Names and values of all numbers.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        numbers_of(self)
    }
}

impl Metrics {
    /// Names and values of all numbers that are known, for displays that plot each.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let mut numbers = numbers_of(self);
        numbers.retain(|(name, _)| name != "step");
        numbers
    }
}

/// The fields of a struct that are numbers.
fn numbers_of(fields: &impl Serialize) -> Vec<(String, f64)> {
    match serde_json::to_value(fields) {
        Ok(serde_json::Value::Object(fields)) => fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_f64()?)))
            .collect(),
        // A struct with named fields is an object.
        other => unreachable!("metrics serialise to an object: {other:?}"),
    }
}

/// The file, open for appending.
pub struct MetricsLog {
    path: PathBuf,
    file: Appending,
}

impl MetricsLog {
    /// Opens the file for the steps after `step` (0 for a new run). Later lines, and one that a
    /// crash cut short, are dropped in one atomic step.
    pub fn after(step: u64, path: impl Into<PathBuf>) -> Result<Self, TelemetryError> {
        let path = path.into();
        keep_until(step, &path).map_err(TelemetryError::on("rewrite", &path))?;
        let file = open(&path)?;
        Ok(Self { path, file })
    }

    /// Appends a line. It is in the system's hands when this returns, or the log says why not, and
    /// it is written when there is room.
    pub fn write(&mut self, metrics: &Metrics) {
        // A struct of numbers: serde_json has no way to fail on it.
        let line = serde_json::to_string(metrics).expect("metrics are plain JSON");
        let turn = self.file.record(format!("{line}\n").into_bytes());
        tell(turn, &self.path);
    }

    /// Whether there is a line of `step`, and it has no evaluation.
    pub fn lacks_evaluation(&self, step: u64) -> bool {
        let last = last_line(&self.path).ok().flatten();
        last.is_some_and(|(_, line)| {
            line.get("step") == Some(&step.into()) && !line.contains_key(VALIDATION_LOSS)
        })
    }

    /// Adds an evaluation to the line of `step`, if that is the last one and lacks it, and says
    /// whether it did. The line is replaced in one atomic step.
    pub fn add_evaluation(
        &mut self,
        step: u64,
        validation: &Validation,
    ) -> Result<bool, TelemetryError> {
        tell(self.file.flush(), &self.path);
        if !self.lacks_evaluation(step) {
            return Ok(false);
        }
        let replace = || -> io::Result<()> {
            let Some((start, mut line)) = last_line(&self.path)? else {
                return Ok(());
            };
            if let serde_json::Value::Object(added) = serde_json::to_value(validation)? {
                line.extend(added);
            }
            let mut text = fs::read(&self.path)?;
            text.truncate(start);
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            ankh_storage::atomic::replace_file(&self.path, &text)
        };
        replace().map_err(TelemetryError::on("rewrite", &self.path))?;
        self.file = open(&self.path)?;
        Ok(true)
    }

    /// Retries what there was no room for; the log reports what is missing.
    pub fn finish(&mut self) {
        finish(&mut self.file, &self.path);
    }
}

/// The field by which a line that has an evaluation is known.
const VALIDATION_LOSS: &str = "validation_loss";

fn open(path: &Path) -> Result<Appending, TelemetryError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.and_then(Appending::to);
    file.map_err(TelemetryError::on("open", path))
}

/// The last line of a file of metrics, if it is whole, and where it begins.
fn last_line(
    path: &Path,
) -> io::Result<Option<(usize, serde_json::Map<String, serde_json::Value>)>> {
    let text = fs::read(path)?;
    let Some(whole) = text.strip_suffix(b"\n") else {
        return Ok(None);
    };
    let start = whole
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1);
    let line = serde_json::from_slice(&whole[start..]).ok();
    Ok(line.map(|line| (start, line)))
}

/// Logs that a file takes no more records, or takes them again.
pub(super) fn tell(turn: Option<Turn>, path: &Path) {
    let path = path.display();
    match turn {
        None => {}
        Some(Turn::Failing(error)) => tracing::warn!(
            "cannot write {path}: {error}; training goes on, and what belongs there is kept until there is room"
        ),
        Some(Turn::Recovered { lost: 0 }) => tracing::info!("{path} is written again and complete"),
        Some(Turn::Recovered { lost }) => {
            tracing::warn!("{path} is written again; {lost} records are lost")
        }
    }
}

/// Retries what there was no room for; the log reports what is missing.
pub(super) fn finish(file: &mut Appending, path: &Path) {
    tell(file.flush(), path);
    if file.missing() > 0 {
        let (path, missing) = (path.display(), file.missing());
        tracing::warn!("{path} could not be written: its last {missing} records are missing");
    }
}

fn keep_until(step: u64, path: &Path) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.ends_with(b"\n");
        if whole && serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step <= step) {
            kept.extend_from_slice(line);
        }
    }
    if kept == text {
        return Ok(());
    }
    ankh_storage::atomic::replace_file(path, &kept)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    pub(in crate::telemetry) fn metrics(step: u64) -> Metrics {
        Metrics {
            step,
            epoch: 0,
            residues: 9000,
            numbers: StepMetrics {
                loss: 2.5,
                accuracy: 0.25,
                learning_rate: 1e-3,
                grad_norm: 1.5,
                ..StepMetrics::default()
            },
            padding_efficiency: 0.75,
            skipped_updates: 0,
            goodput: 0.9,
            rates: Rates {
                step_seconds: 0.5,
                examples_per_second: 16.0,
                tokens_per_second: 1024.0,
                ..Rates::default()
            },
            validation: None,
        }
    }

    fn write(log: &mut MetricsLog, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            log.write(&metrics(step));
        }
    }

    #[test]
    fn resuming_gives_the_lines_of_a_run_that_never_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let (whole, resumed) = (directory.path().join("a"), directory.path().join("b"));
        write(&mut MetricsLog::after(0, &whole).unwrap(), 1..=20);
        write(&mut MetricsLog::after(0, &resumed).unwrap(), 1..=13);
        let mut torn = OpenOptions::new().append(true).open(&resumed).unwrap();
        torn.write_all(b"{\"step\":14,\"lo").unwrap();
        write(&mut MetricsLog::after(10, &resumed).unwrap(), 11..=20);
        assert_eq!(fs::read(whole).unwrap(), fs::read(resumed).unwrap());
    }

    #[test]
    fn a_new_run_starts_an_empty_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        write(&mut MetricsLog::after(0, &path).unwrap(), 1..=3);
        MetricsLog::after(0, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_line_has_the_contracts_fields_and_reads_back() {
        let mut metrics = metrics(7);
        let text = serde_json::to_string(&metrics).unwrap();
        for field in [
            "step",
            "loss",
            "accuracy",
            "learning_rate",
            "grad_norm",
            "step_seconds",
            "examples_per_second",
            "tokens_per_second",
            "mfu",
            "padding_efficiency",
            "epoch",
            "residues",
            "skipped_updates",
            "goodput",
            "data_wait_seconds",
        ] {
            assert!(text.contains(&format!("\"{field}\":")), "{field} in {text}");
        }
        assert!(!text.contains("validation"), "{text}");
        metrics.validation = Some(Validation::new(2.0, 0.3));
        let text = serde_json::to_string(&metrics).unwrap();
        assert!(text.contains("\"validation_loss\":2.0"), "{text}");
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
        assert!(!text.contains("validation_residues"), "{text}");
        let residues = ValidationResidues {
            accuracy: [("A".to_owned(), 0.25)].into(),
            blosum62: None,
        };
        metrics.validation = Some(Validation {
            validation_residues: Some(residues),
            ..Validation::new(2.0, 0.3)
        });
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
    }

    #[test]
    fn the_documents_have_a_row_for_each_field() {
        let page = include_str!("../../docs/telemetry.md");
        let table = page.split("<!-- metrics.jsonl: begin -->").nth(1).unwrap();
        let table = table.split("<!-- metrics.jsonl: end -->").next().unwrap();
        let row = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
        let documented: Vec<String> = table.lines().filter_map(row).collect();
        let mut line = metrics(7);
        line.validation = Some(Validation::new(2.0, 0.3));
        let text = serde_json::to_string(&line).unwrap();
        let mut fields: Vec<(usize, String)> = documented
            .iter()
            .filter_map(|name| Some((text.find(&format!("\"{name}\":"))?, name.clone())))
            .collect();
        fields.sort();
        let fields: Vec<String> = fields.into_iter().map(|(_, name)| name).collect();
        assert_eq!(documented, fields, "in the order of {text}");
        assert_eq!(documented.len(), text.matches("\":").count(), "{text}");
    }

    #[test]
    fn scalars_leave_out_the_step_and_what_is_unknown() {
        let scalars = metrics(7).scalars();
        assert!(scalars.contains(&("loss".into(), 2.5)));
        assert!(
            !scalars
                .iter()
                .any(|(name, _)| name == "step" || name == "mfu")
        );
    }
}
