//! `pretrain variants`: variants of a family, or of one sequence, and a report on them.

mod error;
mod shown;

use std::path::PathBuf;

use ankh_data::Tokenizer;
use ankh_pjrt::Platform;
use clap::{Args, Subcommand, ValueEnum};

use super::model::ModelArgs;
use super::output::{json, line_of};
use super::progress::stop_requests;
use super::weights::{print_notes, states_of};
use super::{CliError, Exit};
use crate::huge_pages::run_with_huge_pages;
use crate::hugging_face::{self, WeightsReader};
use crate::inference::Unfinished;
use crate::telemetry::Log;
use crate::variants::{
    Aligner, Drawing, FineTuning, HighN, OneN, Origin, Outcome, Stage, high_n, one_n,
};
use shown::{Shown, in_words};

/// Make variants of a family or of one sequence, and report how natural they are.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain variants high-n --weights hf --family family.a2m --output high-n --epochs 1 --samples 4\n  pretrain variants one-n --weights hf --sequence wild-type.fasta --output one-n --samples 4"
)]
pub(super) struct VariantsArgs {
    #[command(subcommand)]
    how: How,
}

#[derive(Subcommand)]
enum How {
    HighN(Box<HighNArgs>),
    OneN(Box<OneNArgs>),
}

/// Let the decoder learn a family while the encoder is frozen, and write sequences from a short
/// beginning.
///
/// The output is a directory: the run of the fine-tuning, the sequences of each temperature, and
/// the report, as report.json and report.html. The same command goes on where it was stopped.
#[derive(Args)]
struct HighNArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The alignment of the family: aligned FASTA, A2M or Stockholm.
    #[arg(long, value_name = "ALIGNMENT")]
    family: PathBuf,
    /// The sequence whose beginning is given to the model, by its name [default: the first].
    #[arg(long, value_name = "ID")]
    wild_type: Option<String>,
    /// Residues of the beginning that the model is given.
    #[arg(long, value_name = "RESIDUES", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..))]
    prompt: u16,
    /// Give the beginnings of so many sequences of the family: of the wild type, and of others that
    /// are drawn. --samples are spread over them.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    prompts: u32,
    /// How often each sequence of the family is seen.
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Adam's learning rate.
    #[arg(long, value_name = "RATE", default_value_t = 3e-4)]
    learning_rate: f64,
    /// Sequences in an update of the fine-tuning.
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..))]
    train_batch_size: u16,
    /// The longest target, in tokens: longer sequences are cut.
    #[arg(long, value_name = "TOKENS", default_value_t = 256,
          value_parser = clap::value_parser!(u16).range(2..))]
    length: u16,
    /// Temperatures, each of which gives as many sequences.
    #[arg(long, value_name = "T", value_delimiter = ',', default_values_t = [1.0, 1.5, 2.0])]
    temperatures: Vec<f32>,
    #[command(flatten)]
    drawing: DrawingArgs<10>,
}

/// Hide a share of one sequence and let the model fill it, without anything of its family.
///
/// The output is a directory: the sequences of each setting and the report, as report.json and
/// report.html. The same command goes on where it was stopped.
#[derive(Args)]
struct OneNArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A file with the sequence alone, in FASTA.
    #[arg(long, value_name = "FASTA")]
    sequence: PathBuf,
    /// An alignment of its family, which the report compares with.
    #[arg(long, value_name = "ALIGNMENT")]
    family: Option<PathBuf>,
    /// Shares of residues that are hidden, each with a temperature.
    #[arg(long, value_name = "SHARE:T", value_delimiter = ',', value_parser = setting,
          default_values = ["0.5:1.0", "0.4:1.5"])]
    settings: Vec<(f64, f32)>,
    #[command(flatten)]
    drawing: DrawingArgs<30>,
}

