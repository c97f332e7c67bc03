//! The state of a run on the devices: parameters, optimizer slots and the step counter.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::mpsc::sync_channel;

use ankh_hlo::{ArraySpec, DType};
use ankh_pjrt::{ElementType, HostTensor};

use super::TrainError;
use crate::checkpoint::{self, Reader, TensorParts};
use crate::mesh::{DeviceError, DeviceMesh, Input, OwnParts, ShardedArray, WhichParts};
use crate::model::Weights;
use crate::programs::Programs;

/// Named arrays on the devices, in the order that the programs take them.
pub struct State {
    specs: Vec<ArraySpec>,
    arrays: Vec<ShardedArray>,
    parameters: usize,
}

impl State {
    /// Draws the initial state from the configured seed.
    pub fn initial(programs: &Programs<'_>, mesh: &DeviceMesh) -> Result<State, TrainError> {
        let program = mesh.compile(&programs.initial()?)?;
        let seed = HostTensor::new::<u64>([], &[programs.config.train.seed]);
        let seed = mesh.upload(&program.parameters()[0], &seed)?;
        let arrays = program.execute(vec![Input::Keep(&seed)])?;
        Ok(State::of(programs, arrays))
    }

    /// Places a state by name; each array has to be there. Where there are parameters only, the
    /// rest starts from zeros.
    pub fn from_tensors(
        programs: &Programs<'_>,
        mesh: &DeviceMesh,
        tensors: &[(String, HostTensor)],
        missing: MissingSlots,
    ) -> Result<State, TrainError> {
        let parameters = parameter_count(programs);
        let mut arrays = Vec::new();
        for (i, spec) in programs.state_specs().iter().enumerate() {
            let found = tensors.iter().find(|t| t.0 == spec.name).map(|t| &t.1);
            let array = match (found, missing) {
                (Some(tensor), _) => mesh.upload(spec, tensor)?,
                (None, MissingSlots::Zeros) if i >= parameters => zeros(mesh, spec)?,
                (None, _) => return Err(missing_array(spec)),
            };
            arrays.push(array);
        }
        Ok(State::of(programs, arrays))
    }

    /// Loads the parameters, one at a time, from what `read` returns for each name; the rest starts
    /// from zeros.
    pub(super) fn from_parameters(
        programs: &Programs<'_>,
        mesh: &DeviceMesh,
        mut read: impl FnMut(&str) -> Result<HostTensor, TrainError>,
    ) -> Result<State, TrainError> {
        let parameters = parameter_count(programs);
        let mut arrays = Vec::new();
        for (i, spec) in programs.state_specs().iter().enumerate() {
            arrays.push(match i < parameters {
                true => mesh.upload(spec, &read(&spec.name)?)?,
                false => zeros(mesh, spec)?,
            });
        }
        Ok(State::of(programs, arrays))
    }

