//! Compiles a training step for a slice in a child process, so that a compiler that aborts does not
//! end this process, and what it printed is kept for the error message.
//!
//! The child is this program, called with a directory that holds the request and receives the
//! answer. It builds the step itself, as training does, because the form of shardings depends on
//! the plugin, which only the child loads.

mod child;
mod schedule;

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ankh_pjrt::Platform;
use ankh_proto::xla::HloModuleProto;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Attention, Config};
use crate::mesh::executable_file::Identity;
use crate::mesh::slice::Slice;
use crate::plan::kernels::Schedules;

pub use child::answer;

/// Files of the directory that parent and child share.
const REQUEST: &str = "request.json";
const ANSWER: &str = "answer.json";
const OPTIMIZED: &str = "optimized.pb";
const EXECUTABLE: &str = "executable";
const SCHEDULES: &str = "schedules";

/// The hidden subcommand that makes this program the child.
pub const SUBCOMMAND: &str = "compile";

/// A step to compile.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The run.
    pub config: &'a Config,
    /// What it is to run on.
    pub slice: Slice,
    /// Whether the executable is wanted.
    pub executable: Executable,
}

/// Whether the compiled program itself is wanted, beside what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Executable {
    /// Serialized, to be loaded by the same plugin.
    Wanted,
    /// Not at all.
    Unwanted,
}

/// A compiled step.
#[derive(Clone, Debug, PartialEq)]
pub struct Compilation {
    /// What the plugin reports about it.
    pub stats: CompileStats,
    /// The program after the compiler's passes.
    pub optimized: HloModuleProto,
    /// The serialized executable, where it was wanted.
    pub executable: Option<Vec<u8>>,
}

/// What a plugin reports about a program that it compiled. Memory is one device's, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompileStats {
    /// What was compiled, by what and for what.
    pub identity: Identity,
    /// The plugin's library.
    pub plugin: PathBuf,
    /// The plugin's C API, as `major.minor`.
    pub api_version: String,
    /// The plugin's version of the platform.
    pub platform_version: String,
    /// The compiler's time in seconds.
    pub seconds: f64,
    /// The arguments.
    pub arguments: u64,
    /// The results.
    pub outputs: u64,
    /// The part of the results that takes over memory of arguments.
    pub aliased: u64,
    /// Everything in between.
    pub temporary: u64,
    /// The program itself.
    pub code: u64,
    /// The most held at once.
    pub peak: u64,
    /// The schedules of its kernels.
    pub kernels: Schedules,
}

/// Why a step could not be compiled.
#[allow(missing_docs)]
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum CompileError {
    /// The program needs more memory than a device has.
    #[error("the step does not fit the memory of a device: {message}")]
    Exhausted { message: String },
    /// There is no plugin.
    #[error("{message}")]
    NoPlugin { message: String },
    /// The compiler or the plugin refuses.
    #[error("{message}")]
    Refused { message: String },
    /// The compiler's process ended before it was done.
    #[error("the compiler ended with {how} before it was done{}", last_lines(.log))]
    Died {
        /// `signal 6` for example.
        how: String,
        log: String,
    },
    /// The time given was over.
    #[error("the compiler was not done after {seconds} s and was stopped")]
    TimedOut { seconds: u64 },
    /// The process could not be started or talked to.
    #[error("cannot run the compiler's process: {reason}")]
    Process { reason: String },
}

fn last_lines(log: &str) -> String {
    match log.trim() {
        "" => ", and printed nothing".into(),
        log => format!("; it printed last:\n{log}"),
    }
}

impl From<io::Error> for CompileError {
    fn from(error: io::Error) -> Self {
        CompileError::Process {
            reason: error.to_string(),
        }
    }
}

/// What the child is asked.
#[derive(Serialize, Deserialize)]
enum Request {
    /// To compile a step.
    Step {
        /// As TOML, which keeps every number as it is.
        config: String,
        slice: String,
        executable: Executable,
        /// Whether there may be kernels, whose schedules then have to be written down.
        kernels: bool,
    },
    /// Which plugin compiles for a slice.
    Plugin { slice: String },
}

/// Starts this program's other self.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<PathBuf>,
    limit: Option<Duration>,
}

