//! What `pretrain plan --json` expected of a run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ReportError;

/// The figures of a plan that a run can be compared with. The memory and the program of a step are
/// known for every slice, the times of TPU slices only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    /// The slice.
    pub slice: PlannedSlice,
    /// One chip's memory.
    pub memory: PlannedMemory,
    /// The times.
    pub estimate: Option<PlannedTimes>,
}

/// The slice of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedSlice {
    /// Its name.
    pub name: String,
    /// Its chips.
    pub chips: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedMemory {
    /// The most that is held at once.
    pub peak: u64,
    /// What there is.
    pub limit: Option<u64>,
}

/// Times and rates; see [`crate::plan::Estimate`].
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTimes {
    pub step_seconds: f64,
    pub communication_seconds: f64,
    pub mfu: f64,
    pub examples_per_second: f64,
    pub days: f64,
    pub chip_hours: f64,
}

impl PlanFile {
    /// Reads a file; nothing where there is none.
    pub fn read(path: &Path) -> Result<Option<PlanFile>, ReportError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(ReportError::Read { path, source });
            }
        };
        let plan = serde_json::from_slice(&text).map_err(|source| ReportError::NoPlan {
            path: path.to_owned(),
            source,
        })?;
        Ok(Some(plan))
    }
}
