//! The options that choose a configuration, shared by the commands that have one.

use clap::Args;

use super::CliError;
use crate::config::{Config, Location, resolve};

#[derive(Args)]
pub(super) struct ConfigArgs {
    /// A preset (ankh-base, ankh-large, ankh2-large, ankh3-large, ankh3-xl, demo, small, tiny,
    /// experiments/00 to /23 and /mixture) or a TOML file.
    #[arg(long, value_name = "FILE|PRESET")]
    pub config: Option<String>,
    /// Changes one setting, for example train.steps=100; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args)]
pub(super) struct DataArgs {
    /// What `pretrain prepare` wrote: a directory, or a gs:// or s3:// URL [default: data.dir of
    /// the configuration].
    #[arg(long, value_name = "DIR|URL")]
    pub data: Option<Location>,
}

impl ConfigArgs {
    /// The configuration of these options, not yet validated.
    pub fn resolve(&self) -> Result<Config, CliError> {
        Ok(resolve(self.config.as_deref(), &self.set)?)
    }
}

impl DataArgs {
    /// Applies the option to the configuration.
    pub fn lay_over(self, config: &mut Config) {
        if let Some(data) = self.data {
            config.data.dir = Some(data);
        }
    }
}

/// The locations of all data of the run, which must be set.
pub(super) fn data_locations(config: &Config) -> Result<Vec<Location>, CliError> {
    config.data_locations().ok_or_else(|| {
        CliError::usage("no data: give prepared data with --data")
            .help("make it with `pretrain prepare --output DIR INPUT...`")
    })
}
