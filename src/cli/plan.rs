//! `pretrain plan`: what a step needs and takes on a slice, from its compiler.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ankh_pjrt::Platform;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::configuration::ConfigArgs;
use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::fleet::dump;
use crate::fleet::saved::{self, SavedError};
use crate::plan::compile::{Compilation, CompileError, Compiler, Executable, Job};
use crate::plan::{Draft, PlanError, too_big};
use crate::slice::Slice;
use crate::telemetry::print_line;

/// Compile the training step for a slice, no TPU needed, and say whether it fits and how long it takes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain plan --slice v4-64 --config ankh-large\n  pretrain plan --slice cpu-8 --config tiny --set sharding.model=2 --json"
)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to compile for: v4-8 to v4-4096, v5e-*, v5p-*, v6e-*, cpu-N, cuda-N.
    #[arg(long, value_name = "SPEC")]
    slice: Slice,
    /// Save the compiled step, for training to load.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the step's program to this directory, as built and as compiled.
    #[arg(long, value_name = "DIR")]
    dump_hlo: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: PlanArgs) -> Result<Exit, CliError> {
    let config = arguments.config.resolve()?;
    config.validate()?;
    let cpu = arguments.slice.platform() == Platform::Cpu;
    if cpu && arguments.slice.devices() > 1 && arguments.output.is_some() {
        return Err(CliError::usage(SavedError::SeveralCpuDevices).help("plan for cpu-1"));
    }
    let draft = Draft::new(&config, arguments.slice)?;
    if let Some(directory) = &arguments.dump_hlo {
        dump::given(draft.module(), directory)?;
    }
    let compiler = Compiler::this_program()?;
    let job = Job {
        config: &config,
        slice: arguments.slice,
        executable: match arguments.output {
            Some(_) => Executable::Wanted,
            None => Executable::Unwanted,
        },
    };
    let compilation = {
        let _spinner = Spinner::start(format!("compiling for {}", arguments.slice));
        compiler.compile(job)
    };
    let compilation = compilation.map_err(|error| explained(error, &draft))?;
    if let Some(directory) = &arguments.dump_hlo {
        dump::compiled(draft.module(), &compilation.optimized, directory)?;
    }
    if let Some(path) = &arguments.output {
        save(path, &compilation)?;
    }
    let plan = draft.plan(&compilation);
    match arguments.json {
        true => json(&plan)?,
        false => line_of(&plan.to_string())?,
    }
    Ok(Exit::Done)
}

/// A compiler's error in terms of the step.
fn explained(error: CompileError, draft: &Draft<'_>) -> CliError {
    match &error {
        CompileError::Exhausted { message } => {
            let (text, advice) = too_big(draft, message);
            CliError::new(Exit::Memory, text).help(advice)
        }
        _ => error.into(),
    }
}

fn save(path: &Path, compilation: &Compilation) -> Result<(), CliError> {
    let payload = compilation.executable.as_deref().unwrap_or_default();
    let saved = saved::save(path, &compilation.facts.identity, payload);
    saved.map_err(CliError::failed)
}

/// Shows that something goes on, and for how long; a line where standard error is no terminal.
pub(super) struct Spinner(Option<ProgressBar>);

impl Spinner {
    pub fn start(message: String) -> Spinner {
        if !stderr().is_terminal() {
            print_line(&message);
            return Spinner(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        let bar = ProgressBar::new_spinner()
            .with_style(style.expect("the template is well formed"))
            .with_message(message);
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(Some(bar))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Layout(error) => {
                let advice = error.advice();
                CliError::usage(error).help(advice)
            }
            PlanError::Program(error) => CliError::failed(error),
        }
    }
}

impl From<CompileError> for CliError {
    fn from(error: CompileError) -> Self {
        let help = match &error {
            CompileError::Layout { advice, .. } => {
                let advice = advice.clone();
                return CliError::usage(error).help(advice);
            }
            CompileError::Exhausted { .. } => return CliError::new(Exit::Memory, error),
            CompileError::NoPlugin { .. } => {
                "`make libtpu` fetches the compiler for TPUs, `make plugin` that for the CPU"
            }
            CompileError::Died { .. } => {
                "the fault is the compiler's: try another version of the plugin, other compiler.flags or another layout"
            }
            _ => return CliError::failed(error),
        };
        CliError::failed(error).help(help)
    }
}
