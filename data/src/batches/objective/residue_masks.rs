//! Masks of single residues, or of a few neighbors, anywhere in a sequence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spans::{
    Count, Hiding, Span, Target, TargetFormat, check_rate, draw_count, merge, rounded,
    unmasked_runs, usual_count,
};
use super::{Masking, Masks, ObjectiveKind};
use crate::error::{Error, Result, Setting};
use crate::random::Stream;
use crate::tokenizer::{Task, Tokenizer};

/// Which residues are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Any, with equal probability.
    #[default]
    Uniform,
    /// At least one of every kind of residue in the sequence, the rest uniformly. Where a sequence
    /// has more kinds than masks, one of each kind is masked.
    EachDistinct,
}

/// What becomes of masks that touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Touching {
    /// Each keeps its own sentinel.
    #[default]
    Separate,
    /// They share one (experiment 6).
    Merged,
}

/// Which residues are masked, and how many.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResidueMasks {
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
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
}

impl Default for ResidueMasks {
    fn default() -> Self {
        ResidueMasks {
            masking_rate: 0.2,
            count: Count::Exact,
            selection: Selection::Uniform,
            ngram: 1,
            touching: Touching::Separate,
            task: None,
        }
    }
}

/// A kind of objective that hides such masks, and differs from others in what its target says.
pub(super) trait HidesResidues {
    fn residue_masks(&self) -> ResidueMasks;

    fn target(&self) -> Target;

    /// [`ObjectiveKind::unmask`].
    fn fill(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>>;
}

impl<T: HidesResidues> ObjectiveKind for T {
    fn validate(&self) -> Result<()> {
        let masks = self.residue_masks();
        check_rate(masks.masking_rate)?;
        if masks.ngram == 0 {
            let ngram = Setting::Objective("ngram");
            return Err(Error::setting(ngram, "must be at least 1"));
        }
        if masks.selection == Selection::EachDistinct && masks.ngram != 1 {
            let reason = format!("each_distinct needs ngram = 1, not {}", masks.ngram);
            return Err(Error::setting(Setting::Objective("selection"), reason));
        }
        Ok(())
    }

    fn task(&self) -> Option<Task> {
        self.residue_masks().task
    }

    fn longest_input(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let masks = self.residue_masks();
        match masks.count {
            // No mask may happen to be drawn.
            Count::Bernoulli => residues,
            // A mask hides `ngram` residues behind one sentinel; those that touch share it at most.
            Count::Exact => {
                let hiding = masks.hiding(tokenizer, self.target());
                residues - masks.exact_spans(hiding, residues) * (masks.ngram - 1)
            }
        }
    }

    fn longest_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let masks = self.residue_masks();
        let chosen = match masks.count {
            Count::Bernoulli => residues,
            Count::Exact => {
                rounded(masks.masking_rate / masks.ngram as f64, residues) * masks.ngram
            }
        };
        masks.target_tokens(tokenizer, self.target(), residues, chosen)
    }

    fn usual_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let masks = self.residue_masks();
        let longest = self.longest_target(tokenizer, residues);
        match masks.count {
            Count::Exact => {
                let varies = self.target() == Target::Format(TargetFormat::Runs)
                    && masks.selection == Selection::Uniform
                    && masks.touching == Touching::Separate;
                match varies {
                    true => masks.usual_target(tokenizer, residues).min(longest),
                    false => longest,
                }
            }
            Count::Bernoulli => {
                let chosen = usual_count(masks.masking_rate, residues, masks.ngram);
                masks.target_tokens(tokenizer, self.target(), residues, chosen)
            }
        }
    }

    fn hiding(&self, tokenizer: Tokenizer) -> Option<Hiding> {
        Some(self.residue_masks().hiding(tokenizer, self.target()))
    }

    fn make(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        random: &mut Stream,
        masking: &mut Masking,
    ) {
        let masks = self.residue_masks();
        masks.draw(tokens, random, masking);
        let hiding = masks.hiding(tokenizer, self.target());
        hiding.hide(tokenizer, tokens, random, masking);
    }

    fn unmask(&self, tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        self.fill(tokenizer, input, target)
    }

    fn masks(&self, residues: usize) -> Option<Masks> {
        let masks = self.residue_masks();
        let masked = (masks.masking_rate * residues as f64).round() as usize;
        (masks.touching == Touching::Separate).then(|| Masks {
            rate: masks.masking_rate,
            residues: masked,
            masks: masked.div_ceil(masks.ngram),
        })
    }
}

