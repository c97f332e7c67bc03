//! Which lengths share a row: patterns for any number of sequences, from a histogram.
//!
//! What a sequence takes of a row's input and target follows from its length alone, so sequences of
//! one length are interchangeable and form a class. A *pattern* is a list of classes that fill one
//! row together, with how often it occurs; there are at most two patterns for each class, so
//! finding them takes well under a millisecond, whatever the number of sequences. Which sequence
//! takes which slot is no matter of the patterns: slots of a class are numbered, and so are its
//! sequences ([`ClassIndex`]). The argument is in `docs/design/packing.md`.

mod histograms;
mod index;
mod sizes;

pub(crate) use histograms::Histograms;
pub(crate) use index::ClassIndex;
pub(crate) use sizes::Sizes;

/// The rows that patterns fill. Every sequence of the histogram has one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    /// How many rows the patterns up to this one make.
    ends: Vec<u64>,
    /// Where each pattern's slots begin, and the end of the last one's.
    starts: Vec<u32>,
    slots: Vec<Slot>,
}

/// A place for a sequence in the rows of one pattern.
#[derive(Clone, Copy, Debug)]
struct Slot {
    class: u32,
    /// The slots of this class in one row of the pattern.
    stride: u32,
    /// The number of this slot in the first row, among all of the class.
    first: u64,
}

impl Patterns {
    /// The patterns for so many sequences of each class.
    pub(crate) fn new(sizes: &Sizes, histogram: &[u64]) -> Patterns {
        let mut patterns = Patterns::default();
        let mut numbered = vec![0; histogram.len()];
        patterns.starts.push(0);
        for_each_pattern(sizes, histogram, |pattern, rows| {
            for &(class, times) in pattern {
                let next: &mut u64 = &mut numbered[class as usize];
                patterns.slots.extend((0..times).map(|i| Slot {
                    class,
                    stride: times,
                    first: *next + u64::from(i),
                }));
                *next += u64::from(times) * rows;
            }
            patterns.ends.push(patterns.rows() + rows);
            // Patterns times the slots of a row, each at most some thousands.
            patterns.starts.push(patterns.slots.len() as u32);
        });
        patterns
    }

    /// How many rows the patterns for a histogram fill.
    pub(crate) fn count(sizes: &Sizes, histogram: &[u64]) -> u64 {
        let mut total = 0;
        for_each_pattern(sizes, histogram, |_, rows| total += rows);
        total
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The sequences of a row, each as its class and its number among those of the class. Nothing
    /// beyond the last row.
    pub(crate) fn row(&self, row: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
        let pattern = self.ends.partition_point(|&end| end <= row);
        let before = pattern.checked_sub(1).map_or(0, |before| self.ends[before]);
        let slots = match self.starts.get(pattern..=pattern + 1) {
            Some(&[start, end]) => &self.slots[start as usize..end as usize],
            _ => &[],
        };
        slots.iter().map(move |slot| {
            let number = slot.first + (row - before) * u64::from(slot.stride);
            (slot.class as usize, number)
        })
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.ends.capacity() * size_of::<u64>()
            + self.starts.capacity() * size_of::<u32>()
            + self.slots.capacity() * size_of::<Slot>()
    }
}

/// Fills rows longest first: the largest class that is left, then, as long as one fits, the largest
/// that fits beside it; and the same again for as many rows as the classes last. `visit` gets the
/// classes of a row, each with how often it occurs there, and the number of such rows.
fn for_each_pattern(sizes: &Sizes, histogram: &[u64], mut visit: impl FnMut(&[(u32, u32)], u64)) {
    let mut left = Remaining::new(sizes, histogram);
    // (rank, times), and the same by class.
    let mut pattern: Vec<(usize, u64)> = Vec::new();
    let mut named = Vec::new();
    loop {
        pattern.clear();
        let (mut input, mut target) = (sizes.input_length, sizes.target_length);
        let mut below = sizes.fitting(input);
        while let Some(rank) = left.largest(below, target) {
            let (needs_input, needs_target) = sizes.of_rank(rank);
            let fit = u64::from((input / needs_input).min(target / needs_target));
            let times = fit.min(left.counts[rank]);
            pattern.push((rank, times));
            // No more than `fit`, so it neither wraps nor falls below 0.
            input -= times as u32 * needs_input;
            target -= times as u32 * needs_target;
            below = rank.min(sizes.fitting(input));
        }
        let rows = pattern.iter().map(|&(rank, n)| left.counts[rank] / n).min();
        // An empty row has room for any class, so nothing is left.
        let Some(rows) = rows else { return };
        named.clear();
        for &(rank, times) in &pattern {
            left.take(rank, times * rows);
            named.push((sizes.class_of(rank), times as u32));
        }
        visit(&named, rows);
    }
}

/// How many sequences of each rank have no slot yet.
struct Remaining<'a> {
    sizes: &'a Sizes,
    counts: Vec<u64>,
    /// A bit for each rank of which some are left.
    some: Vec<u64>,
}

impl<'a> Remaining<'a> {
    fn new(sizes: &'a Sizes, histogram: &[u64]) -> Remaining<'a> {
        let mut left = Remaining {
            sizes,
            counts: vec![0; sizes.classes()],
            some: vec![0; sizes.classes().div_ceil(64)],
        };
        for rank in 0..sizes.classes() {
            let class = sizes.class_of(rank) as usize;
            let count = histogram.get(class).copied().unwrap_or(0);
            left.counts[rank] = count;
            left.some[rank / 64] |= u64::from(count > 0) << (rank % 64);
        }
        left
    }

    /// The largest rank below `below` whose target fits.
    fn largest(&self, below: usize, target: u32) -> Option<usize> {
        let mut below = below;
        loop {
            let rank = self.last_below(below)?;
            if self.sizes.of_rank(rank).1 <= target {
                return Some(rank);
            }
            below = rank;
        }
    }

    fn last_below(&self, below: usize) -> Option<usize> {
        let mut word = below.checked_sub(1)? / 64;
        // The bits up to `below - 1` of the first word, all of those before.
        let mut bits = self.some[word] & (u64::MAX >> (63 - (below - 1) % 64));
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.some[word];
        }
        Some(word * 64 + 63 - bits.leading_zeros() as usize)
    }

    fn take(&mut self, rank: usize, count: u64) {
        self.counts[rank] -= count;
        if self.counts[rank] == 0 {
            self.some[rank / 64] &= !(1 << (rank % 64));
        }
    }
}

#[cfg(test)]
mod tests;
