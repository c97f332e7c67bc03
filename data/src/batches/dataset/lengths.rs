//! How long each row is, and where it would begin if all rows lay one behind the other.

use std::ops::Range;

/// Rows between two stored starts: a start is at most so many additions away.
const STRIDE: usize = 64;

/// The residues of every row: four bytes a row, and a start for every 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    lengths: Vec<u32>,
    /// Where rows 0, 64, 128, ... begin.
    starts: Vec<u64>,
    total: u64,
}

impl Lengths {
    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// The residues of all rows.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The residues of a row; nothing beyond the last.
    pub fn of(&self, row: u64) -> Option<u32> {
        self.lengths.get(usize::try_from(row).ok()?).copied()
    }

    /// The residues of each row, in order.
    pub fn as_slice(&self) -> &[u32] {
        &self.lengths
    }

    /// Where a row lies in the sequence of all residues.
    pub fn bounds(&self, row: u64) -> Option<Range<u64>> {
        let row = usize::try_from(row).ok()?;
        let &length = self.lengths.get(row)?;
        let stored = row / STRIDE;
        let between = &self.lengths[stored * STRIDE..row];
        let start = self.starts[stored] + between.iter().map(|&l| u64::from(l)).sum::<u64>();
        Some(start..start + u64::from(length))
    }

    /// Adds a row at the end.
    pub fn push(&mut self, length: u32) {
        if self.lengths.len().is_multiple_of(STRIDE) {
            self.starts.push(self.total);
        }
        self.lengths.push(length);
        self.total += u64::from(length);
    }

    /// The bytes of memory this takes.
    pub fn bytes(&self) -> usize {
        self.lengths.capacity() * size_of::<u32>() + self.starts.capacity() * size_of::<u64>()
    }
}

impl FromIterator<u32> for Lengths {
    fn from_iter<I: IntoIterator<Item = u32>>(lengths: I) -> Self {
        let mut all = Lengths::default();
        all.extend(lengths);
        all
    }
}

impl Extend<u32> for Lengths {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, lengths: I) {
        let lengths = lengths.into_iter();
        let more = lengths.size_hint().0;
        self.lengths.reserve(more);
        self.starts.reserve(more / STRIDE);
        for length in lengths {
            self.push(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_lie_one_behind_the_other(lengths in prop::collection::vec(0u32..100, 0..300)) {
            let all: Lengths = lengths.iter().copied().collect();
            let mut end = 0;
            for (row, &length) in (0u64..).zip(&lengths) {
                prop_assert_eq!(all.of(row), Some(length));
                let bounds = all.bounds(row).unwrap();
                prop_assert_eq!(&bounds, &(end..end + u64::from(length)));
                end = bounds.end;
            }
            prop_assert_eq!(all.total(), end);
            prop_assert_eq!(all.bounds(lengths.len() as u64), None);
        }
    }
}
