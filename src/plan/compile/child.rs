//! The child process: answers one request.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use ankh_pjrt::{
    Code, CompiledProgram, DeviceDescription, Platform, Plugin, Program, ProgramMemory,
};
use ankh_storage::atomic;
use prost::Message;

use super::to_json;
use super::{
    ANSWER, CompileError, CompileStats, EXECUTABLE, Executable, OPTIMIZED, REQUEST, Request,
    SCHEDULES, schedule,
};
use crate::config::Config;
use crate::mesh::client_options;
use crate::mesh::executable_file::{self, ExecutableFileError, Identity};
use crate::mesh::slice::{DeviceAssignmentError, Slice};
use crate::mesh_shape::MeshShape;
use crate::plan::kernels;
use crate::programs::Programs;
use crate::programs::sharding::{self, ShardingError};

/// Answers the request in `directory`: compiles, and writes down what came of it.
pub fn answer(directory: &Path) -> io::Result<()> {
    let request = fs::read(directory.join(REQUEST))?;
    let request: Request = serde_json::from_slice(&request).map_err(io::Error::other)?;
    let answer = match &request {
        Request::Plugin { slice } => to_json(&version(slice)),
        Request::Step {
            config,
            slice,
            executable,
            kernels: _,
        } => to_json(&compile(directory, config, slice, *executable)),
    };
    // Whole or not at all: a half-written answer would hide that this process died.
    atomic::replace_file(&directory.join(ANSWER), &answer?)
}

fn version(slice: &str) -> Result<String, CompileError> {
    let slice: Slice = slice.parse().map_err(io::Error::other)?;
    let plugin = Plugin::find(slice.platform(), None)?;
    Ok(executable_file::version(&plugin)?)
}

fn compile(
    directory: &Path,
    config: &str,
    slice: &str,
    executable: Executable,
) -> Result<CompileStats, CompileError> {
    let config: Config = toml::from_str(config).map_err(io::Error::other)?;
    let slice: Slice = slice.parse().map_err(io::Error::other)?;
    let plugin = Plugin::find(slice.platform(), None)?;
    let mesh = sharding::mesh_shape(&config, slice.devices())?;
    let form = crate::mesh::sharding_form(&plugin);
    let rules = sharding::logical_axis_rules(&config, mesh)?.map(|rules| rules.with_form(form));
    let platform = slice.platform().to_string();
    let module = Programs::of(&config, &platform, rules.as_ref()).step();
    let module = module.map_err(|error| CompileError::Refused {
        message: error.to_string(),
    })?;
    let flags = crate::mesh::compiler_flags(slice.platform(), &config.compiler.flags);
    let options = |ids: &[i32]| crate::mesh::compile_options(ids, form, &flags);
    let start = Instant::now();
    let done = |program: &CompiledProgram, ids: &[i32], platform_version| {
        let seconds = start.elapsed().as_secs_f64();
        let optimized = program.optimized_program()?.module()?;
        fs::write(directory.join(OPTIMIZED), optimized.encode_to_vec())?;
        if executable == Executable::Wanted {
            fs::write(directory.join(EXECUTABLE), program.serialize()?)?;
        }
        let identity = Identity::of(&module, &plugin, &flags, slice, mesh, ids)?;
        let written = schedule::read(&directory.join(SCHEDULES))?;
        let kernels = kernels::schedules(&optimized, &written);
        let kernels = kernels.map_err(|kernel| CompileError::Refused {
            message: format!(
                "the compiler left no schedule of the kernel {kernel}, which would count as free"
            ),
        })?;
        let memory = program.memory_stats()?;
        let stats = stats(identity, &plugin, platform_version, seconds, &memory, slice);
        Ok(CompileStats { kernels, ..stats })
    };
    let program = Program::hlo(module.to_bytes());
    match slice.topology() {
        Some(wanted) => {
            let topology = plugin.topology(&wanted.name, &wanted.options)?;
            let ids = ids(&topology.devices()?, slice, mesh)?;
            let compiled = topology.compile(&program, &options(&ids))?;
            done(&compiled, &ids, topology.platform_version()?)
        }
        None => {
            let create = client_options(slice, |name| std::env::var(name).ok());
            let create = create.map_err(io::Error::other)?;
            let client = plugin.create_client(&create)?;
            let devices = client.devices()?;
            let devices: Vec<_> = devices.iter().map(|d| d.description().clone()).collect();
            let ids = ids(&devices, slice, mesh)?;
            let compiled = client.compile(&program, &options(&ids))?;
            done(compiled.program(), &ids, client.platform_version()?)
        }
    }
}

/// The devices' ids in the order of the mesh.
fn ids(
    devices: &[DeviceDescription],
    slice: Slice,
    mesh: MeshShape,
) -> Result<Vec<i32>, CompileError> {
    let order = slice.device_assignment(devices, mesh)?;
    Ok(order.into_iter().map(|i| devices[i].id).collect())
}

fn stats(
    identity: Identity,
    plugin: &Plugin,
    platform_version: String,
    seconds: f64,
    memory: &ProgramMemory,
    slice: Slice,
) -> CompileStats {
    let (major, minor) = plugin.api_version();
    let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
    let all = memory.arguments + memory.outputs - memory.aliased + memory.temporary;
    // The CPU's compiler does not follow all that lives at once.
    let peak = match slice.platform() == Platform::Cpu {
        true => all.max(memory.peak),
        false => memory.peak,
    };
    CompileStats {
        identity,
        plugin: plugin.path().to_owned(),
        api_version: format!("{major}.{minor}"),
        platform_version,
        seconds,
        arguments: bytes(memory.arguments),
        outputs: bytes(memory.outputs),
        aliased: bytes(memory.aliased),
        temporary: bytes(memory.temporary),
        code: bytes(memory.generated_code),
        peak: bytes(peak),
        kernels: Default::default(),
    }
}

impl From<ankh_pjrt::Error> for CompileError {
    fn from(error: ankh_pjrt::Error) -> Self {
        let message = error.to_string();
        match error {
            ankh_pjrt::Error::Pjrt {
                code: Code::ResourceExhausted,
                message,
                ..
            } => CompileError::Exhausted { message },
            ankh_pjrt::Error::NoPlugin { .. } => CompileError::NoPlugin { message },
            _ => CompileError::Refused { message },
        }
    }
}

impl From<ShardingError> for CompileError {
    fn from(error: ShardingError) -> Self {
        CompileError::Refused {
            message: error.to_string(),
        }
    }
}

impl From<DeviceAssignmentError> for CompileError {
    fn from(error: DeviceAssignmentError) -> Self {
        CompileError::Refused {
            message: error.to_string(),
        }
    }
}

impl From<ExecutableFileError> for CompileError {
    fn from(error: ExecutableFileError) -> Self {
        CompileError::Refused {
            message: error.to_string(),
        }
    }
}
