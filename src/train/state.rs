//! The state of a run on the device: parameters, what the optimizer keeps, and the number of steps done.

use ankh_pjrt::{Argument, Buffer, HostTensor};

use super::TrainError;
use super::program::{self, Array, Programs};
use crate::config::Config;
use crate::device::{Device, DeviceError};

/// Named arrays on the device, in the order that the programs take them.
pub struct State {
    arrays: Vec<Array>,
    buffers: Vec<Buffer>,
    parameters: usize,
}

impl State {
    /// Draws the first state from the configured seed.
    pub fn initial(programs: &Programs<'_>, device: &Device) -> Result<State, TrainError> {
        let config = programs.config;
        let program = device.compile(&programs.initial()?)?;
        let seed = device.upload(&HostTensor::from_u64([], &[config.train.seed]))?;
        let buffers = program.start(vec![Argument::Keep(&seed)])?;
        Ok(State::of(config, buffers))
    }

    /// Loads a state by name; each array has to be there. Where there are parameters only, the rest starts from zeros.
    pub fn from_tensors(
        config: &Config,
        device: &Device,
        tensors: &[(String, HostTensor)],
        rest: Rest,
    ) -> Result<State, TrainError> {
        let parameters = parameter_count(config);
        let mut buffers = Vec::new();
        for (i, array) in program::state(config).iter().enumerate() {
            let found = tensors.iter().find(|t| t.0 == array.name).map(|t| &t.1);
            let zeros = || HostTensor::zeros(element_type(array), array.shape.dims.clone());
            let buffer = match (found, rest) {
                (Some(tensor), _) => device.upload_as(array, tensor)?,
                (None, Rest::Zeros) if i >= parameters => device.upload(&zeros())?,
                (None, _) => {
                    return Err(TrainError::MissingArray {
                        name: array.name.clone(),
                    });
                }
            };
            buffers.push(buffer);
        }
        Ok(State::of(config, buffers))
    }

    fn of(config: &Config, buffers: Vec<Buffer>) -> State {
        State {
            arrays: program::state(config),
            buffers,
            parameters: parameter_count(config),
        }
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[Buffer] {
        &self.buffers[..self.parameters]
    }

    /// Gives the buffers to a step, which returns the next ones.
    pub(super) fn replace(
        &mut self,
        step: impl FnOnce(Vec<Buffer>) -> Result<Vec<Buffer>, DeviceError>,
    ) -> Result<(), DeviceError> {
        self.buffers = step(std::mem::take(&mut self.buffers))?;
        Ok(())
    }

    /// Copies all arrays to the host, with their names.
    pub fn to_host(&self) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(self.arrays.len())
    }

    /// Copies the parameters to the host, with their names.
    pub fn parameters_to_host(&self) -> Result<Vec<(String, HostTensor)>, TrainError> {
        self.copy(self.parameters)
    }

    fn copy(&self, count: usize) -> Result<Vec<(String, HostTensor)>, TrainError> {
        // All transfers are under way before the first is waited for.
        let events: Vec<_> = self.buffers[..count]
            .iter()
            .map(Buffer::to_host_async)
            .collect();
        let arrays = self.arrays.iter().zip(events);
        arrays
            .map(|(a, event)| {
                Ok((
                    a.name.clone(),
                    event.and_then(|e| e.wait()).map_err(DeviceError::from)?,
                ))
            })
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

fn parameter_count(config: &Config) -> usize {
    crate::model::Weights::of(&config.model).leaves().len()
}

fn element_type(array: &Array) -> ankh_pjrt::ElementType {
    match array.shape.dtype {
        ankh_hlo::DType::S32 => ankh_pjrt::ElementType::S32,
        // The state holds float32 arrays and a counter.
        _ => ankh_pjrt::ElementType::F32,
    }
}
