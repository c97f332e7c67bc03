//! `pretrain submit`, `status`, `logs`, `stop` and `runs`: jobs on machines that are not here. The
//! crate `ankh_jobs` does the work; here it is told what only this program knows.

mod logs;
mod show;
mod submit;

use std::time::Duration;

use ankh_jobs::{Desk, Error, Job, Live, Name, Pace, Records, Saving, Shell};
use clap::Args;

use super::output::line_of;
use super::{CliError, Exit};
use crate::telemetry::print_line;

pub(super) use logs::{LogsArgs, run as logs};
pub(super) use show::{RunsArgs, StatusArgs, runs, status};
pub(super) use submit::{SubmitArgs, run as submit};

/// Ask a job to save and to end, and remove the machine that was created for it.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain stop large")]
pub(super) struct StopArgs {
    /// The job.
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not wait until the run has saved: what it did since its last save is lost.
    #[arg(long)]
    now: bool,
    /// Print every command that would be run, and run none.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn stop(arguments: StopArgs) -> Result<Exit, CliError> {
    let records = records()?;
    let job = recorded(&records, &arguments.name)?;
    let saving = match arguments.now {
        true => Saving::Not,
        false => Saving::First,
    };
    if arguments.dry_run {
        let paper = ankh_jobs::Dry::to(std::io::stdout());
        desk(&paper, &records)?.stop(&job, saving)?;
        return Ok(Exit::Done);
    }
    let live = Live(print_line);
    desk(&live, &records)?.stop(&job, saving)?;
    line_of(&format!(
        "{} is stopped; submit it again to go on",
        job.name
    ))?;
    Ok(Exit::Done)
}

/// Which jobs were submitted by this user on this machine.
fn records() -> Result<Records, CliError> {
    Records::of_user(|name| std::env::var(name).ok()).ok_or_else(|| {
        CliError::failed("it is not known where jobs are recorded: HOME is not set")
            .help("set XDG_STATE_HOME to a directory")
    })
}

/// The job of a name.
fn recorded(records: &Records, name: &str) -> Result<Job, CliError> {
    let name: Name = name.parse()?;
    Ok(records.read(&name)?.job)
}

fn desk<'a>(shell: &'a dyn Shell, records: &'a Records) -> Result<Desk<'a>, CliError> {
    Ok(Desk {
        shell,
        records,
        pace: pace()?,
    })
}

/// How many seconds pass between two looks at a job, if not the usual number.
const POLL: &str = "ANKH_JOBS_POLL_SECONDS";

fn pace() -> Result<Pace, CliError> {
    let Ok(text) = std::env::var(POLL) else {
        return Ok(Pace::default());
    };
    let seconds: Option<f64> = text.parse().ok();
    let poll = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let poll = poll.ok_or_else(|| {
        CliError::usage(format!("{POLL} is `{text}`, expected a number of seconds"))
    })?;
    Ok(Pace {
        poll,
        longest: 20 * poll,
    })
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let help = match &error {
            Error::Name(_) | Error::Place(_) => return Self::usage(error),
            Error::Check { help, .. } => {
                let help = help.clone();
                return Self::usage(error).help(help);
            }
            Error::Differs { .. } => {
                return Self::usage(error).help(
                    "give what it was submitted with, or another --name; or `pretrain stop` it, then submit it with --update",
                );
            }
            Error::Foreign { .. } => return Self::usage(error).help("give another --name"),
            Error::NoJob(_) => {
                return Self::usage(error)
                    .help("`pretrain runs` lists the jobs that were submitted from here");
            }
            Error::NoTool { program, .. } => match *program {
                "gcloud" => {
                    "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install"
                }
                "kubectl" => "install kubectl: https://kubernetes.io/docs/tasks/tools",
                _ => "install OpenSSH's client",
            },
            Error::Busy(_) => "wait for it, or end it",
            Error::SomeHosts { .. } => {
                "see that each host can be reached by ssh without a question, then run the same command"
            }
            Error::GivenUp { .. } => {
                "remove the cause, then submit again; `pretrain logs` shows what the hosts said"
            }
            Error::Tool { .. } | Error::Answer { .. } => {
                "what was begun is found again: remove the cause, then run the same command"
            }
            Error::File { .. } | Error::Output(_) => return Self::failed(error),
        };
        Self::failed(error).help(help)
    }
}
