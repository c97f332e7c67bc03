//! The target has the masked residues and nothing else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::residue_masks::{HidesResidues, ResidueMasks, Touching};
use super::spans::Target;
use super::unmask;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Only the masked residues, one after the other, without sentinels.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MaskedOnly(pub ResidueMasks);

impl HidesResidues for MaskedOnly {
    fn residue_masks(&self) -> ResidueMasks {
        self.0
    }

    fn target(&self) -> Target {
        Target::Hidden
    }

    fn fill(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        match self.0.touching {
            Touching::Separate => unmask::fill_in_order(self.0.ngram, tokenizer, input, target),
            Touching::Merged => unmask::mismatch(
                "a target of masked residues alone does not say where merged masks end",
            ),
        }
    }
}
