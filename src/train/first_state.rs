//! The state before the first step: drawn from the seed, or of the weights that the run is
//! configured to begin with. The optimizer starts from zeros in either case.

use std::slice;

use super::TrainError;
use super::processes::Processes;
use super::state::State;
use crate::config::Config;
use crate::hugging_face::{self, WeightsReader};
use crate::mesh::DeviceMesh;
use crate::programs::Programs;

/// The first state of a run. All hosts must agree on its weights.
pub(super) fn first_state(
    programs: &Programs<'_>,
    mesh: &DeviceMesh,
    processes: &Processes,
) -> Result<State, TrainError> {
    let Some(weights) = &programs.config.train.initialize_from else {
        return State::initial(programs, mesh);
    };
    let (state, digest) = hugging_face::open(weights, |weights| -> Result<_, TrainError> {
        weights.check_model(&programs.config.model)?;
        tracing::info!("beginning with the weights of {}", weights.location());
        load(weights, programs, mesh)
    })?;
    let all = processes.all_gather("the weights to begin with", digest.into())?;
    match all.iter().position(|other| *other != all[0]) {
        None => Ok(state),
        Some(host) => {
            processes.part();
            Err(TrainError::WeightsOfHosts {
                host,
                weights: weights.clone(),
            })
        }
    }
}

/// Whether the weights to begin with, if there are some, are there and of the configured model.
/// Asked before anything is compiled for them.
pub(super) fn check_weights(config: &Config) -> Result<(), TrainError> {
    let weights = config.train.initialize_from.as_ref();
    weights.map_or(Ok(()), |weights| {
        Ok(hugging_face::open(weights, |weights| {
            weights.check_model(&config.model)
        })?)
    })
}

/// The state with the weights of a source, and a number that tells these from other ones.
fn load(
    weights: &WeightsReader<'_>,
    programs: &Programs<'_>,
    mesh: &DeviceMesh,
) -> Result<(State, u32), TrainError> {
    if let Some(reader) = weights.checkpoint() {
        let parameters = hugging_face::parameters(weights.model());
        let is_parameter = |name: &str| parameters.iter().any(|parameter| parameter.0 == name);
        let readers = slice::from_ref(reader);
        let state = State::from_checkpoints(programs, mesh, readers, is_parameter);
        // What is wrong with these is not wrong with the states of the run.
        let state = state.map_err(|error| match error {
            TrainError::Checkpoint(error) => TrainError::Weights(error.into()),
            error => error,
        });
        return Ok((state?, reader.digest()));
    }
    let mut digest = 0;
    let state = State::from_parameters(programs, mesh, |name| -> Result<_, TrainError> {
        let tensor = weights.tensor(name)?;
        digest = crc32c::crc32c_append(digest, &tensor.bytes);
        Ok(tensor)
    })?;
    Ok((state, digest))
}
