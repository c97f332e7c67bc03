//! Parses the names of slices, and suggests the nearest valid names for an invalid one.

use std::str::FromStr;

use super::torus::most_cubic;
use super::{Family, Generation, Slice};

/// The virtual devices that one process may be asked for.
const MOST_VIRTUAL_DEVICES: usize = 1024;
/// The GPUs that one machine may have.
const MOST_GPUS: usize = 16;

/// A name that is no slice's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is no slice; near it {}", these(.near))]
pub struct SliceError {
    /// The name.
    pub name: String,
    /// The names of slices near it.
    pub near: Vec<String>,
}

/// `is a`, `are a and b`, `are a, b and c`.
fn these(names: &[String]) -> String {
    match names {
        [] => "is none".into(),
        [one] => format!("is {one}"),
        [first @ .., last] => format!("are {} and {last}", first.join(", ")),
    }
}

/// What the part of a name before the last dash may be.
const FAMILIES: [(&str, Family); 7] = [
    ("v4", Family::Tpu(Generation::V4)),
    ("v5e", Family::Tpu(Generation::V5e)),
    ("v5litepod", Family::Tpu(Generation::V5e)),
    ("v5p", Family::Tpu(Generation::V5p)),
    ("v6e", Family::Tpu(Generation::V6e)),
    ("cpu", Family::Cpu),
    ("cuda", Family::Cuda),
];

/// By the names that Google Cloud gives: the number counts cores for v4 and v5p, chips for v5e
/// (also `v5litepod`) and v6e; for `cpu` it counts virtual devices, and for `cuda` GPUs.
impl FromStr for Slice {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        let (name, number) = text.rsplit_once('-').unwrap_or((text, ""));
        let size: Option<usize> = number.parse().ok();
        let found = FAMILIES.iter().find(|(known, _)| *known == name);
        let near: Vec<Slice> = match (found, size) {
            (Some(&(_, family)), Some(size)) => {
                // `+8` and `08` are numbers to the parser, but not to a reader.
                if family.has(size) && number == size.to_string() {
                    return Ok(Self { family, size });
                }
                family.nearest(size)
            }
            (Some(&(_, family)), None) => family.sizes().take(3).collect(),
            (None, size) => {
                let nearest =
                    |family: Family| family.nearest(size.unwrap_or(8)).into_iter().next_back();
                let families = FAMILIES.iter().map(|(_, family)| *family);
                let mut near: Vec<Slice> = families.filter_map(nearest).collect();
                near.dedup();
                near
            }
        };
        Err(SliceError {
            name: text.into(),
            near: near.iter().map(Slice::to_string).collect(),
        })
    }
}

impl Family {
    /// Every slice of the family, the smallest first.
    fn sizes(self) -> impl DoubleEndedIterator<Item = Slice> {
        (1..=self.largest())
            .filter(move |&size| self.has(size))
            .map(move |size| Slice { family: self, size })
    }

    fn largest(self) -> usize {
        match self {
            Self::Cpu => MOST_VIRTUAL_DEVICES,
            Self::Cuda => MOST_GPUS,
            Self::Tpu(Generation::V4) => 4096,
            Self::Tpu(Generation::V5p) => 12288,
            Self::Tpu(Generation::V5e | Generation::V6e) => 256,
        }
    }

    /// Whether there is a slice of this size.
    fn has(self, size: usize) -> bool {
        if size == 0 || size > self.largest() {
            return false;
        }
        match self {
            Self::Cpu | Self::Cuda => true,
            // Less than a cube of 128 cores by halves; then the cubes that are sold.
            Self::Tpu(Generation::V4) => {
                (size >= 8 && size.is_power_of_two()) || [384, 1536].contains(&size)
            }
            // Any number of cubes that fit into a pod, where a dimension is at most 256 chips long.
            Self::Tpu(Generation::V5p) => match size {
                8 | 16 | 32 | 64 => true,
                _ => size.is_multiple_of(128) && most_cubic(size / 128)[2] <= 64,
            },
            Self::Tpu(Generation::V5e | Generation::V6e) => size != 2 && size.is_power_of_two(),
        }
    }

    /// The slices with the next smaller and the next larger size; only the slice itself if there is
    /// one.
    fn nearest(self, size: usize) -> Vec<Slice> {
        let (mut below, mut above) = (None, None);
        for slice in self.sizes() {
            if slice.size <= size {
                below = Some(slice);
            } else {
                above = Some(slice);
                break;
            }
        }
        match below {
            Some(same) if same.size == size => vec![same],
            _ => below.into_iter().chain(above).collect(),
        }
    }
}

#[cfg(test)]
impl Slice {
    /// Every TPU slice there is.
    pub(super) fn every_tpu() -> impl Iterator<Item = Slice> {
        Generation::ALL
            .into_iter()
            .flat_map(|generation| Family::Tpu(generation).sizes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_back_as_itself() {
        let others = ["cpu-1", "cpu-8", "cpu-1024", "cuda-1", "cuda-16"];
        let others = others.map(|text| text.parse::<Slice>().unwrap());
        for slice in Slice::every_tpu().chain(others) {
            assert_eq!(slice.to_string().parse(), Ok(slice));
        }
        assert_eq!("cpu-1".parse(), Ok(Slice::default()));
        assert_eq!("v5litepod-16".parse::<Slice>(), "v5e-16".parse());
    }

    #[test]
    fn what_is_no_slice_is_told_the_slices_near_it() {
        for (text, near) in [
            ("v4-63", "v4-63 is no slice; near it are v4-32 and v4-64"),
            ("v4-48", "v4-48 is no slice; near it are v4-32 and v4-64"),
            ("v4-1", "v4-1 is no slice; near it is v4-8"),
            ("v4-8192", "v4-8192 is no slice; near it is v4-4096"),
            ("v4", "v4 is no slice; near it are v4-8, v4-16 and v4-32"),
            ("v4-", "v4- is no slice; near it are v4-8, v4-16 and v4-32"),
            ("v5e-2", "v5e-2 is no slice; near it are v5e-1 and v5e-4"),
            (
                "v7-8",
                "v7-8 is no slice; near it are v4-8, v5e-8, v5p-8, v6e-8, cpu-8 and cuda-8",
            ),
            (
                "tpu",
                "tpu is no slice; near it are v4-8, v5e-8, v5p-8, v6e-8, cpu-8 and cuda-8",
            ),
            ("cpu-0", "cpu-0 is no slice; near it is cpu-1"),
            ("cpu-08", "cpu-08 is no slice; near it is cpu-8"),
            ("cpu-4096", "cpu-4096 is no slice; near it is cpu-1024"),
            ("cuda-99", "cuda-99 is no slice; near it is cuda-16"),
        ] {
            assert_eq!(text.parse::<Slice>().unwrap_err().to_string(), near);
        }
        assert!("".parse::<Slice>().is_err());
        assert!("v4-99999999999999999999".parse::<Slice>().is_err());
    }
}
