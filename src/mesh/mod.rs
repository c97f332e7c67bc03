//! The devices of a run as one mesh, in JAX's sense: [`DeviceMesh`] opens the devices of a slice
//! through a PJRT plugin, arranges them along the mesh axes, compiles programs for them, and moves
//! arrays to and from them.
//!
//! Each host runs one process, which drives that host's devices; all processes run the same
//! programs. On virtual CPU devices one process can also simulate several hosts: it makes each
//! host's batches separately, and nothing else differs.
//!
//! This module takes mesh shapes, rules, compiler flags and HLO modules. It knows neither the
//! configuration nor what the programs compute.

mod array;
mod client_options;
pub mod dump;
mod error;
pub mod executable_file;
mod gather;
mod memory;
mod program_cache;
pub mod slice;
pub mod tpu_vm;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ankh_hlo::{LogicalAxisRules, Module, ShardingForm};
use ankh_pjrt::{
    Client, Code, CompileOptions, Device, DeviceDescription, Executable, Partitioner, Platform,
    Plugin, Profile, Program, keeping_signals,
};

use crate::mesh_shape::MeshShape;

pub use array::{Input, OwnParts, ShardedArray, WhichParts, shard_range};
pub use client_options::client_options;
pub use error::DeviceError;
use executable_file::{ExecutableFileError, Identity};
pub use program_cache::{Entries, ProgramCache};
use slice::Slice;
use tpu_vm::check_devices;

/// The oldest plugins (PJRT C API, minor version) that were found to follow named shardings; older
/// ones get tiles.
const NAMED_SHARDINGS: (i32, i32) = (0, 115);

/// The devices of a run, arranged along the axes of a mesh.
pub struct DeviceMesh {
    client: Client,
    platform: String,
    slice: Slice,
    shape: MeshShape,
    form: ShardingForm,
    rules: Option<LogicalAxisRules>,
    /// The ids of all devices, in the order of the mesh.
    ids: Vec<i32>,
    /// This process's devices, in the order of the mesh.
    local: Vec<Local>,
    /// The hosts that this process is or simulates.
    hosts: Vec<Host>,
    /// The one of them that it acts for, where other processes act for the others.
    own: Option<usize>,
    flags: Vec<String>,
    dump: Option<PathBuf>,
    cache: Option<ProgramCache>,
    compilations: AtomicUsize,
}

/// A device of this process.
struct Local {
    device: Device,
    /// Its position in the mesh, row-major.
    position: usize,
}

/// A host that this process is or simulates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its number among the hosts of the slice.
    pub index: usize,
    /// The positions of its devices in the mesh.
    pub positions: Vec<usize>,
}

/// Whether a process is one host or simulates several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// It is the host that the platform reports.
    Real,
    /// It simulates this many, each with an equal share of its devices.
    Simulated(usize),
    /// The same, for the sake of one of them: it computes as all of them do, and saves as this one.
    One {
        /// The host.
        host: usize,
        /// How many there are.
        hosts: usize,
    },
}

/// A compiled program on the devices of a mesh.
pub struct LoadedExecutable {
    executable: Executable,
    /// What it takes and returns.
    module: Module,
    /// For each device of the executable, its index among this process's devices.
    order: Vec<usize>,
}

/// How the devices of a slice are arranged, and what programs for them are compiled with.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// The devices along each axis.
    pub shape: MeshShape,
    /// How programs split their arrays over the axes; `None` on a single device.
    pub rules: Option<LogicalAxisRules>,
    /// The compiler's flags, each `name=value`.
    pub flags: Vec<String>,
    /// Whether this process is one host or simulates several.
    pub hosts: Hosts,
}

impl MeshOptions {
    /// For a single device and a single host, without flags.
    pub fn single_device() -> MeshOptions {
        MeshOptions {
            shape: MeshShape {
                data: 1,
                fsdp: 1,
                model: 1,
            },
            rules: None,
            flags: vec![],
            hosts: Hosts::Real,
        }
    }
}

