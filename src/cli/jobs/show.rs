//! `pretrain status` and `pretrain runs`: how jobs stand.

use ankh_jobs::{Live, Place, Record, State, Status};
use clap::Args;
use serde_json::{Value, json};

use super::{desk, recorded, records};
use crate::cli::output::{count, json as print_json, line_of};
use crate::cli::{CliError, Exit};
use crate::telemetry::print_line;

/// Ask how a job stands.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain status large\n  pretrain status large --json")]
pub(in crate::cli) struct StatusArgs {
    /// The job.
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// List the jobs that were submitted from here, and ask how each stands.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain runs")]
pub(in crate::cli) struct RunsArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn status(arguments: StatusArgs) -> Result<Exit, CliError> {
    let records = records()?;
    let job = recorded(&records, &arguments.name)?;
    let live = Live(print_line);
    let status = desk(&live, &records)?.status(&job);
    if arguments.json {
        print_json(&status)?;
        return Ok(Exit::Done);
    }
    line_of(&format!(
        "{}: {}, {}",
        status.name,
        status.state.word(),
        status.detail
    ))?;
    if let Some(progress) = progress(&status) {
        line_of(&format!("  {progress}"))?;
    }
    let others = status.hosts.iter().filter(|host| host.state != "running");
    let is_over = matches!(status.state, State::Finished | State::Stopped);
    for host in others.filter(|_| !is_over) {
        line_of(&format!("  host {} is {}", host.host, host.state))?;
    }
    Ok(Exit::Done)
}

pub(in crate::cli) fn runs(arguments: RunsArgs) -> Result<Exit, CliError> {
    let records = records()?;
    let mut known: Vec<Record> = Vec::new();
    for name in records.names()? {
        match records.read(&name) {
            Ok(record) => known.push(record),
            // The others can be listed all the same.
            Err(error) => print_line(&format!("warning: {error}")),
        }
    }
    let live = Live(print_line);
    let desk = desk(&live, &records)?;
    // Each answer takes a while.
    let statuses: Vec<Status> = std::thread::scope(|scope| {
        let asked: Vec<_> = known
            .iter()
            .map(|record| scope.spawn(|| desk.status(&record.job)))
            .collect();
        let answers = asked.into_iter().map(|thread| thread.join());
        answers
            .map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let all = known.iter().zip(&statuses);
    if arguments.json {
        let runs: Vec<Value> = all
            .map(|(record, status)| {
                json!({ "job": record.job, "submitted": record.submitted, "status": status })
            })
            .collect();
        print_json(&json!({ "runs": runs }))?;
        return Ok(Exit::Done);
    }
    if known.is_empty() {
        print_line("no job was submitted from here");
    }
    let rows = all.map(|(record, status)| {
        let submitted = std::time::UNIX_EPOCH + std::time::Duration::from_secs(record.submitted);
        [
            status.name.clone(),
            status.state.word().to_owned(),
            record.job.slice.name.clone(),
            place(&record.job.place),
            humantime::format_rfc3339_seconds(submitted).to_string(),
            progress(status).unwrap_or_else(|| status.detail.clone()),
        ]
    });
    let rows: Vec<[String; 6]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        line_of(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(Exit::Done)
}

/// Where a job runs, in a word.
fn place(place: &Place) -> String {
    match place {
        Place::CloudTpu(cloud) => cloud.zone.clone(),
        Place::Hosts(hosts) => match hosts.destinations.as_slice() {
            [host] => host.clone(),
            hosts => format!("{} hosts", hosts.len()),
        },
        Place::Gke(gke) => format!("gke {}", gke.namespace),
    }
}

/// What the last line of the metrics says.
fn progress(status: &Status) -> Option<String> {
    let metrics = status.metrics.as_ref()?;
    let step = metrics["step"].as_u64()?;
    let mut words = vec![format!("step {}", count(step))];
    words.extend(
        metrics["loss"]
            .as_f64()
            .map(|loss| format!("loss {loss:.4}")),
    );
    let tokens = metrics["tokens_per_second"].as_f64();
    words.extend(tokens.map(|tokens| format!("{} tokens/s", count(tokens as u64))));
    Some(words.join("  "))
}
