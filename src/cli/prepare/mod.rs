//! `pretrain prepare`: sequence files to tokenised Parquet, on one machine or many.

mod bar;
mod summary;

use std::path::PathBuf;

use ankh_data::format::ColumnNames;
use ankh_data::format::SplitBy;
use ankh_data::prepare::{Part, merge, prepare_part};
use ankh_data::{Duplicates, Existing, PrepareOptions, Unfinished, Vocabulary, prepare};
use ankh_storage::{Location, StorageOptions};
use clap::{Args, ValueEnum};

use super::error::of_input;
use super::output::{json, line_of};
use super::{CliError, Exit};
use crate::telemetry::print_line;
use bar::Bar;

/// Turn FASTA, CSV, TSV or Parquet into the tokenized data that training reads.
///
/// Text may be compressed by gzip, bgzip, zstd or xz. Interrupted work continues when the same
/// command is run again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain prepare --output prepared uniref50.fasta.gz\n\n\
    On several machines, one command each, and then one to put the parts together:\n  \
    pretrain prepare --part 0/3 --output s3://bucket/prepared s3://bucket/uniref50.fasta.gz\n  \
    pretrain prepare --merge --output s3://bucket/prepared"
)]
pub(super) struct PrepareArgs {
    /// Where the Parquet files and manifest.json go: a directory, s3://BUCKET/KEY or
    /// gs://BUCKET/KEY.
    #[arg(long, value_name = "DIR|URL")]
    output: Location,
    /// Sequence files, read in this order, here or in a bucket. A directory stands for the sequence
    /// files below it, `-` for standard input. With --merge, the outputs of the parts, if they are
    /// not all in the output already.
    #[arg(required_unless_present = "merge", value_name = "INPUT")]
    inputs: Vec<Location>,
    #[command(flatten)]
    how: How,
    /// Make one of several parts of the output, one for each machine: 0/N to N-1/N.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["replace", "restart"])]
    part: Option<Part>,
    /// Make one data set of the parts.
    #[arg(long, conflicts_with_all = ["part", "restart", "How"])]
    merge: bool,
    /// Replace prepared data that is in the output directory.
    #[arg(long)]
    replace: bool,
    /// Discard unfinished work that was started with other inputs or options.
    #[arg(long)]
    restart: bool,
    /// Draw lengths and residues into an SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "part")]
    plot: Option<PathBuf>,
    /// Print the manifest as JSON.
    #[arg(long)]
    json: bool,
}

/// How sequences are processed.
#[derive(Args)]
#[group(multiple = true)]
struct How {
    /// Whose token ids to write.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = TokenizerArg::Ankh)]
    tokenizer: TokenizerArg,
    /// The fraction of sequences held out for evaluation during training, chosen by --split-by.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = PrepareOptions::default().validation_fraction
    )]
    validation_fraction: f64,
    /// The fraction of sequences held out for the final test, chosen by --split-by.
    #[arg(long, value_name = "SHARE", default_value_t = PrepareOptions::default().test_fraction)]
    test_fraction: f64,
    /// Leave shorter sequences out.
    #[arg(long, value_name = "RESIDUES", default_value_t = PrepareOptions::default().min_length)]
    min_length: usize,
    /// Leave longer sequences out.
    #[arg(long, value_name = "RESIDUES")]
    max_length: Option<usize>,
    /// Keep only the first of the records that have the same residues; reads the inputs twice.
    #[arg(long)]
    remove_duplicates: bool,
    /// The column of the tables that holds the sequences, if it is not called `sequence`, `seq`,
    /// `aa_sequence`, `protein_sequence`, `reference sequence` or `text`.
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// The column of the tables that holds the ids, if it is not called `id`, `accession`, `entry`,
    /// `name`, `primary_accession`, `uniref_id` or `cluster_id`. Without one, rows are numbered.
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// What decides whether a sequence is held out [default: its id, unless all have the same].
    #[arg(long, value_enum, value_name = "WHAT")]
    split_by: Option<SplitByArg>,
    /// Threads; 0 for one per core. The output does not depend on them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Records of the inputs per file and per unit of resumable work.
    #[arg(
        long,
        hide = true,
        value_name = "N",
        default_value_t = PrepareOptions::default().chunk_records
    )]
    chunk_records: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenizerArg {
    /// Ankh and Ankh2.
    Ankh,
    /// Ankh3.
    Ankh3,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitByArg {
    /// Its id: sequences of one id stay together.
    Id,
    /// Its letters: equal sequences stay together.
    Sequence,
}

impl PrepareArgs {
    fn existing(&self) -> Existing {
        match self.replace {
            true => Existing::Replace,
            false => Existing::Keep,
        }
    }

    fn options(&self) -> PrepareOptions {
        PrepareOptions {
            tokenizer: match self.how.tokenizer {
                TokenizerArg::Ankh => Vocabulary::Ankh,
                TokenizerArg::Ankh3 => Vocabulary::Ankh3,
            },
            validation_fraction: self.how.validation_fraction,
            test_fraction: self.how.test_fraction,
            min_length: self.how.min_length,
            max_length: self.how.max_length,
            duplicates: match self.how.remove_duplicates {
                true => Duplicates::Remove,
                false => Duplicates::Keep,
            },
            split_by: self.how.split_by.map(|split_by| match split_by {
                SplitByArg::Id => SplitBy::Id,
                SplitByArg::Sequence => SplitBy::Sequence,
            }),
            columns: ColumnNames {
                sequence: self.how.column.clone(),
                id: self.how.id_column.clone(),
            },
            chunk_records: self.how.chunk_records,
            threads: self.how.threads,
            existing: self.existing(),
            unfinished: match self.restart {
                true => Unfinished::Discard,
                false => Unfinished::Continue,
            },
            storage: StorageOptions::default(),
        }
    }
}

pub(super) fn run(arguments: PrepareArgs) -> Result<Exit, CliError> {
    let options = arguments.options();
    let (inputs, output) = (&arguments.inputs, &arguments.output);
    if let Some(part) = arguments.part {
        let bar = Bar::new();
        let report = prepare_part(inputs, output, part, &options, &mut |p| bar.show(&p));
        bar.finish();
        let report = report.map_err(refused)?;
        warn(&report.warnings);
        match arguments.json {
            true => json(&report)?,
            false => line_of(&summary::of_part(&report, output))?,
        }
        return Ok(Exit::Done);
    }
    let manifest = match arguments.merge {
        true => merge(output, inputs, options.existing, &options.storage),
        false => {
            let bar = Bar::new();
            let manifest = prepare(inputs, output, &options, &mut |p| bar.show(&p));
            bar.finish();
            manifest
        }
    };
    let manifest = manifest.map_err(refused)?;
    warn(&manifest.report.warnings);
    if let Some(path) = &arguments.plot {
        let written = std::fs::write(path, manifest.report.plot());
        written.map_err(|error| {
            CliError::failed(format!("cannot write {}: {error}", path.display()))
        })?;
    }
    match arguments.json {
        true => json(&manifest)?,
        false => line_of(&summary::of(&manifest, output))?,
    }
    Ok(Exit::Done)
}

/// An input that is not there is found before any is read.
fn refused(error: ankh_data::Error) -> CliError {
    match error.is_missing() {
        true => of_input(error),
        false => error.into(),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        print_line(&format!("warning: {warning}"));
    }
}
