//! `pretrain replay`: whether this machine computes the same twice.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::configuration::{ConfigArgs, settle_batch_size};
use super::output::{json, line_of};
use super::readiness::ready;
use super::{CliError, Exit, Slice};
use crate::config::Config;
use crate::devices::open_mesh;
use crate::mesh::{Entries, Hosts, ProgramCache};
use crate::run_dir::{Recorded, checkpoints_of};
use crate::telemetry::Log;
use crate::train::{Reference, Replay, replay};

/// Train the next steps of a run twice, and compare all bits: a test for devices that compute
/// wrongly without an error.
///
/// It begins with the newest whole saved state, and with the run's own configuration and data. It
/// writes nothing in the run directory and does not take it, so a run under way there may continue,
/// on other devices. The exit code is 1 where bits differ.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain replay --run-dir runs/first --steps 3")]
pub(super) struct ReplayArgs {
    /// The run directory.
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// What to compute on: cpu-N (N virtual devices), cuda-N, or a TPU slice by its name, such as
    /// v4-64, v5e-16, v5p-128 or v6e-8.
    #[arg(long, value_name = "SPEC", default_value_t)]
    slice: Slice,
    /// How many steps to train.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: ReplayArgs) -> Result<Exit, CliError> {
    let ReplayArgs {
        run_dir,
        slice,
        steps,
        json: as_object,
    } = arguments;
    Log::start();
    let config = configuration(&run_dir, slice)?;
    ready(slice, &config, None)?;
    let mut mesh = open_mesh(&config, slice, Hosts::Real)?;
    if let Some(directory) = config.compiler.cache.directory() {
        mesh.keep_programs_in(ProgramCache::at(&directory, Entries::Used));
    }
    let replayed = replay(&config, &checkpoints_of(&run_dir, &config), &mesh, steps)?;
    match as_object {
        true => json(&as_json(&replayed, steps))?,
        false => line_of(&in_words(&replayed, steps))?,
    }
    if replayed.differences.is_empty() {
        return Ok(Exit::Done);
    }
    let devices = match replayed
        .differences
        .iter()
        .any(|d| d.from == Reference::OtherDevices)
    {
        true => "the devices that differ from the others",
        false => "this machine's devices",
    };
    let error = CliError::failed("the same steps did not give the same bits");
    Err(error.help(format!(
        "{devices} are suspect: run this on other hosts to see that they agree, take this one out, and go on elsewhere from a state saved before (docs/operations.md, silent corruption)"
    )))
}

/// The run's own configuration, as `--resume` alone takes it.
fn configuration(run_dir: &Path, slice: Slice) -> Result<Config, CliError> {
    let mut config = match Recorded::of(run_dir)? {
        None => {
            let error = format!("there is no run in {}", run_dir.display());
            return Err(CliError::usage(error).help("give the directory of a run that has saved"));
        }
        Some(Recorded::Whole(config) | Recorded::Restored { config, .. }) => config,
    };
    config.validate()?;
    settle_batch_size(&mut config)?;
    let unset = ConfigArgs {
        config: None,
        set: vec![],
    };
    if let Some(layout) = unset.lay_out(&mut config, slice) {
        tracing::info!("{layout}");
    }
    Ok(config)
}

fn in_words(replayed: &Replay, steps: u64) -> String {
    let Replay {
        step,
        arrays,
        fingerprint,
        differences,
    } = replayed;
    if differences.is_empty() {
        let last = step + steps;
        return format!(
            "bitwise equal: {steps} steps, {arrays} arrays\n  from step {step} to {last}; fingerprint {fingerprint:016x}"
        );
    }
    let mut lines = vec![format!("not equal: {steps} steps from step {step}")];
    lines.extend(
        differences
            .iter()
            .map(|difference| format!("  {difference}")),
    );
    lines.join("\n")
}

fn as_json(replayed: &Replay, steps: u64) -> serde_json::Value {
    let differences = replayed.differences.iter().map(|difference| {
        json!({
            "array": difference.array,
            "devices": difference.devices,
            "from": match difference.from {
                Reference::FirstTime => "first_time",
                Reference::OtherDevices => "other_devices",
                Reference::EachOther => "each_other",
            },
        })
    });
    json!({
        "equal": replayed.differences.is_empty(),
        "step": replayed.step,
        "steps": steps,
        "arrays": replayed.arrays,
        "fingerprint": format!("{:016x}", replayed.fingerprint),
        "differences": differences.collect::<Vec<_>>(),
    })
}
