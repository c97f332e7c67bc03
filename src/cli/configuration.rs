//! The options that choose a configuration, shared by the commands that have one.

use clap::Args;

use super::CliError;
use crate::config::{Config, Layout, Location, resolve};
use crate::mesh::slice::Slice;
use crate::row_fill;

#[derive(Args)]
pub(super) struct ConfigArgs {
    /// A preset (ankh-base, ankh-base-packed, ankh-large, ankh-large-packed, ankh2-large,
    /// ankh3-large, ankh3-xl, demo, small, tiny, experiments/00 to /23 and /mixture) or a TOML
    /// file [default: ankh-base].
    #[arg(long, value_name = "FILE|PRESET")]
    pub config: Option<String>,
    /// Change one setting, for example train.steps=100; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Clone)]
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

impl ConfigArgs {
    /// Lays the step out as is fastest on `slice`, unless the arguments lay it out, and says how.
    /// The batch is given in rows.
    pub fn lay_out(&self, config: &mut Config, slice: Slice) -> Option<String> {
        if self.set.iter().any(|argument| Layout::is_set_by(argument)) {
            return None;
        }
        let known = config.use_fastest_layout(&slice.to_string())?;
        Some(format!(
            "laid out as is fastest for {} on {slice}, as far as is known: {}",
            known.preset, known.layout
        ))
    }
}

/// Makes a batch that is given in sequences one of rows, by the lengths of the data. The
/// configuration is valid, and is so with the rows too.
pub(super) fn settle_batch_size(config: &mut Config) -> Result<(), CliError> {
    row_fill::settle_batch_size(config)?;
    Ok(config.validate()?)
}

/// The locations of all data of the run, which must be set.
pub(super) fn data_locations(config: &Config) -> Result<Vec<Location>, CliError> {
    config.data_locations().ok_or_else(|| {
        CliError::usage("no data: give prepared data with --data")
            .help("make it with `pretrain prepare --output DIR INPUT...`")
    })
}