impl DeviceMesh {
    /// Opens the devices of a slice and arranges them as a mesh.
    pub fn open(slice: Slice, options: MeshOptions) -> Result<DeviceMesh, DeviceError> {
        let MeshOptions {
            shape,
            rules,
            flags,
            hosts,
        } = options;
        let flags = compiler_flags(slice.platform(), &flags);
        let plugin = keeping_signals(|| Plugin::find(slice.platform(), None))?;
        let form = sharding_form(&plugin);
        let rules = rules.map(|rules| rules.with_form(form));
        let create = client_options(slice, |name| std::env::var(name).ok())?;
        let client = keeping_signals(|| plugin.create_client(&create))?;
        let devices = client.devices()?;
        let descriptions: Vec<DeviceDescription> =
            devices.iter().map(|d| d.description().clone()).collect();
        let process = usize::try_from(client.process_index()?).unwrap_or(0);
        if slice.platform() == Platform::Tpu {
            check_devices(slice, &descriptions, process)?;
        }
        let order = slice.device_assignment(&descriptions, shape)?;
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
        Ok(DeviceMesh {
            own: match hosts {
                Hosts::One { host, .. } => Some(host),
                Hosts::Real if local.len() < order.len() => Some(0),
                Hosts::Real | Hosts::Simulated(_) => None,
            },
            hosts: split_hosts(&local, hosts, process)?,
            ids: order.iter().map(|&i| descriptions[i].id).collect(),
            flags,
            dump: None,
            cache: None,
            compilations: AtomicUsize::new(0),
            client,
            platform,
            slice,
            shape,
            form,
            rules,
            local,
        })
    }

    /// The platform's name as the plugin has it: `cpu`, `tpu`, `cuda`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The peak of all devices together in bfloat16 operations a second, for chips that have a
    /// published one.
    pub fn peak_flops(&self) -> Option<f64> {
        let chip = self.slice.chip()?;
        Some(chip.peak_flops * self.slice.chips() as f64)
    }

    /// The devices along each axis.
    pub fn shape(&self) -> MeshShape {
        self.shape
    }

    /// How programs split their arrays over the axes; `None` on a single device.
    pub fn rules(&self) -> Option<&LogicalAxisRules> {
        self.rules.as_ref()
    }

    /// Whether this process drives all devices, so that it can read any array back without the
    /// others.
    pub fn is_fully_addressable(&self) -> bool {
        self.local.len() == self.ids.len()
    }

    /// The host that this process acts for, where other processes act for the others.
    pub fn own_host(&self) -> Option<&Host> {
        self.own.map(|own| &self.hosts[own])
    }

    /// The hosts that this process is or simulates.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The version of the plugin's C API, as `major.minor`.
    pub fn plugin_api(&self) -> String {
        let (major, minor) = self.client.plugin().api_version();
        format!("{major}.{minor}")
    }

    /// Starts to record what this process's devices do. Nothing where the plugin has no profiler.
    pub fn start_profile(&self) -> Result<Option<Profile>, DeviceError> {
        Ok(self.client.plugin().start_profile()?)
    }

    /// The platform with the version that the plugin gives it.
    pub fn platform_version(&self) -> String {
        let version = self.client.platform_version().unwrap_or_default();
        format!("{} {version}", self.platform).trim().into()
    }

    /// Writes every program that is compiled from now on to this directory, as it is given to the
    /// compiler and as it comes out.
    pub fn dump_to(&mut self, directory: PathBuf) {
        self.dump = Some(directory);
    }

    /// How many programs were compiled up to now.
    pub fn compilations(&self) -> usize {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Compiles a program, or loads it where it was kept, and checks that it will fit before
    /// anything runs.
    pub fn compile(&self, module: &Module) -> Result<LoadedExecutable, DeviceError> {
        if let Some(directory) = &self.dump {
            dump::before_optimizations(module, directory)?;
        } else if let Some(program) = self.kept(module) {
            return Ok(program);
        }
        self.compilations.fetch_add(1, Ordering::Relaxed);
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
            let optimized = executable.program().optimized_program()?.module()?;
            dump::after_optimizations(module, &optimized, directory)?;
        }
        let program = self.ready(module, executable)?;
        self.keep(&program);
        Ok(program)
    }

