//! `pretrain forward`, `import` and `export`: the commands for weights.

use std::path::PathBuf;

use ankh_pjrt::HostTensor;
use ankh_storage::Location;
use clap::Args;

use super::configuration::ConfigArgs;
use super::output::{json, line_of};
use super::{CliError, Exit, Slice, tensor_file};
use crate::config::ScheduleKind;
use crate::hugging_face::{self, Note};
use crate::mesh::Hosts;
use crate::programs::Gradients;
use crate::run_dir::Recorded;
use crate::telemetry::print_line;
use crate::train::forward::forward as forward_pass;
use crate::train::open_mesh;

/// Run weights on one batch: logits and loss, and on request gradients and optimizer steps, all as
/// safetensors.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain forward --weights hf --batch batch.safetensors --output ours.safetensors --gradients"
)]
pub(super) struct ForwardArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What to compute on: cpu-N (N virtual devices), cuda-N, or a TPU slice by its name, such as
    /// v4-64, v5e-16, v5p-128 or v6e-8.
    #[arg(long, value_name = "SPEC", default_value_t)]
    slice: Slice,
    /// A Hugging Face directory, a checkpoint or a run directory; a checkpoint may be in a bucket.
    #[arg(long, value_name = "DIR|URL")]
    weights: Location,
    /// A safetensors file with int32 input_ids and attention_mask [B,S], decoder_input_ids and
    /// labels [B,T] (-100 is not counted); with packed rows input_segments [B,S] and
    /// target_segments [B,T] in place of attention_mask.
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// The safetensors file to write: logits, encoder and loss.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Add the gradients: grad.<name> for each weight.
    #[arg(long)]
    gradients: bool,
    /// Add losses [N] and after<N>.<name>: N steps of the configuration's optimizer on this batch,
    /// at schedule.peak_learning_rate.
    #[arg(long, value_name = "N", default_value_t = 0)]
    optimizer_steps: u64,
}

/// Turn a Hugging Face directory into a checkpoint.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain import --input ankh-base --output imported/step_00000000"
)]
pub(super) struct ImportArgs {
    /// A directory with config.json and model.safetensors.
    #[arg(long, value_name = "HF_DIR")]
    input: PathBuf,
    /// The checkpoint to write: a directory, or a bucket's URL.
    #[arg(long, value_name = "DIR|URL")]
    output: Location,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Turn a checkpoint into a Hugging Face directory.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain export --checkpoint runs/first --output hf")]
pub(super) struct ExportArgs {
    /// A checkpoint, or a run directory for its newest one; or a bucket's URL of either.
    #[arg(long, value_name = "DIR|URL")]
    checkpoint: Location,
    /// The directory to write.
    #[arg(long, value_name = "HF_DIR")]
    output: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn forward(arguments: ForwardArgs) -> Result<Exit, CliError> {
    let mut config = arguments.config.resolve()?;
    let weights = hugging_face::load(states_of(arguments.weights))?;
    print_notes(&weights.notes);
    config.model = weights.model;
    config.schedule.kind = ScheduleKind::Constant;
    config.schedule.warmup_steps = 0;
    let batch = tensor_file::read(&arguments.batch)?;
    let mesh = open_mesh(&config, arguments.slice, Hosts::Real)?;
    let gradients = if arguments.gradients {
        Gradients::Yes
    } else {
        Gradients::No
    };
    let steps = arguments.optimizer_steps;
    let found = forward_pass(&config, &mesh, &weights.tensors, &batch, gradients, steps)?;

    let mut results = vec![
        ("logits".to_owned(), found.logits),
        ("encoder".to_owned(), found.encoder),
        ("loss".to_owned(), found.loss),
    ];
    let mut add = |prefix: &str, tensors: &[(String, HostTensor)]| -> Result<(), CliError> {
        let theirs = hugging_face::to_hugging_face(&config.model, tensors)?;
        let prefixed = theirs
            .into_iter()
            .map(|(name, tensor)| (format!("{prefix}.{name}"), tensor));
        results.extend(prefixed);
        Ok(())
    };
    if arguments.gradients {
        add("grad", &found.gradients)?;
    }
    if steps > 0 {
        add(&format!("after{steps}"), &found.after)?;
        let losses = HostTensor::new::<f32>([steps as i64], &found.losses);
        results.push(("losses".to_owned(), losses));
    }
    tensor_file::write(&arguments.output, &results)?;
    Ok(Exit::Done)
}

pub(super) fn import(arguments: ImportArgs) -> Result<Exit, CliError> {
    let imported = hugging_face::import_to_checkpoint(&arguments.input, arguments.output)?;
    print_notes(&imported.notes);
    if arguments.json {
        json(&serde_json::json!({ "checkpoint": imported.checkpoint }))?;
    } else {
        line_of(&format!("checkpoint {}", imported.checkpoint))?;
    }
    Ok(Exit::Done)
}

/// Where the states of a run are, if this is its directory and they are elsewhere; else itself.
pub(super) fn states_of(location: Location) -> Location {
    let run = location.local().map(Recorded::of);
    match run {
        Some(Ok(Some(Recorded::Whole(config)))) => config.checkpoint.directory.unwrap_or(location),
        _ => location,
    }
}

/// Prints the notes of an import to standard error.
pub(super) fn print_notes(notes: &[Note]) {
    for note in notes {
        print_line(&format!("note: {note}"));
    }
}

pub(super) fn export(arguments: ExportArgs) -> Result<Exit, CliError> {
    let files =
        hugging_face::export_checkpoint(states_of(arguments.checkpoint), &arguments.output)?;
    if arguments.json {
        json(&serde_json::json!({ "directory": arguments.output, "files": files }))?;
    } else {
        line_of(&format!(
            "{} with {}",
            arguments.output.display(),
            files.join(", ")
        ))?;
    }
    Ok(Exit::Done)
}
