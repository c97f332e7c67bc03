//! The command line of `pretrain`: arguments in, an exit code out.
//!
//! Only results go to standard output; progress and messages go to standard error. Every error
//! passes through [`CliError`], the one place that knows exit codes and advice.

mod batches;
mod benchmark;
mod compile;
mod configuration;
mod doctor;
mod embed;
mod error;
mod evaluate;
mod fetch;
mod generate;
mod hosts;
mod init;
mod initialization;
mod jobs;
mod launch;
mod listing;
mod model;
mod output;
mod plan;
mod prepare;
mod progress;
mod readiness;
mod replay;
mod report;
mod score;
mod shell;
mod tensor_file;
mod train;
mod variants;
mod watch;
mod weights;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

pub use error::{CliError, Exit};

use crate::mesh::slice::Slice;

/// Pre-train Ankh protein language models.
///
/// Without a subcommand it trains: on prepared data, into a run directory.
#[derive(Parser)]
#[command(
    name = "pretrain",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Example:\n  pretrain prepare --output prepared proteins.fasta.gz\n  \
                  pretrain --config demo --data prepared --run-dir runs/first\n  \
                  pretrain --config demo --initialize-from hf --data prepared --run-dir runs/continued"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::TrainArgs,
}

#[derive(Subcommand)]
enum Command {
    Launch(launch::LaunchArgs),
    Prepare(prepare::PrepareArgs),
    Batches(batches::BatchesArgs),
    Plan(plan::PlanArgs),
    #[command(hide = true)]
    Compile(compile::CompileArgs),
    Replay(replay::ReplayArgs),
    Report(report::ReportArgs),
    Watch(watch::WatchArgs),
    Embed(embed::EmbedArgs),
    Generate(Box<generate::GenerateArgs>),
    Forward(weights::ForwardArgs),
    Import(weights::ImportArgs),
    Export(weights::ExportArgs),
    Evaluate(evaluate::EvaluateArgs),
    Score(score::ScoreArgs),
    Benchmark(Box<benchmark::BenchmarkArgs>),
    Variants(variants::VariantsArgs),
    Doctor(doctor::DoctorArgs),
    Submit(Box<jobs::SubmitArgs>),
    Status(jobs::StatusArgs),
    Logs(jobs::LogsArgs),
    Stop(jobs::StopArgs),
    Runs(jobs::RunsArgs),
    Init(init::InitArgs),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// The command line as clap knows it: for manual pages, completions, and tests of examples.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program on this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match renamed(&error) {
            Some(error) => {
                error.report();
                return error.exit().into();
            }
            // Also how help and version come; clap knows which stream and which code.
            None => error.exit(),
        },
    };
    ankh_pjrt::quiet_logs();
    let done = match cli.command {
        None => train::run(cli.train),
        Some(Command::Launch(arguments)) => launch::run(arguments),
        Some(Command::Prepare(arguments)) => prepare::run(arguments),
        Some(Command::Batches(arguments)) => batches::run(arguments),
        Some(Command::Plan(arguments)) => plan::run(arguments),
        Some(Command::Compile(arguments)) => compile::run(arguments),
        Some(Command::Replay(arguments)) => replay::run(arguments),
        Some(Command::Report(arguments)) => report::run(arguments),
        Some(Command::Watch(arguments)) => watch::run(arguments),
        Some(Command::Embed(arguments)) => embed::run(arguments),
        Some(Command::Generate(arguments)) => generate::run(*arguments),
        Some(Command::Forward(arguments)) => weights::forward(arguments),
        Some(Command::Import(arguments)) => weights::import(arguments),
        Some(Command::Export(arguments)) => weights::export(arguments),
        Some(Command::Evaluate(arguments)) => evaluate::run(arguments),
        Some(Command::Score(arguments)) => score::run(arguments),
        Some(Command::Benchmark(arguments)) => benchmark::run(*arguments),
        Some(Command::Variants(arguments)) => variants::run(arguments),
        Some(Command::Doctor(arguments)) => doctor::run(arguments),
        Some(Command::Init(arguments)) => init::run(arguments),
        Some(Command::Completions(arguments)) => shell::completions(arguments),
        Some(Command::Man(arguments)) => shell::man(arguments),
        Some(Command::Submit(arguments)) => jobs::submit(*arguments),
        Some(Command::Status(arguments)) => jobs::status(arguments),
        Some(Command::Logs(arguments)) => jobs::logs(arguments),
        Some(Command::Stop(arguments)) => jobs::stop(arguments),
        Some(Command::Runs(arguments)) => jobs::runs(arguments),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.report();
            error.exit().into()
        }
    }
}

/// Options that had other names in earlier versions: those, and the names they have now.
const RENAMED: [(&str, &str); 1] = [("--play-hosts", "--simulate-hosts")];

/// The error of an option that has another name now.
fn renamed(error: &clap::Error) -> Option<CliError> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let (before, now) = RENAMED.iter().find(|(before, _)| before == option)?;
    Some(CliError::usage(format!(
        "the option {before} is called {now} now"
    )))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        super::command().debug_assert();
    }
}
