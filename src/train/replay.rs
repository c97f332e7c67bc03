//! Steps of a run, trained twice from a saved state and compared bit by bit.
//!
//! A step is deterministic: from the same state and batch the same devices compute the same bits.
//! Where they do not, something computes wrongly without saying so, and finite numbers hide it.
//! Shards that several devices hold are compared with each other too, since the one that differs
//! names its device. The run itself is only read.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use ankh_data::Split;
use ankh_pjrt::HostTensor;
use ankh_storage::Location;

use super::TrainError;
use super::data_loader::DataLoader;
use super::resume::ResumePoint;
use crate::checkpoint::{self, Reader, Store};
use crate::config::Config;
use crate::mesh::{DeviceError, DeviceMesh, Input, LoadedExecutable, ShardedArray};
use crate::programs::Programs;

/// What came of training the same steps twice.
#[derive(Debug)]
pub struct Replay {
    /// The saved step that they follow.
    pub step: u64,
    /// How many arrays the state has.
    pub arrays: usize,
    /// Of the state and the metrics: equal wherever a run of the same steps computes the same.
    pub fingerprint: u64,
    /// Where the two times, or devices that should hold the same, differ.
    pub differences: Vec<Difference>,
}

/// Bits that differ and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The array that has them.
    pub array: String,
    /// The devices that hold them.
    pub devices: Vec<i32>,
    /// From what they differ.
    pub from: Reference,
}

/// What bits are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// What the same device computed the first time.
    FirstTime,
    /// What most of the devices hold that should hold the same.
    OtherDevices,
    /// Each other, where no value has a majority.
    EachOther,
}

/// What a device holds of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shard {
    array: String,
    device: i32,
    /// Where it lies in the array: devices with the same part hold the same bits.
    part: Vec<Range<i64>>,
    /// Of its bits, so that not all of a state has to be kept. Two that differ have the same one
    /// in 2^64 cases.
    fingerprint: u64,
}

/// Trains the next `steps` steps after the newest whole state in `checkpoints` twice, and compares.
/// Nothing is written there, and a run that saves there meanwhile is not disturbed.
pub fn replay(
    config: &Config,
    checkpoints: &Location,
    mesh: &DeviceMesh,
    steps: u64,
) -> Result<Replay, TrainError> {
    let programs = Programs::of(config, mesh.platform(), mesh.rules());
    let loader = DataLoader::open(&programs, Split::Train, mesh)?;
    let store = Store::at(checkpoints)?;
    let mut path = checkpoints.clone();
    loop {
        let replayed = checkpoint::read(&path, |reader| {
            Replayed::of(reader, &programs, &loader, mesh)?.twice(steps)
        });
        let damage = match replayed {
            Err(TrainError::Checkpoint(checkpoint::Error::Damaged(damage))) => damage,
            done => return done,
        };
        let Some(step) = damage.fallback() else {
            return Err(checkpoint::Error::Damaged(damage).into());
        };
        tracing::warn!("{}", damage.finding());
        path = store.directory_of(step);
    }
}

/// A saved state, and what is needed to train from it.
struct Replayed<'a> {
    from: ResumePoint,
    programs: Programs<'a>,
    program: LoadedExecutable,
    loader: &'a DataLoader,
    mesh: &'a DeviceMesh,
}

impl<'a> Replayed<'a> {
    fn of(
        reader: &Reader,
        programs: &Programs<'a>,
        loader: &'a DataLoader,
        mesh: &'a DeviceMesh,
    ) -> Result<Replayed<'a>, TrainError> {
        let reader = reader.reopen()?;
        let from = ResumePoint::after(programs.config, reader, loader)?;
        let programs = from.programs(programs);
        tracing::info!("compiling the training step");
        Ok(Replayed {
            program: mesh.compile(&programs.step()?)?,
            from,
            programs,
            loader,
            mesh,
        })
    }

    fn twice(&self, steps: u64) -> Result<Replay, TrainError> {
        let (first, arrays) = self.once(steps)?;
        let (second, _) = self.once(steps)?;
        Ok(Replay {
            step: self.from.step,
            arrays,
            fingerprint: fingerprint(&second.iter().map(|s| s.fingerprint).collect::<Vec<_>>()),
            differences: compare(&first, &second),
        })
    }

    /// What the devices hold after the steps: the state, of so many arrays, and the metrics of each
    /// step.
    fn once(&self, steps: u64) -> Result<(Vec<Shard>, usize), TrainError> {
        let (mesh, from) = (self.mesh, &self.from);
        let state = from.state(&self.programs, mesh)?;
        let mut state = state.expect("a point after a checkpoint has its state");
        let depth = self.programs.config.data.prefetch;
        let mut batches = self.loader.after_rows(from.step, from.rows, depth);
        let mut shards = Vec::new();
        for step in from.step + 1..=from.step + steps {
            let batch = batches.next(mesh)?;
            let batch = batch.expect("training batches never end").arrays;
            let mut metrics = None;
            state.replace(|state| {
                let arguments = state.into_iter().chain(batch).map(Input::Donate);
                let mut outputs = self.program.execute(arguments.collect())?;
                metrics = outputs.pop();
                Ok(outputs)
            })?;
            let metrics = metrics.expect("a step's last result is its metrics");
            shards.extend(held(
                mesh,
                &format!("the metrics of step {step}"),
                &metrics,
            )?);
        }
        batches.abandon();
        let mut arrays = 0;
        for (name, array) in state.named() {
            shards.extend(held(mesh, name, array)?);
            arrays += 1;
        }
        Ok((shards, arrays))
    }
}

