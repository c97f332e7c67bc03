//! `pretrain batches`: the masked batches a run would see.

use ankh_data::{Batch, IGNORED, Share, Split, Tokenizer};
use clap::Args;

use super::configuration::{ConfigArgs, DataArgs, data_locations};
use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::train::batches;

/// Show the masked batches a run would see: a function of the configuration, the data and the step, and of nothing else.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain batches --config tiny --data prepared --steps 2")]
pub(super) struct BatchesArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// How many steps to show, from the first.
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: u64,
    /// The first step to show, counted from 0.
    #[arg(long, value_name = "STEP", default_value_t = 0)]
    from: u64,
    /// Hosts that share each batch.
    #[arg(long, value_name = "H", default_value_t = 1)]
    hosts: usize,
    /// The host whose part to show, counted from 0.
    #[arg(long, value_name = "I", default_value_t = 0)]
    host: usize,
    /// Print one JSON object per step.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: BatchesArgs) -> Result<Exit, CliError> {
    let mut config = arguments.config.resolve()?;
    arguments.data.lay_over(&mut config);
    config.validate()?;
    if arguments.hosts == 0 {
        return Err(CliError::usage("--hosts is 0: expected 1 or more"));
    }
    data_locations(&config)?;
    let tokenizer = config.tokenizer();
    let share = Share::host(arguments.host, arguments.hosts);
    let batches = batches(&config, Split::Train, share)?;
    for step in arguments.from..arguments.from.saturating_add(arguments.steps) {
        let batch = batches.batch(step)?;
        if arguments.json {
            json(&batch)?;
        } else {
            line_of(&listing(&batch, tokenizer))?;
        }
    }
    Ok(Exit::Done)
}

/// A batch for reading: each row's input and target, sentinels as <0>, <1> ...
fn listing(batch: &Batch, tokenizer: Tokenizer) -> String {
    let mut lines = vec![format!(
        "step {}, epoch {}: {} rows, {} of {} residues masked, {:.0} % of the positions used",
        batch.step,
        batch.epoch,
        batch.rows,
        batch.masked,
        batch.residues,
        100.0 * batch.padding_efficiency()
    )];
    let inputs = batch.input_ids.chunks(batch.input_length);
    let mask = batch.attention_mask();
    let masks = mask.chunks(batch.input_length);
    let targets = batch.labels.chunks(batch.target_length);
    for (((row, input), mask), target) in batch.examples.iter().zip(inputs).zip(masks).zip(targets)
    {
        let input = input.iter().zip(mask).filter(|(_, mask)| **mask == 1);
        let target = target.iter().filter(|label| **label != IGNORED);
        lines.push(format!("  row {row}"));
        lines.push(format!(
            "    input   {}",
            letters(input.map(|(id, _)| *id), tokenizer)
        ));
        lines.push(format!(
            "    target  {}",
            letters(target.copied(), tokenizer)
        ));
    }
    lines.join("\n")
}

fn letters(ids: impl Iterator<Item = i32>, tokenizer: Tokenizer) -> String {
    let letter = |id: i32| {
        // Batches hold ids of a vocabulary of at most 256.
        let id = u8::try_from(id).unwrap_or(ankh_data::tokenizer::UNK);
        match tokenizer.sentinel_index(id) {
            Some(index) => format!("<{index}>"),
            None => tokenizer.name(id),
        }
    };
    ids.map(letter).collect()
}
