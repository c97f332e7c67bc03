//! `pretrain compile`: the child process of `pretrain plan`. It is not for people.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Exit};
use crate::plan::compile::answer;

/// Compile the step that a request describes. `pretrain plan` calls this.
#[derive(Args)]
pub(super) struct CompileArgs {
    /// Holds the request, and receives the answer.
    directory: PathBuf,
}

pub(super) fn run(arguments: CompileArgs) -> Result<Exit, CliError> {
    answer(&arguments.directory).map_err(CliError::failed)?;
    Ok(Exit::Done)
}
