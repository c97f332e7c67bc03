//! The device a program runs on: opened through a plugin, asked for its memory, given programs and arrays.

use std::path::Path;

use ankh_hlo::Module;
use ankh_pjrt::{
    Argument, Buffer, Client, Code, CompileOptions, Executable, HostTensor, NamedValue, Platform,
    Plugin, Program, ProgramMemory,
};

use crate::config::Versions;
use crate::train::program::Array;

/// One device and the plugin that drives it.
pub struct Device {
    client: Client,
    device: ankh_pjrt::Device,
    platform: String,
}

/// What can go wrong with a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The plugin or the device reports an error.
    #[error(transparent)]
    Pjrt(#[from] ankh_pjrt::Error),
    /// The plugin has no device for this process.
    #[error("the plugin {plugin} has no device")]
    NoDevice {
        /// The plugin's file.
        plugin: String,
    },
    /// The program needs more memory than there is.
    #[error("{program} needs {} of memory and {} are available", gibibytes(*.needed), gibibytes(*.available))]
    DoesNotFit {
        /// The program's name.
        program: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The compiler says that the program does not fit.
    #[error("{program} does not fit the device's memory: {message}")]
    Exhausted {
        /// The program's name.
        program: String,
        /// The compiler's message.
        message: String,
    },
    /// An array has another shape than the program takes.
    #[error("`{name}` is {found} and should be {expected}")]
    WrongArray {
        /// The array.
        name: String,
        /// Its shape.
        found: String,
        /// The program's.
        expected: String,
    },
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// A compiled program.
pub struct Compiled {
    executable: Executable,
}

impl Device {
    /// Opens the first device of the platform, through the plugin at `plugin` or where plugins are looked for.
    pub fn open(platform: Platform, plugin: Option<&Path>) -> Result<Device, DeviceError> {
        let plugin = Plugin::find(platform, plugin)?;
        let options = match platform {
            Platform::Cpu => vec![NamedValue::int("cpu_device_count", 1)],
            _ => vec![],
        };
        let client = plugin.create_client(&options)?;
        let device = client.addressable_devices()?.into_iter().next();
        let device = device.ok_or_else(|| DeviceError::NoDevice {
            plugin: plugin.path().display().to_string(),
        })?;
        let platform = client.platform_name()?.to_ascii_lowercase();
        Ok(Device {
            client,
            device,
            platform,
        })
    }

    /// The platform's name as the plugin has it: `cpu`, `tpu`, `cuda`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// What kind of device it is, for example `TPU v4`.
    pub fn kind(&self) -> &str {
        self.device.kind()
    }

    /// What runs the programs, for the record.
    pub fn versions(&self) -> Versions {
        let (major, minor) = self.client.plugin().api_version();
        let version = self.client.platform_version().unwrap_or_default();
        Versions {
            ankh: env!("CARGO_PKG_VERSION").into(),
            plugin_api: format!("{major}.{minor}"),
            platform: format!("{} {version}", self.platform).trim().into(),
        }
    }

    /// Compiles a program, and checks that it will fit before anything runs.
    pub fn compile(&self, module: &Module) -> Result<Compiled, DeviceError> {
        let name = module.proto().name.clone();
        let program = Program::hlo(module.to_bytes());
        let executable = self
            .client
            .compile(&program, &CompileOptions::new())
            .map_err(|error| match &error {
                ankh_pjrt::Error::Pjrt {
                    code: Code::ResourceExhausted,
                    message,
                    ..
                } => DeviceError::Exhausted {
                    program: name.clone(),
                    message: message.clone(),
                },
                _ => error.into(),
            })?;
        let memory = executable.memory_stats()?;
        if let Some(available) = self.available_memory() {
            let needed = needed(&memory);
            if needed > available {
                return Err(DeviceError::DoesNotFit {
                    program: name,
                    needed,
                    available,
                });
            }
        }
        Ok(Compiled { executable })
    }

    /// Starts moving an array to the device.
    pub fn upload(&self, tensor: &HostTensor) -> Result<Buffer, DeviceError> {
        Ok(self.client.upload(tensor, &self.device)?)
    }

    /// Starts moving an array to the device, if it has the shape a program takes.
    pub fn upload_as(&self, array: &Array, tensor: &HostTensor) -> Result<Buffer, DeviceError> {
        let found = format!("{}{:?}", tensor.element_type.name(), tensor.dims);
        let expected = format!("{}{:?}", array.shape.dtype.name(), array.shape.dims);
        if found != expected {
            return Err(DeviceError::WrongArray {
                name: array.name.clone(),
                found,
                expected,
            });
        }
        self.upload(tensor)
    }

    /// Bytes that programs may use, where that is known: the device's limit, or for the CPU what the machine has left.
    fn available_memory(&self) -> Option<u64> {
        if let Some(limit) = self.device.memory_stats().ok().and_then(|m| m.bytes_limit) {
            return u64::try_from(limit).ok();
        }
        (self.platform == "cpu").then(host_memory).flatten()
    }
}

/// What a program holds at once, besides the program itself. Donated arguments are counted once.
fn needed(memory: &ProgramMemory) -> u64 {
    let sum = memory.arguments + memory.outputs - memory.aliased + memory.temporary;
    u64::try_from(sum.max(memory.peak)).unwrap_or(0)
}

/// `MemAvailable` of Linux's /proc/meminfo, in bytes.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

impl Compiled {
    /// Starts the program; its results become ready later. Donated buffers are taken over.
    pub fn start(&self, arguments: Vec<Argument<'_>>) -> Result<Vec<Buffer>, DeviceError> {
        let mut outputs = self.executable.execute(vec![arguments])?;
        Ok(outputs.swap_remove(0))
    }
}
