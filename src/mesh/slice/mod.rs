//! What a run computes on: a TPU slice, virtual CPU devices, or GPUs.
//!
//! A [`Slice`] is parsed once, from `v4-64`, `v5e-16`, `cpu-8` or `cuda-1`, and is valid from then
//! on. It answers every question that depends on the hardware: how many devices and hosts there
//! are, which chips are neighbors, what a chip can do, and which topology the compiler needs. It
//! is arithmetic only, and does not check whether the hardware is present.

mod chip;
mod device_assignment;
mod parse;
mod torus;

use std::fmt;

use ankh_pjrt::{NamedValue, Platform};

pub use chip::{Chip, Generation};
pub use device_assignment::DeviceAssignmentError;
pub use parse::SliceError;
pub use torus::Torus;

/// A machine or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    family: Family,
    /// The number in its name.
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    Cpu,
    Cuda,
    Tpu(Generation),
}

/// What libtpu is asked for to compile for a slice.
#[derive(Clone, Debug, PartialEq)]
pub struct TopologyRequest {
    /// The topology's name, such as `v4:2x4x4`.
    pub name: String,
    /// Its options.
    pub options: Vec<NamedValue>,
}

impl Slice {
    /// So many virtual devices of a CPU, at least one.
    pub fn cpu(devices: usize) -> Slice {
        Slice {
            family: Family::Cpu,
            size: devices.max(1),
        }
    }

    /// The kind of plugin it needs.
    pub fn platform(&self) -> Platform {
        match self.family {
            Family::Cpu => Platform::Cpu,
            Family::Cuda => Platform::Cuda,
            Family::Tpu(_) => Platform::Tpu,
        }
    }

    /// The generation of its TPUs.
    pub fn generation(&self) -> Option<Generation> {
        match self.family {
            Family::Tpu(generation) => Some(generation),
            Family::Cpu | Family::Cuda => None,
        }
    }

    /// The devices that XLA sees, of all hosts together. A TPU chip is one device, however many
    /// cores it has.
    pub fn devices(&self) -> usize {
        match self.family {
            Family::Tpu(generation) => self.size / generation.counted_per_chip(),
            Family::Cpu | Family::Cuda => self.size,
        }
    }

    /// The chips; virtual devices of a CPU count as such.
    pub fn chips(&self) -> usize {
        self.devices()
    }

    /// The machines it spans, each of which runs one process.
    pub fn hosts(&self) -> usize {
        self.devices() / self.devices_per_host()
    }

    /// The devices of each host.
    pub fn devices_per_host(&self) -> usize {
        match self.chips_per_host_bounds() {
            Some(bounds) => bounds.iter().product(),
            None => self.devices(),
        }
    }

    /// What each of its chips can do; only TPUs are known so well.
    pub fn chip(&self) -> Option<&'static Chip> {
        self.generation().map(Generation::chip)
    }

    /// How its chips are joined; TPUs only.
    pub fn torus(&self) -> Option<Torus> {
        self.generation()
            .map(|generation| Torus::of(generation, self.chips()))
    }

    /// The box of chips that belongs to one host; TPUs only.
    pub fn chips_per_host_bounds(&self) -> Option<[usize; 3]> {
        let generation = self.generation()?;
        Some(match (generation, self.chips()) {
            (Generation::V4 | Generation::V5p, _) => [2, 2, 1],
            // One machine holds up to eight chips; larger slices are made of machines with four.
            (Generation::V5e | Generation::V6e, 1) => [1, 1, 1],
            (Generation::V5e | Generation::V6e, 8) => [2, 4, 1],
            (Generation::V5e | Generation::V6e, _) => [2, 2, 1],
        })
    }

    /// What libtpu is asked for to compile for this slice; TPUs only.
    pub fn topology(&self) -> Option<TopologyRequest> {
        let (generation, torus) = (self.generation()?, self.torus()?);
        let bounds = self.chips_per_host_bounds()?;
        let mut options = vec![
            NamedValue::int_list("chips_per_host_bounds", bounds.map(|chips| chips as i64)),
            NamedValue::int("num_slices", 1),
        ];
        if generation.chip().cores > 1 {
            // Both cores as one device; otherwise a chip shows as two.
            options.push(NamedValue::string("chip_config_name", "megacore"));
        }
        Some(TopologyRequest {
            name: format!("{generation}:{torus}"),
            options,
        })
    }
}

/// One virtual device of this machine's processor.
impl Default for Slice {
    fn default() -> Self {
        Self {
            family: Family::Cpu,
            size: 1,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda => f.write_str("cuda"),
            Self::Tpu(generation) => generation.fmt(f),
        }
    }
}

/// As it is parsed: `v4-64`.
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.family, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(text: &str) -> Slice {
        text.parse().unwrap()
    }

    #[test]
    fn a_v4_64_is_thirty_two_chips_on_eight_hosts() {
        let slice = slice("v4-64");
        assert_eq!(slice.platform(), Platform::Tpu);
        assert_eq!((slice.devices(), slice.chips()), (32, 32));
        assert_eq!((slice.hosts(), slice.devices_per_host()), (8, 4));
        let torus = slice.torus().unwrap();
        assert_eq!(torus.dims(), [2, 4, 4]);
        assert_eq!(torus.wraps(), [false; 3]);
        let request = slice.topology().unwrap();
        assert_eq!(request.name, "v4:2x4x4");
        for option in [
            NamedValue::string("chip_config_name", "megacore"),
            NamedValue::int_list("chips_per_host_bounds", [2, 2, 1]),
            NamedValue::int("num_slices", 1),
        ] {
            assert!(request.options.contains(&option), "{option:?}");
        }
    }

    #[test]
    fn every_slice_is_its_torus_full_of_hosts() {
        for slice in Slice::every_tpu() {
            let torus = slice.torus().unwrap();
            assert_eq!(
                torus.dims().iter().product::<usize>(),
                slice.chips(),
                "{slice}"
            );
            assert_eq!(
                slice.hosts() * slice.devices_per_host(),
                slice.devices(),
                "{slice}"
            );
            let bounds = slice.chips_per_host_bounds().unwrap();
            for (length, chips) in torus.dims().iter().zip(bounds) {
                assert!(length.is_multiple_of(chips), "{slice}: {torus}");
            }
        }
    }

    #[test]
    fn cores_are_counted_where_google_counts_them() {
        for (text, chips, hosts) in [
            ("v4-8", 4, 1),
            ("v4-4096", 2048, 512),
            ("v5p-8", 4, 1),
            ("v5p-12288", 6144, 1536),
            ("v5e-1", 1, 1),
            ("v5litepod-8", 8, 1),
            ("v5e-16", 16, 4),
            ("v6e-8", 8, 1),
            ("v6e-256", 256, 64),
            ("cpu-8", 8, 1),
            ("cuda-4", 4, 1),
        ] {
            let slice = slice(text);
            assert_eq!((slice.chips(), slice.hosts()), (chips, hosts), "{text}");
        }
    }

    #[test]
    fn a_cpu_has_no_published_peak() {
        assert!(slice("cpu-8").chip().is_none());
        let peak = slice("v4-64").chip().map(|chip| chip.peak_flops);
        assert_eq!(peak, Some(275e12));
    }

    #[test]
    fn processors_and_gpus_have_no_torus() {
        for text in ["cpu-8", "cuda-2"] {
            let slice = slice(text);
            assert_eq!(slice.torus(), None);
            assert_eq!(slice.topology(), None);
            assert_eq!(slice.chip(), None);
        }
    }
}
