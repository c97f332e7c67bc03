//! Arrays on the devices: made of shards, one for each device, given to programs and read back.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ankh_hlo::{ArraySpec, Sharding};
use ankh_pjrt::{Argument, Buffer, ElementType, Event, HostTensor, SharedTensor};

use super::{DeviceError, DeviceMesh, LoadedExecutable};

/// An array over the devices of the mesh, of which this process has the shards of its own devices.
/// What JAX calls an `Array` with a `NamedSharding`.
pub struct ShardedArray {
    /// Its shape and sharding.
    spec: ArraySpec,
    /// One for each device of this process, in the order of the mesh.
    shards: Vec<Buffer>,
}

/// An array that a program is given.
pub enum Input<'a> {
    /// It stays as it is.
    Keep(&'a ShardedArray),
    /// Its memory may be taken over.
    Donate(ShardedArray),
}

/// A whole array on its way to the host.
pub struct Fetch {
    whole: HostTensor,
    parts: Vec<(Vec<Range<i64>>, Event<HostTensor>)>,
}

/// Which parts of an array a host copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichParts {
    /// Those that no device before its own in the mesh has: all hosts together have each part once.
    Once,
    /// All that its own devices hold, each once.
    Held,
}

/// Parts of an array on their way to the host.
pub struct OwnParts {
    /// The type of its elements.
    pub element_type: ElementType,
    /// The dimensions of the whole array.
    pub dims: Vec<i64>,
    /// The dimensions of each part.
    pub part_dims: Vec<i64>,
    /// Where each part lies, and its elements.
    pub parts: Vec<(Vec<Range<i64>>, Event<HostTensor>)>,
}

/// What a device of this process holds of an array, on its way to the host.
pub struct ShardFetch {
    /// The device's id.
    pub device: i32,
    /// Where it lies in the array.
    pub part: Vec<Range<i64>>,
    /// Its elements.
    pub tensor: Event<HostTensor>,
}

impl ShardedArray {
    /// Its shards on this process's devices, in the order of the mesh. There is at least one; each
    /// is the whole array where it is replicated.
    pub fn addressable_shards(&self) -> &[Buffer] {
        &self.shards
    }

    /// Its shape and sharding.
    pub fn spec(&self) -> &ArraySpec {
        &self.spec
    }
}

impl Input<'_> {
    /// Fails if shape or sharding differ from what the program expects. The plugin would accept
    /// shards of the right size from elsewhere in the array.
    fn check(&self, expected: &ArraySpec) -> Result<(), DeviceError> {
        let spec = match self {
            Input::Keep(array) => &array.spec,
            Input::Donate(array) => &array.spec,
        };
        match spec.fits(expected) {
            true => Ok(()),
            false => Err(DeviceError::WrongArray {
                name: expected.name.clone(),
                found: spec.to_string(),
                expected: expected.to_string(),
            }),
        }
    }
}

impl LoadedExecutable {
    /// The arrays that the program takes.
    pub fn parameters(&self) -> &[ArraySpec] {
        self.module.parameters()
    }

    /// Executes the program on every device of this process. This returns at once; the results
    /// become ready later. Donated arrays are taken over.
    pub fn execute(&self, inputs: Vec<Input<'_>>) -> Result<Vec<ShardedArray>, DeviceError> {
        for (input, spec) in inputs.iter().zip(self.parameters()) {
            input.check(spec)?;
        }
        let mut lists: Vec<Vec<Argument<'_>>> = self.order.iter().map(|_| Vec::new()).collect();
        for input in inputs {
            match input {
                Input::Keep(array) => {
                    for (list, part) in lists.iter_mut().zip(&array.shards) {
                        list.push(Argument::Keep(part));
                    }
                }
                Input::Donate(array) => {
                    for (list, part) in lists.iter_mut().zip(array.shards) {
                        list.push(Argument::Donate(part));
                    }
                }
            }
        }
        // From the order of the mesh to the executable's, and back.
        let mut lists: Vec<Option<Vec<Argument<'_>>>> = lists.into_iter().map(Some).collect();
        let arguments = self.order.iter().filter_map(|&i| lists[i].take());
        let outputs = self.executable.execute(arguments.collect())?;
        let mut by_device: Vec<(usize, Vec<Buffer>)> =
            self.order.iter().copied().zip(outputs).collect();
        by_device.sort_by_key(|(index, _)| *index);
        let mut by_device: Vec<_> = by_device
            .into_iter()
            .map(|(_, list)| list.into_iter())
            .collect();
        let results = self.module.results().iter().map(|spec| ShardedArray {
            spec: spec.clone(),
            shards: by_device.iter_mut().filter_map(Iterator::next).collect(),
        });
        Ok(results.collect())
    }
}

impl DeviceMesh {
    /// Starts moving an array to the devices, each its shard, if it has the shape that a program
    /// takes.
    pub fn upload(
        &self,
        spec: &ArraySpec,
        tensor: &HostTensor,
    ) -> Result<ShardedArray, DeviceError> {
        self.check(spec, tensor)?;
        self.assemble(spec, |_, part| Ok(Cow::Owned(tensor.part(part)?)))
    }

    /// Refuses a tensor that is not the array.
    fn check(&self, spec: &ArraySpec, tensor: &HostTensor) -> Result<(), DeviceError> {
        let found = format!("{}{:?}", tensor.element_type.name(), tensor.dims);
        let expected = format!("{}{:?}", spec.shape.dtype.name(), spec.shape.dims);
        if found != expected {
            return Err(DeviceError::WrongArray {
                name: spec.name.clone(),
                found,
                expected,
            });
        }
        Ok(())
    }

