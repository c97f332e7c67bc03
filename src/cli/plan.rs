//! `pretrain plan`: the memory and time of a step on a slice, from its compiler.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ankh_pjrt::Platform;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::configuration::{ConfigArgs, DataArgs, settle_batch_size};
use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::config::Config;
use crate::mesh::dump;
use crate::mesh::executable_file::{self, ExecutableFileError};
use crate::mesh::slice::Slice;
use crate::plan::compile::{Compilation, CompileError, Compiler, Executable, Job};
use crate::plan::search::{Cache, Search, SearchError};
use crate::plan::{LoweredStep, MemoryShortfall, PlanError, Remedy};
use crate::telemetry::print_line;

/// Compile the training step for a slice, no TPU needed, and report whether it fits and how long it
/// takes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain plan --slice v4-64 --config ankh-large\n  pretrain plan --slice cpu-8 --config tiny --set sharding.model=2\n  pretrain plan --slice v4-64 --config ankh-large --search --output-config best.toml"
)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// What to compile for: cpu-N (N virtual devices), cuda-N, or a TPU slice by its name, such as
    /// v4-64, v5e-16, v5p-128 or v6e-8.
    #[arg(long, value_name = "SPEC")]
    slice: Slice,
    /// Save the compiled step, for training to load.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the step's program to this directory, before and after optimization.
    #[arg(long, value_name = "DIR")]
    dump_hlo: Option<PathBuf>,
    /// Search for the mesh, optimizer sharding, remat policy and gradient accumulation with the
    /// fastest step, and rank them.
    #[arg(long, conflicts_with_all = ["output", "dump_hlo"])]
    search: bool,
    #[command(flatten)]
    searching: SearchArgs,
    /// Print the plan, or the ranking of a search, as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SearchArgs {
    /// Write the best of a search as a configuration that extends the one given.
    #[arg(long, value_name = "FILE", requires = "search")]
    output_config: Option<PathBuf>,
    /// The most compilations of a search.
    #[arg(long, value_name = "N", default_value_t = 18, requires = "search")]
    limit: usize,
    /// The longest time of a search, in minutes.
    #[arg(long, value_name = "N", default_value_t = 28, requires = "search")]
    minutes: u64,
    /// Where a search keeps the compiler's answers for later searches [default: ankh/plans in
    /// XDG_CACHE_HOME or ~/.cache].
    #[arg(long, value_name = "DIR", requires = "search")]
    cache: Option<PathBuf>,
}

