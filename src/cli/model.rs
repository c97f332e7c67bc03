//! The options of the commands that run a model.

use ankh_storage::Location;
use clap::{Args, ValueEnum};

use super::weights::{print_notes, states_of};
use super::{CliError, Slice};
use crate::config::{Compute, Vocabulary};
use crate::hugging_face::{self, Weights};
use crate::inference::{LoadedModel, ModelOptions};

/// Which weights, and how they run.
#[derive(Args)]
pub(super) struct ModelArgs {
    /// A Hugging Face directory, a checkpoint or a run directory; a checkpoint may be in a bucket.
    #[arg(long, value_name = "DIR|URL")]
    weights: Location,
    #[command(flatten)]
    execution: ExecutionArgs,
}

/// How a model runs.
#[derive(Args)]
pub(super) struct ExecutionArgs {
    /// What to compute on: cpu-N (N virtual devices), cuda-N, or a TPU slice of one host by its
    /// name, such as v4-8 [default: cpu-1; `embed`: a virtual device for each core, up to 8].
    #[arg(long, value_name = "SPEC")]
    slice: Option<Slice>,
    /// The element type of activations and matrix products [default: float32 on a CPU, bfloat16
    /// elsewhere].
    #[arg(long, value_name = "TYPE", value_enum)]
    dtype: Option<ComputeType>,
    /// The ids of the model's tokens, where neither its files nor its size tell.
    #[arg(long, value_name = "NAME", value_enum)]
    tokenizer: Option<TokenizerName>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ComputeType {
    Float32,
    Bfloat16,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenizerName {
    Ankh,
    Ankh3,
}

impl ModelArgs {
    /// Where the weights are.
    pub fn location(&self) -> &Location {
        &self.weights
    }

    /// On what and in which precision the model runs: what bits of results depend on.
    pub fn computation(&self) -> String {
        self.execution.computation()
    }

    /// Reads the weights and puts them on the devices.
    pub fn open(&self) -> Result<LoadedModel, CliError> {
        Ok(LoadedModel::open(self.read()?, self.options())?)
    }

    /// Reads the weights.
    pub fn read(&self) -> Result<Weights, CliError> {
        read_weights(&self.weights)
    }

    /// What to compute on.
    pub fn slice(&self) -> Slice {
        self.execution.slice()
    }

    /// What to compute on, if that was said.
    pub fn slice_if_given(&self) -> Option<Slice> {
        self.execution.slice
    }

    /// How the model runs.
    pub fn options(&self) -> ModelOptions {
        self.execution.options()
    }
}

/// Reads the weights at a location.
pub(super) fn read_weights(location: &Location) -> Result<Weights, CliError> {
    let weights = hugging_face::load(states_of(location.clone()))?;
    print_notes(&weights.notes);
    Ok(weights)
}

impl ExecutionArgs {
    /// What to compute on.
    fn slice(&self) -> Slice {
        self.slice.unwrap_or_default()
    }

    /// On what and in which precision the model runs: what bits of results depend on.
    pub fn computation(&self) -> String {
        match self.dtype {
            None => self.slice().to_string(),
            Some(ComputeType::Float32) => format!("{}, float32", self.slice()),
            Some(ComputeType::Bfloat16) => format!("{}, bfloat16", self.slice()),
        }
    }

    /// How the model runs.
    pub fn options(&self) -> ModelOptions {
        ModelOptions {
            slice: self.slice(),
            compute: match self.dtype {
                None => Compute::Auto,
                Some(ComputeType::Float32) => Compute::Float32,
                Some(ComputeType::Bfloat16) => Compute::Bfloat16,
            },
            tokenizer: self.tokenizer.map(|name| match name {
                TokenizerName::Ankh => Vocabulary::Ankh,
                TokenizerName::Ankh3 => Vocabulary::Ankh3,
            }),
        }
    }
}
