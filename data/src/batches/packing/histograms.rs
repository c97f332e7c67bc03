//! How many sequences of each class many blocks have.

use std::ops::Range;

use super::Sizes;
use crate::threads;

/// The histogram of every block, in whichever form is smaller: about a kilobyte for a block at 512
/// classes, less if it has few sequences, and never more than four bytes a sequence.
pub(crate) struct Histograms {
    classes: usize,
    parts: Vec<BlockCounts>,
}

/// The histograms of up to [`BLOCKS`] blocks.
enum BlockCounts {
    /// All classes' counts, block after block. `largest` is the greatest of them.
    Dense { counts: Vec<u16>, largest: u16 },
    /// Classes and their counts without zeros, and where each block's begin, the end of the last
    /// one included. A count that needs more bits takes several entries.
    Sparse {
        starts: Vec<u32>,
        entries: Vec<(u16, u16)>,
    },
}

/// Blocks that are counted together.
const BLOCKS: usize = 1 << 10;

impl Histograms {
    /// Counts the blocks of those rows. `classes` visits the class of each sequence of some rows.
    pub(crate) fn new(
        sizes: &Sizes,
        blocks: &[Range<u64>],
        threads: usize,
        classes: impl Fn(Range<u64>, &mut dyn FnMut(u32)) + Sync,
    ) -> Histograms {
        let parts: Vec<&[Range<u64>]> = blocks.chunks(BLOCKS).collect();
        let count = |blocks: &[Range<u64>]| {
            let mut counts = vec![0u64; sizes.classes()];
            let mut entries = Vec::new();
            let mut starts = vec![0];
            for rows in blocks {
                classes(rows.clone(), &mut |class| counts[class as usize] += 1);
                for (class, count) in counts.iter_mut().enumerate() {
                    while *count > 0 {
                        let some = (*count).min(u64::from(u16::MAX));
                        // There are at most 2^16 classes.
                        entries.push((class as u16, some as u16));
                        *count -= some;
                    }
                }
                // A thousand blocks of at most 2^16 classes each; blocks have fewer rows than 2^32.
                starts.push(entries.len() as u32);
            }
            BlockCounts::new(sizes.classes(), starts, entries)
        };
        Histograms {
            classes: sizes.classes(),
            parts: threads::map(threads, parts, count),
        }
    }

    /// The histogram of some blocks together.
    pub(crate) fn sum(&self, blocks: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut sum = vec![0u64; self.classes];
        // Counts are added up in 16 bits as long as these suffice: eight times as many at once.
        let mut short = vec![0u16; self.classes];
        let mut most = 0u16;
        for block in blocks {
            let place = block % BLOCKS;
            match &self.parts[block / BLOCKS] {
                BlockCounts::Dense { counts, largest } => {
                    most = match most.checked_add(*largest) {
                        Some(more) => more,
                        None => {
                            flush(&mut short, &mut sum);
                            *largest
                        }
                    };
                    let counts = &counts[place * self.classes..][..self.classes];
                    let sums = short.iter_mut().zip(counts);
                    sums.for_each(|(sum, &count)| *sum = sum.wrapping_add(count));
                }
                BlockCounts::Sparse { starts, entries } => {
                    let entries = &entries[starts[place] as usize..starts[place + 1] as usize];
                    for &(class, count) in entries {
                        sum[usize::from(class)] += u64::from(count);
                    }
                }
            }
        }
        flush(&mut short, &mut sum);
        sum
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        let part = |part: &BlockCounts| match part {
            BlockCounts::Dense { counts, .. } => counts.capacity() * size_of::<u16>(),
            BlockCounts::Sparse { starts, entries } => {
                starts.capacity() * size_of::<u32>() + entries.capacity() * size_of::<(u16, u16)>()
            }
        };
        self.parts.iter().map(part).sum()
    }
}

impl BlockCounts {
    fn new(classes: usize, starts: Vec<u32>, mut entries: Vec<(u16, u16)>) -> BlockCounts {
        let blocks = starts.len() - 1; // it begins with 0
        let largest = entries.iter().map(|entry| entry.1).max().unwrap_or(0);
        let dense = blocks * classes * size_of::<u16>();
        if largest == u16::MAX || dense > entries.len() * size_of::<(u16, u16)>() {
            entries.shrink_to_fit();
            return BlockCounts::Sparse { starts, entries };
        }
        let mut counts = vec![0; blocks * classes];
        for (block, ends) in starts.windows(2).enumerate() {
            for &(class, count) in &entries[ends[0] as usize..ends[1] as usize] {
                counts[block * classes + usize::from(class)] = count;
            }
        }
        BlockCounts::Dense { counts, largest }
    }
}

fn flush(short: &mut [u16], sum: &mut [u64]) {
    for (short, sum) in short.iter_mut().zip(sum) {
        *sum += u64::from(*short);
        *short = 0;
    }
}
