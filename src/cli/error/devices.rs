//! Errors of plugins, devices, and how arrays are split over them.

use ankh_hlo::AxisError;
use ankh_pjrt::{Code, Platform};

use super::{CliError, Exit};
use crate::config::LogicalAxis;
use crate::devices::OpenMeshError;
use crate::mesh::DeviceError;
use crate::mesh::executable_file::ExecutableFileError;
use crate::programs::sharding::ShardingError;

const LESS_MEMORY: &str = "lower train.batch_size or data.input_length, raise train.gradient_accumulation, or set train.remat=full";

impl From<ankh_pjrt::Error> for CliError {
    fn from(error: ankh_pjrt::Error) -> Self {
        if error.code() == Some(Code::ResourceExhausted) {
            return Self::new(Exit::Memory, error).help(LESS_MEMORY);
        }
        let advice = match &error {
            ankh_pjrt::Error::NoPlugin { platform, .. } => Some(match platform {
                Platform::Tpu => {
                    "`pretrain doctor --fetch --slice v4-8` fetches one, in a checkout `make libtpu`"
                }
                Platform::Cpu => {
                    "`pretrain doctor --fetch` fetches one, in a checkout `make plugin`"
                }
                Platform::Cuda => "set ANKH_PJRT_PLUGIN to one that you have",
            }),
            _ => None,
        };
        Self {
            help: advice.map(Into::into),
            ..Self::failed(error)
        }
    }
}

impl From<DeviceError> for CliError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Pjrt(error) => error.into(),
            DeviceError::ExecutableFile(error @ ExecutableFileError::File { .. }) => Self::failed(error),
            DeviceError::ExecutableFile(error @ ExecutableFileError::SeveralCpuDevices) => {
                Self::usage(error).help("leave out --output, or use --slice cpu-1")
            }
            DeviceError::ExecutableFile(error) => Self::usage(error)
                .help("run without --executable to compile anew, or make it again with `pretrain plan --output`"),
            error @ (DeviceError::DeviceAssignment(_)
            | DeviceError::SimulatedHosts { .. }
            | DeviceError::Variable { .. }
            | DeviceError::NoHost { .. }) => Self::usage(error),
            error @ (DeviceError::DoesNotFit { .. } | DeviceError::Exhausted { .. }) => {
                Self::new(Exit::Memory, error).help(LESS_MEMORY)
            }
            error => Self::failed(error),
        }
    }
}

impl From<OpenMeshError> for CliError {
    fn from(error: OpenMeshError) -> Self {
        match error {
            OpenMeshError::Device(error) => error.into(),
            OpenMeshError::Sharding(error) => error.into(),
        }
    }
}

impl From<ShardingError> for CliError {
    fn from(error: ShardingError) -> Self {
        let help: String = match &error {
            ShardingError::Devices { devices, .. } => {
                format!(
                    "choose two that multiply to one of {}",
                    list(&divisors(*devices))
                )
            }
            ShardingError::Mesh { .. } => {
                "set sharding.data=0, which takes as many as the other axes leave".into()
            }
            ShardingError::Axes {
                error: AxisError::IndivisibleDim(dim),
                ..
            } => match dim.name == LogicalAxis::Batch.name() {
                true => format!(
                    "set train.batch_size so that each of train.gradient_accumulation parts is a multiple of {}",
                    dim.shards
                ),
                false => format!(
                    "make sharding.{} a divisor of {}, or take it out of sharding.rules.{}",
                    dim.axis, dim.size, dim.name
                ),
            },
            ShardingError::Axes { .. } => "correct sharding.rules".into(),
        };
        Self::usage(error).help(help)
    }
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}

fn list(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(|n| n.to_string()).collect();
    words.join(", ")
}
