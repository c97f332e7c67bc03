//! The devices of a run, as this process sees them: opened through a plugin, put in the order of the mesh, asked for their
//! memory, given programs and arrays.
//!
//! A process drives the devices of its host, and each process runs the same programs. On virtual devices one process can
//! also play several hosts: it then does for each what that host's process would do, and nothing else differs.

mod agreement;
mod array;
pub mod dump;
mod error;
mod gather;
mod memory;
pub mod saved;

use std::path::{Path, PathBuf};

use ankh_hlo::{LogicalAxisRules, Module, ShardingForm};
use ankh_pjrt::{
    Client, Code, CompileOptions, Device, DeviceDescription, Executable, NamedValue, Partitioner,
    Platform, Plugin, Program, keeping_signals,
};

use crate::config::{Config, Versions};
use crate::layout;
use crate::slice::{MeshShape, Slice};
use crate::tpu_vm::check_devices;

pub use array::{DeviceArray, Input, part_of};
pub use error::DeviceError;
use saved::{Identity, SavedError};

/// The oldest plugins (PJRT C API, minor version) that were found to follow named shardings; older ones get tiles.
const NAMED_SHARDINGS: (i32, i32) = (0, 115);

/// The devices of a run.
pub struct Fleet {
    client: Client,
    platform: String,
    slice: Slice,
    mesh: MeshShape,
    form: ShardingForm,
    layout: Option<LogicalAxisRules>,
    /// The ids of all devices, in the order of the mesh.
    ids: Vec<i32>,
    /// This process's devices, in the order of the mesh.
    local: Vec<Local>,
    /// The hosts that this process is or plays.
    hosts: Vec<Host>,
    flags: Vec<String>,
    dump: Option<PathBuf>,
}

/// A device of this process.
struct Local {
    device: Device,
    /// Its place in the mesh, row-major.
    position: usize,
}

/// A host that this process is or plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its number among the hosts of the slice.
    pub index: usize,
    /// Its devices, by their place in the mesh.
    pub positions: Vec<usize>,
}

/// Whether a process is one host or plays several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// It is the one that the platform says.
    Real,
    /// It plays as many, each with an equal share of its devices.
    Played(usize),
}

/// A compiled program.
pub struct Compiled {
    executable: Executable,
    /// What it takes and gives.
    module: Module,
    /// For each device of the executable, its index among the fleet's.
    order: Vec<usize>,
}

impl Fleet {
    /// Opens the devices of a slice and lays the configured mesh over them.
    pub fn open(slice: Slice, config: &Config, hosts: Hosts) -> Result<Fleet, DeviceError> {
        let mesh = layout::mesh_shape(config, slice.devices())?;
        let plugin = keeping_signals(|| Plugin::find(slice.platform(), None))?;
        let form = sharding_form(&plugin);
        let layout = layout::layout(config, mesh, form)?;
        let options = match slice.platform() {
            Platform::Cpu => vec![NamedValue::int("cpu_device_count", slice.devices() as i64)],
            _ => vec![],
        };
        let client = keeping_signals(|| plugin.create_client(&options))?;
        let devices = client.devices()?;
        let descriptions: Vec<DeviceDescription> =
            devices.iter().map(|d| d.description().clone()).collect();
        let process = usize::try_from(client.process_index()?).unwrap_or(0);
        if slice.platform() == Platform::Tpu {
            check_devices(slice, &descriptions, process)?;
        }
        let order = slice.order(&descriptions, mesh)?;
        let local: Vec<Local> = order
            .iter()
            .enumerate()
            .filter(|(_, index)| devices[**index].is_addressable())
            .map(|(position, index)| Local {
                device: devices[*index].clone(),
                position,
            })
            .collect();
        if local.is_empty() {
            let plugin = plugin.path().display().to_string();
            return Err(DeviceError::NoDevice { plugin });
        }
        let platform = client.platform_name()?.to_ascii_lowercase();
        Ok(Fleet {
            hosts: share_out(&local, hosts, process)?,
            ids: order.iter().map(|&i| descriptions[i].id).collect(),
            flags: config.compiler.flags.clone(),
            dump: None,
            client,
            platform,
            slice,
            mesh,
            form,
            layout,
            local,
        })
    }

