//! `pretrain evaluate`: what weights are worth on prepared data.

use ankh_data::{Packing, Split};
use clap::{Args, ValueEnum};
use serde_json::{Value, json as value};

use super::configuration::{ConfigArgs, DataArgs, data_locations};
use super::model::ModelArgs;
use super::output::{count, json, line_of};
use super::progress::WorkProgress;
use super::{CliError, Exit};
use crate::config::{Config, resolve_over};
use crate::confusion::{Confusion, LETTERS};
use crate::evaluate::{Evaluation, Likelihood, MaskedData, evaluate, likelihood};
use crate::run_dir::Recorded;

/// Evaluate weights on prepared data: loss, accuracy and confusions by residue.
///
/// Sequences are masked as in an evaluation during training: the same masks every time. The
/// objective and lengths are those of the run, where the weights are its directory, unless
/// --config gives others.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain evaluate --weights runs/first --data prepared --pseudo-likelihood 1\n  \
    pretrain evaluate --weights hf --config demo --data prepared --split all --json"
)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Which sequences.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = SplitName::Validation)]
    split: SplitName,
    /// Batches at most, of each split [default: all].
    #[arg(long, value_name = "N")]
    batches: Option<u64>,
    /// Add the pseudo-likelihood of the first N sequences: each residue masked in turn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pseudo_likelihood: usize,
    /// Tokens that the model takes at once, padding included: more need more memory.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    batch_tokens: usize,
    /// Print the result as JSON, with the whole matrix of confusions.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    /// What is held out during training.
    Validation,
    /// What is held out for the end.
    Test,
    /// What the model learnt from.
    Train,
    /// All of them.
    All,
}

impl SplitName {
    fn splits(self) -> &'static [Split] {
        match self {
            SplitName::Validation => &[Split::Validation],
            SplitName::Test => &[Split::Test],
            SplitName::Train => &[Split::Train],
            SplitName::All => &Split::ALL,
        }
    }
}

impl EvaluateArgs {
    /// The configuration of the weights' run, if they are one and no other is named.
    fn resolve(&self) -> Result<Config, CliError> {
        let run = self.model.location().local().map(Recorded::of);
        let recorded = match (&self.config.config, run.transpose()?.flatten()) {
            (None, Some(Recorded::Whole(config) | Recorded::Restored { config, .. })) => config,
            _ => return self.config.resolve(),
        };
        Ok(resolve_over(recorded, &self.config.set)?)
    }

    fn masked_data(&self) -> Result<MaskedData, CliError> {
        let mut config = self.resolve()?;
        self.data.clone().lay_over(&mut config);
        config.data.packing = Packing::Padded;
        data_locations(&config)?;
        let location = config.held_out().cloned();
        let mut batch = config.batch_config();
        batch.global_batch = (self.batch_tokens / batch.input_length).max(1);
        Ok(MaskedData {
            location: location.expect("`data_locations` found data"),
            read: config.read_options(),
            objective: config.objective,
            batch,
        })
    }
}

pub(super) fn run(arguments: EvaluateArgs) -> Result<Exit, CliError> {
    let data = arguments.masked_data()?;
    let splits = arguments.split.splits();
    let model = arguments.model.open()?;
    let mut shown = WorkProgress::new("batches");
    let limit = arguments.batches.unwrap_or(u64::MAX);
    let found = evaluate(&model, &data, splits, limit, |done, total| {
        shown.show(done, total);
    })?;
    shown.finish();
    let likelihood = match arguments.pseudo_likelihood {
        0 => None,
        most => {
            let mut shown = WorkProgress::new("masked sequences");
            let tokens = arguments.batch_tokens;
            let found = likelihood(&model, &data, splits, most, tokens, |done, total| {
                shown.show(done, total);
            })?;
            shown.finish();
            Some(found)
        }
    };
    match arguments.json {
        true => json(&as_json(&found, likelihood))?,
        false => show(&found, likelihood)?,
    }
    Ok(Exit::Done)
}

