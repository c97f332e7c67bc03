//! No masks: the first half of a sequence in, the second half out, as Ankh3's `[S2S]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spans::Hiding;
use super::{Masking, ObjectiveKind};
use crate::error::Result;
use crate::random::Stream;
use crate::tokenizer::{Task, Tokenizer};

/// The first half is the input, the second half the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Completion {
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
}

impl ObjectiveKind for Completion {
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn task(&self) -> Option<Task> {
        self.task
    }

    /// The first half may be longer by one.
    fn window(&self, input: usize, target: usize) -> usize {
        (2 * input).min(2 * target + 1)
    }

    fn longest_input(&self, _: Tokenizer, residues: usize) -> usize {
        residues.div_ceil(2)
    }

    fn longest_target(&self, _: Tokenizer, residues: usize) -> usize {
        residues / 2
    }

    fn hiding(&self, _: Tokenizer) -> Option<Hiding> {
        None
    }

    fn make(&self, _: Tokenizer, tokens: &[u8], _: &mut Stream, masking: &mut Masking) {
        let (first, second) = tokens.split_at(tokens.len().div_ceil(2));
        masking.example.input.extend_from_slice(first);
        masking.example.target.extend_from_slice(second);
    }

    fn unmask(&self, _: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        Ok([input, target].concat())
    }
}
