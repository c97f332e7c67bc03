//! Why a run ended early.

use ankh_cluster::Ended;
use ankh_storage::Location;

use super::data_loader::BatchError;
use super::data_order::OrderDifference;
use super::health::Fault;
use super::rate_change::RateChange;
use super::saving;
use crate::checkpoint;
use crate::hugging_face;
use crate::mesh::DeviceError;
use crate::programs::sharding::ShardingError;
use crate::run_dir::RunError;
use crate::telemetry::TelemetryError;

/// Why a run ended without reaching its last step.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device, or the memory it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The configured mesh or rules do not fit the devices or the arrays.
    #[error(transparent)]
    Sharding(#[from] ShardingError),
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
    MissingArray { name: String },
    /// A batch's array is not a matrix.
    #[error(
        "`{name}` has dimensions {dims:?}; a batch's arrays are [rows, length], neither of them 0"
    )]
    NotABatch { name: String, dims: Vec<i64> },
    /// The checkpoint was made on other data.
    #[error("{checkpoint} was trained on {was} examples an epoch and this data set gives {is}")]
    OtherData {
        checkpoint: Location,
        was: u64,
        is: u64,
    },
    /// What the optimizer kept in an earlier saved step is not what the run has compiled for.
    #[error("at step {step}, to which the run would go back, it had another optimizer")]
    OtherOptimizer { step: u64 },
    /// The order of the sequences would be another than the checkpoint's.
    #[error("{checkpoint} has {}, and this run has {}", difference.was, difference.is)]
    OtherOrder {
        checkpoint: Location,
        difference: OrderDifference,
    },
    /// The learning rate would jump up, though nobody changed the schedule.
    #[error("the learning rate would jump, and nobody asked for it: {change}")]
    RateJump {
        change: RateChange,
        choices: Vec<String>,
    },
    /// The hosts of a run read different data.
    #[error("host {host} has other {data} than host 0, or another order of it")]
    DataOfHosts {
        host: usize,
        /// Which data.
        data: &'static str,
    },
    /// The weights to begin with cannot be used.
    #[error(transparent)]
    Weights(#[from] hugging_face::Error),
    /// The hosts of a run read different weights.
    #[error("host {host} finds other weights in {weights} than host 0")]
    WeightsOfHosts { host: usize, weights: Location },
    /// The hosts of a run would begin at different steps.
    #[error(
        "this host would begin at step {begins}, after what it finds in {checkpoints}, while the hosts of the run would begin at steps from {first} to {last}"
    )]
    OtherStep {
        checkpoints: Location,
        begins: u64,
        first: u64,
        last: u64,
    },
    /// The hosts of the run have parted.
    #[error(transparent)]
    Parted(#[from] Ended),
    /// The state that a run ends with could not be saved.
    #[error(
        "the run ends at step {step}, which cannot be saved; {}",
        saving::Newest(*saved)
    )]
    Unsaved {
        step: u64,
        saved: Option<u64>,
        source: Box<checkpoint::Error>,
    },
    /// The numbers of the run are not finite any more, and going back did not help.
    #[error("{fault}; {}{}", saving::Newest(*saved), gone_back(*rollbacks))]
    Diverged {
        fault: Fault,
        /// The step to go back to.
        saved: Option<u64>,
        /// How often the run has gone back to it.
        rollbacks: u64,
    },
}

/// How often a run has gone back to its last saved step, at the end of a sentence that names it.
fn gone_back(rollbacks: u64) -> String {
    match rollbacks {
        0 => String::new(),
        1 => ", and the run has gone back there once".into(),
        count => format!(", and the run has gone back there {count} times"),
    }
}
