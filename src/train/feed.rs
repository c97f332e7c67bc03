//! The way of a batch from the data set to the device.

use std::time::{Duration, Instant};

use ankh_data::{Batch, Batches, Dataset, Prefetch, Share, Split};
use ankh_pjrt::{Buffer, HostTensor};

use super::TrainError;
use crate::config::Config;
use crate::device::{Device, DeviceError};

/// Settings of the batches that the data cannot meet.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// No data set is configured.
    #[error(
        "no data set is given; set `data.dir` or pass --data DIR, a directory written by `pretrain prepare`"
    )]
    NoData,
}

/// A share of the configured batches of one split. The validation split is read in stored order, each row once.
pub fn batches(config: &Config, split: Split, share: Share) -> Result<Batches, TrainError> {
    let directory = config.data.dir.as_ref().ok_or(BatchError::NoData)?;
    let dataset = Dataset::open_for(directory, split, config.tokenizer())?;
    let make = match split {
        Split::Validation => Batches::evaluation,
        _ => Batches::new,
    };
    Ok(make(
        dataset,
        config.objective.clone(),
        config.batch_plan(),
        share,
        config.data.threads,
    )?)
}

/// Batches on their way: made on a thread ahead of time, then moved to the device.
pub(super) struct Feed {
    queue: Prefetch,
}

/// A batch on the device, and what is known of it.
pub(super) struct Fed {
    pub buffers: Vec<Buffer>,
    pub epoch: u64,
    pub rows: u64,
    pub tokens: u64,
    pub padding_efficiency: f64,
    pub waited: Duration,
}

impl Feed {
    /// The batches of the steps after `step`.
    pub fn after(step: u64, batches: &Batches, depth: usize) -> Feed {
        Feed {
            queue: batches.prefetch(step, depth),
        }
    }

    /// The next batch; `None` where an evaluation's batches end.
    pub fn next(&mut self, device: &Device) -> Result<Option<Fed>, TrainError> {
        let start = Instant::now();
        let Some(batch) = self.queue.next().transpose()? else {
            return Ok(None);
        };
        let waited = start.elapsed();
        Ok(Some(Fed {
            buffers: upload(&batch, device)?,
            epoch: batch.epoch,
            rows: batch.examples.len() as u64,
            tokens: batch.input_tokens + batch.target_tokens,
            padding_efficiency: batch.padding_efficiency(),
            waited,
        }))
    }
}

/// Moves a batch to the device, in the order that programs take its arrays.
fn upload(batch: &Batch, device: &Device) -> Result<Vec<Buffer>, DeviceError> {
    let array = |length: usize, values: &[i32]| {
        HostTensor::from_i32([batch.rows as i64, length as i64], values)
    };
    [
        array(batch.input_length, &batch.input_ids),
        array(batch.input_length, &batch.attention_mask),
        array(batch.target_length, &batch.decoder_input_ids),
        array(batch.target_length, &batch.labels),
    ]
    .iter()
    .map(|tensor| device.upload(tensor))
    .collect()
}
