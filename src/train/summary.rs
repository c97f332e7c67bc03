//! The summary of a run at its end.

use std::path::PathBuf;

use ankh_data::{Batches, TokenFrequencies};
use ankh_storage::Location;

use super::TrainError;
use crate::run_dir::Requests;
use crate::telemetry::TimeShares;

/// The first and last figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Steps done, those before a resumption included.
    pub steps: u64,
    /// Seconds this process trained, compilation excluded.
    pub seconds: f64,
    /// How this process's time was spent, compilation included.
    pub time: Option<TimeShares>,
    /// Mean training loss of the first and the last logged step of this process.
    pub training_loss: Option<(f32, f32)>,
    /// Loss on the held-out split at this process's first and last evaluation.
    pub held_out_loss: Option<(f64, f64)>,
    /// What predicting each held-out target token by its frequency in the training targets costs,
    /// in nats.
    pub frequency_loss: Option<f64>,
    /// Where the metrics are.
    pub metrics: PathBuf,
    /// The last checkpoint.
    pub checkpoint: Option<Location>,
}

/// Training batches read for the token frequencies: some hundred thousand tokens, of which there
/// are a few dozen kinds.
const FREQUENCY_BATCHES: u64 = 200;

/// The cross-entropy of the held-out targets under the frequencies of the training targets: what a
/// model that has learned nothing but which tokens are common reaches. It is left out where
/// somebody asks to stop.
pub(super) fn frequency_loss(
    training: &Batches,
    held_out: &Batches,
    vocabulary: usize,
    requests: &Requests,
) -> Result<Option<f64>, TrainError> {
    let (mut seen, mut asked) = (
        TokenFrequencies::new(vocabulary),
        TokenFrequencies::new(vocabulary),
    );
    let epoch = training
        .examples_per_epoch()
        .div_ceil(training.rows() as u64);
    for step in 0..FREQUENCY_BATCHES.min(epoch) {
        if requests.stop() {
            return Ok(None);
        }
        seen.add(&training.batch(step)?.labels);
    }
    for step in 0..held_out.steps().unwrap_or(0) {
        if requests.stop() {
            return Ok(None);
        }
        asked.add(&held_out.batch(step)?.labels);
    }
    Ok(seen.cross_entropy(&asked))
}
