//! What the model is asked: from a sequence to an encoder input and a decoder target.
//!
//! An [`Objective`] is a set of independent switches. Which residues are hidden is decided first, as
//! a list of spans that each get one sentinel; then the input and the target are
//! written from the sequence and that list. Both are functions of the sequence and a [`Key`]; the
//! objective knows nothing of rows, files or batches. [`Objective::unmask`] is the inverse.
//!
//! The default is Ankh's "1-gram span partial demasking" at 20 %. What is known of it, and how the
//! open questions are answered, is in `docs/design/masking.md`.

mod lengths;
mod mask;
mod unmask;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Key;
use crate::tokenizer::{EOS, Task, Tokenizer};
pub(crate) use mask::Span;

/// What the target says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The masked residues in full, the rest as [`TargetFormat`] says: Ankh.
    #[default]
    PartialDemasking,
    /// Only the masked residues, one after the other, without sentinels.
    MaskedOnly,
    /// The whole sequence: ProtT5, and experiment 0.
    FullReconstruction,
    /// T5's span corruption: random spans of a mean length, each behind one sentinel.
    SpanCorruption,
    /// No masks: the first half is the input, the second half the target (Ankh3's `[S2S]`).
    Completion,
}

/// Whether the share of masked residues is met exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// `round(rate * n)` residues of every sequence, halves rounded up.
    #[default]
    Exact,
    /// Every residue with probability `rate`.
    Bernoulli,
}

/// Which residues are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Touching {
    /// Each keeps its own sentinel.
    #[default]
    Separate,
    /// They share one (experiment 6).
    Merged,
}

/// How the target names what is not spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetFormat {
    /// Masked residues literally, each unmasked run as the next sentinel: T5's own function.
    #[default]
    Runs,
    /// Each masked span behind its own sentinel: `<0> C <1> G`.
    Pairs,
}

/// The pre-training objective: the `[objective]` table of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    /// What the target says.
    pub kind: Kind,
    /// The share of residues that are masked, between 0 and 1.
    pub masking_rate: f64,
    /// Whether that share is met exactly.
    pub count: Count,
    /// Which residues are masked.
    pub selection: Selection,
    /// How many neighbouring residues a mask hides. Spans do not overlap.
    pub ngram: usize,
    /// What becomes of masks that touch.
    pub touching: Touching,
    /// The mean length of a span, for [`Kind::SpanCorruption`].
    pub mean_span: f64,
    /// How the target names what is not spelled out.
    pub target_format: TargetFormat,
    /// A mark in front of the input; only Ankh3's vocabulary has them.
    pub task: Option<Task>,
}

impl Default for Objective {
    fn default() -> Self {
        Objective {
            kind: Kind::PartialDemasking,
            masking_rate: 0.2,
            count: Count::Exact,
            selection: Selection::Uniform,
            ngram: 1,
            touching: Touching::Separate,
            mean_span: 3.0,
            target_format: TargetFormat::Runs,
            task: None,
        }
    }
}

/// One sequence as the model sees it. Both ends carry `</s>`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Example {
    /// The encoder's tokens.
    pub input: Vec<u8>,
    /// The decoder's tokens.
    pub target: Vec<u8>,
    /// How many residues are masked.
    pub masked: usize,
    /// How many residues were chosen but left unmasked because the sentinels had run out.
    pub unmasked_for_lack_of_sentinels: usize,
}

/// An example and the lists it was made with, to be used again for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masking {
    pub example: Example,
    spans: Vec<Span>,
    places: Vec<usize>,
}

impl Objective {
    /// Checks the switches one by one and together.
    pub fn validate(&self) -> Result<()> {
        let unused = |name, value: String| {
            let reason = format!("is {value}, which has no effect on this objective.kind");
            Err(Error::setting(name, reason))
        };
        if !(self.masking_rate > 0.0 && self.masking_rate < 1.0) {
            let reason = format!("must lie between 0 and 1, but is {}", self.masking_rate);
            return Err(Error::setting("objective.masking_rate", reason));
        }
        if self.ngram == 0 {
            return Err(Error::setting("objective.ngram", "must be at least 1"));
        }
        if !(self.mean_span >= 1.0 && self.mean_span.is_finite()) {
            let reason = format!("must be at least 1, but is {}", self.mean_span);
            return Err(Error::setting("objective.mean_span", reason));
        }
        if self.selection == Selection::EachDistinct && self.ngram != 1 {
            let reason = format!(
                "each_distinct needs objective.ngram = 1, not {}",
                self.ngram
            );
            return Err(Error::setting("objective.selection", reason));
        }
        let own_spans = matches!(self.kind, Kind::SpanCorruption | Kind::Completion);
        if own_spans && self.ngram != 1 {
            return unused("objective.ngram", self.ngram.to_string());
        }
        if own_spans && self.selection != Selection::Uniform {
            return unused("objective.selection", "each_distinct".into());
        }
        if own_spans && self.touching != Touching::Separate {
            return unused("objective.touching", "merged".into());
        }
        Ok(())
    }

