//! The kinds of device that plugins are for.

use std::fmt;

/// The kinds of device that a plugin is looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// The processor of this machine.
    Cpu,
    /// Google's TPUs.
    Tpu,
    /// NVIDIA's GPUs.
    Cuda,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Tpu => "tpu",
            Self::Cuda => "cuda",
        })
    }
}
