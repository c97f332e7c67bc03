//! How the chips of a TPU slice are connected.

use std::fmt;

use super::Generation;

/// A box of chips, each joined to its neighbors in every dimension, and in some dimensions the
/// last to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Torus {
    lengths: [usize; 3],
    wraps: [bool; 3],
    rank: usize,
}

impl Torus {
    /// A torus of up to three dimensions, for each its length and whether its last chip is joined
    /// to the first.
    ///
    /// # Panics
    ///
    /// With no dimension, more than three, or one without chips.
    pub fn new(dimensions: &[(usize, bool)]) -> Self {
        assert!(
            (1..=3).contains(&dimensions.len()),
            "a torus has one to three dimensions"
        );
        let mut this = Self {
            lengths: [1; 3],
            wraps: [false; 3],
            rank: dimensions.len(),
        };
        for (i, &(length, wraps)) in dimensions.iter().enumerate() {
            assert!(length > 0, "a dimension of a torus has chips");
            this.lengths[i] = length;
            this.wraps[i] = wraps;
        }
        this
    }

    /// The torus that Google Cloud gives for a number of chips, which is that of a real slice: the
    /// box closest to a cube.
    pub(super) fn of(generation: Generation, chips: usize) -> Self {
        match generation {
            Generation::V4 | Generation::V5p => Self::of_cubes(chips),
            Generation::V5e | Generation::V6e => Self::of_square(chips),
        }
    }

    /// Racks are cubes of 4 x 4 x 4 chips, joined by switches into tori; what is less than a cube
    /// stays open.
    fn of_cubes(chips: usize) -> Self {
        match chips {
            4 => Self::open(&[2, 2, 1]),
            8 => Self::open(&[2, 2, 2]),
            16 => Self::open(&[2, 2, 4]),
            32 => Self::open(&[2, 4, 4]),
            _ => Self::new(&most_cubic(chips / 64).map(|cubes| (4 * cubes, true))),
        }
    }

    /// A pod is a square of 16 x 16, and a dimension is closed where it spans the pod.
    fn of_square(chips: usize) -> Self {
        let short = 1 << (chips.trailing_zeros() / 2);
        Self::new(&[short, chips / short].map(|length| (length, length == 16)))
    }

    fn open(lengths: &[usize]) -> Self {
        let dimensions: Vec<_> = lengths.iter().map(|&length| (length, false)).collect();
        Self::new(&dimensions)
    }

    /// The length of each dimension.
    pub fn dims(&self) -> &[usize] {
        &self.lengths[..self.rank]
    }

    /// For each dimension whether its last chip is joined to its first.
    pub fn wraps(&self) -> &[bool] {
        &self.wraps[..self.rank]
    }

    /// How many chips there are.
    pub fn chips(&self) -> usize {
        self.lengths.iter().product()
    }

    /// The links between two chips, on the shortest way.
    pub fn distance(&self, a: [usize; 3], b: [usize; 3]) -> usize {
        (0..self.rank)
            .map(|i| {
                let apart = a[i].abs_diff(b[i]);
                if self.wraps[i] {
                    apart.min(self.lengths[i] - apart)
                } else {
                    apart
                }
            })
            .sum()
    }
}

/// The three factors of a number of cubes that make the box closest to a cube, the smallest first.
pub(super) fn most_cubic(cubes: usize) -> [usize; 3] {
    let divisors = |n: usize| (1..=n).filter(move |d| n.is_multiple_of(*d));
    divisors(cubes)
        .flat_map(|a| divisors(cubes / a).map(move |b| [a, b, cubes / a / b]))
        .filter(|factors| factors.is_sorted())
        .min_by_key(|factors| factors.iter().sum::<usize>())
        .unwrap_or([1, 1, cubes])
}

/// As Google Cloud writes it: `2x4x4`.
impl fmt::Display for Torus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        f.write_str(&dims.join("x"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Slice;
    use super::*;

    #[test]
    fn tori_are_the_ones_google_cloud_gives() {
        for (slice, torus, wraps) in [
            ("v4-8", "2x2x1", "..."),
            ("v4-16", "2x2x2", "..."),
            ("v4-32", "2x2x4", "..."),
            ("v4-64", "2x4x4", "..."),
            ("v4-128", "4x4x4", "ooo"),
            ("v4-256", "4x4x8", "ooo"),
            ("v4-384", "4x4x12", "ooo"),
            ("v4-512", "4x8x8", "ooo"),
            ("v4-1024", "8x8x8", "ooo"),
            ("v4-1536", "8x8x12", "ooo"),
            ("v4-2048", "8x8x16", "ooo"),
            ("v4-4096", "8x16x16", "ooo"),
            ("v5p-768", "4x8x12", "ooo"),
            ("v5p-4608", "12x12x16", "ooo"),
            ("v5p-12288", "16x16x24", "ooo"),
            ("v5e-1", "1x1", ".."),
            ("v5e-4", "2x2", ".."),
            ("v5e-8", "2x4", ".."),
            ("v5e-64", "8x8", ".."),
            ("v6e-128", "8x16", ".o"),
            ("v6e-256", "16x16", "oo"),
        ] {
            let found = slice.parse::<Slice>().unwrap().torus().unwrap();
            assert_eq!(found.to_string(), torus, "{slice}");
            let closed = found.wraps().iter();
            let closed: String = closed.map(|&wraps| if wraps { 'o' } else { '.' }).collect();
            assert_eq!(closed, wraps, "{slice}");
        }
    }

    #[test]
    fn the_shortest_way_may_go_around() {
        let torus = Torus::new(&[(4, true), (8, false)]);
        assert_eq!(torus.distance([0, 0, 0], [3, 0, 0]), 1);
        assert_eq!(torus.distance([0, 0, 0], [2, 7, 0]), 9);
    }
}
