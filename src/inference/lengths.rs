//! The lengths that programs are compiled for.

/// Lengths to which sequences are padded, so that a few programs serve sequences of any length.
///
/// Up to 128 tokens they are multiples of 16, the default step, above of an eighth of the power of
/// two below: 144, 160, ..., 256, 288, ... At most an eighth of a long row is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// All lengths are multiples of it.
    pub step: usize,
}

impl Default for Lengths {
    fn default() -> Lengths {
        Lengths { step: 16 }
    }
}

impl Lengths {
    /// The length for a sequence of `tokens` tokens, `</s>` included.
    pub fn of(self, tokens: usize) -> usize {
        let tokens = tokens.max(1);
        let step = (tokens.next_power_of_two() / 16).max(self.step);
        tokens.next_multiple_of(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_holds_the_sequence_and_little_more() {
        let lengths = Lengths::default();
        for tokens in 1..5000 {
            let length = lengths.of(tokens);
            assert!(length >= tokens);
            assert!(
                length - tokens < (tokens / 8).max(16),
                "{tokens} in {length}"
            );
            assert_eq!(lengths.of(length), length);
        }
        let distinct: std::collections::BTreeSet<_> = (1..=2048).map(|n| lengths.of(n)).collect();
        assert_eq!(distinct.len(), 40);
    }
}