impl ResidueMasks {
    fn hiding(&self, tokenizer: Tokenizer, target: Target) -> Hiding {
        Hiding::new(tokenizer, target, self.touching == Touching::Merged)
    }

    /// How many spans are hidden where their number is exact.
    fn exact_spans(&self, hiding: Hiding, residues: usize) -> usize {
        let spans = rounded(self.masking_rate / self.ngram as f64, residues);
        spans.min(residues / self.ngram).min(hiding.most)
    }

    /// The longest target where so many residues are chosen.
    fn target_tokens(
        &self,
        tokenizer: Tokenizer,
        target: Target,
        residues: usize,
        chosen: usize,
    ) -> usize {
        let hiding = self.hiding(tokenizer, target);
        let chosen = match self.selection {
            Selection::Uniform => chosen,
            Selection::EachDistinct => chosen.max(tokenizer.residues()),
        };
        let chosen = chosen.min(residues);
        let (masked, spans) = match self.touching {
            Touching::Merged => (chosen, chosen.min(hiding.most)),
            Touching::Separate => {
                let spans = chosen.div_ceil(self.ngram).min(hiding.most);
                (chosen.min(spans * self.ngram), spans)
            }
        };
        hiding.target_tokens(residues, masked, spans)
    }

    /// The room for a target that names unmasked runs, where the number of masks is exact and their
    /// places are uniform. Half the variance is what a target takes beyond its mean in the sum of
    /// many: `log E[exp X]` is `mean + variance / 2` for a normal `X`. It adds up over independent
    /// `X`, and bounds the probability of `t` tokens more by `exp(-t)` (Chernoff).
    fn usual_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let hiding = self.hiding(tokenizer, Target::Format(TargetFormat::Runs));
        let spans = self.exact_spans(hiding, residues);
        let masked = spans * self.ngram;
        let (mean, variance) = unmasked_runs(spans, residues - masked);
        // To the nearest, so that rounding evens out over a row. At most as many as residues.
        masked + (mean + variance / 2.0).round() as usize
    }

    /// Draws spans of `ngram` residues. Placing `m` spans of length `g` on `n` residues without
    /// overlap is choosing `m` of `n - m (g - 1)` places, so every placement is equally likely.
    fn draw(&self, tokens: &[u8], random: &mut Stream, masking: &mut Masking) {
        let Masking { spans, places, .. } = masking;
        let (n, g) = (tokens.len(), self.ngram.max(1));
        let count = draw_count(self.count, self.masking_rate, n, g, random);
        match self.selection {
            Selection::Uniform => random.choose_into(count, n - count * (g - 1), places),
            Selection::EachDistinct => *places = each_distinct(tokens, count, random),
        };
        let span = |(before, &place): (usize, &usize)| Span {
            start: place + before * (g - 1),
            length: g,
        };
        spans.clear();
        spans.extend(places.iter().enumerate().map(span));
        if self.touching == Touching::Merged {
            merge(spans);
        }
    }
}

/// One place of every kind of token, then as many others as are missing to `count`.
fn each_distinct(tokens: &[u8], count: usize, random: &mut Stream) -> Vec<usize> {
    let mut chosen = vec![false; tokens.len()];
    let mut kinds = 0;
    for kind in 0..=u8::MAX {
        let places = || (0..tokens.len()).filter(|&i| tokens[i] == kind);
        let total = places().count();
        if total == 0 {
            continue;
        }
        let which = random.below(total);
        if let Some(place) = places().nth(which) {
            chosen[place] = true;
            kinds += 1;
        }
    }
    let others: Vec<usize> = (0..tokens.len()).filter(|&i| !chosen[i]).collect();
    for i in random.choose(count.saturating_sub(kinds), others.len()) {
        chosen[others[i]] = true;
    }
    (0..tokens.len()).filter(|&i| chosen[i]).collect()
}
