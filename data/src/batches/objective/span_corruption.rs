//! T5's span corruption: random spans of a mean length, each behind one sentinel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spans::{
    Count, Hiding, Span, Target, TargetFormat, check_rate, draw_count, rounded, usual_count,
};
use super::{Masking, ObjectiveKind, unmask};
use crate::error::{Error, Result, Setting};
use crate::random::Stream;
use crate::tokenizer::{Task, Tokenizer};

/// Random spans of a mean length, as in `run_t5_mlm`.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanCorruption {
    /// The share of residues that are masked, between 0 and 1.
    pub masking_rate: f64,
    /// Whether that share is met exactly.
    pub count: Count,
    /// The mean length of a span.
    pub mean_span: f64,
    /// How the target names what is not spelled out.
    pub target_format: TargetFormat,
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
}

impl Default for SpanCorruption {
    fn default() -> Self {
        SpanCorruption {
            masking_rate: 0.2,
            count: Count::Exact,
            mean_span: 3.0,
            target_format: TargetFormat::Runs,
            task: None,
        }
    }
}

impl SpanCorruption {
    fn spans_hidden(&self, tokenizer: Tokenizer) -> Hiding {
        Hiding::new(tokenizer, Target::Format(self.target_format), false)
    }

    /// How many spans hide so many residues.
    fn span_count(&self, masked: usize) -> usize {
        rounded(1.0 / self.mean_span, masked).max(1).min(masked)
    }

    /// The longest target where so many residues are chosen, in spans of the mean length.
    fn target_tokens(&self, tokenizer: Tokenizer, residues: usize, chosen: usize) -> usize {
        let (chosen, hiding) = (chosen.min(residues), self.spans_hidden(tokenizer));
        let spans = self.span_count(chosen).min(hiding.most);
        hiding.target_tokens(residues, chosen, spans)
    }
}

impl ObjectiveKind for SpanCorruption {
    fn validate(&self) -> Result<()> {
        check_rate(self.masking_rate)?;
        if !(self.mean_span >= 1.0 && self.mean_span.is_finite()) {
            let reason = format!("must be at least 1, but is {}", self.mean_span);
            return Err(Error::setting(Setting::Objective("mean_span"), reason));
        }
        Ok(())
    }

    fn task(&self) -> Option<Task> {
        self.task
    }

    fn longest_input(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        if self.count == Count::Bernoulli {
            // No mask may happen to be drawn.
            return residues;
        }
        let masked = rounded(self.masking_rate, residues).min(residues.saturating_sub(1));
        let spans = self.span_count(masked).min(residues - masked);
        match spans <= self.spans_hidden(tokenizer).most {
            true => residues - masked + spans,
            // Those that are left out may be the long ones.
            false => residues,
        }
    }

    fn longest_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        match self.count {
            Count::Exact => {
                let chosen = rounded(self.masking_rate, residues);
                self.target_tokens(tokenizer, residues, chosen)
            }
            // All residues, in spans as short as can be.
            Count::Bernoulli => {
                let hiding = self.spans_hidden(tokenizer);
                hiding.target_tokens(residues, residues, residues.min(hiding.most))
            }
        }
    }

    fn usual_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        match self.count {
            Count::Exact => self.longest_target(tokenizer, residues),
            Count::Bernoulli => {
                let chosen = usual_count(self.masking_rate, residues, 1);
                self.target_tokens(tokenizer, residues, chosen)
            }
        }
    }

    fn hiding(&self, tokenizer: Tokenizer) -> Option<Hiding> {
        Some(self.spans_hidden(tokenizer))
    }

    /// The masked and the unmasked residues are each cut into as many non-empty pieces as there are
    /// spans, and the pieces alternate, an unmasked one first.
    fn make(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        random: &mut Stream,
        masking: &mut Masking,
    ) {
        let n = tokens.len();
        let masked = draw_count(self.count, self.masking_rate, n, 1, random);
        let masked = masked.min(n.saturating_sub(1));
        let count = self.span_count(masked).min(n - masked);
        let hidden = pieces(masked, count, random);
        let shown = pieces(n - masked, count, random);
        masking.spans.clear();
        let mut start = 0;
        for (shown, length) in shown.into_iter().zip(hidden) {
            start += shown;
            masking.spans.push(Span { start, length });
            start += length;
        }
        let hiding = self.spans_hidden(tokenizer);
        hiding.hide(tokenizer, tokens, random, masking);
    }

    fn unmask(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        unmask::fill(self.target_format, tokenizer, input, target)
    }
}

/// `total` cut into `count` positive parts, every way equally likely. Empty if `count` is 0.
fn pieces(total: usize, count: usize, random: &mut Stream) -> Vec<usize> {
    if count == 0 {
        return Vec::new();
    }
    let mut parts = Vec::with_capacity(count);
    let mut last = 0;
    for cut in random.choose(count - 1, total - 1) {
        parts.push(cut + 1 - last);
        last = cut + 1;
    }
    parts.push(total - last);
    parts
}