impl Compiler {
    /// The program that runs.
    pub fn this_program() -> Result<Compiler, CompileError> {
        Ok(Compiler {
            program: std::env::current_exe()?,
            arguments: vec![],
            limit: None,
        })
    }

    #[cfg(test)]
    pub(super) fn played_by(script: &Path) -> Compiler {
        Compiler {
            program: "/bin/sh".into(),
            arguments: vec![script.to_owned()],
            limit: None,
        }
    }

    /// Gives each compilation at most this long.
    pub fn with_limit(self, limit: Duration) -> Compiler {
        Compiler {
            limit: Some(limit),
            ..self
        }
    }

    /// Compiles a step, and waits for it.
    pub fn compile(&self, job: Job<'_>) -> Result<Compilation, CompileError> {
        let directory = tempfile::Builder::new().prefix("pretrain-").tempdir()?;
        let request = Request::Step {
            config: toml::to_string(job.config).map_err(io::Error::other)?,
            slice: job.slice.to_string(),
            executable: job.executable,
            kernels: job.config.train.attention != Attention::Formula,
        };
        let stats = self.ask(directory.path(), job.slice, &request)?;
        read(directory.path(), stats)
    }

    /// What tells the plugin that compiles for a slice from every other.
    pub fn plugin(&self, slice: Slice) -> Result<String, CompileError> {
        let directory = tempfile::Builder::new().prefix("pretrain-").tempdir()?;
        let request = Request::Plugin {
            slice: slice.to_string(),
        };
        self.ask(directory.path(), slice, &request)
    }

    /// Has a request answered by a process of its own.
    fn ask<T: DeserializeOwned>(
        &self,
        directory: &Path,
        slice: Slice,
        request: &Request,
    ) -> Result<T, CompileError> {
        fs::write(directory.join(REQUEST), to_json(request)?)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(SUBCOMMAND)
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if slice.platform() == Platform::Tpu {
            for name in [SKIP_METADATA, SHARE_LIBTPU] {
                if std::env::var_os(name).is_none() {
                    command.env(name, "1");
                }
            }
            if let Request::Step { kernels: true, .. } = request {
                let set = std::env::var(schedule::FLAGS).unwrap_or_default();
                let flags = schedule::flags(&set, &directory.join(SCHEDULES));
                command.env(schedule::FLAGS, flags);
            }
        }
        let (status, log) = self.wait(command.spawn()?)?;
        match fs::read(directory.join(ANSWER)) {
            Ok(answer) => serde_json::from_slice::<Result<T, CompileError>>(&answer)
                .map_err(io::Error::other)?,
            Err(_) => Err(CompileError::Died {
                how: ending(status),
                log,
            }),
        }
    }

    /// Waits for the child's end, with what it printed last.
    fn wait(&self, mut child: Child) -> Result<(ExitStatus, String), CompileError> {
        let stderr = child.stderr.take();
        // A pipe that nobody reads would stop the child.
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What could be read until an error is what there is.
            let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut bytes));
            bytes
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if let Some(limit) = self.limit.filter(|limit| start.elapsed() > *limit) {
                child.kill()?;
                child.wait()?;
                return Err(CompileError::TimedOut {
                    seconds: limit.as_secs(),
                });
            }
            thread::sleep(Duration::from_millis(20));
        };
        let bytes = reader.join().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(KEPT_LINES);
        Ok((status, lines[last..].join("\n")))
    }
}

/// Off a TPU VM, libtpu spends minutes asking for metadata that is not there.
const SKIP_METADATA: &str = "TPU_SKIP_MDS_QUERY";

/// Lets libtpu be loaded beside another process that has it: compiling for a topology opens no
/// device.
const SHARE_LIBTPU: &str = "ALLOW_MULTIPLE_LIBTPU_LOAD";

/// The lines of a dead compiler's output that are shown.
const KEPT_LINES: usize = 15;

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}

fn read(directory: &Path, stats: CompileStats) -> Result<Compilation, CompileError> {
    let optimized = fs::read(directory.join(OPTIMIZED))?;
    let optimized = HloModuleProto::decode(optimized.as_slice()).map_err(io::Error::other)?;
    let executable = directory.join(EXECUTABLE);
    let executable = match executable.exists() {
        true => Some(fs::read(executable)?),
        false => None,
    };
    Ok(Compilation {
        stats,
        optimized,
        executable,
    })
}

fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}
