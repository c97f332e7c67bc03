//! `pretrain benchmark`: what weights are worth for predicting structure and function.

mod during;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ankh_storage::Location;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json as value};

use super::model::{ExecutionArgs, read_weights};
use super::output::{count, json, line_of};
use super::progress::{WorkProgress, stop_requests};
use super::{CliError, Exit};
use crate::benchmark::dataset::{self, Counts, Dataset, Files};
use crate::benchmark::predictions;
use crate::benchmark::presets::{PRESETS, Preset};
use crate::benchmark::{
    BenchmarkOptions, Features, HeadTraining, Predictor, Progress, Results, benchmark,
};
use crate::hugging_face::Weights;
use crate::inference::{LoadedModel, Unfinished};
use crate::model::lora::Lora;
use crate::run_dir::Requests;
use crate::telemetry::print_line;

/// Measure what weights are worth: train a small head on the states of the frozen encoder.
///
/// As the authors of Ankh do it: a ConvBERT layer and a linear one, AdamW, the epoch that is best
/// on the validation set. With --lora, adapters of the encoder are trained together with the head.
/// Each figure has an interval, by resampling proteins, and each seed is a training of its own.
/// Data without a test set are tested in parts, each by a head that was trained on the others.
///
/// Stopped or killed work goes on where it was when the same command is run again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain benchmark q3 --weights hf --data labelled.fasta --output q3.json --epochs 2\n  \
    pretrain benchmark q3 --weights hf --data labelled.fasta --output letters.json --baseline composition\n  \
    pretrain benchmark q3 --weights hf --data labelled.fasta --output lora.json --lora --epochs 2\n  \
    pretrain benchmark q3 --during runs/first --data labelled.fasta"
)]
pub(super) struct BenchmarkArgs {
    /// What is predicted.
    #[arg(value_name = "BENCHMARK", value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| {
        clap::builder::PossibleValue::new(p.name).help(format!("{}; {}", p.about, p.files))
    })))]
    benchmark: String,
    /// A Hugging Face directory, a checkpoint or a run directory; a checkpoint may be in a bucket.
    #[arg(long, value_name = "DIR|URL", required_unless_present = "during")]
    weights: Option<Location>,
    /// Measure every checkpoint of a run instead, into benchmarks/BENCHMARK/ in its directory.
    /// Results that are there are kept.
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["weights", "output", "baseline"])]
    during: Option<PathBuf>,
    #[command(flatten)]
    execution: ExecutionArgs,
    /// Files of labelled proteins, as they are published: FASTA of biotrainer, CSV of FLIP or
    /// ProteinGym, JSON of TAPE.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// FASTA with the labels of the sequences, where those are in a file of their own.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// FASTA with 0 for each residue that has no label.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// The JSON file to write.
    #[arg(long, value_name = "FILE", required_unless_present = "during")]
    output: Option<PathBuf>,
    /// Write each prediction of the tests too, as JSON Lines.
    #[arg(long, value_name = "FILE", conflicts_with = "during")]
    predictions: Option<PathBuf>,
    /// Replace the output if it is there; with --during, results that were measured otherwise.
    #[arg(long)]
    replace: bool,
    /// Discard unfinished work that another command began.
    #[arg(long)]
    restart: bool,
    /// What predicts.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = HeadName::Convbert)]
    head: HeadName,
    /// Measure something that knows less instead of the weights.
    #[arg(long, value_name = "NAME", value_enum)]
    baseline: Option<Baseline>,
    /// Train adapters of the encoder's queries and values too (LoRA: rank 16, alpha 16, dropout
    /// 0.1). Each step runs the encoder, so it takes many times as long.
    #[arg(long)]
    lora: bool,
    /// Trainings, with the seeds 7, 8, ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Parts of which each is tested in turn, where the data have no test set.
    #[arg(long, value_name = "N", default_value_t = 5)]
    folds: usize,
    /// Passes over the training set.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    epochs: usize,
    /// Proteins of a step.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    learning_rate: f64,
    /// Leave out and count proteins of more residues.
    #[arg(long, value_name = "RESIDUES", default_value_t = 1024, value_parser = positive)]
    max_length: usize,
    /// Print the result as JSON; with --during, a line for each checkpoint.
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(number) => Ok(number),
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum HeadName {
    /// A ConvBERT layer and a linear one.
    Convbert,
    /// The label of the protein whose mean state is nearest.
    Nearest,
}

#[derive(Clone, Copy, ValueEnum)]
enum Baseline {
    /// The same encoder with random weights.
    Random,
    /// Which residue is where, without an encoder.
    Composition,
}

