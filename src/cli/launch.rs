//! `pretrain launch`: keeps a training run going in a child process.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use ankh_pjrt::Platform;
use clap::Args;
use signal_hook::low_level;

use super::train::TrainArgs;
use super::{CliError, Exit};
use crate::supervision::{Ended, LIBTPU_LOCK, Launch, LaunchError, Patience};
use crate::telemetry::Log;

/// Train in a child process, and start it again with --resume where it crashes or hangs.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain launch --resume --config demo --data prepared --run-dir runs/first"
)]
pub(super) struct LaunchArgs {
    #[command(flatten)]
    train: TrainArgs,
    /// End after this many restarts without a step that is new to the run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_restarts: u32,
    /// Take a run for hung when no step ends for so many seconds, or for ten times the median of
    /// the last steps if that is longer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    hang_seconds: u64,
    /// The same while a run starts, compiles, loads a state or waits for data, and in its first
    /// steps.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    hang_seconds_starting: u64,
    /// The same while a run evaluates, saves or ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    hang_seconds_saving: u64,
}

/// The options above that are not the training's; each takes a value.
const OWN: [&str; 4] = [
    "--max-restarts",
    "--hang-seconds",
    "--hang-seconds-starting",
    "--hang-seconds-saving",
];

pub(super) fn run(arguments: LaunchArgs) -> Result<Exit, CliError> {
    Log::choose(arguments.train.log_format);
    Log::start();
    let mut given = std::env::args_os();
    let name = given.next().unwrap_or_else(|| "pretrain".into());
    // Behind the name of this subcommand.
    let first = of_training(given.skip(1));
    let mut again = first.clone();
    if !arguments.train.resume {
        again.push("--resume".into());
    }
    let on_tpu = arguments.train.slice.platform() == Platform::Tpu;
    let run = arguments.train.run_directory();
    let launch = Launch {
        program: std::env::current_exe().map_err(CliError::failed)?,
        name,
        arguments: first,
        restart_arguments: again,
        final_codes: [Exit::Done, Exit::Usage, Exit::Memory, Exit::Stopped]
            .map(|exit| exit as i32)
            .to_vec(),
        stopped: Exit::Stopped as i32,
        max_restarts: arguments.max_restarts,
        patience: Patience {
            step: Duration::from_secs(arguments.hang_seconds),
            start: Duration::from_secs(arguments.hang_seconds_starting),
            save: Duration::from_secs(arguments.hang_seconds_saving),
        },
        hangs: run.join("hangs"),
        libtpu_lock: on_tpu.then(|| LIBTPU_LOCK.into()),
    };
    let ended = launch.run().map_err(|error| {
        let help = match &error {
            LaunchError::Limit { .. } => format!(
                "the cause is in what it printed last, also in {}; remove it, then go on from the last saved step with --resume",
                run.join("log.jsonl").display()
            ),
            LaunchError::Stopping { .. } => {
                "go on from the last saved step with --resume".into()
            }
            LaunchError::System { .. } => {
                "train without `launch`, or see what this machine is short of".into()
            }
        };
        CliError::failed(error).help(help)
    })?;
    Ok(match ended {
        Ended::Code(0) => Exit::Done,
        Ended::Code(2) => Exit::Usage,
        Ended::Code(3) => Exit::Memory,
        Ended::Code(75) => Exit::Stopped,
        Ended::Code(_) => Exit::Failed,
        Ended::Signal(signal) => {
            // As the child ended. It comes back only for signals that end nothing.
            let _ = low_level::emulate_default_handler(signal);
            Exit::Failed
        }
    })
}

/// The arguments that training gets: those given, without this subcommand's own.
fn of_training(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = Vec::new();
    let mut given = given.into_iter();
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy();
        let name = text.split_once('=').map_or(&*text, |(name, _)| name);
        if !OWN.contains(&name) {
            arguments.push(argument);
        } else if argument == OsStr::new(name) {
            given.next();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    #[test]
    fn training_gets_all_but_the_options_of_the_launcher() {
        let given = [
            "--config",
            "tiny",
            "--max-restarts",
            "3",
            "--set=train.steps=4",
            "--hang-seconds=5",
            "--resume",
        ];
        let training = of_training(given.into_iter().map(Into::into));
        assert_eq!(
            training,
            ["--config", "tiny", "--set=train.steps=4", "--resume"]
        );
    }

    #[test]
    fn every_option_is_the_launchers_or_the_trainings() {
        let names = |command: Command| -> Vec<String> {
            let options = command.get_arguments();
            options
                .map(|option| format!("--{}", option.get_long().unwrap()))
                .collect()
        };
        let training = names(TrainArgs::augment_args(Command::new("train")));
        let all = names(LaunchArgs::augment_args(Command::new("launch")));
        let own: Vec<&String> = all.iter().filter(|name| !training.contains(name)).collect();
        assert_eq!(own, OWN.iter().collect::<Vec<_>>());
    }
}
