//! What can go wrong with devices.

use std::path::PathBuf;

use super::executable_file::ExecutableFileError;
use super::slice::DeviceAssignmentError;
use super::tpu_vm::TpuVmError;

/// What can go wrong with devices.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The plugin or the device reports an error.
    #[error(transparent)]
    Pjrt(#[from] ankh_pjrt::Error),
    /// The devices are not those of the slice.
    #[error(transparent)]
    DeviceAssignment(#[from] DeviceAssignmentError),
    /// The TPU's devices are not those of the slice.
    #[error(transparent)]
    TpuVm(#[from] TpuVmError),
    /// A program for reading an array back cannot be built.
    #[error(transparent)]
    Program(#[from] ankh_hlo::Error),
    /// A compiled program cannot be used.
    #[error(transparent)]
    ExecutableFile(#[from] ExecutableFileError),
    /// The plugin has no device for this process.
    #[error("the plugin {plugin} has no device for this process")]
    NoDevice { plugin: String },
    /// The plugin runs a program elsewhere than it was asked to.
    #[error("{program} was compiled for device {device}, which is not one of the mesh")]
    OtherDevice { program: String, device: i32 },
    /// A variable of the environment has a value that means nothing.
    #[error("{name} is `{value}` and should be {expected}")]
    Variable {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    /// Simulated hosts cannot split the devices.
    #[error("{hosts} hosts cannot split {devices} devices equally")]
    SimulatedHosts { hosts: usize, devices: usize },
    /// There are not so many hosts.
    #[error("there is no host {host}: the {hosts} hosts are counted from 0")]
    NoHost { host: usize, hosts: usize },
    /// The program needs more memory than there is.
    #[error(
        "{program} needs {} of memory on each of {devices} devices and {} are available",
        gibibytes(*.needed),
        gibibytes(*.available)
    )]
    DoesNotFit {
        program: String,
        needed: u64,
        devices: usize,
        available: u64,
    },
    /// The compiler reports that the program does not fit.
    #[error("{program} does not fit the device's memory: {message}")]
    Exhausted { program: String, message: String },
    /// A program cannot be written out.
    #[error("cannot write {}: {source}", path.display())]
    Dump {
        path: PathBuf,
        source: std::io::Error,
    },
    /// An array has another shape or sharding than the program takes.
    #[error("`{name}` is {found} and should be {expected}")]
    WrongArray {
        name: String,
        found: String,
        expected: String,
    },
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}