    /// Loads a state from a checkpoint, or from the checkpoints that hold its parts: of each array
    /// the parts that this process's devices hold. An array that is not `kept` starts from zeros.
    pub fn from_checkpoints(
        programs: &Programs<'_>,
        mesh: &DeviceMesh,
        readers: &[Reader],
        kept: impl Fn(&str) -> bool,
    ) -> Result<State, TrainError> {
        let specs = programs.state_specs();
        for spec in specs.iter().filter(|spec| kept(&spec.name)) {
            readers.iter().try_for_each(|reader| check(spec, reader))?;
        }
        // Of each group, the parts of its arrays.
        let groups = in_groups(&specs).into_iter().map(|specs| {
            let parts = |spec| {
                let parts = mesh.distinct_parts(spec).into_iter();
                parts.map(|(part, _)| (spec.name.as_str(), part))
            };
            let kept = specs.iter().filter(|spec| kept(&spec.name));
            (specs, kept.flat_map(parts).collect())
        });
        let groups: Vec<(&[ArraySpec], Vec<Part<'_>>)> = groups.collect();
        let mut arrays = Vec::new();
        std::thread::scope(|scope| {
            // One group is read while the one before goes to the devices.
            let (sender, read) = sync_channel(0);
            let groups = &groups;
            scope.spawn(move || {
                let read = groups.iter().map(|(_, parts)| read_parts(readers, parts));
                // What nobody waits for any more is not read.
                read.map_while(|read| sender.send(read).ok()).for_each(drop);
            });
            for (specs, parts) in groups {
                let read = read.recv().expect("each group is read or its error told")?;
                for spec in *specs {
                    let array = match kept(&spec.name) {
                        false => zeros(mesh, spec)?,
                        true => mesh.assemble(spec, |_, part| {
                            let is_it =
                                |(name, range): &Part<'_>| *name == spec.name && range == part;
                            let place = parts.iter().position(is_it);
                            let place = place.expect("each part of a device is read");
                            Ok::<_, DeviceError>(Cow::Borrowed(&read[place]))
                        })?,
                    };
                    arrays.push(array);
                }
            }
            Ok(State::of(programs, arrays))
        })
    }

    fn of(programs: &Programs<'_>, arrays: Vec<ShardedArray>) -> State {
        State {
            specs: programs.state_specs(),
            arrays,
            parameters: parameter_count(programs),
        }
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[ShardedArray] {
        &self.arrays[..self.parameters]
    }

    /// All arrays with their names, in order.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &ShardedArray)> {
        let names = self.specs.iter().map(|spec| spec.name.as_str());
        names.zip(&self.arrays)
    }

    /// Passes the arrays to a step, which returns the next ones.
    pub(super) fn replace(
        &mut self,
        step: impl FnOnce(Vec<ShardedArray>) -> Result<Vec<ShardedArray>, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.arrays = step(std::mem::take(&mut self.arrays))?;
        Ok(())
    }

    /// Frees the devices' memory. What remains is no state.
    pub(super) fn clear(&mut self) {
        self.arrays.clear();
    }

    /// Copies the parts of all arrays to the host.
    pub fn parts_to_host(
        &self,
        mesh: &DeviceMesh,
        which: WhichParts,
    ) -> Result<Vec<TensorParts<'static>>, TrainError> {
        // All transfers are under way before the first is waited for.
        let fetch = |array| mesh.fetch_parts(array, which);
        let fetches = self.arrays.iter().map(fetch);
        let fetches: Vec<OwnParts> = fetches.collect::<Result<_, _>>()?;
        let named = self.specs.iter().zip(fetches);
        let parts = named.map(|(spec, own)| {
            let parts = own.parts.into_iter().map(|(range, event)| {
                let tensor = event.wait().map_err(DeviceError::from)?;
                Ok((range, Cow::Owned(tensor)))
            });
            let parts = TensorParts {
                name: spec.name.clone().into(),
                element_type: own.element_type,
                dims: own.dims,
                part_dims: own.part_dims,
                parts: parts.collect::<Result<_, TrainError>>()?,
            };
            Ok(match mesh.own_host().is_none() && parts.bytes() <= SMALL {
                true => parts.joined().map_err(DeviceError::from)?,
                false => parts,
            })
        });
        parts.collect()
    }

    /// Copies the parameters to the host, by name. Every process has to do the same.
    pub fn parameters_to_host(
        &self,
        mesh: &DeviceMesh,
    ) -> Result<Vec<(String, HostTensor)>, TrainError> {
        let fetches = self.parameters().iter().map(|array| mesh.fetch(array));
        let fetches: Vec<_> = fetches.collect::<Result<_, _>>()?;
        let named = self.specs.iter().zip(fetches);
        named
            .map(|(spec, fetch)| Ok((spec.name.clone(), fetch.wait()?)))
            .collect()
    }
}

/// An array of so many bytes is saved as one part where one process has all: files smaller than
/// this cost more than they save.
const SMALL: u64 = 1 << 16;