impl BenchmarkArgs {
    /// What the parser cannot tell of options that exclude each other.
    fn check(&self) -> Result<(), CliError> {
        let (without, option) = match (self.baseline, self.head) {
            (Some(Baseline::Composition), _) => ("has no encoder", "--baseline composition"),
            (_, HeadName::Nearest) => ("trains nothing", "--head nearest"),
            _ => return Ok(()),
        };
        if !self.lora {
            return Ok(());
        }
        let error = format!(
            "--lora adapts an encoder while a head is trained on it, and {option} {without}"
        );
        Err(CliError::usage(error).help(format!("leave out --lora or {option}")))
    }

    fn preset(&self) -> &'static Preset {
        Preset::named(&self.benchmark).expect("the parser knows the names")
    }

    fn read(&self) -> Result<(Dataset, Counts), CliError> {
        let files = Files {
            sequences: self.data.clone(),
            labels: self.labels.clone(),
            mask: self.mask.clone(),
        };
        let reading = self.preset().reading(Some(self.max_length));
        let (dataset, counts) = dataset::read(&files, &reading)?;
        let reasons = counts.reasons();
        if !reasons.is_empty() {
            print_line(&format!("left out: {reasons}"));
        }
        if counts.replaced > 0 {
            let replaced = count(counts.replaced as u64);
            print_line(&format!("{replaced} letters are read as X"));
        }
        if counts.shared > 0 {
            let shared = count(counts.shared as u64);
            print_line(&format!(
                "warning: {shared} sequences of tests are in training or validation too"
            ));
        }
        Ok((dataset, counts))
    }

    fn open(&self, weights: Weights) -> Result<LoadedModel, CliError> {
        let options = self.execution.options();
        Ok(match self.baseline {
            Some(Baseline::Random) => LoadedModel::open_random_encoder(weights, options, SEED)?,
            _ => LoadedModel::open_encoder(weights, options)?,
        })
    }

    fn options(&self, output: &Path) -> BenchmarkOptions {
        BenchmarkOptions {
            output: output.to_owned(),
            features: match self.baseline {
                Some(Baseline::Composition) => Features::Letters,
                _ if self.lora => Features::Adapted(Lora::default()),
                _ => Features::States,
            },
            predictor: self.predictor(),
            training: HeadTraining {
                epochs: self.epochs,
                batch: self.batch,
                learning_rate: self.learning_rate,
                ..HeadTraining::default()
            },
            seeds: self.seeds(),
            folds: self.folds,
            unfinished: match self.restart {
                true => Unfinished::Discard,
                false => Unfinished::Continue,
            },
        }
    }

    fn predictor(&self) -> Predictor {
        match self.head {
            HeadName::Convbert => Predictor::ConvBert,
            HeadName::Nearest => Predictor::Nearest,
        }
    }

    fn seeds(&self) -> Vec<u64> {
        (0..self.seeds).map(|number| SEED + number).collect()
    }

    fn baseline(&self) -> Option<&'static str> {
        self.baseline.map(|baseline| match baseline {
            Baseline::Random => "random weights",
            Baseline::Composition => "composition",
        })
    }

    /// What the figures follow from beside the weights, the data and the training.
    fn description(&self) -> Map<String, Value> {
        object(value!({
            "format": 1,
            "benchmark": self.benchmark,
            "computation": self.execution.computation(),
            "baseline": self.baseline(),
        }))
    }
}

/// The first seed; the authors' only one.
const SEED: u64 = 7;

/// The fields of what is written as an object.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("an object is written there"),
    }
}

pub(super) fn run(arguments: BenchmarkArgs) -> Result<Exit, CliError> {
    arguments.check()?;
    if let Some(run) = &arguments.during {
        return during::run(&arguments, run);
    }
    let (Some(weights), Some(output)) = (&arguments.weights, &arguments.output) else {
        unreachable!("the parser asks for both where --during is not given");
    };
    for (option, file) in [
        ("--output", Some(output)),
        ("--predictions", arguments.predictions.as_ref()),
    ] {
        let taken = |file: &&PathBuf| file.is_dir() || (file.exists() && !arguments.replace);
        if let Some(file) = file.filter(taken) {
            let error = CliError::usage(format!("{} exists already", file.display()));
            return Err(error.help(format!("give another {option}, or --replace")));
        }
    }
    let work = Work::prepare(&arguments)?;
    let weights = read_weights(weights)?;
    let began = Instant::now();
    let Some((report, results)) = work.measure(weights, output, Map::new())? else {
        return Ok(stopped());
    };
    match arguments.json {
        true => json(&report)?,
        false => show(&arguments, output, &results, began.elapsed().as_secs_f64())?,
    }
    Ok(Exit::Done)
}

fn stopped() -> Exit {
    print_line("stopped: the same command goes on with what is left");
    Exit::Stopped
}

/// A benchmark that is ready for weights.
struct Work<'a> {
    arguments: &'a BenchmarkArgs,
    dataset: Dataset,
    counts: Counts,
    requests: Requests,
}

