//! How many sequences of each class many blocks have.

use std::ops::Range;

use super::Sizes;
use crate::threads;

/// The histogram of every block, without its zeros: four bytes for each class that a block has, so
/// at most four for each sequence.
pub(crate) struct Histograms {
    /// Blocks of one part, [`PART`] at most.
    parts: Vec<Part>,
}

struct Part {
    /// Where each block's entries begin, and the end of the last.
    starts: Vec<u32>,
    /// A class and its count. A count that needs more bits takes several entries.
    entries: Vec<(u16, u16)>,
}

/// Blocks that are counted together.
const PART: usize = 1 << 10;

impl Histograms {
    /// Counts the blocks of those rows. `classes` visits the class of each sequence of some rows.
    pub(crate) fn new(
        sizes: &Sizes,
        blocks: &[Range<u64>],
        threads: usize,
        classes: impl Fn(Range<u64>, &mut dyn FnMut(u32)) + Sync,
    ) -> Histograms {
        let parts: Vec<&[Range<u64>]> = blocks.chunks(PART).collect();
        let count = |blocks: &[Range<u64>]| {
            let mut part = Part {
                starts: vec![0],
                entries: Vec::new(),
            };
            let mut counts = vec![0u64; sizes.classes()];
            for rows in blocks {
                classes(rows.clone(), &mut |class| counts[class as usize] += 1);
                for (class, count) in counts.iter_mut().enumerate() {
                    while *count > 0 {
                        let some = (*count).min(u64::from(u16::MAX));
                        // There are at most 2^16 classes.
                        part.entries.push((class as u16, some as u16));
                        *count -= some;
                    }
                }
                // A thousand blocks of at most 2^16 classes each; blocks have fewer rows than 2^32.
                part.starts.push(part.entries.len() as u32);
            }
            part.entries.shrink_to_fit();
            part
        };
        Histograms {
            parts: threads::map(threads, parts, count),
        }
    }

    /// The histogram of some blocks together.
    pub(crate) fn sum(&self, sizes: &Sizes, blocks: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut sum = vec![0u64; sizes.classes()];
        for block in blocks {
            let part = &self.parts[block / PART];
            let block = block % PART;
            let entries = part.starts[block] as usize..part.starts[block + 1] as usize;
            for &(class, count) in &part.entries[entries] {
                sum[usize::from(class)] += u64::from(count);
            }
        }
        sum
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        let part = |part: &Part| {
            part.starts.capacity() * size_of::<u32>()
                + part.entries.capacity() * size_of::<(u16, u16)>()
        };
        self.parts.iter().map(part).sum()
    }
}