    /// Checks the switches, and that a vocabulary has the tokens they need.
    pub fn validate_for(&self, tokenizer: Tokenizer) -> Result<()> {
        self.validate()?;
        match self.task {
            Some(task) if tokenizer.task(task).is_none() => Err(Error::setting(
                "objective.task",
                format!(
                    "needs a vocabulary with task marks, which {} lacks",
                    tokenizer.vocabulary()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The example made of a sequence, without `</s>` or task mark, under a key.
    pub fn apply(&self, tokenizer: Tokenizer, tokens: &[u8], key: Key) -> Example {
        let mut masking = Masking::default();
        self.apply_with(tokenizer, tokens, key, &mut masking);
        masking.example
    }

    /// [`Objective::apply`], with the lists of an earlier example; the example is left in `masking`.
    pub(crate) fn apply_with(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        key: Key,
        masking: &mut Masking,
    ) {
        let Masking {
            example,
            spans,
            places,
        } = masking;
        if self.kind == Kind::Completion {
            let (first, second) = tokens.split_at(tokens.len().div_ceil(2));
            self.begin(tokenizer, example);
            example.input.extend_from_slice(first);
            example.target.extend_from_slice(second);
            return example.end(0, 0);
        }
        let mut random = key.stream();
        self.spans(tokens, &mut random, places, spans);
        let chosen: usize = spans.iter().map(|span| span.length).sum();
        let most = self.most_spans(tokenizer);
        if spans.len() > most {
            random.choose_into(most, spans.len(), places);
            for (to, &from) in places.iter().enumerate() {
                // Chosen in ascending order, so nothing is overwritten before it was moved.
                spans[to] = spans[from];
            }
            spans.truncate(most);
        }
        self.with_spans(tokenizer, tokens, spans, chosen, example);
    }

    /// The example with exactly these residues masked: positions ascending, each masked on its own.
    /// Positions outside the sequence are ignored, and so are those the sentinels do not reach.
    pub fn apply_at(&self, tokenizer: Tokenizer, tokens: &[u8], positions: &[usize]) -> Example {
        let mut spans: Vec<Span> = positions
            .iter()
            .filter(|&&start| start < tokens.len())
            .map(|&start| Span { start, length: 1 })
            .collect();
        spans.dedup();
        if self.touching == Touching::Merged {
            mask::merge(&mut spans);
        }
        let chosen: usize = spans.iter().map(|span| span.length).sum();
        spans.truncate(self.most_spans(tokenizer));
        let mut example = Example::default();
        self.with_spans(tokenizer, tokens, &spans, chosen, &mut example);
        example
    }

    /// How many spans the sentinels can name. In [`TargetFormat::Runs`] a target has one sentinel
    /// for each unmasked run, and `k` spans leave up to `k + 1` of those.
    fn most_spans(&self, tokenizer: Tokenizer) -> usize {
        let sentinels = tokenizer.sentinels();
        match (self.kind, self.target_format) {
            (Kind::PartialDemasking | Kind::SpanCorruption, TargetFormat::Runs) => sentinels - 1,
            _ => sentinels,
        }
    }

    /// Hides those of the chosen residues that the spans hold.
    fn with_spans(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        spans: &[Span],
        chosen: usize,
        example: &mut Example,
    ) {
        // Never more spans than most_spans, so every sentinel asked for below exists.
        let sentinel = |i| tokenizer.sentinel(i).unwrap_or(crate::tokenizer::UNK);
        self.begin(tokenizer, example);
        let Example { input, target, .. } = example;
        let masked = spans.iter().map(|span| span.length).sum();
        input.reserve(tokens.len() + 1);
        target.reserve(masked + spans.len() + 2);
        let mut runs = 0;
        let mut end = 0;
        for (i, span) in spans.iter().enumerate() {
            let literal = &tokens[span.start..span.end()];
            input.extend_from_slice(&tokens[end..span.start]);
            input.push(sentinel(i));
            match (self.kind, self.target_format) {
                (Kind::MaskedOnly, _) => {}
                (_, TargetFormat::Pairs) => target.push(sentinel(i)),
                (_, TargetFormat::Runs) if span.start > end => {
                    target.push(sentinel(runs));
                    runs += 1;
                }
                (_, TargetFormat::Runs) => {}
            }
            target.extend_from_slice(literal);
            end = span.end();
        }
        input.extend_from_slice(&tokens[end..]);
        let runs_format = self.target_format == TargetFormat::Runs && self.kind != Kind::MaskedOnly;
        if runs_format && end < tokens.len() {
            target.push(sentinel(runs));
        }
        if self.kind == Kind::FullReconstruction {
            target.clear();
            target.extend_from_slice(tokens);
        }
        example.end(masked, chosen - masked);
    }

    /// Empties an example but for the task mark.
    fn begin(&self, tokenizer: Tokenizer, example: &mut Example) {
        example.input.clear();
        example.target.clear();
        let mark = self.task.and_then(|task| tokenizer.task(task));
        example.input.extend(mark);
    }
}

impl Example {
    fn end(&mut self, masked: usize, dropped: usize) {
        self.input.push(EOS);
        self.target.push(EOS);
        self.masked = masked;
        self.unmasked_for_lack_of_sentinels = dropped;
    }
}
