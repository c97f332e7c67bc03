//! `pretrain generate`: sequences from prompts.

use std::path::PathBuf;

use ankh_data::batches::objective::TargetFormat;
use ankh_pjrt::Platform;
use clap::{Args, ValueEnum};

use super::model::ModelArgs;
use super::output::{count, json, line_of};
use super::progress::{WorkProgress, stop_requests};
use super::{CliError, Exit};
use crate::generate::{self, Freedom, Outcome, Plan, Search, Settings, Summary, Task};
use crate::huge_pages::run_with_huge_pages;
use crate::inference::Unfinished;
use crate::telemetry::Log;

/// Generate sequences: fill the places that prompts leave open, or go on where they end.
///
/// A prompt is a record of FASTA. `MKT<extra_id_0>AY<extra_id_1>` has two places for a residue
/// each, which the model fills in view of the rest. The output is FASTA too, in the order of the
/// prompts, with the log-probability of what was added. The same command gives the same file, also
/// where it was stopped and given once more.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain generate --weights hf --output filled.fasta prompts.fasta\n  pretrain generate --weights hf --output longer.fasta --extend 8 --sample --samples 5 --temperature 1.2 --seed 7 starts.fasta"
)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The prompts, in FASTA.
    #[arg(value_name = "FASTA", required = true)]
    input: Vec<PathBuf>,
    /// The FASTA file to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Add so many residues at the end of each prompt.
    #[arg(long, value_name = "N", conflicts_with = "complete",
          value_parser = clap::value_parser!(u16).range(1..))]
    extend: Option<u16>,
    /// Go on with each prompt as far as the model likes, as models do that were trained to write
    /// the second half of sequences (Ankh3's [S2S]).
    #[arg(long)]
    complete: bool,
    /// Let the model write anything, as `generate` of transformers does. What does not fit its
    /// prompt then is counted and left out.
    #[arg(long)]
    free: bool,
    /// Beams of a beam search.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    beams: u16,
    /// Draw tokens rather than take the likeliest.
    #[arg(long)]
    sample: bool,
    /// Sequences for each prompt: samples, or the best beams.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// What logits are divided by before drawing: more than 1 for more variety.
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "sample")]
    temperature: f32,
    /// Draw from so many of the likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "sample")]
    top_k: u16,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, requires = "sample")]
    top_p: f32,
    /// What random numbers follow from.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// The power of its length that a beam's score is divided by.
    #[arg(long, value_name = "POWER", default_value_t = 1.0)]
    length_penalty: f32,
    /// End a beam search as soon as it has as many complete sequences as beams.
    #[arg(long)]
    early_stopping: bool,
    /// Tokens at most for a prompt, with --complete or --free [default: about as many as the
    /// prompt asks for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_tokens: Option<u16>,
    /// Refuse prompts of more tokens than this.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_length: usize,
    /// How the model writes targets [default: as its tokenizer's models do].
    #[arg(long, value_name = "FORMAT", value_enum)]
    target_format: Option<Format>,
    /// Sequences that are generated at once.
    #[arg(long, value_name = "ROWS", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Replace the output if it is there.
    #[arg(long)]
    replace: bool,
    /// Discard unfinished work that another command began.
    #[arg(long)]
    restart: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A sentinel for each run of residues that are not masked: Ankh.
    Runs,
    /// A sentinel before each masked residue: Ankh3.
    Pairs,
}

pub(super) fn run(arguments: GenerateArgs) -> Result<Exit, CliError> {
    let plan = arguments.plan()?;
    if arguments.model.slice().platform() == Platform::Cpu {
        run_with_huge_pages();
    }
    Log::start();
    let requests = stop_requests()?;
    let model = arguments.model.open()?;
    if plan.task == Task::Complete {
        arguments.check_completes(&model)?;
    }
    requests.begin();
    let mut progress = WorkProgress::new("batches");
    let outcome = generate::run(&model, &plan, |done, all| {
        progress.show(done as u64, all as u64);
        !requests.stop()
    });
    progress.finish();
    match outcome? {
        Outcome::Stopped => {
            let output = plan.output.display();
            line_of(&format!(
                "stopped on request; the same command goes on with {output}"
            ))?;
            Ok(Exit::Stopped)
        }
        Outcome::Finished(summary) => {
            match arguments.json {
                true => json(&summary)?,
                false => line_of(&in_words(&summary, &plan))?,
            }
            Ok(Exit::Done)
        }
    }
}

