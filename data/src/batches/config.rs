//! What shape batches have, and which examples a run consists of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LongSequences;
use crate::error::{Error, Result, Setting};

/// What a row of a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// One sequence, and padding behind it.
    #[default]
    Padded,
    /// As many whole sequences as fit input and target, told apart by segment numbers.
    Packed,
}

/// The shape of a run's batches. Together with the data set and the objective it determines every
/// byte of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// What order and masks are drawn from.
    pub seed: u64,
    /// Rows of a step, over all hosts.
    pub global_batch: usize,
    /// Tokens of an encoder input, `</s>` included.
    pub input_length: usize,
    /// Tokens of a target, `</s>` included.
    pub target_length: usize,
    /// What is done with sequences that do not fit.
    pub long_sequences: LongSequences,
    /// What a row of a batch holds.
    pub packing: Packing,
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig {
            seed: 0,
            global_batch: 8,
            input_length: 512,
            target_length: 256,
            long_sequences: LongSequences::Crop,
            packing: Packing::Padded,
        }
    }
}

impl BatchConfig {
    /// Checks each length.
    pub fn validate(&self) -> Result<()> {
        let at_least = |setting, least: usize, value: usize| match value >= least {
            true => Ok(()),
            false => Err(Error::setting(
                setting,
                format!("must be at least {least}, but is {value}"),
            )),
        };
        at_least(Setting::GlobalBatch, 1, self.global_batch)?;
        // A residue, a task mark and </s>.
        at_least(Setting::InputLength, 3, self.input_length)?;
        at_least(Setting::TargetLength, 2, self.target_length)
    }
}
