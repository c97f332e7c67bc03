//! `--slice`: what a run computes on.

use std::fmt;
use std::str::FromStr;

use ankh_pjrt::Platform;

/// A machine or part of one, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    devices: u32,
}

impl Slice {
    /// The kind of plugin it needs.
    pub fn platform(self) -> Platform {
        Platform::Cpu
    }

    /// Devices of all hosts together.
    pub fn devices(self) -> u32 {
        self.devices
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self { devices: 1 }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu-{}", self.devices)
    }
}

impl FromStr for Slice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let devices = text
            .strip_prefix("cpu-")
            .and_then(|count| count.parse().ok());
        match devices {
            Some(devices @ 1) => Ok(Self { devices }),
            _ => Err("expected cpu-1".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_back_as_itself() {
        let slice: Slice = "cpu-1".parse().unwrap();
        assert_eq!(slice, Slice::default());
        assert_eq!(slice.to_string(), "cpu-1");
    }

    #[test]
    fn what_cannot_be_run_on_is_refused_with_what_can() {
        for text in ["cpu", "cpu-0", "cpu-", "cpu-x", "v4-64", ""] {
            assert!(
                text.parse::<Slice>().unwrap_err().contains("cpu-1"),
                "{text}"
            );
        }
    }
}
