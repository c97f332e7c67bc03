//! How a tensor is cut into chunks, and which bytes each chunk holds.
//!
//! The rule is: as few chunks of at most [`LIMIT`] bytes as possible, split along the leading
//! dimensions. Where a tensor is saved in parts, no chunk belongs to two of them, so that whoever
//! has a part writes its chunks alone. Reading works for any grid.

use std::ops::Range;

/// The most bytes a chunk holds: large enough for a file system to stream, small enough to checksum
/// and retry.
pub(super) const LIMIT: u64 = 64 << 20;

/// A regular grid of chunks over a dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    /// The array's dimensions.
    pub shape: Vec<u64>,
    /// One chunk's dimensions, each at least 1.
    pub chunk: Vec<u64>,
    /// Bytes per element.
    pub width: u64,
}

impl Grid {
    /// Chunks of at most `limit` bytes, split along the leading dimensions, for an array of parts
    /// of this shape, which divides the array's.
    pub fn within(shape: &[u64], part: &[u64], width: u64, limit: u64) -> Grid {
        let mut chunk: Vec<u64> = part.iter().map(|&size| size.max(1)).collect();
        for axis in 0..chunk.len() {
            let row = chunk[axis + 1..].iter().product::<u64>() * width;
            if chunk[axis] * row <= limit {
                break;
            }
            let most = (limit / row).max(1);
            chunk[axis] = match part[axis] == shape[axis] {
                true => even_cut(chunk[axis], most),
                // A remainder would reach into the next part.
                false => largest_divisor(chunk[axis], most),
            };
        }
        Grid {
            shape: shape.to_vec(),
            chunk,
            width,
        }
    }

    /// The number of chunks along each dimension.
    fn counts(&self) -> Vec<u64> {
        self.shape
            .iter()
            .zip(&self.chunk)
            .map(|(size, chunk)| size.div_ceil(*chunk))
            .collect()
    }

    /// The number of chunks.
    pub fn len(&self) -> usize {
        self.counts().iter().product::<u64>() as usize
    }

    /// The place in the grid of chunk number `number`, counted row-major.
    pub fn index(&self, number: usize) -> Vec<u64> {
        let mut rest = number as u64;
        let mut index: Vec<u64> = self
            .counts()
            .iter()
            .rev()
            .map(|&count| {
                let place = rest % count;
                rest /= count;
                place
            })
            .collect();
        index.reverse();
        index
    }

    /// The number of the chunk at a place in the grid.
    pub fn number(&self, index: &[u64]) -> usize {
        let places = self.counts().into_iter().zip(index);
        places.fold(0, |number, (count, place)| number * count + place) as usize
    }

    /// The grid of one part of the array alone, whose chunks are some of this grid's, and where in
    /// this grid they begin. `part` begins where a chunk does.
    pub fn of_part(&self, part: &[Range<u64>]) -> (Grid, Vec<u64>) {
        let starts = part.iter().zip(&self.chunk);
        let grid = Grid {
            shape: part.iter().map(|range| range.end - range.start).collect(),
            ..self.clone()
        };
        (
            grid,
            starts.map(|(range, chunk)| range.start / chunk).collect(),
        )
    }

    /// The numbers of the chunks that hold elements of a part of the array.
    pub fn overlapping(&self, part: &[Range<u64>]) -> Vec<usize> {
        if part.iter().any(Range::is_empty) {
            return Vec::new();
        }
        let bounds = part.iter().zip(&self.chunk);
        let places: Vec<Range<u64>> = bounds
            .map(|(range, chunk)| range.start / chunk..(range.end - 1) / chunk + 1)
            .collect();
        let mut numbers = vec![0usize];
        for (range, count) in places.iter().zip(self.counts()) {
            let next = |number: &usize| {
                let first = number * count as usize;
                range
                    .clone()
                    .map(move |place| first + place as usize)
                    .collect::<Vec<_>>()
            };
            numbers = numbers.iter().flat_map(next).collect();
        }
        numbers
    }

    /// The elements that a chunk holds of the array, a range for each dimension.
    pub fn ranges(&self, index: &[u64]) -> Vec<Range<u64>> {
        let axes = index.iter().zip(self.chunk.iter().zip(&self.shape));
        axes.map(|(&place, (&chunk, &size))| place * chunk..((place + 1) * chunk).min(size))
            .collect()
    }

    /// The bytes of one chunk, padding included.
    pub fn chunk_bytes(&self) -> usize {
        (self.chunk.iter().product::<u64>() * self.width) as usize
    }

    /// Calls `run(offset in the array, offset in the chunk, length)`, in bytes, for each contiguous
    /// run that the chunk at `index` shares with the array. Elements of an edge chunk outside the
    /// array are in no run.
    pub fn runs(&self, index: &[u64], mut run: impl FnMut(usize, usize, usize)) {
        let rank = self.shape.len();
        let extent: Vec<u64> = (0..rank)
            .map(|axis| self.chunk[axis].min(self.shape[axis] - index[axis] * self.chunk[axis]))
            .collect();
        // Every dimension after `split` is whole, so a run covers `extent[split]` of them.
        let split = (0..rank)
            .rev()
            .find(|&axis| self.chunk[axis] != self.shape[axis])
            .unwrap_or(0);
        let inner = self
            .shape
            .get(split + 1..)
            .unwrap_or_default()
            .iter()
            .product::<u64>();
        let length = (extent.get(split).copied().unwrap_or(1) * inner * self.width) as usize;
        let outer = &extent[..split.min(rank)];
        for number in 0..outer.iter().product::<u64>() {
            let (mut rest, mut in_array, mut in_chunk) = (number, 0, 0);
            let (mut array_stride, mut chunk_stride) = (inner, inner);
            for axis in (0..=split).rev().filter(|&axis| axis < rank) {
                let place = match axis == split {
                    true => 0,
                    false => {
                        let place = rest % extent[axis];
                        rest /= extent[axis];
                        place
                    }
                };
                in_array += (index[axis] * self.chunk[axis] + place) * array_stride;
                in_chunk += place * chunk_stride;
                array_stride *= self.shape[axis];
                chunk_stride *= self.chunk[axis];
            }
            run(
                (in_array * self.width) as usize,
                (in_chunk * self.width) as usize,
                length,
            );
        }
    }
}

