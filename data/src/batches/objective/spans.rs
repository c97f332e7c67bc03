//! Spans of residues behind sentinels: how many there can be, and what input and target say of
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Example, Masking};
use crate::error::{Error, Result, Setting};
use crate::random::Stream;
use crate::tokenizer::{Tokenizer, UNK};

/// Whether the share of masked residues is met exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// `round(rate * n)` residues of every sequence, halves rounded up.
    #[default]
    Exact,
    /// Every residue with probability `rate`.
    Bernoulli,
}

/// How the target names what is not spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetFormat {
    /// Masked residues literally, each unmasked run as the next sentinel: T5's own function.
    #[default]
    Runs,
    /// Each masked span behind its own sentinel: `<0> C <1> G`.
    Pairs,
}

/// Neighboring residues behind one sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub length: usize,
}

impl Span {
    pub fn end(&self) -> usize {
        self.start + self.length
    }
}

/// What a target says of a sequence whose spans are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The hidden residues, and something of the others.
    Format(TargetFormat),
    /// The hidden residues alone.
    Hidden,
    /// All residues.
    Whole,
}

/// How spans are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hiding {
    /// The most spans that the sentinels can name.
    pub most: usize,
    pub target: Target,
    /// Whether spans that touch become one.
    pub merged: bool,
}

impl Hiding {
    pub fn new(tokenizer: Tokenizer, target: Target, merged: bool) -> Hiding {
        let sentinels = tokenizer.sentinels();
        let most = match target {
            // One for each unmasked run, and `k` spans leave up to `k + 1` of those.
            Target::Format(TargetFormat::Runs) => sentinels - 1,
            _ => sentinels,
        };
        Hiding {
            most,
            target,
            merged,
        }
    }

    /// Hides the spans of `masking` in a sequence: a random choice of them where there are too
    /// many.
    pub fn hide(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        random: &mut Stream,
        masking: &mut Masking,
    ) {
        let Masking {
            example,
            spans,
            places,
        } = masking;
        let chosen: usize = spans.iter().map(|span| span.length).sum();
        if spans.len() > self.most {
            random.choose_into(self.most, spans.len(), places);
            for (to, &from) in places.iter().enumerate() {
                // Chosen in ascending order, so nothing is overwritten before it was moved.
                spans[to] = spans[from];
            }
            spans.truncate(self.most);
        }
        self.write(tokenizer, tokens, spans, chosen, example);
    }

    /// Hides single residues: positions ascending, each on its own.
    pub fn at(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        positions: &[usize],
        example: &mut Example,
    ) {
        let mut spans: Vec<Span> = positions
            .iter()
            .filter(|&&start| start < tokens.len())
            .map(|&start| Span { start, length: 1 })
            .collect();
        spans.dedup();
        if self.merged {
            merge(&mut spans);
        }
        let chosen: usize = spans.iter().map(|span| span.length).sum();
        spans.truncate(self.most);
        self.write(tokenizer, tokens, &spans, chosen, example);
    }

    /// Hides those of the chosen residues that the spans hold.
    fn write(
        &self,
        tokenizer: Tokenizer,
        tokens: &[u8],
        spans: &[Span],
        chosen: usize,
        example: &mut Example,
    ) {
        // There are no more spans than `most`, so every sentinel asked for below exists.
        let sentinel = |i| tokenizer.sentinel(i).unwrap_or(UNK);
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
            match self.target {
                Target::Format(TargetFormat::Pairs) => target.push(sentinel(i)),
                Target::Format(TargetFormat::Runs) if span.start > end => {
                    target.push(sentinel(runs));
                    runs += 1;
                }
                _ => {}
            }
            target.extend_from_slice(literal);
            end = span.end();
        }
        input.extend_from_slice(&tokens[end..]);
        match self.target {
            Target::Format(TargetFormat::Runs) if end < tokens.len() => target.push(sentinel(runs)),
            Target::Whole => {
                target.clear();
                target.extend_from_slice(tokens);
            }
            _ => {}
        }
        example.masked = masked;
        example.unmasked_for_lack_of_sentinels = chosen - masked;
    }

    /// The longest target where `masked` of so many residues are hidden in `spans` spans.
    pub fn target_tokens(&self, residues: usize, masked: usize, spans: usize) -> usize {
        // Spans that do not touch have an unmasked residue between them.
        let apart = residues - masked;
        match self.target {
            Target::Whole => residues,
            Target::Hidden => masked,
            Target::Format(TargetFormat::Runs) => masked + (spans + 1).min(apart),
            Target::Format(TargetFormat::Pairs) if self.merged => masked + spans.min(apart + 1),
            Target::Format(TargetFormat::Pairs) => masked + spans,
        }
    }
}

/// Touching spans become one.
pub(super) fn merge(spans: &mut Vec<Span>) {
    spans.dedup_by(|next, last| {
        let touch = last.end() == next.start;
        if touch {
            last.length += next.length;
        }
        touch
    });
}

/// `rate * count`, halves rounded up.
pub(super) fn rounded(rate: f64, count: usize) -> usize {
    // Rates lie in 0..1 and counts far below 2^52, so the product is exact enough and fits.
    (rate * count as f64 + 0.5).floor() as usize
}

/// How many spans of `length` residues to hide among `n`.
pub(super) fn draw_count(
    count: Count,
    rate: f64,
    n: usize,
    length: usize,
    random: &mut Stream,
) -> usize {
    match count {
        Count::Exact => rounded(rate / length as f64, n).min(n / length),
        Count::Bernoulli => (0..n / length).filter(|_| random.unit() < rate).count(),
    }
}

/// How many of `n` residues are hidden where each span of `length` is with probability `rate`: few
/// draws, one in 30,000, give more.
pub(super) fn usual_count(rate: f64, n: usize, length: usize) -> usize {
    let mean = (n / length) as f64 * rate;
    // Four standard deviations of a binomial above its mean.
    let most = mean + 4.0 * (mean * (1.0 - rate)).sqrt();
    most.ceil() as usize * length
}

/// Mean and variance of the number of runs of `unmasked` residues where `spans` spans stand among
/// them at uniformly random places: the runs of one kind in a random order of two (Stevens 1939).
pub(super) fn unmasked_runs(spans: usize, unmasked: usize) -> (f64, f64) {
    let (m, u) = (spans as f64, unmasked as f64);
    let n = m + u;
    if n < 2.0 {
        return (u, 0.0);
    }
    let mean = u * (m + 1.0) / n;
    let variance = u * (u - 1.0) * m * (m + 1.0) / (n * n * (n - 1.0));
    (mean, variance.max(0.0))
}

/// Checks a share of residues to mask.
pub(super) fn check_rate(rate: f64) -> Result<()> {
    match rate > 0.0 && rate < 1.0 {
        true => Ok(()),
        false => {
            let reason = format!("must lie between 0 and 1, but is {rate}");
            Err(Error::setting(Setting::Objective("masking_rate"), reason))
        }
    }
}