    /// Loads a program that was compiled before, if it was compiled from this module and for these
    /// devices.
    pub fn load(&self, module: &Module, file: &Path) -> Result<LoadedExecutable, DeviceError> {
        let payload = executable_file::load(file, &self.identity(module)?)?;
        self.ready(module, self.client.load(&payload)?)
    }

    /// Writes a compiled program to a file, for [`DeviceMesh::load`].
    pub fn save(&self, program: &LoadedExecutable, file: &Path) -> Result<(), DeviceError> {
        self.check_keeps_programs()?;
        let identity = self.identity(&program.module)?;
        Ok(executable_file::save(
            file,
            &identity,
            &program.executable.program().serialize()?,
        )?)
    }

    /// Whether the plugin loads what it has compiled for this mesh.
    fn check_keeps_programs(&self) -> Result<(), ExecutableFileError> {
        // Measured with PJRT C API 0.115: a program that the CPU plugin has read back starts the
        // collectives of a step in any order, and devices that begin with different ones wait for
        // each other for ever.
        match self.platform == "cpu" && self.ids.len() > 1 {
            true => Err(ExecutableFileError::SeveralCpuDevices),
            false => Ok(()),
        }
    }

    fn identity(&self, module: &Module) -> Result<Identity, DeviceError> {
        let plugin = self.client.plugin();
        let flags = &self.flags;
        let identity = Identity::of(module, plugin, flags, self.slice, self.shape, &self.ids);
        Ok(identity?)
    }

    /// Checks that a program fits and runs where it should.
    fn ready(
        &self,
        module: &Module,
        executable: Executable,
    ) -> Result<LoadedExecutable, DeviceError> {
        let name = &module.proto().name;
        self.check_memory(name, &executable)?;
        let order = executable.devices().iter().map(|device| {
            let found = self.local.iter().position(|l| l.device.id() == device.id());
            found.ok_or_else(|| DeviceError::OtherDevice {
                program: name.clone(),
                device: device.id(),
            })
        });
        Ok(LoadedExecutable {
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

/// Has the CPU plugin order the instructions of a program for little memory, as it does for TPUs,
/// and not for as many as possible at once: with the latter it keeps the gradients and updates of
/// all arrays at the same time. A step of 0.94 billion parameters then takes 9.5 GB beside the
/// state, and 4.5 GB with this (PJRT C API 0.115, and 0.81 takes the flag too).
const LITTLE_MEMORY: &str = "xla_cpu_enable_concurrency_optimized_scheduler=false";

/// The flags that programs are compiled with: ours, then those given, of which the last one of a
/// name counts.
pub fn compiler_flags(platform: Platform, given: &[String]) -> Vec<String> {
    let ours = (platform == Platform::Cpu).then(|| LITTLE_MEMORY.to_owned());
    ours.into_iter().chain(given.iter().cloned()).collect()
}

/// The options that a program is compiled with for devices in the order of the mesh. `flags` are
/// `name=value`.
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

/// The hosts that this process is or simulates, with their devices.
fn split_hosts(local: &[Local], hosts: Hosts, process: usize) -> Result<Vec<Host>, DeviceError> {
    let host = |(index, devices): (usize, Vec<&Local>)| Host {
        index,
        positions: devices.iter().map(|l| l.position).collect(),
    };
    if let Hosts::One { host, hosts } = hosts
        && host >= hosts
    {
        return Err(DeviceError::NoHost { host, hosts });
    }
    match hosts {
        Hosts::Real => Ok(vec![host((process, local.iter().collect()))]),
        Hosts::Simulated(count) | Hosts::One { hosts: count, .. } => {
            if count == 0 || !local.len().is_multiple_of(count) {
                return Err(DeviceError::SimulatedHosts {
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