pub(super) fn run(arguments: PlanArgs) -> Result<Exit, CliError> {
    let mut config = arguments.config.resolve()?;
    arguments.data.clone().lay_over(&mut config);
    config.validate()?;
    settle_batch_size(&mut config)?;
    if let Some(layout) = arguments.config.lay_out(&mut config, arguments.slice) {
        print_line(&layout);
    }
    let cpu = arguments.slice.platform() == Platform::Cpu;
    if cpu && arguments.slice.devices() > 1 && arguments.output.is_some() {
        return Err(CliError::usage(ExecutableFileError::SeveralCpuDevices).help("plan for cpu-1"));
    }
    if arguments.search {
        return search(&config, &arguments);
    }
    let lowered = LoweredStep::new(&config, arguments.slice)?;
    if let Some(directory) = &arguments.dump_hlo {
        dump::before_optimizations(lowered.module(), directory)?;
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
    let compilation = compilation.map_err(|error| explained(error, &lowered))?;
    if let Some(directory) = &arguments.dump_hlo {
        dump::after_optimizations(lowered.module(), &compilation.optimized, directory)?;
    }
    if let Some(path) = &arguments.output {
        save(path, &compilation)?;
    }
    let plan = lowered.plan(&compilation);
    match arguments.json {
        true => json(&plan)?,
        false => line_of(&plan.to_string())?,
    }
    Ok(Exit::Done)
}

/// Compiles the step for a slice, to see whether it fits.
pub(super) fn fits(config: &Config, arguments: &ConfigArgs, slice: Slice) -> Result<(), CliError> {
    let mut config = config.clone();
    settle_batch_size(&mut config)?;
    arguments.lay_out(&mut config, slice);
    let lowered = LoweredStep::new(&config, slice)?;
    let _spinner = Spinner::start(format!(
        "compiling for {slice}, to see whether the step fits"
    ));
    let compiled = Compiler::this_program()?.compile(Job {
        config: &config,
        slice,
        executable: Executable::Unwanted,
    });
    compiled
        .map(drop)
        .map_err(|error| explained(error, &lowered))
}

/// Searches for the best way to run the step.
fn search(config: &Config, arguments: &PlanArgs) -> Result<Exit, CliError> {
    let options = &arguments.searching;
    let search = Search {
        config,
        slice: arguments.slice,
        compiler: Compiler::this_program()?,
        cache: match &options.cache {
            Some(directory) => Some(Cache::at(directory)),
            None => Cache::of_user(),
        },
        limit: options.limit,
        time: Duration::from_secs(60 * options.minutes),
    };
    let mut spinner = Spinner::start(format!("laying out choices for {}", arguments.slice));
    let ranking = search.run(|progress| {
        // One line at a time.
        spinner.change(&progress.to_string());
    });
    drop(spinner);
    let ranking = ranking?;
    let file = match (&options.output_config, ranking.best()) {
        (Some(file), Some(best)) => {
            let text = best
                .choice
                .apply(config)
                .to_toml_over(arguments.config.config.as_deref())?;
            let written = ankh_storage::atomic::replace_file(file, text.as_bytes());
            written.map_err(|error| {
                CliError::failed(format!("cannot write {}: {error}", file.display()))
            })?;
            Some(file)
        }
        _ => None,
    };
    if arguments.json {
        json(&serde_json::json!({ "ranking": ranking, "config": file }))?;
    } else {
        line_of(&ranking.to_string())?;
        if let Some(file) = file {
            line_of(&format!("written to {}", file.display()))?;
        }
    }
    match ranking.best() {
        Some(_) => Ok(Exit::Done),
        None if ranking.nothing_fits() => Err(CliError::new(
            Exit::Memory,
            "the step does not fit the memory of a chip, however it is split",
        )
        .help("choose a larger slice or a smaller model")),
        None => Err(CliError::failed("no choice could be compiled")),
    }
}

/// A compiler's error in terms of the step.
fn explained(error: CompileError, lowered: &LoweredStep<'_>) -> CliError {
    match &error {
        CompileError::Exhausted { message } => {
            let shortfall = MemoryShortfall::of(lowered, message);
            let changes: Vec<String> = shortfall.remedies.iter().map(change).collect();
            let help = match changes.split_last() {
                Some((last, others)) if !others.is_empty() => {
                    format!("{}, or {last}", others.join(", "))
                }
                _ => changes.concat(),
            };
            CliError::new(Exit::Memory, shortfall.to_string()).help(help)
        }
        _ => error.into(),
    }
}

/// A remedy as advice.
fn change(remedy: &Remedy) -> String {
    match remedy {
        Remedy::ShardWeights => {
            "split the weights over more chips with sharding.fsdp or sharding.model".into()
        }
        Remedy::ShardOptimizer => "split the optimizer state with sharding.zero=true".into(),
        Remedy::ShardLayers => "split the layers with sharding.model".into(),
        Remedy::FullRemat => "set train.remat=full".into(),
        Remedy::AccumulateGradients(parts) => format!("set train.gradient_accumulation={parts}"),
        Remedy::SmallerBatch => "lower train.batch_size".into(),
        Remedy::LargerSlice => "choose a larger slice or a smaller model".into(),
    }
}

fn save(path: &Path, compilation: &Compilation) -> Result<(), CliError> {
    let payload = compilation.executable.as_deref().unwrap_or_default();
    let saved = executable_file::save(path, &compilation.stats.identity, payload);
    saved.map_err(CliError::failed)
}

/// Shows that work is in progress, and for how long; one line where standard error is not a
/// terminal.
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

impl Spinner {
    /// Shows another message.
    pub fn change(&mut self, message: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(message.to_owned()),
            None => print_line(message),
        }
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
            PlanError::Sharding(error) => error.into(),
            PlanError::Program(error) => CliError::failed(error),
            PlanError::Data(error) => error.into(),
        }
    }
}

impl From<SearchError> for CliError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Plan(error) => error.into(),
            SearchError::Compile(error) => error.into(),
        }
    }
}

impl From<CompileError> for CliError {
    fn from(error: CompileError) -> Self {
        let help = match &error {
            CompileError::Exhausted { .. } => return CliError::new(Exit::Memory, error),
            CompileError::NoPlugin { .. } => {
                "`pretrain doctor --fetch --slice v4-8` fetches the compiler for TPUs, `pretrain doctor --fetch` that for the CPU"
            }
            CompileError::Died { how, .. } if how == "signal 9" => {
                "the system may have killed it for want of memory; a large step takes some 4 GiB"
            }
            CompileError::Died { .. } => {
                "the fault is the compiler's: try another version of the plugin, other compiler.flags or another layout"
            }
            _ => return CliError::failed(error),
        };
        CliError::failed(error).help(help)
    }
}
