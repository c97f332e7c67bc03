//! Loads batches: from the data set to the devices.
//!
//! Each host makes only the rows that its devices compute. Which rows these are follows from the
//! sharding of the batch, so devices that compute the same rows (those along `model`) get the same
//! rows, also on different hosts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use ankh_data::{
    Batch, Batches, Component, Dataset, HostShard, Mixture, Packing, Prefetch, ReadOptions, Split,
};
use ankh_hlo::ArraySpec;
use ankh_pjrt::HostTensor;

use super::TrainError;
use super::in_flight::BatchInfo;
use crate::config::{Config, Location};
use crate::mesh::{DeviceError, DeviceMesh, Host, ShardedArray, shard_range};
use crate::programs::Programs;

/// Settings of the batches that the data cannot meet.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// No data set is configured.
    #[error("no data set is given")]
    NoData,
}

/// A share of the configured batches of one split. Held-out splits are read in stored order, each
/// row once, and asked what `[objective]` says.
pub fn batches(config: &Config, split: Split, shard: HostShard) -> Result<Batches, TrainError> {
    let (shape, threads) = (config.batch_config(), config.data.threads);
    let options = config.read_options();
    Ok(match split {
        Split::Validation | Split::Test => {
            let dataset = open(config, config.held_out(), split, &options)?;
            Batches::evaluation(dataset, config.objective.clone(), shape, shard, threads)
        }
        Split::Train => Batches::new(mixture(config, options)?, shape, shard, threads),
    }?)
}

/// The data to train on. Parts that read the same place share what is read; several places share
/// the memory.
fn mixture(config: &Config, mut options: ReadOptions) -> Result<Mixture, TrainError> {
    let places = config.data_locations().ok_or(BatchError::NoData)?;
    options.memory /= places.len() as u64;
    let mut components = Vec::new();
    let mut opened: HashMap<Location, Dataset> = HashMap::new();
    for component in config.components() {
        let place = component.dir.ok_or(BatchError::NoData)?;
        let dataset = match opened.get(&place) {
            Some(dataset) => dataset.clone(),
            None => open(config, Some(&place), Split::Train, &options)?,
        };
        opened.insert(place, dataset.clone());
        components.push(Component {
            name: component.name,
            dataset,
            objective: component.objective,
            weight: component.weight,
        });
    }
    Ok(match config.mixture.is_empty() {
        false => Mixture::of(components)?,
        // It is called what its data is called.
        true => {
            let only = components.swap_remove(0);
            Mixture::one(only.dataset, only.objective)
        }
    })
}

fn open(
    config: &Config,
    place: Option<&Location>,
    split: Split,
    options: &ReadOptions,
) -> Result<Dataset, TrainError> {
    let place = place.ok_or(BatchError::NoData)?;
    let dataset = Dataset::open(place.clone(), split, options)?;
    Ok(dataset.expecting(config.tokenizer())?)
}

/// The batches of one split, as the hosts of this process feed them.
pub(super) struct DataLoader {
    /// All rows of each batch.
    pub whole: Batches,
    /// The arrays of a batch, in the order that programs take them.
    specs: Vec<ArraySpec>,
    hosts: Vec<HostLoader>,
}

/// What one host feeds.
struct HostLoader {
    host: Host,
    rows: Vec<Range<usize>>,
    batches: Batches,
}

impl DataLoader {
    pub fn open(
        programs: &Programs<'_>,
        split: Split,
        mesh: &DeviceMesh,
    ) -> Result<DataLoader, TrainError> {
        let whole = batches(programs.config, split, HostShard::all())?;
        let specs = programs.batch_specs();
        let hosts = mesh.hosts().iter().map(|host| {
            let rows = host_rows(host, &specs[0]);
            Ok(HostLoader {
                batches: whole.with_shard(HostShard::ranges(rows.clone()))?,
                host: host.clone(),
                rows,
            })
        });
        Ok(DataLoader {
            hosts: hosts.collect::<Result<_, TrainError>>()?,
            whole,
            specs,
        })
    }

    /// The batches of the steps after `step`, `depth` of them made ahead.
    pub fn after(&self, step: u64, depth: usize) -> Prefetcher<'_> {
        self.after_rows(step, self.whole.rows_before(step), depth)
    }

    /// The same in a run whose steps up to `step` took `rows` rows.
    pub fn after_rows(&self, step: u64, rows: u64, depth: usize) -> Prefetcher<'_> {
        let queue = |share: &HostLoader| share.batches.after(step, rows).prefetch(step, depth);
        Prefetcher {
            queues: self.hosts.iter().map(queue).collect(),
            whole: self.whole.after(step, rows),
            loader: self,
            waited: Duration::ZERO,
        }
    }

    /// Gives the data up without waiting for threads that may be waiting for some of it: the
    /// process is about to end, and they with it.
    pub fn abandon(self) {
        std::mem::forget(self);
    }
}

