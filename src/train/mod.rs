//! Training: the programs that run on the device, the state they change, and the loop around.

mod feed;
pub mod forward;
mod order;
mod pace;
pub mod program;
mod rates;
mod resume;
mod saving;
mod session;
mod state;
mod summary;

pub use feed::{BatchError, batches, rows_of};
pub use rates::Turn;
pub use session::{Outcome, train};
pub use state::{Rest, State};
pub use summary::Summary;

use std::path::PathBuf;

use crate::checkpoint;
use crate::fleet::DeviceError;
use crate::run::RunError;
use crate::telemetry::TelemetryError;

/// Why a run ended without reaching its last step.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device, or the memory it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A mistake in the construction of a program.
    #[error("the program is ill-formed")]
    Program(#[from] ankh_hlo::Error),
    /// The data, or a batch of it.
    #[error(transparent)]
    Data(#[from] ankh_data::Error),
    /// The batches' settings do not suit the data.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A file of the run directory could not be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Metrics or logs could not be written.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// An array of the state or the batch is not there.
    #[error("there is no array `{name}`")]
    MissingArray {
        /// Its name.
        name: String,
    },
    /// A batch's array is not a matrix.
    #[error(
        "`{name}` has dimensions {dims:?}; a batch's arrays are [rows, length], neither of them 0"
    )]
    NotABatch {
        /// Its name.
        name: String,
        /// Its dimensions.
        dims: Vec<i64>,
    },
    /// The checkpoint was made on other data.
    #[error("{} was trained on {was} examples an epoch and this data set gives {is}", checkpoint.display())]
    OtherData {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Examples an epoch then.
        was: u64,
        /// Examples an epoch now.
        is: u64,
    },
    /// The order of the sequences would be another than the checkpoint's.
    #[error("{} has {was}, and this run has {is}", checkpoint.display())]
    OtherOrder {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What made the order then.
        was: String,
        /// What makes it now.
        is: String,
    },
    /// The learning rate would jump up, though nobody changed the schedule.
    #[error("the learning rate would jump, and nobody asked for it: {turn}")]
    RateJump {
        /// The rates.
        turn: Turn,
        /// What can be meant, with what to type for it.
        choices: Vec<String>,
    },
    /// The hosts of a run would begin at different steps.
    #[error(
        "this host would begin at step {begins}, after what it finds in {}, while the hosts of the run would begin at steps from {first} to {last}",
        checkpoints.display()
    )]
    OtherStep {
        /// Where this host looks for saved states.
        checkpoints: PathBuf,
        /// The step this host would begin at.
        begins: u64,
        /// The first step that a host would begin at.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The state that a run ends with could not be saved.
    #[error(
        "the run ends at step {step}, which cannot be saved; {}",
        saving::Newest(*saved)
    )]
    Unsaved {
        /// The step.
        step: u64,
        /// The newest step that is saved.
        saved: Option<u64>,
        /// Why it cannot be saved.
        source: checkpoint::Error,
    },
    /// The loss is not a number any more.
    #[error("the loss is {loss} at step {step}; the last good state is in the checkpoint before")]
    Diverged {
        /// The step.
        step: u64,
        /// The loss.
        loss: f32,
    },
}
