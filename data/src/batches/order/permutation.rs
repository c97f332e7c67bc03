//! A keyed permutation, computed at any place in O(1).

use crate::random::Key;

const ROUNDS: usize = 8;
/// The Feistel network's domain is never smaller than this, so that tiny data sets too have many
/// different orders.
const SMALLEST_DOMAIN_BITS: u32 = 8;

/// A keyed bijection of `0..rows` onto itself.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    rows: u64,
    /// One a round.
    keys: [Key; ROUNDS],
    high_bits: u32,
    low_bits: u32,
}

impl Permutation {
    /// The permutation of `0..rows` named by a key.
    pub fn new(rows: u64, key: Key) -> Self {
        let bits = (u64::BITS - rows.saturating_sub(1).leading_zeros()).max(SMALLEST_DOMAIN_BITS);
        Permutation {
            rows,
            keys: std::array::from_fn(|round| key.with(round as u64)),
            high_bits: bits - bits / 2,
            low_bits: bits / 2,
        }
    }

    /// Where `place` goes. Places at or beyond the number of rows are left where they are.
    pub fn at(&self, place: u64) -> u64 {
        if place >= self.rows || self.rows == 1 {
            return place;
        }
        // The network permutes 0..2^bits, so walking on from a value outside 0..rows comes back
        // inside after finitely many steps: at worst it returns to `place` itself.
        let mut value = self.network(place);
        while value >= self.rows {
            value = self.network(value);
        }
        value
    }

    /// An alternating Feistel network on `high_bits + low_bits` bits: each round XORs one half with
    /// a function of the other, which the same XOR undoes.
    fn network(&self, value: u64) -> u64 {
        // Each half has at most 32 bits, so the shifts are defined.
        let (high_mask, low_mask) = ((1u64 << self.high_bits) - 1, (1u64 << self.low_bits) - 1);
        let (mut high, mut low) = (value >> self.low_bits, value & low_mask);
        for (round, key) in self.keys.iter().enumerate() {
            if round % 2 == 0 {
                high ^= key.at(low) & high_mask;
            } else {
                low ^= key.at(high) & low_mask;
            }
        }
        high << self.low_bits | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_permutation_is_a_bijection(rows in 1u64..5000, seed: u64, epoch in 0u64..100) {
            let permutation = Permutation::new(rows, Key::new(seed).with(epoch));
            let mut seen = vec![false; rows as usize];
            for place in 0..rows {
                let row = permutation.at(place) as usize;
                prop_assert!(row < seen.len());
                prop_assert!(!seen[row], "row {row} comes twice");
                seen[row] = true;
            }
        }

        #[test]
        fn large_domains_stay_inside(rows in 1u64.., place: u64, seed: u64) {
            let place = place % rows;
            prop_assert!(Permutation::new(rows, Key::new(seed)).at(place) < rows);
        }
    }

    /// Where row 0 lands, over 24,000 keys and 24 rows: 23 degrees of freedom, 99.99th percentile
    /// about 57. Likewise for the distance between two neighbors.
    #[test]
    fn places_and_neighbors_are_uniform() {
        let rows = 24u64;
        let keys = 1000 * rows;
        let mut first = [0u32; 24];
        let mut distance = [0u32; 24];
        for seed in 0..keys {
            let permutation = Permutation::new(rows, Key::new(seed));
            let (a, b) = (permutation.at(0), permutation.at(1));
            first[a as usize] += 1;
            distance[((b + rows - a) % rows) as usize] += 1;
        }
        assert_eq!(distance[0], 0);
        let chi_square = |counts: &[u32]| -> f64 {
            let expected = keys as f64 / counts.len() as f64;
            let term = |&c: &u32| (f64::from(c) - expected).powi(2) / expected;
            counts.iter().map(term).sum()
        };
        assert!(chi_square(&first) < 57.0, "{first:?}");
        assert!(chi_square(&distance[1..]) < 57.0, "{distance:?}");
    }
}
