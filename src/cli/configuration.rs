//! The options that choose a configuration, shared by the commands that have one.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::config::{Config, resolve};

#[derive(Args)]
pub(super) struct ConfigArgs {
    /// A preset (ankh-base, ankh-large, ankh2-large, ankh3-large, ankh3-xl, demo, small, tiny, experiments/00 to /23) or a TOML file.
    #[arg(long, value_name = "FILE|PRESET")]
    pub config: Option<String>,
    /// Changes one setting, for example train.steps=100; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args)]
pub(super) struct DataArgs {
    /// A directory written by `pretrain prepare` [default: data.dir of the configuration].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl ConfigArgs {
    /// The configuration as these options say, not yet validated.
    pub fn resolve(&self) -> Result<Config, CliError> {
        Ok(resolve(self.config.as_deref(), &self.set)?)
    }
}

impl DataArgs {
    /// Lays the option over the configuration's own directory.
    pub fn lay_over(self, config: &mut Config) {
        if let Some(data) = self.data {
            config.data.dir = Some(data);
        }
    }
}

/// The data directory, which must have been given.
pub(super) fn data_directory(config: &Config) -> Result<&PathBuf, CliError> {
    config.data.dir.as_ref().ok_or_else(|| {
        CliError::usage("no data: give a prepared directory with --data")
            .help("make one with `pretrain prepare --output DIR INPUT...`")
    })
}
