//! `pretrain embed`: sequences to a file of embeddings.

use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use ankh_data::format::ColumnNames;
use ankh_pjrt::Platform;
use ankh_storage::{Location, atomic};
use clap::{Args, ValueEnum};

use super::error::of_input;
use super::model::ModelArgs;
use super::output::{count, json, line_of};
use super::progress::{WorkProgress, stop_requests};
use super::{CliError, Exit, Slice};
use crate::embed::{
    DatasetNames, EmbedOptions, Error, Existing, ForeignParts, Outcome, Progress, Records, Store,
    Survey, Unusable, embed,
};
use crate::huge_pages::run_with_huge_pages;
use crate::inference::{LoadedModel, ModelOptions};
use crate::programs::Pooling;
use crate::telemetry::{Log, print_line};

/// Virtual devices that a CPU is given without being asked for more.
const MOST_DEVICES: usize = 8;

/// Turn sequences into embeddings: the encoder's states, as Parquet or HDF5.
///
/// Interrupted work continues when the same command is run again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain embed --weights hf --output embeddings.parquet proteins.fasta.gz\n\n\
    Of each residue, for biotrainer:\n  \
    pretrain embed --weights hf --pooling none --output embeddings.h5 proteins.fasta"
)]
pub(super) struct EmbedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The file to write; its name ends in .parquet, .h5 or .hdf5.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// FASTA, CSV, TSV or Parquet, read in this order, here or in a bucket. Text may be compressed
    /// by gzip, bgzip, zstd or xz.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<Location>,
    /// What a sequence is given: the mean of its residues' states, or the state of each residue.
    /// The state of </s> is left out.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = PoolingName::Mean)]
    pooling: PoolingName,
    /// The type of the stored values.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = StoreName::Float32)]
    store: StoreName,
    /// Leave longer sequences out; 0 for none. On a TPU, a GPU or one CPU device, memory grows with
    /// the square of the length.
    #[arg(long, value_name = "RESIDUES", default_value_t = 8192)]
    max_length: usize,
    /// Tokens computed at once [default: 2048 for each device of a CPU, 32768 for each other one].
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// What the datasets of an HDF5 file are called.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = NamesName::SequenceHash)]
    hdf5_names: NamesName,
    /// End with an error at the first record that cannot be embedded, before any is.
    #[arg(long)]
    strict: bool,
    /// List the records that are left out in this file: file, line, id, reason and detail,
    /// separated by tabs.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Replace the output if it is there.
    #[arg(long)]
    replace: bool,
    /// Discard unfinished work on the output.
    #[arg(long)]
    restart: bool,
    /// The column of the tables that holds the sequences, if it has none of the usual names.
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// The column of the tables that holds the ids, if it has none of the usual names.
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PoolingName {
    Mean,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum StoreName {
    Float32,
    Float16,
}

#[derive(Clone, Copy, ValueEnum)]
enum NamesName {
    /// As biotrainer 1.0 and later look them up; equal sequences share a dataset.
    SequenceHash,
    /// 0, 1, 2, ...
    Number,
}

impl EmbedArgs {
    /// What was said, or a virtual device for each core. The plugin computes what one device is
    /// given one after the other, and few of its operations keep several cores at work.
    fn slice(&self) -> Slice {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let devices = cores.min(MOST_DEVICES);
        self.model
            .slice_if_given()
            .unwrap_or_else(|| Slice::cpu(devices))
    }

    fn options(&self) -> EmbedOptions {
        EmbedOptions {
            output: self.output.clone(),
            pooling: match self.pooling {
                PoolingName::Mean => Pooling::Mean,
                PoolingName::None => Pooling::None,
            },
            store: match self.store {
                StoreName::Float32 => Store::Float32,
                StoreName::Float16 => Store::Float16,
            },
            names: match self.hdf5_names {
                NamesName::SequenceHash => DatasetNames::SequenceHash,
                NamesName::Number => DatasetNames::Number,
            },
            batch_tokens: self.batch_tokens,
            existing: match self.replace {
                true => Existing::Replace,
                false => Existing::Keep,
            },
            foreign_parts: match self.restart {
                true => ForeignParts::Discard,
                false => ForeignParts::Keep,
            },
        }
    }

    fn records(&self, model: &LoadedModel) -> Records {
        Records {
            inputs: self.inputs.clone(),
            columns: ColumnNames {
                sequence: self.column.clone(),
                id: self.id_column.clone(),
            },
            tokenizer: model.tokenizer(),
            max_length: (self.max_length > 0).then_some(self.max_length),
            unusable: match self.strict {
                true => Unusable::Refuse,
                false => Unusable::LeaveOut,
            },
        }
    }
}

pub(super) fn run(arguments: EmbedArgs) -> Result<Exit, CliError> {
    let slice = arguments.slice();
    if slice.platform() == Platform::Cpu {
        run_with_huge_pages();
    }
    Log::start();
    let options = arguments.options();
    options.validate()?;
    let requests = stop_requests()?;
    let weights = arguments.model.read()?;
    let execution = ModelOptions {
        slice,
        ..arguments.model.options()
    };
    let model = LoadedModel::open_encoder(weights, execution)?;
    let records = arguments.records(&model);
    let survey = survey(&records, arguments.rejects.as_deref())?;
    for warning in &survey.warnings {
        print_line(&format!("warning: {warning}"));
    }
    requests.begin();
    let began = Instant::now();
    let mut last = Progress::default();
    let mut shown = WorkProgress::new("residues");
    let outcome = embed(
        &model,
        (&records, &survey),
        &options,
        &|| requests.stop(),
        &mut |progress| {
            last = progress;
            // What an earlier process did says nothing of the pace of this one.
            if progress.computed > 0 {
                shown.show(progress.residues, survey.residues);
            }
        },
    );
    shown.finish();
    match outcome? {
        Outcome::Stopped => {
            let (done, all) = (count(last.sequences), count(survey.sequences));
            print_line(&format!(
                "stopped after {done} of {all} sequences; the same command goes on"
            ));
            Ok(Exit::Stopped)
        }
        Outcome::Done { repeated } => {
            let computed = (last.computed, began.elapsed().as_secs_f64());
            summary(&arguments, &model, &survey, repeated, computed)?;
            Ok(Exit::Done)
        }
    }
}

/// Counts what the inputs hold, and lists what is left out.
fn survey(records: &Records, rejects: Option<&Path>) -> Result<Survey, CliError> {
    let Some(path) = rejects else {
        return records.survey(None).map_err(unusable);
    };
    let mut surveyed = None;
    let written = atomic::replace_file_with(path, |file| {
        let mut to = BufWriter::new(file);
        let outcome = records.survey(Some(&mut to));
        let is_whole = outcome.is_ok();
        surveyed = Some(outcome);
        match is_whole {
            true => to.flush(),
            false => Err(std::io::ErrorKind::Interrupted.into()),
        }
    });
    match (surveyed, written) {
        (Some(Err(error)), _) => Err(unusable(error)),
        (Some(Ok(survey)), Ok(())) => Ok(survey),
        (_, written) => Err(CliError::failed(format!(
            "cannot write {}: {}",
            path.display(),
            written
                .err()
                .map_or_else(String::new, |error| error.to_string())
        ))),
    }
}

/// An error of inputs, found before any of them is embedded.
fn unusable(error: Error) -> CliError {
    match error {
        Error::Data(error) => of_input(error),
        error => error.into(),
    }
}

/// Prints what was made; this process computed so many residues in so many seconds.
fn summary(
    arguments: &EmbedArgs,
    model: &LoadedModel,
    survey: &Survey,
    repeated: u64,
    (computed, seconds): (u64, f64),
) -> Result<(), CliError> {
    let output = &arguments.output;
    let left_out = survey.records - survey.sequences;
    let d_model = model.model().d_model;
    if arguments.json {
        return json(&serde_json::json!({
            "output": output,
            "sequences": survey.sequences,
            "residues": survey.residues,
            "d_model": d_model,
            "left_out": left_out,
            "left_out_by_reason": survey.left_out,
            "replaced_by_x": survey.replaced,
            "repeated": repeated,
            "seconds": seconds,
            "residues_per_second": computed as f64 / seconds.max(1e-9),
        }));
    }
    let (sequences, residues) = (count(survey.sequences), count(survey.residues));
    let mut lines = vec![format!("{sequences} sequences, {residues} residues")];
    let of = match arguments.pooling {
        PoolingName::Mean => "sequence",
        PoolingName::None => "residue",
    };
    lines.push(format!("  {d_model} values for each {of}"));
    if left_out > 0 {
        let (left_out, reasons) = (count(left_out), survey.reasons());
        lines.push(format!("  {left_out} records left out: {reasons}"));
    }
    if survey.replaced > 0 {
        let replaced = count(survey.replaced);
        lines.push(format!("  {replaced} unknown letters read as X"));
    }
    if repeated > 0 {
        let repeated = count(repeated);
        lines.push(format!(
            "  {repeated} sequences share the dataset of an equal one before them"
        ));
    }
    if computed > 0 {
        let rate = count((computed as f64 / seconds.max(1e-9)) as u64);
        lines.push(format!("  {seconds:.1} s, {rate} residues a second"));
    }
    lines.push(format!("{}", output.display()));
    line_of(&lines.join("\n"))
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let (exit, help) = match error {
            Error::Data(error) => return error.into(),
            Error::Inference(error) => {
                let error = CliError::from(error);
                return match error.exit() == Exit::Memory {
                    true => error.help(LESS_MEMORY),
                    false => error,
                };
            }
            Error::Format { .. } => (Exit::Usage, None),
            Error::Exists { .. } => (Exit::Usage, Some("give another --output, or --replace")),
            Error::OtherParts { .. } => (
                Exit::Usage,
                Some(
                    "finish them with the command that began them, discard them with --restart, or give another --output",
                ),
            ),
            Error::Rejected { .. } => (
                Exit::Usage,
                Some("correct it, or leave out such records without --strict"),
            ),
            Error::NoUsableRecords { .. } => (
                Exit::Usage,
                Some("--rejects FILE lists them; --max-length 0 takes sequences of any length"),
            ),
            Error::Changed { .. } => (
                Exit::Failed,
                Some("run the same command with --restart, and leave the file as it is"),
            ),
            Error::Damaged { .. } => (Exit::Failed, Some("begin anew with --restart")),
            Error::Busy { .. } | Error::Io { .. } | Error::Parquet { .. } => (Exit::Failed, None),
        };
        let error = Self::new(exit, error);
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

const LESS_MEMORY: &str =
    "lower --batch-tokens; long sequences need most memory, so leave such out with --max-length";
