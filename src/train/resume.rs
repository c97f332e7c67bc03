//! Where a run goes on: what its newest checkpoint says, and whether it can be taken up here.

use serde::Deserialize as _;

use super::TrainError;
use super::feed::Source;
use super::order::DataOrder;
use super::program::Programs;
use super::state::{Rest, State};
use crate::checkpoint::Store;
use crate::fleet::Fleet;

/// Loads the state of a step, made by a run on the same data in the same order, and how many residues it was shown.
pub(super) fn resume(
    programs: &Programs<'_>,
    fleet: &Fleet,
    store: &Store,
    step: u64,
    training: &Source,
) -> Result<(State, u64), TrainError> {
    let checkpoint = store.load(step)?;
    let metadata = &checkpoint.metadata;
    let is = training.whole.examples_per_epoch();
    let was = metadata["examples_per_epoch"].as_u64();
    if let Some(was) = was.filter(|was| *was != is) {
        return Err(TrainError::OtherData {
            checkpoint: store.directory_of(step),
            was,
            is,
        });
    }
    // A checkpoint that was imported has no order yet.
    if let Ok(before) = DataOrder::deserialize(&metadata["order"]) {
        let difference = DataOrder::of(&training.whole).difference(&before);
        if let Some((was, is)) = difference {
            return Err(TrainError::OtherOrder {
                checkpoint: store.directory_of(step),
                was,
                is,
            });
        }
    }
    let residues = metadata["residues"].as_u64().unwrap_or(0);
    tracing::info!(step, "resuming");
    let state = State::from_tensors(programs, fleet, &checkpoint.tensors, Rest::Required)?;
    Ok((state, residues))
}