/// The largest number up to `most` that divides `size`.
fn largest_divisor(size: u64, most: u64) -> u64 {
    let divides = |part: &u64| size.is_multiple_of(*part);
    (1..=most.min(size)).rev().find(divides).unwrap_or(1)
}

/// The largest part of `size` up to `most` that leaves no remainder, unless that makes the parts
/// less than half as large as they may be; then parts as equal as can be.
fn even_cut(size: u64, most: u64) -> u64 {
    match (most.div_ceil(2)..=most)
        .rev()
        .find(|part| size.is_multiple_of(*part))
    {
        Some(part) => part,
        None => size.div_ceil(size.div_ceil(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grid of an array in one part.
    fn whole(shape: &[u64], width: u64, limit: u64) -> Grid {
        Grid::within(shape, shape, width, limit)
    }

    #[test]
    fn small_tensors_are_one_chunk_and_large_stacks_are_cut_between_layers() {
        assert_eq!(whole(&[], 4, LIMIT).chunk, [] as [u64; 0]);
        assert_eq!(whole(&[], 4, LIMIT).len(), 1);
        assert_eq!(whole(&[48, 768], 4, LIMIT).chunk, [48, 768]);
        assert_eq!(whole(&[48, 768, 3072], 4, LIMIT).chunk, [6, 768, 3072]);
        assert_eq!(whole(&[48, 1536, 3840], 4, LIMIT).chunk, [2, 1536, 3840]);
        assert_eq!(
            whole(&[2, 1 << 14, 1 << 12], 4, LIMIT).chunk,
            [1, 1 << 12, 1 << 12]
        );
        assert_eq!(whole(&[0, 5], 4, LIMIT).len(), 0);
    }

    #[test]
    fn no_chunk_reaches_into_two_parts() {
        // Seven rows a part, of which five at once would be allowed.
        let grid = Grid::within(&[21, 4], &[7, 4], 4, 5 * 16);
        assert_eq!(grid.chunk, [1, 4]);
        // In one part, the last chunk may be smaller.
        assert_eq!(Grid::within(&[7, 4], &[7, 4], 4, 5 * 16).chunk, [4, 4]);
        let grid = Grid::within(&[12, 8], &[6, 4], 4, 3 * 16);
        assert_eq!(grid.chunk, [3, 4]);
        let (own, first) = grid.of_part(&[6..12, 4..8]);
        assert_eq!(
            (own.shape.as_slice(), own.len(), first.as_slice()),
            (&[6, 4][..], 2, &[2, 1][..])
        );
        assert_eq!(grid.number(&[2, 1]), 5);
        assert_eq!(grid.ranges(&[2, 1]), [6..9, 4..8]);
        assert_eq!(grid.overlapping(&[2..4, 0..5]), [0, 1, 2, 3]);
        assert_eq!(grid.overlapping(&[9..12, 7..8]), [7]);
        assert!(grid.overlapping(&[3..3, 0..8]).is_empty());
    }

    #[test]
    fn chunks_are_bounded_and_cover_every_byte_once() {
        for shape in [
            &[][..],
            &[1],
            &[7],
            &[3, 5],
            &[4, 6],
            &[5, 3, 7],
            &[2, 3, 4, 5],
            &[6, 1, 9],
            &[3, 0, 2],
        ] {
            for limit in [1, 8, 24, 40, 100, 1000] {
                for width in [1, 4, 8] {
                    let mut grids = vec![whole(shape, width, limit)];
                    assert!(
                        grids[0].chunk_bytes() as u64 <= limit.max(width),
                        "{:?}",
                        grids[0]
                    );
                    // As a grid that follows shards would cut: every dimension at once.
                    let chunk = shape.iter().map(|&size| (size / 2).max(1)).collect();
                    grids.push(Grid {
                        shape: shape.to_vec(),
                        chunk,
                        width,
                    });
                    for grid in grids {
                        let mut seen = vec![0; (shape.iter().product::<u64>() * width) as usize];
                        for number in 0..grid.len() {
                            let mut last = 0;
                            grid.runs(&grid.index(number), |in_array, in_chunk, length| {
                                assert!(
                                    in_chunk >= last && in_chunk + length <= grid.chunk_bytes(),
                                    "{grid:?}"
                                );
                                last = in_chunk + length;
                                seen[in_array..in_array + length]
                                    .iter_mut()
                                    .for_each(|n| *n += 1);
                            });
                        }
                        assert!(seen.iter().all(|&n| n == 1), "{grid:?}");
                    }
                }
            }
        }
    }
}
