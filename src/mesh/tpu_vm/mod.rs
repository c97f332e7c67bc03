//! What a TPU VM reports about itself: its slice, its worker number, and the addresses of the other
//! workers.
//!
//! GKE sets environment variables; Compute Engine's metadata server answers on every TPU VM. The
//! server is asked only for what the environment does not have, and a machine where neither has
//! anything is not a TPU VM. The answer is checked twice, against the requested slice and against
//! the devices that libtpu sees, so that a run on other chips than planned ends before it starts.

mod attributes;
mod metadata;
mod preemption;

use std::collections::BTreeSet;

use ankh_pjrt::DeviceDescription;

use super::slice::{Slice, SliceError};
use attributes::Attributes;
pub use metadata::MetadataError;
pub use preemption::on_preemption;

/// A machine of a TPU slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpuVm {
    /// The slice it is a part of.
    pub slice: Slice,
    /// Its number among the slice's machines.
    pub worker: usize,
    /// The addresses of all of the slice's machines, in the order of their numbers.
    pub peers: Vec<String>,
}

/// A TPU VM that reports nothing usable, or is not the expected one.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpuVmError {
    /// It belongs to a slice of a kind that is not known here.
    #[error("this TPU VM says that it is part of a slice that cannot be used: {0}")]
    Unknown(#[from] SliceError),
    /// It does not report all that is needed.
    #[error("this TPU VM is part of a {slice}, but does not say {what}")]
    Silent {
        slice: Slice,
        /// What is missing, and where it is looked for.
        what: &'static str,
    },
    /// It reports an invalid value.
    #[error("this TPU VM says that its {what} is `{value}`, expected {expected}")]
    Unreadable {
        what: &'static str,
        value: String,
        expected: &'static str,
    },
    /// It contradicts itself.
    #[error(
        "this TPU VM is part of a {slice}, whose {what} is {expected}, but says that it is {found}"
    )]
    Contradiction {
        slice: Slice,
        what: &'static str,
        expected: String,
        found: String,
    },
    /// It is part of another slice than was asked for.
    #[error("this TPU VM is part of a {found}, not of a {expected}")]
    OtherSlice { expected: Slice, found: Slice },
    /// The metadata server answers some questions and not others.
    #[error("the metadata server does not answer: {0}")]
    Metadata(#[from] MetadataError),
    /// Other devices than the slice has.
    #[error("libtpu sees {found} {what}, but a {slice} has {expected}")]
    OtherDevices {
        slice: Slice,
        what: &'static str,
        expected: usize,
        found: usize,
    },
}

impl TpuVm {
    /// What this machine reports about itself; `None` if it is not a TPU VM. Where no metadata
    /// server answers, that takes about a second.
    pub fn here() -> Result<Option<TpuVm>, TpuVmError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// What a machine with this environment reports about itself. `TPU_SKIP_MDS_QUERY` keeps the
    /// metadata server from being asked, and `GCE_METADATA_HOST` is its address.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Option<TpuVm>, TpuVmError> {
        let mut attributes = Attributes::from_environment(&environment);
        if !attributes.suffice()
            && let Some(host) = metadata_host(&environment, Some(metadata::HOST))
        {
            attributes = attributes.or(metadata::attributes(&host)?);
        }
        attributes.into_tpu_vm()
    }

    /// Checks that this is a machine of the slice that was asked for.
    pub fn expect(&self, slice: Slice) -> Result<(), TpuVmError> {
        if self.slice == slice {
            return Ok(());
        }
        Err(TpuVmError::OtherSlice {
            expected: slice,
            found: self.slice,
        })
    }
}

/// The address of the metadata server, if it may be asked: the one that the environment names, or
/// else the usual one.
fn metadata_host(
    environment: &impl Fn(&str) -> Option<String>,
    usual: Option<&str>,
) -> Option<String> {
    let skip = environment("TPU_SKIP_MDS_QUERY").unwrap_or_default();
    if !matches!(skip.to_ascii_lowercase().as_str(), "" | "0" | "false") {
        return None;
    }
    let named = environment("GCE_METADATA_HOST").filter(|host| !host.is_empty());
    named.or_else(|| usual.map(str::to_owned))
}

/// Checks that libtpu sees the devices and hosts of a slice: `devices` are those of all processes,
/// `process` is this one's number. The number need not be the worker's: libtpu counts the hosts as
/// they lie on the torus.
pub fn check_devices(
    slice: Slice,
    devices: &[DeviceDescription],
    process: usize,
) -> Result<(), TpuVmError> {
    let processes: BTreeSet<i32> = devices.iter().map(|device| device.process_index).collect();
    let own = devices
        .iter()
        .filter(|device| usize::try_from(device.process_index) == Ok(process));
    for (what, expected, found) in [
        ("devices", slice.devices(), devices.len()),
        ("hosts", slice.hosts(), processes.len()),
        (
            "devices of this host",
            slice.devices_per_host(),
            own.count(),
        ),
    ] {
        if expected != found {
            return Err(TpuVmError::OtherDevices {
                slice,
                what,
                expected,
                found,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
