//! `pretrain batches`: the masked batches a run would see.

use std::io::{IsTerminal, stdout};

use ankh_data::{HostShard, Split};
use clap::{Args, ColorChoice};
use terminal_size::{Width, terminal_size_of};

use super::configuration::{ConfigArgs, DataArgs, data_locations, settle_batch_size};
use super::listing::{Listing, Paint};
use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::config::Config;
use crate::train::batches;

/// Show the masked batches that a run would see. They depend only on the configuration, the data
/// and the step.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain batches --config tiny --data prepared --steps 2\n  pretrain batches --config small --set data.packing=packed --data prepared --color always | less -R"
)]
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
    /// The rows that a run took in the steps before --from, where its batch size has changed
    /// [default: --from times train.batch_size].
    #[arg(long, value_name = "ROWS")]
    rows_before: Option<u64>,
    /// Hosts that each batch is split over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    hosts: usize,
    /// The host whose shard to show, counted from 0.
    #[arg(long, value_name = "I", default_value_t = 0)]
    host: usize,
    /// Colors: the same for a sentinel in input and target, alternating for the segments of a row.
    /// `auto` means on terminals, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
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
    settle_batch_size(&mut config)?;
    let listing = listing(&config, arguments.color);
    let shard = HostShard::host(arguments.host, arguments.hosts);
    let mut batches = batches(&config, Split::Train, shard)?;
    if let Some(rows) = arguments.rows_before {
        batches = batches.after(arguments.from, rows);
    }
    for step in arguments.from..arguments.from.saturating_add(arguments.steps) {
        let batch = batches.batch(step)?;
        if arguments.json {
            json(&batch)?;
        } else {
            line_of(&listing.of(&batch))?;
        }
    }
    Ok(Exit::Done)
}

/// A listing for the configuration, as standard output can show it.
fn listing(config: &Config, when: ColorChoice) -> Listing {
    let terminal = stdout().is_terminal();
    let wanted = match when {
        ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    };
    let components = config.components().into_iter();
    Listing {
        tokenizer: config.tokenizer(),
        components: components.map(|component| component.name).collect(),
        paint: if wanted { Paint::Colours } else { Paint::Plain },
        width: terminal_size_of(stdout()).map(|(Width(width), _)| width.into()),
    }
}
