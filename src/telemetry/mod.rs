//! What a run reports: metrics as JSON lines, as TensorBoard events and to Prometheus, the log, and
//! the progress line on the terminal.
//!
//! Everything here takes values that are already known. Nothing waits for a device, and a full disk
//! does not end a run.

mod append;
mod events;
mod goodput;
mod log;
mod metrics;
mod progress;
mod prometheus;
mod structured;
mod summaries;
mod throughput;

pub use events::EventLog;
pub use goodput::{Goodput, Lost, TimeShares};
pub use log::{Log, LogFormat, print_error, print_line};
pub use metrics::{Metrics, MetricsLog, Validation, ValidationResidues};
pub use progress::StepProgress;
pub use prometheus::{Exposition, Observed};
pub use throughput::{Meter, Rates};

use std::path::{Path, PathBuf};

/// A telemetry file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct TelemetryError {
    /// What was attempted, as in "cannot `write`".
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why it failed.
    pub source: std::io::Error,
}

impl TelemetryError {
    fn on(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}