/// The rows of the global batch that the devices of a host compute, as ascending ranges.
pub fn host_rows(host: &Host, spec: &ArraySpec) -> Vec<Range<usize>> {
    let part = |&position: &usize| {
        let rows = shard_range(spec, position)[0].clone();
        rows.start as usize..rows.end as usize
    };
    let mut parts: Vec<Range<usize>> = host.positions.iter().map(part).collect();
    parts.sort_by_key(|rows| rows.start);
    let mut rows: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match rows.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => rows.push(part),
        }
    }
    rows
}

/// Batches on their way: made on threads ahead of time, then moved to the devices.
pub(super) struct Prefetcher<'a> {
    loader: &'a DataLoader,
    /// The batches of all hosts together.
    whole: Batches,
    /// One a host.
    queues: Vec<Prefetch>,
    /// What the next batch has been waited for.
    waited: Duration,
}

/// A batch on the devices, and what is known of it.
pub(super) struct DeviceBatch {
    pub arrays: Vec<ShardedArray>,
    pub info: BatchInfo,
}

impl Prefetcher<'_> {
    /// Whether the next batch, or the end, can be had without waiting; waits for it no longer than
    /// `patience`.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        let here = self.queues.iter_mut().all(|queue| {
            let left = patience.saturating_sub(start.elapsed());
            queue.wait(left)
        });
        self.waited += start.elapsed();
        here
    }

    /// Gives the batches up without waiting for the threads that make them.
    pub fn abandon(self) {
        self.queues.into_iter().for_each(Prefetch::abandon);
    }

    /// The next batch; `None` where an evaluation's batches end.
    pub fn next(&mut self, mesh: &DeviceMesh) -> Result<Option<DeviceBatch>, TrainError> {
        let start = Instant::now();
        let mut batches = Vec::new();
        for queue in &mut self.queues {
            match queue.next().transpose()? {
                Some(batch) => batches.push(batch),
                None => return Ok(None),
            }
        }
        let waited = start.elapsed() + std::mem::take(&mut self.waited);
        let hosts: Vec<Vec<HostTensor>> = batches.iter().map(arrays).collect();
        let upload = |(number, spec): (usize, &ArraySpec)| {
            mesh.assemble(spec, |position, part| {
                let of = |s: &HostLoader| s.host.positions.contains(&position);
                let host = self.loader.hosts.iter().position(of);
                let host = host.expect("each device of this process belongs to one of its hosts");
                let mut part = part.to_vec();
                part[0] = self.loader.hosts[host].local(&part[0]);
                Ok::<_, DeviceError>(Cow::Owned(hosts[host][number].part(&part)?))
            })
        };
        let arrays = self.loader.specs.iter().enumerate().map(upload);
        Ok(Some(DeviceBatch {
            arrays: arrays.collect::<Result<_, DeviceError>>()?,
            info: BatchInfo {
                epoch: self.epoch(&batches[0]),
                seen: batches[0].whole,
                waited,
            },
        }))
    }

    /// The rows that the run has taken before a step.
    pub fn rows_before(&self, step: u64) -> u64 {
        self.whole.rows_before(step)
    }

    /// The pass over the data that a batch belongs to; of a mixture, over its first component.
    fn epoch(&self, batch: &Batch) -> u64 {
        match self.whole.mixture().components() {
            [_] => batch.epoch,
            _ => self.whole.component_epochs_before(batch.step)[0] as u64,
        }
    }
}

impl HostLoader {
    /// Where rows of the global batch are in the host's own.
    fn local(&self, rows: &Range<i64>) -> Range<i64> {
        let mut before = 0;
        for range in &self.rows {
            let (start, end) = (range.start as i64, range.end as i64);
            if start <= rows.start && rows.end <= end {
                let first = before + rows.start - start;
                return first..first + rows.end - rows.start;
            }
            before += end - start;
        }
        unreachable!(
            "a host has the rows of each of its devices: {rows:?} in {:?}",
            self.rows
        )
    }
}

/// A host's arrays, in the order that programs take them.
fn arrays(batch: &Batch) -> Vec<HostTensor> {
    let array = |length: usize, values: &[i32]| {
        HostTensor::new::<i32>([batch.rows as i64, length as i64], values)
    };
    let (inputs, targets) = (batch.input_length, batch.target_length);
    let ids = array(inputs, &batch.input_ids);
    let decoder_ids = array(targets, &batch.decoder_input_ids);
    let labels = array(targets, &batch.labels);
    match batch.packing {
        Packing::Padded => vec![
            ids,
            array(inputs, &batch.attention_mask()),
            decoder_ids,
            labels,
        ],
        Packing::Packed => vec![
            ids,
            array(inputs, &batch.input_segments),
            decoder_ids,
            array(targets, &batch.target_segments),
            labels,
        ],
    }
}