    /// [`DeviceMesh::upload`] of a tensor that virtual CPU devices then have in common, where each
    /// has the whole of it. Other devices have copies.
    pub fn share(
        &self,
        spec: &ArraySpec,
        tensor: &HostTensor,
    ) -> Result<ShardedArray, DeviceError> {
        let whole = spec.sharding.as_ref().is_none_or(Sharding::is_replicated);
        if self.platform != "cpu" || !whole {
            return self.upload(spec, tensor);
        }
        self.check(spec, tensor)?;
        let shared = SharedTensor::new(tensor)?;
        let shards = self.local.iter();
        let shards = shards.map(|local| self.client.share(&shared, &local.device));
        Ok(ShardedArray {
            shards: shards.collect::<Result<_, _>>()?,
            spec: spec.clone(),
        })
    }

    /// Makes an array from what `part` returns for each device of this process: it is called with
    /// the device's position in the mesh and the ranges of its shard. JAX:
    /// `make_array_from_callback`.
    pub fn assemble<'t, E: From<DeviceError>>(
        &self,
        spec: &ArraySpec,
        mut part: impl FnMut(usize, &[Range<i64>]) -> Result<Cow<'t, HostTensor>, E>,
    ) -> Result<ShardedArray, E> {
        let shards = self.local.iter().map(|local| {
            let tensor = part(local.position, &shard_range(spec, local.position))?;
            let buffer = self.client.upload(&tensor, &local.device);
            Ok(buffer.map_err(DeviceError::from)?)
        });
        Ok(ShardedArray {
            shards: shards.collect::<Result<_, E>>()?,
            spec: spec.clone(),
        })
    }

    /// Starts copying a whole array to the host. Where other processes hold parts of it, each of
    /// them has to do the same.
    pub fn fetch(&self, array: &ShardedArray) -> Result<Fetch, DeviceError> {
        let parts = self.distinct_parts(&array.spec);
        let cut = array.spec.sharding.as_ref().map_or(1, |sharding| {
            (0..sharding.rank())
                .map(|dim| sharding.shards(dim))
                .product()
        });
        if (parts.len() as i64) < cut {
            return self.fetch(&self.gather(array)?);
        }
        let events = parts
            .into_iter()
            .map(|(part, shard)| Ok((part, array.shards[shard].to_host_async()?)));
        let element_type = array.shards[0].element_type();
        Ok(Fetch {
            whole: HostTensor::zeros(element_type, array.spec.shape.dims.clone()),
            parts: events.collect::<Result<_, DeviceError>>()?,
        })
    }

    /// The parts of an array that this process's devices hold, each once, with the number of a
    /// shard that is it.
    pub fn distinct_parts(&self, spec: &ArraySpec) -> Vec<(Vec<Range<i64>>, usize)> {
        let mut seen = HashSet::new();
        let shards = self.local.iter().enumerate();
        let parts = shards.map(|(shard, local)| (shard_range(spec, local.position), shard));
        parts
            .filter(|(part, _)| seen.insert(part.clone()))
            .collect()
    }

    /// Starts copying parts of an array to the host.
    pub fn fetch_parts(
        &self,
        array: &ShardedArray,
        which: WhichParts,
    ) -> Result<OwnParts, DeviceError> {
        let spec = &array.spec;
        let own = self.own_host();
        let is_own = |position| own.is_none_or(|own| own.positions.contains(&position));
        // The first device that has each part: of all, or of this host.
        let mut first = HashMap::new();
        for position in 0..self.ids.len() {
            if which == WhichParts::Once || is_own(position) {
                first.entry(shard_range(spec, position)).or_insert(position);
            }
        }
        let shards = self.local.iter().enumerate();
        let parts = shards.map(|(shard, local)| (shard_range(spec, local.position), shard));
        let own = parts.filter(|(part, shard)| {
            let position = self.local[*shard].position;
            is_own(position) && first[part] == position
        });
        let own = own.map(|(part, shard)| Ok((part, array.shards[shard].to_host_async()?)));
        Ok(OwnParts {
            element_type: array.shards[0].element_type(),
            dims: spec.shape.dims.clone(),
            part_dims: array.shards[0].dims().to_vec(),
            parts: own.collect::<Result<_, DeviceError>>()?,
        })
    }

    /// Starts copying to the host what each device of this process holds of an array, also where
    /// several hold the same.
    pub fn fetch_shards(&self, array: &ShardedArray) -> Result<Vec<ShardFetch>, DeviceError> {
        let shards = self.local.iter().zip(&array.shards);
        let fetches = shards.map(|(local, shard)| {
            Ok(ShardFetch {
                device: local.device.id(),
                part: shard_range(&array.spec, local.position),
                tensor: shard.to_host_async()?,
            })
        });
        fetches.collect()
    }

    /// Copies a whole array to the host. Where other processes hold parts of it, each of them has
    /// to do the same.
    pub fn to_host(&self, array: &ShardedArray) -> Result<HostTensor, DeviceError> {
        self.fetch(array)?.wait()
    }
}

impl Fetch {
    /// Waits until the array is here.
    pub fn wait(self) -> Result<HostTensor, DeviceError> {
        let mut whole = self.whole;
        let single = self.parts.len() == 1;
        for (part, event) in self.parts {
            let tensor = event.wait()?;
            if single {
                return Ok(tensor);
            }
            whole.set_part(&part, &tensor)?;
        }
        Ok(whole)
    }
}

/// The shard of an array that the device at a position of the mesh holds; all of it where there is
/// no mesh.
pub fn shard_range(spec: &ArraySpec, position: usize) -> Vec<Range<i64>> {
    match &spec.sharding {
        Some(sharding) => sharding.shard_ranges(position as i64, &spec.shape.dims),
        None => spec.shape.dims.iter().map(|&size| 0..size).collect(),
    }
}
