//! Ankh's own objective: the target has the masked residues in full, and something of the others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::residue_masks::{HidesResidues, ResidueMasks, Selection, Touching};
use super::spans::{Count, Target, TargetFormat};
use super::unmask;
use crate::error::Result;
use crate::tokenizer::{Task, Tokenizer};

/// The masked residues in full, the rest as [`TargetFormat`] says.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartialDemasking {
    /// The share of residues that are masked, between 0 and 1.
    pub masking_rate: f64,
    /// Whether that share is met exactly.
    pub count: Count,
    /// Which residues are masked.
    pub selection: Selection,
    /// How many neighboring residues a mask hides. Spans do not overlap.
    pub ngram: usize,
    /// What becomes of masks that touch.
    pub touching: Touching,
    /// How the target names what is not spelled out.
    pub target_format: TargetFormat,
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
}

impl Default for PartialDemasking {
    fn default() -> Self {
        let masks = ResidueMasks::default();
        PartialDemasking {
            masking_rate: masks.masking_rate,
            count: masks.count,
            selection: masks.selection,
            ngram: masks.ngram,
            touching: masks.touching,
            target_format: TargetFormat::default(),
            task: masks.task,
        }
    }
}

impl HidesResidues for PartialDemasking {
    fn residue_masks(&self) -> ResidueMasks {
        ResidueMasks {
            masking_rate: self.masking_rate,
            count: self.count,
            selection: self.selection,
            ngram: self.ngram,
            touching: self.touching,
            task: self.task,
        }
    }

    fn target(&self) -> Target {
        Target::Format(self.target_format)
    }

    fn fill(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        unmask::fill(self.target_format, tokenizer, input, target)
    }
}
