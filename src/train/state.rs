//! The state of a run on the devices: parameters, optimizer slots and the step counter.

use ankh_hlo::{ArraySpec, DType};
use ankh_pjrt::{ElementType, HostTensor};

use super::TrainError;
use crate::mesh::{DeviceError, DeviceMesh, Input, ShardedArray};
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

    /// Loads a state by name; each array has to be there. Where there are parameters only, the rest
    /// starts from zeros.
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
            let zeros = || HostTensor::zeros(element_type(spec), spec.shape.dims.clone());
            let array = match (found, missing) {
                (Some(tensor), _) => mesh.upload(spec, tensor)?,
                (None, MissingSlots::Zeros) if i >= parameters => mesh.upload(spec, &zeros())?,
                (None, _) => {
                    return Err(TrainError::MissingArray {
                        name: spec.name.clone(),
                    });
                }
            };
            arrays.push(array);
        }
        Ok(State::of(programs, arrays))
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

    /// Copies all arrays to the host, by name. Every process has to do the same.
    pub fn to_host(&self, mesh: &DeviceMesh) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(mesh, self.arrays.len())
    }

    /// Copies the parameters to the host, by name. Every process has to do the same.
    pub fn parameters_to_host(
        &self,
        mesh: &DeviceMesh,
    ) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(mesh, self.parameters)
    }

    fn copy(
        &self,
        mesh: &DeviceMesh,
        count: usize,
    ) -> Result<Vec<(String, HostTensor)>, TrainError> {
        // All transfers are under way before the first is waited for.
        let fetches = self.arrays[..count].iter().map(|array| mesh.fetch(array));
        let fetches: Vec<_> = fetches.collect::<Result<_, _>>()?;
        let named = self.specs.iter().zip(fetches);
        named
            .map(|(spec, fetch)| Ok((spec.name.clone(), fetch.wait()?)))
            .collect()
    }
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
