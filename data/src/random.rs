//! Counter-based random numbers, keyed as in JAX.
//!
//! A [`Key`] is derived from seed, stream, epoch, row and so on, and its [`Stream`] counts from
//! zero. Nothing is carried from one row to the next, so any row can be drawn on any thread of any
//! host. The mixing function is the 64-bit finalizer of SplitMix64, which passes the usual
//! statistical batteries and takes a few nanoseconds. It is written out here, rather than taken
//! from a crate, because its values are part of the contract: a data order must not change with a
//! dependency's version. Not for secrets.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A place in the space of random streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The root of everything drawn under one seed.
    pub const fn new(seed: u64) -> Self {
        Key(mix(seed.wrapping_add(GOLDEN)))
    }

    /// A key below this one. The order of words matters: `k.with(1).with(2)` is not
    /// `k.with(2).with(1)`.
    pub const fn with(self, word: u64) -> Self {
        Key(mix(
            self.0.rotate_left(23).wrapping_add(GOLDEN) ^ mix(word.wrapping_add(GOLDEN))
        ))
    }

    /// The value at one counter: a keyed hash.
    pub const fn at(self, counter: u64) -> u64 {
        mix(self.0 ^ mix(counter.wrapping_add(GOLDEN)))
    }

    /// The values at counters 0, 1, 2, ...
    pub const fn stream(self) -> Stream {
        Stream {
            key: self,
            counter: 0,
        }
    }
}

/// The numbers of one [`Key`], in order.
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    counter: u64,
}

impl Stream {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let value = self.key.at(self.counter);
        self.counter = self.counter.wrapping_add(1);
        value
    }

    /// A number in `0..bound`, or 0 if the bound is 0. Uniform up to a bias of `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        // The product of a 64-bit number and the bound, shifted, is below the bound, so it fits.
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `count` of the numbers `0..from`, ascending; every subset of that size is equally likely.
    pub fn choose(&mut self, count: usize, from: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        self.choose_into(count, from, &mut chosen);
        chosen
    }

    /// [`Stream::choose`], into a list that is used again; what was in it is lost.
    pub(crate) fn choose_into(&mut self, count: usize, from: usize, chosen: &mut Vec<usize>) {
        let count = count.min(from);
        // One place more than are chosen: each number is written behind those chosen so far, and
        // kept by counting it. Whether it is kept cannot be guessed, so there is no branch on it.
        chosen.clear();
        chosen.resize(count + 1, 0);
        let mut kept = 0;
        let mut counter = self.counter;
        for i in 0..from {
            if kept == count {
                break;
            }
            let draw = u128::from(self.key.at(counter)) * (from - i) as u128;
            counter = counter.wrapping_add(1);
            chosen[kept] = i;
            kept += usize::from(((draw >> 64) as usize) < count - kept);
        }
        self.counter = counter;
        chosen.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are a contract: changing them changes every run's batches.
    #[test]
    fn values_never_change() {
        let key = Key::new(7).with(1).with(2);
        let values: Vec<u64> = (0..3).map(|i| key.at(i)).collect();
        assert_eq!(values, PINNED);
        assert_eq!(key.stream().choose(3, 10), PINNED_CHOICE);
    }
    const PINNED: [u64; 3] = [
        10_532_852_695_919_148_464,
        4_501_374_926_618_827_073,
        10_250_477_969_854_736_895,
    ];
    const PINNED_CHOICE: [usize; 3] = [1, 4, 8];

    #[test]
    fn keys_depend_on_the_order_of_words() {
        let key = Key::new(0);
        assert_ne!(key.with(1).with(2), key.with(2).with(1));
        assert_ne!(key, key.with(0));
    }

    /// Chi-square over the 45 pairs of ten: 44 degrees of freedom, 99.99th percentile about 86.
    #[test]
    fn every_subset_is_equally_likely() {
        let draws = 45_000u64;
        let mut counts = [[0u32; 10]; 10];
        for i in 0..draws {
            let pair = Key::new(i).stream().choose(2, 10);
            counts[pair[0]][pair[1]] += 1;
        }
        let expected = draws as f64 / 45.0;
        let mut chi_square = 0.0;
        for (a, row) in counts.iter().enumerate() {
            for &count in &row[a + 1..] {
                chi_square += (f64::from(count) - expected).powi(2) / expected;
            }
        }
        assert!(chi_square < 86.0, "chi-square {chi_square}");
    }

    #[test]
    fn bounds_hold() {
        let mut stream = Key::new(3).stream();
        assert_eq!(stream.below(0), 0);
        for bound in 1..200 {
            assert!(stream.below(bound) < bound);
            let unit = stream.unit();
            assert!((0.0..1.0).contains(&unit));
        }
        assert_eq!(stream.choose(9, 4), [0, 1, 2, 3]);
    }
}
