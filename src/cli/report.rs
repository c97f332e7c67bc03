//! `pretrain report`: one page that compares runs.

use std::path::PathBuf;

use clap::Args;

use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::report::view::State;
use crate::report::{Found, PlanFile, ReportError, Run, find, page, shorten};

/// Compare runs on one page of HTML, which needs no network and no other file.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain report runs/base runs/packed --output comparison.html\n  pretrain report runs --json"
)]
pub(super) struct ReportArgs {
    /// Run directories, or directories in which they are.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "report.html",
        conflicts_with = "json"
    )]
    output: PathBuf,
    /// What `pretrain plan --json` printed, to compare with runs that have no plan.json of their
    /// own.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print the figures of the runs as JSON, and write no page.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: ReportArgs) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    for path in &arguments.runs {
        let runs = find(path)?;
        if runs.is_empty() {
            let message = format!("there is no run in {}", path.display());
            return Err(CliError::usage(message).help("a run directory has a metrics.jsonl"));
        }
        for run in runs {
            if !found.iter().any(|other: &Found| other.path == run.path) {
                found.push(run);
            }
        }
    }
    shorten(&mut found);
    let plan = arguments
        .plan
        .as_ref()
        .map(|path| match PlanFile::read(path)? {
            Some(plan) => Ok(plan),
            None => Err(CliError::usage(format!("there is no {}", path.display()))),
        });
    let plan = plan.transpose()?;
    let mut runs: Vec<Run> = found
        .iter()
        .map(|run| Run::open(&run.path, &run.name))
        .collect();
    if let Some(plan) = &plan {
        runs.iter_mut().for_each(|run| run.plan_by_default(plan));
    }
    if arguments.json {
        json(&State::of(&runs))?;
        return Ok(Exit::Done);
    }
    let output = &arguments.output;
    let text = page::report(&runs);
    let written = ankh_storage::atomic::replace_file(output, text.as_bytes());
    written
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", output.display())))?;
    line_of(&output.display().to_string())?;
    Ok(Exit::Done)
}

impl From<ReportError> for CliError {
    fn from(error: ReportError) -> Self {
        let help = match &error {
            ReportError::Read { .. } => "name run directories, or a directory in which they are",
            ReportError::NoPlan { .. } => "write one with `pretrain plan --json > plan.json`",
        };
        CliError::usage(error).help(help)
    }
}