    /// The platform's name as the plugin has it: `cpu`, `tpu`, `cuda`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The peak of all devices together in bfloat16 operations a second, for chips that have a published one.
    pub fn peak_flops(&self) -> Option<f64> {
        let chip = self.slice.chip()?;
        Some(chip.peak_flops * self.slice.chips() as f64)
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshShape {
        self.mesh
    }

    /// How programs are to lay out their arrays; `None` on a single device.
    pub fn layout(&self) -> Option<&LogicalAxisRules> {
        self.layout.as_ref()
    }

    /// Whether all devices are this process's, so that it can read any array back without the others.
    pub fn is_whole(&self) -> bool {
        self.local.len() == self.ids.len()
    }

    /// The hosts that this process is or plays.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
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

    /// Writes every program that is compiled from now on to this directory, as it is given to the compiler and as it comes out.
    pub fn dump_to(&mut self, directory: PathBuf) {
        self.dump = Some(directory);
    }

    /// Compiles a program, and checks that it will fit before anything runs.
    pub fn compile(&self, module: &Module) -> Result<Compiled, DeviceError> {
        if let Some(directory) = &self.dump {
            dump::given(module, directory)?;
        }
        let name = module.proto().name.clone();
        let program = Program::hlo(module.to_bytes());
        let options = compile_options(&self.ids, self.form, &self.flags);
        let executable = self
            .client
            .compile(&program, &options)
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
        if let Some(directory) = &self.dump {
            let optimized = executable.optimized_program()?.module()?;
            dump::compiled(module, &optimized, directory)?;
        }
        self.ready(module, executable)
    }

    /// Loads a program that was compiled before, if it was compiled from this module and for these devices.
    pub fn load(&self, module: &Module, file: &Path) -> Result<Compiled, DeviceError> {
        let payload = saved::load(file, &self.identity(module)?)?;
        self.ready(module, self.client.load(&payload)?)
    }

    /// Writes a compiled program to a file, for [`Fleet::load`].
    pub fn save(&self, program: &Compiled, file: &Path) -> Result<(), DeviceError> {
        // Measured with PJRT C API 0.115: a program that the CPU plugin has read back starts the collectives of a step in any
        // order, and devices that begin with different ones wait for each other for ever.
        if self.platform == "cpu" && self.ids.len() > 1 {
            return Err(SavedError::SeveralCpuDevices.into());
        }
        let identity = self.identity(&program.module)?;
        Ok(saved::save(
            file,
            &identity,
            &program.executable.serialize()?,
        )?)
    }

    fn identity(&self, module: &Module) -> Result<Identity, DeviceError> {
        let plugin = self.client.plugin();
        let flags = &self.flags;
        let identity = Identity::of(module, plugin, flags, self.slice, self.mesh, &self.ids);
        Ok(identity?)
    }

    /// Checks that a program fits and runs where it should.
    fn ready(&self, module: &Module, executable: Executable) -> Result<Compiled, DeviceError> {
        let name = &module.proto().name;
        self.check_memory(name, &executable)?;
        let order = executable.devices().iter().map(|device| {
            let found = self.local.iter().position(|l| l.device.id() == device.id());
            found.ok_or_else(|| DeviceError::OtherDevice {
                program: name.clone(),
                device: device.id(),
            })
        });
        Ok(Compiled {
            order: order.collect::<Result<_, _>>()?,
            executable,
            module: module.clone(),
        })
    }
}

/// How shardings are written for a plugin.
pub fn sharding_form(plugin: &Plugin) -> ShardingForm {
    match plugin.api_version() >= NAMED_SHARDINGS {
        true => ShardingForm::Shardy,
        false => ShardingForm::Gspmd,
    }
}

/// The options that a program is compiled with for devices in the order of the mesh. `flags` are `name=value`.
pub fn compile_options(ids: &[i32], form: ShardingForm, flags: &[String]) -> CompileOptions {
    let partitioner = match form {
        ShardingForm::Shardy => Partitioner::Shardy,
        ShardingForm::Gspmd => Partitioner::Gspmd,
    };
    let options = match ids {
        [id] => CompileOptions::new().device(i64::from(*id)),
        ids => CompileOptions::new().partitions(partitioner, ids.iter().map(|&id| id.into())),
    };
    flags.iter().fold(options, |options, flag| {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        match (
            value.parse::<bool>(),
            value.parse::<i64>(),
            value.parse::<f64>(),
        ) {
            (Ok(value), ..) => options.flag(name, value),
            (_, Ok(value), _) => options.flag(name, value),
            (.., Ok(value)) => options.flag(name, value),
            _ => options.flag(name, value),
        }
    })
}

/// The hosts that this process is or plays, with their devices.
fn share_out(local: &[Local], hosts: Hosts, process: usize) -> Result<Vec<Host>, DeviceError> {
    let host = |(index, devices): (usize, Vec<&Local>)| Host {
        index,
        positions: devices.iter().map(|l| l.position).collect(),
    };
    match hosts {
        Hosts::Real => Ok(vec![host((process, local.iter().collect()))]),
        Hosts::Played(count) => {
            if count == 0 || !local.len().is_multiple_of(count) {
                return Err(DeviceError::PlayedHosts {
                    hosts: count,
                    devices: local.len(),
                });
            }
            // As real hosts do, each has devices that follow each other by id.
            let mut by_id: Vec<&Local> = local.iter().collect();
            by_id.sort_by_key(|l| l.device.id());
            let shares = by_id.chunks(local.len() / count).map(|share| {
                let mut share = share.to_vec();
                share.sort_by_key(|l| l.position);
                share
            });
            Ok(shares.enumerate().map(host).collect())
        }
    }
}
