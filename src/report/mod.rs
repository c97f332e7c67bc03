//! Runs to look at: reads run directories, of whatever version and however damaged, and makes the
//! page that compares them.
//!
//! [`page::report`] is the page as one file. The module `watch` serves the same page, and gives it
//! [`view::State`] and [`view::Series`] as they change. The charts are those of `page/`, in plain
//! JavaScript over uPlot.

mod benchmarks;
mod columns;
mod discovery;
mod downsample;
mod history;
pub mod page;
mod plan_file;
mod run;
mod settings;
mod tail;
pub mod view;

use std::io;
use std::path::PathBuf;

pub use discovery::{Found, find, shorten};
pub use plan_file::PlanFile;
pub use run::{Run, Status};

/// What cannot be reported on.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A directory or a file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file is not what `pretrain plan --json` prints.
    #[error("{} is no plan", path.display())]
    NoPlan {
        path: PathBuf,
        source: serde_json::Error,
    },
}