fn as_json(found: &Evaluation, likelihood: Option<Likelihood>) -> Value {
    let confusion = &found.confusion;
    let letters: String = confusion.letters().iter().map(|&l| char::from(l)).collect();
    let likelihood = likelihood.map(|likelihood| {
        value!({
            "sequences": likelihood.sequences,
            "residues": likelihood.residues,
            "mean_log_probability": likelihood.mean_log_probability,
            "pseudo_likelihood": likelihood.pseudo_likelihood,
            "pseudo_perplexity": likelihood.pseudo_perplexity(),
        })
    });
    value!({
        "batches": found.batches,
        "sequences": found.sequences,
        "target_tokens": found.sums.tokens,
        "loss": found.loss(),
        "accuracy": found.accuracy(),
        "perplexity": found.loss().exp(),
        "residue_accuracy": confusion.accuracy(),
        "residues": confusion.accuracies(),
        "confusion": { "letters": letters, "counts": confusion.counts() },
        "blosum62": confusion.blosum62_agreement(),
        "likelihood": likelihood,
    })
}

fn show(found: &Evaluation, likelihood: Option<Likelihood>) -> Result<(), CliError> {
    let confusion = &found.confusion;
    let number = |value: Option<f64>| value.map_or("undefined".into(), |v| format!("{v:.4}"));
    for (name, shown) in [
        ("sequences", count(found.sequences)),
        ("target tokens", count(found.sums.tokens as u64)),
        ("loss", number(Some(found.loss()))),
        ("perplexity", number(Some(found.loss().exp()))),
        ("accuracy", number(Some(found.accuracy()))),
        ("of residues", number(confusion.accuracy())),
    ] {
        line_of(&format!("{name:<22}{shown}"))?;
    }
    let agreement = confusion.blosum62_agreement();
    line_of(&format!(
        "{:<22}Spearman {}, Pearson {}, of {} pairs",
        "log-odds and BLOSUM62",
        number(agreement.spearman),
        number(agreement.pearson),
        agreement.pairs
    ))?;
    if let Some(likelihood) = likelihood {
        line_of(&format!(
            "{:<22}{:.4}, pseudo-perplexity {:.4}, of {} sequences, {} residues",
            "pseudo-likelihood",
            likelihood.pseudo_likelihood,
            likelihood.pseudo_perplexity(),
            count(likelihood.sequences as u64),
            count(likelihood.residues as u64)
        ))?;
    }
    table_of(confusion)
}

/// A line for each residue: how often it was predicted, and what for most often.
fn table_of(confusion: &Confusion) -> Result<(), CliError> {
    line_of("")?;
    line_of("residue    count  accuracy  most often taken for")?;
    let (letters, counts) = (confusion.letters(), confusion.counts());
    for accuracy in confusion.accuracies() {
        let place = letters
            .iter()
            .position(|&l| char::from(l) == accuracy.residue);
        let row = &counts[place.expect("an accuracy is of a letter")];
        let mut others: Vec<(u64, char)> = (letters.iter().zip(row))
            .map(|(&letter, &count)| (count, char::from(letter)))
            .filter(|(count, letter)| *count > 0 && *letter != accuracy.residue)
            .collect();
        others.sort_by_key(|(count, letter)| (std::cmp::Reverse(*count), *letter));
        let others = others.iter().take(3).map(|(times, letter)| {
            format!(
                "{letter} {:.1} %",
                100.0 * *times as f64 / accuracy.count as f64
            )
        });
        let mark = match LETTERS.contains(&(accuracy.residue as u8)) {
            true => "",
            false => "  (ambiguous or rare)",
        };
        line_of(&format!(
            "{:<7}{:>9}  {:>8.4}  {}{mark}",
            accuracy.residue,
            count(accuracy.count),
            accuracy.correct as f64 / accuracy.count as f64,
            others.collect::<Vec<_>>().join(", ")
        ))?;
    }
    Ok(())
}
