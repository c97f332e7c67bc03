//! The order rows are seen in: a keyed permutation per epoch, computed at any place in O(1).
//!
//! There is no shuffle buffer and no state. Example `i` of a run lies in epoch `i / rows`, and its
//! row is that epoch's permutation at `i % rows`. The argument that this is a bijection, close to
//! uniform and the same on any number of hosts is in `docs/design/data-order.md`.

use crate::random::Key;

const ROUNDS: u64 = 8;
/// The Feistel network's domain is never smaller than this, so that tiny data sets too have many
/// different orders.
const SMALLEST_DOMAIN_BITS: u32 = 8;

/// A keyed bijection of `0..rows` onto itself.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    rows: u64,
    key: Key,
    high_bits: u32,
    low_bits: u32,
}

impl Permutation {
    /// The permutation of `0..rows` named by a key.
    pub fn new(rows: u64, key: Key) -> Self {
        let bits = (u64::BITS - rows.saturating_sub(1).leading_zeros()).max(SMALLEST_DOMAIN_BITS);
        Permutation {
            rows,
            key,
            high_bits: bits - bits / 2,
            low_bits: bits / 2,
        }
    }

    /// Where `place` goes. Places at or beyond the number of rows are left where they are.
    pub fn at(&self, place: u64) -> u64 {
        if place >= self.rows {
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
        for round in 0..ROUNDS {
            let key = self.key.with(round);
            if round % 2 == 0 {
                high ^= key.at(low) & high_mask;
            } else {
                low ^= key.at(high) & low_mask;
            }
        }
        high << self.low_bits | low
    }
}

/// Where one example of a run comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How often the whole data set was seen before this example.
    pub epoch: u64,
    /// Its index in the data set.
    pub index: u64,
}

/// The order of a whole run over `rows` examples.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Every epoch in an order of its own.
    Shuffled { rows: u64, key: Key },
    /// Once, as stored.
    Stored { rows: u64 },
}

impl Order {
    /// The first `count` examples of the run from `first` on. A stored order ends with the data.
    pub(crate) fn places(&self, first: u128, count: usize) -> Vec<Place> {
        let run = first..first.saturating_add(count as u128);
        match *self {
            Order::Stored { rows } => run
                .take_while(|&i| i < u128::from(rows))
                .map(|i| Place {
                    epoch: 0,
                    index: i as u64, // below rows
                })
                .collect(),
            Order::Shuffled { rows: 0, .. } => Vec::new(),
            Order::Shuffled { rows, key } => {
                let mut permutation: Option<(u64, Permutation)> = None;
                run.map(|i| {
                    // Runs of 2^64 epochs are out of reach; the remainder is below rows.
                    let epoch = (i / u128::from(rows)) as u64;
                    let index = (i % u128::from(rows)) as u64;
                    let order = match permutation {
                        Some((of, order)) if of == epoch => order,
                        _ => Permutation::new(rows, key.with(epoch)),
                    };
                    permutation = Some((epoch, order));
                    Place {
                        epoch,
                        index: order.at(index),
                    }
                })
                .collect()
            }
        }
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

        #[test]
        fn places_do_not_depend_on_where_one_starts(
            rows in 1u64..50, seed: u64, first in 0u128..500, count in 0usize..60
        ) {
            let order = Order::Shuffled { rows, key: Key::new(seed) };
            let all = order.places(0, first as usize + count);
            prop_assert_eq!(order.places(first, count), &all[first as usize..]);
        }
    }

    /// Where row 0 lands, over 24,000 keys and 24 rows: 23 degrees of freedom, 99.99th percentile
    /// about 57. Likewise for the distance between two neighbours.
    #[test]
    fn places_and_neighbours_are_uniform() {
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

    #[test]
    fn epochs_differ() {
        let order = Order::Shuffled {
            rows: 100,
            key: Key::new(1),
        };
        let all = order.places(0, 200);
        let rows = |places: &[Place]| places.iter().map(|p| p.index).collect::<Vec<_>>();
        assert_ne!(rows(&all[..100]), rows(&all[100..]));
        assert!(all[..100].iter().all(|p| p.epoch == 0));
        assert!(all[100..].iter().all(|p| p.epoch == 1));
    }
}
