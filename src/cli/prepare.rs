//! `pretrain prepare`: sequence files to tokenised Parquet.

use std::path::{Path, PathBuf};

use ankh_data::{Existing, Manifest, PrepareOptions, Progress, Split, Vocabulary, prepare};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::{count, json, line_of};
use super::{CliError, Exit};

/// Turn FASTA (plain, gzip, zstd) or Parquet into the tokenised data that training reads.
#[derive(Args)]
#[command(after_help = "Example:\n  pretrain prepare --output prepared uniref50.fasta.gz")]
pub(super) struct PrepareArgs {
    /// Where the Parquet files and manifest.json go.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Sequence files, read in this order.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Whose token ids to write.
    #[arg(long, value_enum, default_value_t = TokenizerArg::Ankh)]
    tokenizer: TokenizerArg,
    /// The share of sequences held out for evaluation, chosen by their ids.
    #[arg(long, value_name = "SHARE", default_value_t = PrepareOptions::default().validation_fraction)]
    validation_fraction: f64,
    /// Leave shorter sequences out.
    #[arg(long, value_name = "RESIDUES", default_value_t = PrepareOptions::default().min_length)]
    min_length: usize,
    /// Leave longer sequences out.
    #[arg(long, value_name = "RESIDUES")]
    max_length: Option<usize>,
    /// Replace prepared data that is in the output directory.
    #[arg(long)]
    replace: bool,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenizerArg {
    /// Ankh and Ankh2.
    Ankh,
    /// Ankh3.
    Ankh3,
}

pub(super) fn run(arguments: PrepareArgs) -> Result<Exit, CliError> {
    let options = PrepareOptions {
        tokenizer: match arguments.tokenizer {
            TokenizerArg::Ankh => Vocabulary::Ankh,
            TokenizerArg::Ankh3 => Vocabulary::Ankh3,
        },
        validation_fraction: arguments.validation_fraction,
        min_length: arguments.min_length,
        max_length: arguments.max_length,
        existing: if arguments.replace {
            Existing::Replace
        } else {
            Existing::Keep
        },
        ..PrepareOptions::default()
    };
    let bar = ProgressBar::new(0);
    let style = "{bar:24} {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let mut show = |progress: Progress<'_>| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
        bar.set_message(format!("{} sequences", count(progress.rows)));
    };
    let manifest = prepare(&arguments.inputs, &arguments.output, &options, &mut show);
    bar.finish_and_clear();
    let manifest = manifest?;
    if arguments.json {
        json(&manifest)?;
    } else {
        line_of(&report(&manifest, &arguments.output))?;
    }
    Ok(Exit::Done)
}

fn report(manifest: &Manifest, output: &Path) -> String {
    let found = &manifest.report;
    let rows = |split| count(manifest.amount(split).rows);
    let mut lines = vec![
        format!(
            "{} sequences, {} residues",
            count(manifest.rows),
            count(manifest.residues)
        ),
        format!(
            "  train {}, validation {}",
            rows(Split::Train),
            rows(Split::Validation)
        ),
        format!(
            "  lengths {} to {}, mean {:.1}",
            count(found.lengths.min),
            count(found.lengths.max),
            found.lengths.mean
        ),
    ];
    let changes = [
        (found.replaced_by_x, "unknown letters read as X"),
        (found.gaps_removed, "gaps removed"),
        (found.stops_removed, "stops removed"),
        (found.lower_case, "lower-case letters read as upper case"),
    ];
    for (number, what) in changes.into_iter().filter(|(number, _)| *number > 0) {
        lines.push(format!("  {} {what}", count(number)));
    }
    if found.rejected > 0 {
        let words = found.rejects_in_words();
        lines.push(format!("  {} left out: {words}", count(found.rejected)));
    }
    let files = manifest.files.len();
    let plural = if files == 1 { "" } else { "s" };
    lines.push(format!(
        "{files} file{plural} and manifest.json in {}",
        output.display()
    ));
    lines.join("\n")
}