/// What the devices of this process hold of an array.
fn held(mesh: &DeviceMesh, name: &str, array: &ShardedArray) -> Result<Vec<Shard>, TrainError> {
    let fetches = mesh.fetch_shards(array)?.into_iter().map(|fetch| {
        let tensor = fetch.tensor.wait().map_err(DeviceError::from)?;
        Ok(Shard::of(name, fetch.device, fetch.part, &tensor))
    });
    fetches.collect()
}

impl Shard {
    fn of(array: &str, device: i32, part: Vec<Range<i64>>, tensor: &HostTensor) -> Shard {
        Shard {
            array: array.into(),
            device,
            part,
            fingerprint: fingerprint(&tensor.bytes),
        }
    }
}

/// The same for the same values in every process.
fn fingerprint<T: Hash>(values: &[T]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

/// Where two lists of the same shards differ, or shards of one list that should be equal.
fn compare(first: &[Shard], second: &[Shard]) -> Vec<Difference> {
    let pairs = first.iter().zip(second);
    let changed = pairs.filter(|(first, second)| first.fingerprint != second.fingerprint);
    let changed = changed.map(|(shard, _)| Difference {
        array: shard.array.clone(),
        devices: vec![shard.device],
        from: Reference::FirstTime,
    });
    let mut found: Vec<Difference> = Vec::new();
    for difference in changed.chain(unequal(first)).chain(unequal(second)) {
        let same = |known: &&mut Difference| {
            known.array == difference.array && known.from == difference.from
        };
        match found.iter_mut().find(same) {
            Some(known) => {
                known.devices.extend(difference.devices);
                known.devices.sort_unstable();
                known.devices.dedup();
            }
            None => found.push(difference),
        }
    }
    found
}

/// The shards that are not as the others of the same part of the same array.
fn unequal(shards: &[Shard]) -> Vec<Difference> {
    let mut sorted: Vec<&Shard> = shards.iter().collect();
    sorted.sort_by_cached_key(|shard| {
        let starts: Vec<i64> = shard.part.iter().map(|range| range.start).collect();
        (shard.array.clone(), starts)
    });
    let mut found = Vec::new();
    for replicas in sorted.chunk_by(|a, b| a.array == b.array && a.part == b.part) {
        let count = |value: u64| replicas.iter().filter(|s| s.fingerprint == value).count();
        let majority = replicas
            .iter()
            .map(|shard| shard.fingerprint)
            .find(|value| 2 * count(*value) > replicas.len());
        let odd = replicas.iter().filter(|s| Some(s.fingerprint) != majority);
        let devices: Vec<i32> = odd.map(|shard| shard.device).collect();
        if !devices.is_empty() {
            found.push(Difference {
                array: replicas[0].array.clone(),
                devices,
                from: match majority {
                    Some(_) => Reference::OtherDevices,
                    None => Reference::EachOther,
                },
            });
        }
    }
    found
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.from {
            Reference::FirstTime => "computed something else the second time",
            Reference::OtherDevices => "not as on the other devices that should hold the same",
            Reference::EachOther => "not the same on each, and should be",
        };
        let devices: Vec<String> = self.devices.iter().map(i32::to_string).collect();
        let devices = match &devices[..] {
            [only] => format!("device {only}"),
            several => format!("devices {}", several.join(", ")),
        };
        write!(f, "{} on {devices}: {from}", self.array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array on four devices, in two halves that two devices each hold, and one that all hold.
    fn shards() -> Vec<Shard> {
        let half = |device: i32| {
            let start = i64::from(device / 2) * 8;
            let range = start..start + 8;
            let values: Vec<f32> = range.clone().map(|i| i as f32).collect();
            let tensor = HostTensor::new::<f32>([8], &values);
            Shard::of("halves", device, vec![range], &tensor)
        };
        let whole = |device| Shard::of("step", device, vec![], &HostTensor::scalar::<i32>(4));
        (0..4).map(half).chain((0..4).map(whole)).collect()
    }

    /// The same with one bit of one device changed.
    fn flipped(place: usize, bit: usize) -> Vec<Shard> {
        let mut shards = shards();
        let (mut tensor, shard) = match place {
            0..4 => {
                let start = (place as i64 / 2) * 8;
                let values: Vec<f32> = (start..start + 8).map(|i| i as f32).collect();
                (HostTensor::new::<f32>([8], &values), &mut shards[place])
            }
            _ => (HostTensor::scalar::<i32>(4), &mut shards[place]),
        };
        tensor.bytes[bit / 8] ^= 1 << (bit % 8);
        *shard = Shard::of(&shard.array, shard.device, shard.part.clone(), &tensor);
        shards
    }

    fn found(first: &[Shard], second: &[Shard]) -> Vec<String> {
        let differences = compare(first, second);
        differences.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn equal_shards_have_no_difference() {
        assert_eq!(compare(&shards(), &shards()), []);
    }

    #[test]
    fn any_flipped_bit_is_found_and_named_with_its_device() {
        for (place, bits) in [(1, 8 * 32), (6, 32)] {
            for bit in 0..bits {
                let differences = compare(&shards(), &flipped(place, bit));
                let of_time = &differences[0];
                assert_eq!(of_time.devices, [place as i32 % 4], "bit {bit}");
                assert_eq!(of_time.from, Reference::FirstTime, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_fault_that_comes_each_time_is_found_where_several_devices_hold_the_same() {
        let both = flipped(6, 3);
        assert_eq!(
            found(&both, &both),
            ["step on device 2: not as on the other devices that should hold the same"]
        );
        // Of two, either may be wrong.
        let both = flipped(1, 3);
        assert_eq!(
            found(&both, &both),
            ["halves on devices 0, 1: not the same on each, and should be"]
        );
    }
}
