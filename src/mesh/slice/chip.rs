//! What one TPU chip of each generation can do, with the source of each number.

use std::fmt;

/// A generation of TPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Generation {
    /// TPU v4.
    V4,
    /// TPU v5e; Google Cloud also calls it `v5litepod`.
    V5e,
    /// TPU v5p.
    V5p,
    /// TPU v6e, Trillium.
    V6e,
}

/// What one chip can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// Its TensorCores.
    pub cores: usize,
    /// The bfloat16 operations of a second at most, a multiplication and an addition counted apart.
    pub peak_flops: f64,
    /// The bytes of its memory, before the system keeps some back.
    pub memory_bytes: u64,
    /// The bytes that its memory moves in a second at most.
    pub memory_bandwidth: f64,
    /// The cycles of its cores in a second.
    pub clock_hz: f64,
}

const GIB: u64 = 1 << 30;

/// Google Cloud's page on the [TPU v4](https://cloud.google.com/tpu/docs/v4) gives two cores with
/// four matrix units each, 275 TFLOP/s, 32 GiB and 1200 GB/s; ["TPU v4: An Optically Reconfigurable
/// Supercomputer"](https://arxiv.org/abs/2304.01433) the clock, 1050 MHz.
const V4: Chip = Chip {
    cores: 2,
    peak_flops: 275e12,
    memory_bytes: 32 * GIB,
    memory_bandwidth: 1200e9,
    clock_hz: 1.05e9,
};

/// Google Cloud's page on the [TPU v5e](https://cloud.google.com/tpu/docs/v5e) gives one core with
/// four matrix units, 197 TFLOP/s, 16 GB and 819 GB/s. The clock is not published: it is the one at
/// which 4 units of 128 x 128 reach that peak.
const V5E: Chip = Chip {
    cores: 1,
    peak_flops: 197e12,
    memory_bytes: 16 * GIB,
    memory_bandwidth: 819e9,
    clock_hz: 1.5e9,
};

/// Google Cloud's page on the [TPU v5p](https://cloud.google.com/tpu/docs/v5p) gives two cores, 459
/// TFLOP/s, 95 GB and 2765 GB/s. The clock is not published: it is the one at which 8 units of 128
/// x 128 reach that peak.
const V5P: Chip = Chip {
    cores: 2,
    peak_flops: 459e12,
    memory_bytes: 95 * GIB,
    memory_bandwidth: 2765e9,
    clock_hz: 1.75e9,
};

/// Google Cloud's page on the [TPU v6e](https://cloud.google.com/tpu/docs/v6e) gives one core, 918
/// TFLOP/s, 32 GB and 1638 GB/s. The clock is not published: it is the one at which the 524,288
/// operations of a cycle that libtpu's own estimates for a large product come close to make that
/// peak.
const V6E: Chip = Chip {
    cores: 1,
    peak_flops: 918e12,
    memory_bytes: 32 * GIB,
    memory_bandwidth: 1638e9,
    clock_hz: 1.75e9,
};

impl Generation {
    /// All generations.
    pub const ALL: [Self; 4] = [Self::V4, Self::V5e, Self::V5p, Self::V6e];

    /// What one chip can do.
    pub fn chip(self) -> &'static Chip {
        match self {
            Self::V4 => &V4,
            Self::V5e => &V5E,
            Self::V5p => &V5P,
            Self::V6e => &V6E,
        }
    }

    /// What the number in a slice's name counts for each chip: cores where there are two, chips
    /// otherwise.
    pub(super) fn counted_per_chip(self) -> usize {
        self.chip().cores
    }
}

/// As in the name of a slice: `v5e`.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V5e => "v5e",
            Self::V5p => "v5p",
            Self::V6e => "v6e",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_what_the_matrix_units_do_at_the_clock() {
        for (generation, operations_of_a_cycle) in [
            (Generation::V4, 8 * 128 * 128 * 2),
            (Generation::V5e, 4 * 128 * 128 * 2),
            (Generation::V5p, 8 * 128 * 128 * 2),
            (Generation::V6e, 4 * 256 * 256 * 2),
        ] {
            let chip = generation.chip();
            let peak = chip.clock_hz * f64::from(operations_of_a_cycle);
            assert!(
                (peak / chip.peak_flops - 1.0).abs() < 3e-3,
                "{generation}: {peak}"
            );
        }
    }
}