/// How sequences are drawn and compared; `BEAMS` is the usual number of beams.
#[derive(Args)]
struct DrawingArgs<const BEAMS: u16> {
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Beams of the search that each sequence comes from.
    #[arg(long, value_name = "N", default_value_t = BEAMS,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    beams: u16,
    /// Sequences for each setting.
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Beams that are computed at once.
    #[arg(long, value_name = "ROWS", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// What order, masks and draws follow from.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// What places sequences in the columns of the family.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = AlignerName::BuiltIn)]
    aligner: AlignerName,
    /// Discard what another command left in the output.
    #[arg(long)]
    restart: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AlignerName {
    /// A global alignment with the mean BLOSUM62 score of each column.
    BuiltIn,
    /// HMMER's, which has to be installed.
    Hmmalign,
}

/// `0.5:1.0`.
fn setting(text: &str) -> Result<(f64, f32), String> {
    let parsed = text.split_once(':').and_then(|(share, temperature)| {
        Some((share.parse::<f64>().ok()?, temperature.parse::<f32>().ok()?))
    });
    match parsed {
        Some((share, temperature)) if share > 0.0 && share < 1.0 && is_temperature(temperature) => {
            Ok((share, temperature))
        }
        _ => Err("expected a share between 0 and 1 and a temperature, as 0.5:1.0".to_owned()),
    }
}

fn is_temperature(temperature: f32) -> bool {
    temperature > 0.0 && temperature.is_finite()
}

pub(super) fn run(arguments: VariantsArgs) -> Result<Exit, CliError> {
    match arguments.how {
        How::HighN(arguments) => run_high_n(&arguments),
        How::OneN(arguments) => run_one_n(&arguments),
    }
}

fn run_high_n(arguments: &HighNArgs) -> Result<Exit, CliError> {
    if !arguments
        .temperatures
        .iter()
        .all(|&temperature| is_temperature(temperature))
    {
        return Err(CliError::usage(
            "--temperatures have to be numbers greater than 0",
        ));
    }
    if !(arguments.learning_rate > 0.0 && arguments.learning_rate.is_finite()) {
        return Err(CliError::usage(
            "--learning-rate has to be a number greater than 0",
        ));
    }
    let (samples, prompts) = (arguments.drawing.samples, arguments.prompts);
    if samples % prompts != 0 {
        return Err(CliError::usage(format!(
            "--samples {samples} cannot be spread evenly over --prompts {prompts}"
        ))
        .help("give a number of samples that the number of prompts divides"));
    }
    let model = &arguments.model;
    if model.slice().platform() == Platform::Cpu {
        run_with_huge_pages();
    }
    Log::start();
    let requests = stop_requests()?;
    let options = model.options();
    let weights = states_of(model.location().clone());
    let read = |weights: &WeightsReader<'_>| -> Result<_, hugging_face::Error> {
        let tokenizer = options.tokenizer.or(weights.token_ids().vocabulary());
        Ok((weights.model().clone(), tokenizer, weights.notes().to_vec()))
    };
    let (shape, tokenizer, notes) = hugging_face::open(&weights, read)?;
    print_notes(&notes);
    let vocabulary = shape.vocabulary;
    let unknown = crate::inference::Error::UnknownTokenizer { vocabulary };
    let origin = Origin {
        weights,
        model: shape,
        tokenizer: Tokenizer::of(tokenizer.ok_or(unknown)?),
        slice: options.slice,
        compute: options.compute,
    };
    let job = HighN {
        family: arguments.family.clone(),
        wild_type: arguments.wild_type.clone(),
        prompts: arguments.prompts as usize,
        fine_tuning: FineTuning {
            epochs: arguments.epochs.into(),
            learning_rate: arguments.learning_rate,
            batch_size: arguments.train_batch_size.into(),
            length: arguments.length.into(),
            prompt: arguments.prompt.into(),
            seed: arguments.drawing.seed,
        },
        drawing: arguments.drawing.drawing(model),
        temperatures: arguments.temperatures.clone(),
        aligner: arguments.drawing.aligner(),
        output: arguments.drawing.output.clone(),
        unfinished: arguments.drawing.unfinished(),
    };
    let mut shown = Shown::new();
    let outcome = high_n(&job, &origin, &requests, &mut |stage| {
        shown.show(stage);
        // Fine-tuning begins by itself, when it has something to lose.
        if stage != Stage::FineTuning {
            requests.begin();
        }
        !requests.stop()
    });
    shown.finish();
    arguments.drawing.tell(outcome?)
}

fn run_one_n(arguments: &OneNArgs) -> Result<Exit, CliError> {
    if arguments.model.slice().platform() == Platform::Cpu {
        run_with_huge_pages();
    }
    Log::start();
    let requests = stop_requests()?;
    let model = arguments.model.open()?;
    let job = OneN {
        sequence: arguments.sequence.clone(),
        family: arguments.family.clone(),
        settings: arguments.settings.clone(),
        drawing: arguments.drawing.drawing(&arguments.model),
        aligner: arguments.drawing.aligner(),
        output: arguments.drawing.output.clone(),
        unfinished: arguments.drawing.unfinished(),
    };
    requests.begin();
    let mut shown = Shown::new();
    let outcome = one_n(&job, &model, &mut |stage| {
        shown.show(stage);
        !requests.stop()
    });
    shown.finish();
    arguments.drawing.tell(outcome?)
}

impl<const BEAMS: u16> DrawingArgs<BEAMS> {
    fn drawing(&self, model: &ModelArgs) -> Drawing {
        Drawing {
            beams: self.beams.into(),
            samples: self.samples as usize,
            batch_size: self.batch_size.into(),
            seed: self.seed,
            computation: model.computation(),
        }
    }

    fn aligner(&self) -> Aligner {
        match self.aligner {
            AlignerName::BuiltIn => Aligner::BuiltIn,
            AlignerName::Hmmalign => Aligner::Hmmalign,
        }
    }

    fn unfinished(&self) -> Unfinished {
        match self.restart {
            true => Unfinished::Discard,
            false => Unfinished::Continue,
        }
    }

    /// Prints what came of it.
    fn tell(&self, outcome: Outcome) -> Result<Exit, CliError> {
        let output = self.output.display();
        let report = match outcome {
            Outcome::Stopped => {
                line_of(&format!(
                    "stopped on request; the same command goes on with {output}"
                ))?;
                return Ok(Exit::Stopped);
            }
            Outcome::Finished(report) => report,
        };
        match self.json {
            true => json(&report)?,
            false => {
                line_of(&in_words(&report))?;
                line_of(&format!("{output}/report.html shows each column"))?;
            }
        }
        Ok(Exit::Done)
    }
}
