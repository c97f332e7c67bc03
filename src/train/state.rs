//! The state of a run on the devices: parameters, what the optimizer keeps, and the number of steps done.

use ankh_hlo::{ArraySpec, DType};
use ankh_pjrt::{ElementType, HostTensor};

use super::TrainError;
use super::program::Programs;
use crate::fleet::{DeviceArray, DeviceError, Fleet, Input};
use crate::model::Weights;

/// Named arrays on the devices, in the order that the programs take them.
pub struct State {
    specs: Vec<ArraySpec>,
    arrays: Vec<DeviceArray>,
    parameters: usize,
}

impl State {
    /// Draws the first state from the configured seed.
    pub fn initial(programs: &Programs<'_>, fleet: &Fleet) -> Result<State, TrainError> {
        let program = fleet.compile(&programs.initial()?)?;
        let seed = HostTensor::from_u64([], &[programs.config.train.seed]);
        let seed = fleet.upload(&program.parameters()[0], &seed)?;
        let arrays = program.start(vec![Input::Keep(&seed)])?;
        Ok(State::of(programs, arrays))
    }

    /// Loads a state by name; each array has to be there. Where there are parameters only, the rest starts from zeros.
    pub fn from_tensors(
        programs: &Programs<'_>,
        fleet: &Fleet,
        tensors: &[(String, HostTensor)],
        rest: Rest,
    ) -> Result<State, TrainError> {
        let parameters = parameter_count(programs);
        let mut arrays = Vec::new();
        for (i, spec) in programs.state_specs().iter().enumerate() {
            let found = tensors.iter().find(|t| t.0 == spec.name).map(|t| &t.1);
            let zeros = || HostTensor::zeros(element_type(spec), spec.shape.dims.clone());
            let array = match (found, rest) {
                (Some(tensor), _) => fleet.upload(spec, tensor)?,
                (None, Rest::Zeros) if i >= parameters => fleet.upload(spec, &zeros())?,
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

    fn of(programs: &Programs<'_>, arrays: Vec<DeviceArray>) -> State {
        State {
            specs: programs.state_specs(),
            arrays,
            parameters: parameter_count(programs),
        }
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[DeviceArray] {
        &self.arrays[..self.parameters]
    }

    /// Gives the arrays to a step, which returns the next ones.
    pub(super) fn replace(
        &mut self,
        step: impl FnOnce(Vec<DeviceArray>) -> Result<Vec<DeviceArray>, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.arrays = step(std::mem::take(&mut self.arrays))?;
        Ok(())
    }

    /// Copies all arrays to the host, with their names. Each process has to do the same.
    pub fn to_host(&self, fleet: &Fleet) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(fleet, self.arrays.len())
    }

    /// Copies the parameters to the host, with their names. Each process has to do the same.
    pub fn parameters_to_host(
        &self,
        fleet: &Fleet,
    ) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(fleet, self.parameters)
    }

    fn copy(&self, fleet: &Fleet, count: usize) -> Result<Vec<(String, HostTensor)>, TrainError> {
        // All transfers are under way before the first is waited for.
        let fetches = self.arrays[..count].iter().map(|array| fleet.fetch(array));
        let fetches: Vec<_> = fetches.collect::<Result<_, _>>()?;
        let named = self.specs.iter().zip(fetches);
        named
            .map(|(spec, fetch)| Ok((spec.name.clone(), fetch.wait()?)))
            .collect()
    }
}

/// What becomes of arrays of the state that are not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are an error.
    Required,
    /// All but the parameters start from zeros.
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