/// Arrays are loaded together up to so many bytes, so that small ones are read at once and large
/// ones are not all in the host's memory.
const GROUP: u64 = 1 << 28;

/// A part of an array that is read: the array's name, and a range for each dimension.
type Part<'a> = (&'a str, Vec<Range<i64>>);

/// Reads each part from the first checkpoint that has it.
fn read_parts(readers: &[Reader], parts: &[Part<'_>]) -> checkpoint::Result<Vec<HostTensor>> {
    // One that none has is missed by the last.
    let last = readers.len().saturating_sub(1);
    let holder = |(name, range): &Part<'_>| {
        for (place, reader) in readers[..last].iter().enumerate() {
            if reader.holds(name, range)? {
                return Ok(place);
            }
        }
        Ok(last)
    };
    let holders: Vec<usize> = parts
        .iter()
        .map(holder)
        .collect::<checkpoint::Result<_>>()?;
    let mut read: Vec<(usize, HostTensor)> = Vec::new();
    for (holder, reader) in readers.iter().enumerate() {
        let places = (0..parts.len()).filter(|&place| holders[place] == holder);
        let places: Vec<usize> = places.collect();
        let wanted: Vec<Part<'_>> = places.iter().map(|&place| parts[place].clone()).collect();
        read.extend(places.into_iter().zip(reader.parts(&wanted)?));
    }
    read.sort_by_key(|(place, _)| *place);
    Ok(read.into_iter().map(|(_, tensor)| tensor).collect())
}

/// The arrays in groups, in order.
fn in_groups(specs: &[ArraySpec]) -> Vec<&[ArraySpec]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, spec) in specs.iter().enumerate() {
        bytes += spec.shape.elements() as u64 * spec.shape.dtype.byte_width() as u64;
        if bytes >= GROUP || i + 1 == specs.len() {
            groups.push(&specs[start..=i]);
            (start, bytes) = (i + 1, 0);
        }
    }
    groups
}

/// Whether a checkpoint has an array as a program takes it.
fn check(spec: &ArraySpec, reader: &Reader) -> Result<(), TrainError> {
    let Ok(shape) = reader.shape(&spec.name) else {
        return Err(missing_array(spec));
    };
    let is_type = reader.element_type(&spec.name)? == Some(element_type(spec));
    let dims = spec.shape.dims.iter().map(|&size| size as u64);
    match is_type && dims.eq(shape.iter().copied()) {
        true => Ok(()),
        false => Err(DeviceError::WrongArray {
            name: spec.name.clone(),
            found: format!("{}{shape:?}", reader.data_type(&spec.name)?),
            expected: format!("{}{:?}", spec.shape.dtype.name(), spec.shape.dims),
        }
        .into()),
    }
}

fn missing_array(spec: &ArraySpec) -> TrainError {
    TrainError::MissingArray {
        name: spec.name.clone(),
    }
}

/// An array of zeros on the devices.
fn zeros(mesh: &DeviceMesh, spec: &ArraySpec) -> Result<ShardedArray, DeviceError> {
    mesh.assemble(spec, |_, part| {
        let dims = part.iter().map(|range| range.end - range.start);
        let zeros = HostTensor::zeros(element_type(spec), dims.collect::<Vec<_>>());
        Ok(Cow::Owned(zeros))
    })
}

/// What becomes of optimizer slots, and of the count of steps, that are not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingSlots {
    /// They are an error, as missing parameters always are.
    Refused,
    /// They start from zeros.
    Zeros,
}

fn parameter_count(programs: &Programs<'_>) -> usize {
    Weights::of(&programs.config.model).leaves().len()
}

fn element_type(spec: &ArraySpec) -> ElementType {
    match spec.shape.dtype {
        DType::S32 => ElementType::S32,
        // The state holds float32 arrays and a counter.
        _ => ElementType::F32,
    }
}