impl Work<'_> {
    /// Reads the data, and listens for requests to stop.
    fn prepare(arguments: &BenchmarkArgs) -> Result<Work<'_>, CliError> {
        let (dataset, counts) = arguments.read()?;
        Ok(Work {
            arguments,
            dataset,
            counts,
            requests: stop_requests()?,
        })
    }

    /// Measures weights and writes what is found, with the fields of `more` beside it; nothing
    /// where it was stopped.
    fn measure(
        &self,
        weights: Weights,
        output: &Path,
        more: Map<String, Value>,
    ) -> Result<Option<(Value, Results)>, CliError> {
        let (arguments, dataset) = (self.arguments, &self.dataset);
        let model = arguments.open(weights)?;
        let mut description = arguments.description();
        description.insert("weights".into(), format!("{:08x}", model.checksum()).into());
        self.requests.begin();
        let mut states = WorkProgress::new("proteins encoded");
        let mut steps = WorkProgress::new("steps of training");
        let options = arguments.options(output);
        let done = benchmark(&model, dataset, &options, description, &mut |progress| {
            match progress {
                Progress::States(done, all) => states.show(done as u64, all as u64),
                Progress::Steps(done, all) => steps.show(done, all),
            }
            match self.requests.stop() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        states.finish();
        steps.finish();
        let Some((results, finished)) = done else {
            return Ok(None);
        };
        let replace = |file: &Path, text: &[u8]| {
            ankh_storage::atomic::replace_file(file, text).map_err(|error| {
                CliError::failed(format!("cannot write {}: {error}", file.display()))
            })
        };
        if let Some(file) = &arguments.predictions {
            let mut lines = Vec::new();
            predictions::write(dataset, &results, &mut lines).map_err(CliError::failed)?;
            replace(file, &lines)?;
        }
        let mut report = report(arguments, &model, dataset, &self.counts, &results);
        report.extend(more);
        let report = Value::Object(report);
        let mut text = serde_json::to_vec_pretty(&report).map_err(CliError::failed)?;
        text.push(b'\n');
        replace(output, &text)?;
        finished.remove()?;
        Ok(Some((report, results)))
    }
}

/// What is written. It follows from the data, the weights and the options alone.
fn report(
    arguments: &BenchmarkArgs,
    model: &LoadedModel,
    dataset: &Dataset,
    counts: &Counts,
    results: &Results,
) -> Map<String, Value> {
    let trainings = results.trainings.iter().map(|training| {
        let epochs = &training.trained.epochs;
        value!({ "seed": training.seed, "fold": training.fold, "epochs": epochs })
    });
    object(value!({
        "benchmark": arguments.benchmark,
        "weights": format!("{:08x}", model.checksum()),
        "baseline": arguments.baseline(),
        "head": arguments.predictor(),
        "lora": arguments.lora.then(Lora::default),
        "seeds": arguments.seeds(),
        "epochs": arguments.epochs,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "classes": dataset.classes,
        "read": counts.read,
        "train": results.train,
        "validation": results.validation,
        "tests": results.tests,
        "trainings": trainings.collect::<Vec<_>>(),
    }))
}

fn show(
    arguments: &BenchmarkArgs,
    output: &Path,
    results: &Results,
    seconds: f64,
) -> Result<(), CliError> {
    let line = |name: &str, shown: String| line_of(&format!("{name:<13}{shown}"));
    line(
        "benchmark",
        format!("{}, {}", arguments.benchmark, arguments.preset().about),
    )?;
    if let Some(baseline) = arguments.baseline() {
        line("baseline", baseline.into())?;
    }
    if arguments.lora {
        let Lora { rank, .. } = Lora::default();
        line("adapters", format!("rank {rank}, of queries and values"))?;
    }
    line("output", output.display().to_string())?;
    let (train, validation) = (results.train as u64, results.validation as u64);
    let trained = format!(
        "{} proteins, {} to choose the epoch",
        count(train),
        count(validation)
    );
    line("training", trained)?;
    line("seconds", format!("{seconds:.1}"))?;
    line_of("")?;
    line_of(&format!(
        "{:<24}{:>9}  {:<18}{:>8}  {:<17}seeds",
        "test", "proteins", "measure", "value", "95 % interval"
    ))?;
    for (name, test) in &results.tests {
        for figure in &test.figures {
            let interval = figure.interval.map_or("undefined".into(), |[low, high]| {
                format!("{low:.4} to {high:.4}")
            });
            let seeds = figure.seeds.iter().map(|value| format!("{value:.4}"));
            line_of(&format!(
                "{name:<24}{:>9}  {:<18}{:>8.4}  {interval:<17}{}",
                count(test.tested.len() as u64),
                figure.measure.name(),
                figure.value,
                seeds.collect::<Vec<_>>().join(" ")
            ))?;
        }
    }
    Ok(())
}
