//! The target has the whole sequence: the objective of ProtT5.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::residue_masks::{HidesResidues, ResidueMasks};
use super::spans::Target;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// The whole sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FullReconstruction(pub ResidueMasks);

impl HidesResidues for FullReconstruction {
    fn residue_masks(&self) -> ResidueMasks {
        self.0
    }

    fn target(&self) -> Target {
        Target::Whole
    }

    fn fill(&self, _: Tokenizer, _: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        Ok(target.to_vec())
    }
}
