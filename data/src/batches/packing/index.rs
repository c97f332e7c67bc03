//! Which sequences a class has.

use crate::threads;

/// Numbers `0..n` of sequences, sorted by class and ascending within one. Four bytes a sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassIndex {
    /// Where each class begins, and the end of the last.
    starts: Vec<usize>,
    numbers: Vec<u32>,
}

impl ClassIndex {
    /// Sorts sequences by counting. `classes` visits the classes of all in the order of their
    /// numbers, always the same; they agree with the histogram and are fewer than 2^32.
    pub(crate) fn new(
        histogram: &[u64],
        classes: impl Fn(&mut dyn FnMut(u32)) + Sync,
        threads: usize,
    ) -> ClassIndex {
        let mut starts = vec![0];
        let mut end = 0;
        for &count in histogram {
            end += count as usize;
            starts.push(end);
        }
        let mut numbers = vec![0u32; end];
        let parts = parts(&mut numbers, &starts, threads);
        threads::map(threads, parts, |(first, last, part)| {
            let begin = starts[first];
            let mut next: Vec<usize> = starts[first..last].iter().map(|s| s - begin).collect();
            let mut number = 0;
            classes(&mut |class| {
                let own = (class as usize).checked_sub(first);
                if let Some(next) = own.and_then(|class| next.get_mut(class)) {
                    part[*next] = number;
                    *next += 1;
                }
                number += 1;
            });
        });
        ClassIndex { starts, numbers }
    }

    /// How many sequences a class has.
    pub(crate) fn count(&self, class: usize) -> u64 {
        (self.starts[class + 1] - self.starts[class]) as u64
    }

    /// The sequence with some number among those of its class.
    pub(crate) fn at(&self, class: usize, number: u64) -> u64 {
        u64::from(self.numbers[self.starts[class] + number as usize])
    }

    /// The bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        self.starts.capacity() * size_of::<usize>() + self.numbers.capacity() * size_of::<u32>()
    }
}

/// Sequences below which one thread sorts alone.
const SMALL: usize = 1 << 20;

/// Cuts the numbers at classes' bounds into a part for each thread, nearly equal: `(first class,
/// last class, exclusive, numbers)`. Each thread looks at all sequences and places those of its own
/// part, which costs less than sharing one array would.
fn parts<'a>(
    numbers: &'a mut [u32],
    starts: &[usize],
    threads: usize,
) -> Vec<(usize, usize, &'a mut [u32])> {
    let classes = starts.len() - 1;
    let wanted = match numbers.len() {
        0..SMALL => 1,
        _ => threads.clamp(1, 8),
    };
    let share = numbers.len().div_ceil(wanted).max(1);
    let mut parts = Vec::new();
    let (mut first, mut rest) = (0, numbers);
    while first < classes {
        let target = starts[first] + share;
        let last = starts.partition_point(|&start| start < target);
        let last = last.clamp(first + 1, classes);
        let (part, after) = rest.split_at_mut(starts[last] - starts[first]);
        parts.push((first, last, part));
        (first, rest) = (last, after);
    }
    parts
}
