//! Recognizes directories that hold something other than a run, so that nobody trains from scratch
//! into weights that they meant to continue from.

use std::fmt;
use std::path::Path;

use ankh_storage::Location;

use crate::checkpoint::{self, Store};

/// What a directory holds in place of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The files of one checkpoint.
    Checkpoint,
    /// One directory for each of several checkpoints.
    Checkpoints,
    /// A checkpoint where a run's would be, with weights alone.
    Weights {
        /// Its step.
        step: u64,
    },
    /// config.json and weights.
    HuggingFace,
    /// What `pretrain prepare` wrote.
    PreparedData,
}

impl Contents {
    /// What is in `path`, where a run's `checkpoints` would be; nothing if that may be a run, or is
    /// nothing known.
    pub(super) fn of(path: &Path, checkpoints: &Location) -> Option<Contents> {
        let has = |name: &str| path.join(name).is_file();
        if checkpoint::is_checkpoint(path) {
            return Some(Contents::Checkpoint);
        }
        if has("manifest.json") {
            return Some(Contents::PreparedData);
        }
        let weights = ["model.safetensors", "pytorch_model.bin"];
        let has_weights = weights.map(|name| has(name) || has(&format!("{name}.index.json")));
        if has("config.json") && has_weights.contains(&true) {
            return Some(Contents::HuggingFace);
        }
        if newest(&path.into()).is_some() {
            return Some(Contents::Checkpoints);
        }
        // A damaged one is reported when it is loaded.
        let (store, step) = newest(checkpoints)?;
        let names = store.names(step).ok()?;
        let trained = names.iter().any(|name| name == "step");
        (!trained).then_some(Contents::Weights { step })
    }
}

fn newest(checkpoints: &Location) -> Option<(Store, u64)> {
    let store = Store::at(checkpoints).ok()?;
    let step = store.latest().ok()??;
    Some((store, step))
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => write!(f, "is one checkpoint"),
            Self::Checkpoints => write!(f, "is a directory of checkpoints"),
            Self::Weights { step } => write!(
                f,
                "holds weights alone, in checkpoints/step_{step:08}: no optimizer state and no step, as `import` makes it"
            ),
            Self::HuggingFace => write!(f, "is a Hugging Face model directory"),
            Self::PreparedData => write!(f, "is prepared data"),
        }
    }
}
