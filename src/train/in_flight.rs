//! Steps that have started and whose metrics have not been read.
//!
//! The devices work on them while the host prepares the next step, so that the devices never wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ankh_data::RowCounts;
use ankh_pjrt::Event;

use super::TrainError;
use super::pace::Pace;
use crate::mesh::{DeviceError, ShardedArray};
use crate::programs::StepMetrics;

/// A step that the devices may still be working on.
pub(super) struct StartedStep {
    pub step: u64,
    pub batch: BatchInfo,
    metrics: ShardedArray,
    started: Instant,
    ended: Event,
}

/// What is known of a step's batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchInfo {
    /// The pass over the data that it belongs to.
    pub epoch: u64,
    /// What it shows, the rows of other processes included.
    pub seen: RowCounts,
    /// How long the loop waited for it.
    pub waited: Duration,
}

/// Started steps, oldest first.
pub(super) struct InFlight {
    steps: VecDeque<StartedStep>,
    pace: Pace,
}

impl InFlight {
    /// For devices that have nothing to do.
    pub fn new() -> InFlight {
        InFlight {
            steps: VecDeque::new(),
            pace: Pace::new(Instant::now()),
        }
    }

    /// Adds a step that was just started, with the array that will hold its metrics.
    pub fn push(
        &mut self,
        step: u64,
        batch: BatchInfo,
        metrics: ShardedArray,
    ) -> Result<(), TrainError> {
        let ended = metrics.addressable_shards()[0].ready();
        self.steps.push_back(StartedStep {
            step,
            batch,
            started: Instant::now(),
            ended: ended.map_err(DeviceError::from)?,
            metrics,
        });
        Ok(())
    }

    /// The oldest step, if there are more than `limit`.
    pub fn pop_beyond(&mut self, limit: usize) -> Option<StartedStep> {
        match self.steps.len() > limit {
            true => self.steps.pop_front(),
            false => None,
        }
    }

    /// The oldest step, if it is one before `step`.
    pub fn pop_before(&mut self, step: u64) -> Option<StartedStep> {
        self.steps.pop_front_if(|started| started.step < step)
    }

    /// The oldest step, if the devices have ended it.
    pub fn pop_ended(&mut self) -> Option<StartedStep> {
        self.steps.pop_front_if(|started| started.ended.is_ready())
    }

    /// The metrics of a step, once the devices have ended it, and the numbers of its histograms.
    pub fn read(
        &mut self,
        started: &StartedStep,
    ) -> Result<(StepMetrics<f32>, Vec<f32>), TrainError> {
        let metrics = started.metrics.addressable_shards()[0].to_host();
        let metrics = metrics.and_then(|metrics| metrics.to_vec::<f32>());
        let metrics = metrics.map_err(DeviceError::from)?;
        self.pace.ended(started.started, Instant::now());
        let metrics = StepMetrics::split(&metrics);
        let (metrics, rest) = metrics.expect("a step's last result begins with its metrics");
        Ok((metrics, rest.to_vec()))
    }

    /// Whether the devices still work on a step.
    pub fn is_busy(&self) -> bool {
        self.steps.back().is_some_and(|last| !last.ended.is_ready())
    }

    /// Waits until the devices have ended the newest step.
    pub fn wait_for_last(&self) -> Result<(), TrainError> {
        if let Some(last) = self.steps.back() {
            let ended = last.metrics.addressable_shards()[0].ready();
            let ended = ended.and_then(|event| event.wait());
            ended.map_err(DeviceError::from)?;
        }
        Ok(())
    }

    /// How long the next step should not be started yet.
    pub fn wait_to_start(&self) -> Duration {
        self.pace.wait(self.steps.len(), Instant::now())
    }

    /// The devices had something else to do until now, or nothing.
    pub fn resume(&mut self) {
        self.pace.idle(Instant::now());
    }
}
