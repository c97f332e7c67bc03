//! What a sequence of some length needs of input and target, whatever its residues and masks.

use super::{Count, Kind, Objective, Selection, TargetFormat, Touching, mask};
use crate::tokenizer::Tokenizer;

impl Objective {
    /// How many residues of a sequence fit, given the lengths of input and target in tokens.
    /// Masking can only shorten the input, so this is what fits unmasked.
    pub fn window(&self, input_length: usize, target_length: usize) -> usize {
        let input = input_length.saturating_sub(1 + usize::from(self.task.is_some()));
        match self.kind {
            // The first half may be longer by one.
            Kind::Completion => {
                let target = target_length.saturating_sub(1);
                (2 * input).min(2 * target + 1)
            }
            _ => input,
        }
    }

    /// The longest input, task mark and `</s>` included, that a sequence of so many residues can have.
    pub fn input_tokens(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let most = self.most_spans(tokenizer);
        let shown = match (self.kind, self.count) {
            (Kind::Completion, _) => residues.div_ceil(2),
            // No mask may happen to be drawn.
            (_, Count::Bernoulli) => residues,
            (Kind::SpanCorruption, Count::Exact) => {
                let masked = mask::rounded(self.masking_rate, residues);
                let masked = masked.min(residues.saturating_sub(1));
                let spans = mask::segment_count(masked, self.mean_span).min(residues - masked);
                match spans <= most {
                    true => residues - masked + spans,
                    // Those that are left out may be the long ones.
                    false => residues,
                }
            }
            // A mask hides `ngram` residues behind one sentinel; those that touch share it at most.
            (_, Count::Exact) => {
                let masks = mask::rounded(self.masking_rate / self.ngram as f64, residues);
                let masks = masks.min(residues / self.ngram).min(most);
                residues - masks * (self.ngram - 1)
            }
        };
        shown + 1 + usize::from(self.task.is_some())
    }

    /// The longest target, `</s>` included, that a sequence of so many residues can have. With
    /// [`Count::Bernoulli`] this is the worst case the sentinels allow.
    pub fn longest_target(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        let chosen = match self.count {
            Count::Bernoulli => residues,
            Count::Exact => {
                mask::rounded(self.masking_rate / self.ngram as f64, residues) * self.ngram
            }
        };
        let short_spans = self.count == Count::Bernoulli;
        self.target_tokens(tokenizer, residues, chosen, short_spans)
    }

    /// The tokens to keep for the target of a sequence of so many residues: the longest it can have,
    /// or, where the number of masks is drawn, one that few are longer than (one in 30,000).
    pub fn target_allotment(&self, tokenizer: Tokenizer, residues: usize) -> usize {
        match self.count {
            Count::Exact => self.longest_target(tokenizer, residues),
            Count::Bernoulli => {
                let places = (residues / self.ngram) as f64;
                let (mean, rate) = (places * self.masking_rate, self.masking_rate);
                // Four standard deviations of a binomial above its mean.
                let most = mean + 4.0 * (mean * (1.0 - rate)).sqrt();
                let chosen = most.ceil() as usize * self.ngram;
                self.target_tokens(tokenizer, residues, chosen, false)
            }
        }
    }

    /// The longest target where so many residues are chosen, in spans as short as can be or of the
    /// mean length.
    fn target_tokens(
        &self,
        tokenizer: Tokenizer,
        residues: usize,
        chosen: usize,
        short_spans: bool,
    ) -> usize {
        let chosen = match self.selection {
            Selection::Uniform => chosen,
            Selection::EachDistinct => chosen.max(tokenizer.residues()),
        }
        .min(residues);
        let most = self.most_spans(tokenizer);
        let merged = self.touching == Touching::Merged;
        let (masked, spans) = match self.kind {
            Kind::SpanCorruption if !short_spans => (
                chosen,
                mask::segment_count(chosen, self.mean_span).min(most),
            ),
            Kind::SpanCorruption => (chosen, chosen.min(most)),
            _ if merged => (chosen, chosen.min(most)),
            _ => {
                let spans = chosen.div_ceil(self.ngram).min(most);
                (chosen.min(spans * self.ngram), spans)
            }
        };
        // Spans that do not touch have an unmasked residue between them.
        let apart = residues - masked;
        1 + match (self.kind, self.target_format) {
            (Kind::FullReconstruction, _) => residues,
            (Kind::Completion, _) => residues / 2,
            (Kind::MaskedOnly, _) => masked,
            (_, TargetFormat::Runs) => masked + (spans + 1).min(apart),
            (_, TargetFormat::Pairs) if merged => masked + spans.min(apart + 1),
            (_, TargetFormat::Pairs) => masked + spans,
        }
    }
}
