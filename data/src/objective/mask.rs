//! Which residues are hidden.

use super::{Count, Kind, Objective, Selection, Touching};
use crate::random::Stream;

/// Neighbouring residues behind one sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub length: usize,
}

impl Span {
    pub fn end(&self) -> usize {
        self.start + self.length
    }
}

/// `rate * count`, halves rounded up.
pub(super) fn rounded(rate: f64, count: usize) -> usize {
    // Rates lie in 0..1 and counts far below 2^52, so the product is exact enough and fits.
    (rate * count as f64 + 0.5).floor() as usize
}

/// How many spans of a mean length hide so many residues.
pub(super) fn segment_count(masked: usize, mean_span: f64) -> usize {
    rounded(1.0 / mean_span, masked).max(1).min(masked)
}

impl Objective {
    /// The spans to hide in a sequence, ascending and not overlapping. `places` is for work in
    /// between.
    pub(super) fn spans(
        &self,
        tokens: &[u8],
        random: &mut Stream,
        places: &mut Vec<usize>,
        spans: &mut Vec<Span>,
    ) {
        spans.clear();
        match self.kind {
            Kind::Completion => {}
            Kind::SpanCorruption => self.segments(tokens.len(), random, spans),
            _ => {
                self.grams(tokens, random, places, spans);
                match self.touching {
                    Touching::Separate => {}
                    Touching::Merged => merge(spans),
                }
            }
        }
    }

    /// Spans of `ngram` residues. Placing `m` spans of length `g` on `n` residues without overlap is
    /// choosing `m` of `n - m (g - 1)` places, so every placement is equally likely.
    fn grams(
        &self,
        tokens: &[u8],
        random: &mut Stream,
        places: &mut Vec<usize>,
        spans: &mut Vec<Span>,
    ) {
        let (n, g) = (tokens.len(), self.ngram.max(1));
        let count = self.draw_count(n, g, random);
        match self.selection {
            Selection::Uniform => random.choose_into(count, n - count * (g - 1), places),
            Selection::EachDistinct => *places = each_distinct(tokens, count, random),
        };
        let span = |(before, &place): (usize, &usize)| Span {
            start: place + before * (g - 1),
            length: g,
        };
        spans.extend(places.iter().enumerate().map(span));
    }

    /// How many spans of `g` residues to hide among `n`.
    fn draw_count(&self, n: usize, g: usize, random: &mut Stream) -> usize {
        match self.count {
            Count::Exact => rounded(self.masking_rate / g as f64, n).min(n / g),
            Count::Bernoulli => (0..n / g)
                .filter(|_| random.unit() < self.masking_rate)
                .count(),
        }
    }

    /// T5's spans: the masked and the unmasked residues are each cut into as many non-empty pieces
    /// as there are spans, and the pieces alternate, an unmasked one first.
    fn segments(&self, n: usize, random: &mut Stream, spans: &mut Vec<Span>) {
        let masked = self.draw_count(n, 1, random).min(n.saturating_sub(1));
        let count = segment_count(masked, self.mean_span).min(n - masked);
        let hidden = pieces(masked, count, random);
        let shown = pieces(n - masked, count, random);
        let mut start = 0;
        for (shown, length) in shown.into_iter().zip(hidden) {
            start += shown;
            spans.push(Span { start, length });
            start += length;
        }
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
