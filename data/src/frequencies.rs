//! The unigram baseline: the loss of predicting token frequencies alone, which training should
//! beat.

/// How often each token was the one to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFrequencies {
    counts: Vec<u64>,
    total: u64,
}

impl TokenFrequencies {
    /// No tokens yet.
    pub fn new(vocabulary_size: usize) -> Self {
        TokenFrequencies {
            counts: vec![0; vocabulary_size],
            total: 0,
        }
    }

    /// Counts labels; negative ones (ignored positions) and ids outside the vocabulary do not
    /// count.
    pub fn add<'a>(&mut self, labels: impl IntoIterator<Item = &'a i32>) {
        for &label in labels {
            let count = usize::try_from(label).ok();
            if let Some(count) = count.and_then(|id| self.counts.get_mut(id)) {
                *count += 1;
                self.total += 1;
            }
        }
    }

    /// Labels counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The entropy of the counted labels, in nats; 0 without any.
    pub fn entropy(&self) -> f64 {
        let total = self.total as f64;
        let counts = self.counts.iter().filter(|&&count| count > 0);
        let entropy: f64 = counts
            .map(|&count| count as f64 / total)
            .map(|p| p * p.ln())
            .sum();
        // -0.0 reads badly in a log.
        0.0 - entropy
    }

    /// The mean cross-entropy, in nats, of predicting each of `held_out`'s labels by how often this
    /// one's contain it, each count raised by one. Nothing if there is no label to predict.
    pub fn cross_entropy(&self, held_out: &TokenFrequencies) -> Option<f64> {
        let tokens = (self.total + self.counts.len() as u64) as f64;
        let cost = held_out.counts.iter().enumerate().map(|(id, &times)| {
            let seen = self.counts.get(id).copied().unwrap_or(0);
            -((seen + 1) as f64 / tokens).ln() * times as f64
        });
        let cost: f64 = cost.sum();
        (held_out.total > 0).then(|| cost / held_out.total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(labels: &[i32]) -> TokenFrequencies {
        let mut frequencies = TokenFrequencies::new(4);
        frequencies.add(labels);
        frequencies
    }

    #[test]
    fn entropy_is_that_of_the_shares() {
        assert_eq!(counted(&[]).entropy(), 0.0);
        assert_eq!(counted(&[2, 2, -100]).entropy(), 0.0);
        let even = counted(&[0, 1, 2, 3, -100, 7]);
        assert!((even.entropy() - 4f64.ln()).abs() < 1e-12);
        assert_eq!(even.total(), 4);
    }

    #[test]
    fn cross_entropy_adds_one_to_each_count() {
        let train = counted(&[0, 0, 1]);
        // Counts 3, 2, 1, 1 of 7.
        let expected = -((3f64 / 7.0).ln() + (1f64 / 7.0).ln()) / 2.0;
        let found = train.cross_entropy(&counted(&[0, 3])).unwrap();
        assert!((found - expected).abs() < 1e-12);
        assert_eq!(train.cross_entropy(&counted(&[-100])), None);
    }
}