impl GenerateArgs {
    fn plan(&self) -> Result<Plan, CliError> {
        let usage = |message: &str| Err(CliError::usage(message));
        // What comes of 0/0 is refused too.
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return usage("--temperature has to be a number greater than 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return usage("--top-p has to be greater than 0, and 1 at most");
        }
        if !self.length_penalty.is_finite() {
            return usage("--length-penalty has to be a number");
        }
        let (samples, beams) = (self.samples as usize, usize::from(self.beams));
        let search = match (beams, self.sample) {
            (1, false) => Search::Greedy,
            (1, true) => Search::Sample,
            (_, sample) => Search::Beam {
                sample,
                early_stopping: self.early_stopping,
            },
        };
        if !self.sample && samples > beams {
            return Err(CliError::usage(format!(
                "--samples {samples} with {beams} beams: without --sample there is one sequence a beam"
            ))
            .help("draw with --sample, or ask for more --beams"));
        }
        let batch_size = usize::from(self.batch_size);
        let rows_per_prompt = match search {
            Search::Greedy => 1,
            Search::Sample => samples.min(batch_size),
            Search::Beam { .. } => beams,
        };
        Ok(Plan {
            inputs: self.input.clone(),
            output: self.output.clone(),
            task: match self.extend {
                Some(residues) => Task::Extend(residues.into()),
                None if self.complete => Task::Complete,
                None => Task::Fill,
            },
            freedom: match self.free {
                true => Freedom::Free,
                false => Freedom::Form,
            },
            target_format: self.target_format.map(|format| match format {
                Format::Runs => TargetFormat::Runs,
                Format::Pairs => TargetFormat::Pairs,
            }),
            samples,
            limit: self.max_tokens.map(usize::from),
            max_length: self.max_length,
            batch_size,
            settings: Settings {
                search,
                rows_per_prompt,
                temperature: self.temperature,
                top_k: self.top_k.into(),
                top_p: self.top_p,
                length_penalty: self.length_penalty,
                seed: self.seed,
            },
            replace: self.replace,
            computation: self.model.computation(),
            unfinished: match self.restart {
                true => Unfinished::Discard,
                false => Unfinished::Continue,
            },
        })
    }

    /// Fails where nothing says that the model was trained to go on with sequences.
    fn check_completes(&self, model: &crate::inference::LoadedModel) -> Result<(), CliError> {
        use ankh_data::tokenizer::Task as Mark;
        let is_trained = matches!(model.objective(), Some(generate::Objective::Completion(_)));
        if is_trained || model.tokenizer().task(Mark::S2s).is_some() {
            return Ok(());
        }
        Err(CliError::usage(
            "--complete needs a model that was trained to write the second half of sequences, and \
             these weights' tokenizer has no [S2S]",
        )
        .help(
            "add residues with --extend N, or mark the places with <extra_id_0>, <extra_id_1> ...",
        ))
    }
}

fn in_words(summary: &Summary, plan: &Plan) -> String {
    let Summary {
        prompts,
        sequences,
        distinct,
        left_out,
        ref reason,
    } = *summary;
    let number = |n: usize| count(n as u64);
    let mut text = format!(
        "{}: {} sequences, {} of them distinct, from {} prompts",
        plan.output.display(),
        number(sequences),
        number(distinct),
        number(prompts)
    );
    if let Some(reason) = reason {
        text += &format!(
            "\n{} left out, as what was generated does not fit the prompt (the first: {reason})",
            number(left_out)
        );
    }
    text
}
