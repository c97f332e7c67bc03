//! `pretrain init`: a configuration to begin from.

use std::path::PathBuf;

use clap::Args;

use super::output::line_of;
use super::{CliError, Exit};
use crate::config::resolve;

/// Write a configuration to begin from: every setting of a preset with its value, and above it what
/// it means, the values that it takes and its default.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain init --preset demo --output mine.toml\n  \
                  pretrain batches --config mine.toml --data prepared"
)]
pub(super) struct InitArgs {
    /// The preset to begin from.
    #[arg(long, value_name = "NAME", default_value = "ankh-base")]
    preset: String,
    /// The file to write, which must not exist yet [default: standard output].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: InitArgs) -> Result<Exit, CliError> {
    let config = resolve(Some(&arguments.preset), &[])?;
    let text = config.to_commented_toml(&arguments.preset);
    let Some(file) = arguments.output else {
        line_of(text.trim_end())?;
        return Ok(Exit::Done);
    };
    let place = file.display();
    if file.exists() {
        let error = CliError::usage(format!("{place} exists already"));
        return Err(error.help("give another --output, or remove the file first"));
    }
    let written = ankh_storage::atomic::replace_file(&file, text.as_bytes());
    written.map_err(|error| CliError::failed(format!("cannot write {place}: {error}")))?;
    line_of(&format!("{place}: all settings of {}", arguments.preset))?;
    Ok(Exit::Done)
}
