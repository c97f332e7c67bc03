//! No masks: the first half of a sequence in, the second half out, as Ankh3's `[S2S]`. Or a short
//! beginning in, and all that follows out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spans::Hiding;
use super::{Masking, ObjectiveKind};
use crate::error::{Error, Result, Setting};
use crate::random::Stream;
use crate::tokenizer::{Task, Tokenizer};

/// The beginning is the input, the rest the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Completion {
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
    /// The most residues that the input has; the rest is the target. Unset, or where it is more,
    /// the input is the first half.
    pub prompt: Option<usize>,
}

impl Completion {
    /// How many residues of so many are the input.
    fn beginning(&self, residues: usize) -> usize {
        let half = residues.div_ceil(2);
        self.prompt.map_or(half, |prompt| prompt.min(half))
    }
}

impl ObjectiveKind for Completion {
    fn validate(&self) -> Result<()> {
        match self.prompt {
            Some(0) => Err(Error::setting(
                Setting::Objective("prompt"),
                "has to be 1 at least, or unset".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    fn task(&self) -> Option<Task> {
        self.task
    }

    /// The first half may be longer by one.
    fn window(&self, input: usize, target: usize) -> usize {
        match self.prompt {
            Some(prompt) if prompt <= input => target + prompt.min(target + 1),
            _ => (2 * input).min(2 * target + 1),
        }
    }

    fn longest_input(&self, _: Tokenizer, residues: usize) -> usize {
        self.beginning(residues)
    }

    fn longest_target(&self, _: Tokenizer, residues: usize) -> usize {
        residues - self.beginning(residues)
    }

    fn hiding(&self, _: Tokenizer) -> Option<Hiding> {
        None
    }

    fn make(&self, _: Tokenizer, tokens: &[u8], _: &mut Stream, masking: &mut Masking) {
        let (first, second) = tokens.split_at(self.beginning(tokens.len()));
        masking.example.input.extend_from_slice(first);
        masking.example.target.extend_from_slice(second);
    }

    fn unmask(&self, _: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        Ok([input, target].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn a_window_is_the_longest_sequence_that_fits() {
        let tokenizer = Tokenizer::ankh();
        for prompt in [None, Some(1), Some(3), Some(20)] {
            let objective = Completion { task: None, prompt };
            for (input, target) in (1..12).flat_map(|i| (0..12).map(move |t| (i, t))) {
                let fits = |residues: &usize| {
                    objective.longest_input(tokenizer, *residues) <= input
                        && objective.longest_target(tokenizer, *residues) <= target
                };
                let longest = (0..100).rfind(fits).unwrap_or(0);
                let window = objective.window(input, target);
                assert_eq!(window, longest, "{prompt:?} {input} {target}");
            }
        }
    }
}
