//! `pretrain score`: a table of variants to the same table with scores.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json as value};

use super::model::ModelArgs;
use super::output::{count, json, line_of};
use super::progress::{WorkProgress, stop_requests};
use super::{CliError, Exit};
use crate::inference::{Journal, LoadedModel, Unfinished};
use crate::run_dir::Requests;
use crate::score::{
    self, Agreement, Answers, Labels, Method, Questions, Table, Terms, WildType, answers, variants,
};
use crate::telemetry::print_line;

/// Score protein variants: how likely a model holds their residues.
///
/// The table is a CSV file as ProteinGym has them: a column `mutant` (A24G, or A24G:T30K for two
/// mutations; positions count from 1) or `mutated_sequence`, or both. The output has all of its
/// columns and rows, in their order, and the scores behind them; more is likelier. With a column
/// `DMS_score`, and perhaps `DMS_score_bin`, it prints how well scores and labels agree.
///
/// Stopped or killed work goes on where it was when the same command is run again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  pretrain score --weights hf --wild-type MKTAYIAKQR --output scores.csv variants.csv\n  \
    pretrain score --weights hf --wild-type MKTAYIAKQR --method pseudo-likelihood --output likelihoods.csv variants.csv"
)]
pub(super) struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What a score is.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = MethodName::MaskedMarginals)]
    method: MethodName,
    /// The wild type: a FASTA file with it alone, or its residues [default: the column
    /// `target_seq`, or what `mutated_sequence` was before `mutant`].
    #[arg(long, value_name = "FILE|SEQUENCE")]
    wild_type: Option<String>,
    /// A reference file of ProteinGym: the wild type is `target_seq` of the row whose
    /// `DMS_filename` is the table's name.
    #[arg(long, value_name = "FILE", conflicts_with = "wild_type")]
    reference: Option<PathBuf>,
    /// The CSV file to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output if it is there.
    #[arg(long)]
    replace: bool,
    /// Discard unfinished work that another command began.
    #[arg(long)]
    restart: bool,
    /// Refuse sequences of more residues.
    #[arg(long, value_name = "RESIDUES", default_value_t = 2048)]
    max_length: usize,
    /// Tokens that the model takes at once, padding included: more need more memory.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    batch_tokens: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// The table of variants.
    #[arg(value_name = "MUTANTS")]
    table: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodName {
    /// The sum of ln p(mutant) - ln p(wild type), each mutated position masked alone in the wild
    /// type.
    MaskedMarginals,
    /// The mean of ln p(residue) over the variant's residues, each masked in turn.
    PseudoLikelihood,
}

impl ScoreArgs {
    fn method(&self) -> Method {
        match self.method {
            MethodName::MaskedMarginals => Method::MaskedMarginals,
            MethodName::PseudoLikelihood => Method::PseudoLikelihood,
        }
    }

    fn wild_type(&self) -> WildType {
        match (&self.wild_type, &self.reference) {
            (Some(given), _) => WildType::Given(given.clone()),
            (None, Some(reference)) => WildType::Reference(reference.clone()),
            (None, None) => WildType::Table,
        }
    }

    /// What the journal tells of this work: everything that its answers and batches follow from.
    fn description(&self, model: &LoadedModel, questions: &Questions) -> Map<String, Value> {
        let described = value!({
            "format": 1,
            "weights": format!("{:08x}", model.checksum()),
            "variants": questions.digest(),
            "method": self.method().name(),
            "computation": self.model.computation(),
            "--batch-tokens": self.batch_tokens,
        });
        match described {
            Value::Object(described) => described,
            _ => unreachable!("an object is written there"),
        }
    }
}

pub(super) fn run(arguments: ScoreArgs) -> Result<Exit, CliError> {
    let method = arguments.method();
    let table = Table::read(&arguments.table)?;
    let columns = method.columns();
    if let Some(name) = columns
        .iter()
        .copied()
        .find(|name| table.column(name).is_some())
    {
        let path = arguments.table;
        return Err(score::Error::ColumnExists { path, name }.into());
    }
    let variants = variants(&table, &arguments.wild_type(), method, arguments.max_length)?;
    let labels = Labels::of(&table)?;
    let output = &arguments.output;
    if output.is_dir() || (output.exists() && !arguments.replace) {
        return Err(score::Error::OutputExists(arguments.output).into());
    }
    let requests = stop_requests()?;
    let model = arguments.model.open()?;
    let mut questions = Questions::new(model.tokenizer());
    let ask = |variant| method.ask(variant, &mut questions);
    let terms: Vec<Terms> = variants.iter().map(ask).collect();
    let mut journal = Journal::open(
        &arguments.output,
        &arguments.description(&model, &questions),
        match arguments.restart {
            true => Unfinished::Discard,
            false => Unfinished::Continue,
        },
    )?;

    let began = Instant::now();
    requests.begin();
    let batch_tokens = arguments.batch_tokens;
    let asked = ask_model(&model, &questions, batch_tokens, &mut journal, &requests)?;
    let Some(answers) = asked else {
        return Ok(Exit::Stopped);
    };
    let seconds = began.elapsed().as_secs_f64();
    let scores: Vec<f64> = terms.iter().map(|terms| terms.score(&answers)).collect();
    let agreement = labels.map(|labels| labels.agreement(&scores));
    let mut results = vec![(columns[0], scores.clone())];
    if let Some(name) = columns.get(1) {
        results.push((*name, scores.iter().map(|score| score.exp()).collect()));
    }
    table.write_with(&arguments.output, &results)?;
    journal.remove()?;
    show(
        &arguments,
        &Outcome {
            variants: variants.len(),
            questions: &questions,
            seconds,
            agreement,
        },
    )?;
    Ok(Exit::Done)
}

/// The answers, with progress; none where somebody asked to stop.
fn ask_model(
    model: &LoadedModel,
    questions: &Questions,
    batch_tokens: usize,
    journal: &mut Journal,
    requests: &Requests,
) -> Result<Option<Answers>, CliError> {
    if journal.kept() > 0 {
        print_line(&format!(
            "{} batches are done already",
            count(journal.kept() as u64)
        ));
    }
    let mut shown = WorkProgress::new("masked sequences");
    let mut last = 0;
    let answers = answers(model, questions, batch_tokens, Some(journal), |progress| {
        last = progress.done;
        shown.show(progress.done as u64, progress.total as u64);
        match requests.stop() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    shown.finish();
    let total = questions.inputs();
    let Some(answers) = answers else {
        print_line(&format!(
            "stopped: {} of {} masked sequences are done; the same command goes on with the others",
            count(last as u64),
            count(total as u64)
        ));
        return Ok(None);
    };
    match answers.not_finite() {
        0 => Ok(Some(answers)),
        number => Err(score::Error::NotFinite(number).into()),
    }
}

/// What came of a table.
struct Outcome<'a> {
    variants: usize,
    questions: &'a Questions,
    seconds: f64,
    agreement: Option<Agreement>,
}

fn show(arguments: &ScoreArgs, outcome: &Outcome<'_>) -> Result<(), CliError> {
    let Outcome {
        variants,
        questions,
        seconds,
        agreement,
    } = outcome;
    if arguments.json {
        return json(&value!({
            "output": arguments.output,
            "method": arguments.method().name(),
            "variants": variants,
            "passes": questions.inputs(),
            "passes_without_sharing": questions.passes_of_a_loop(),
            "seconds": seconds,
            "agreement": agreement,
        }));
    }
    line_of(&format!("output      {}", arguments.output.display()))?;
    line_of(&format!("method      {}", arguments.method().name()))?;
    line_of(&format!("variants    {}", count(*variants as u64)))?;
    line_of(&format!(
        "passes      {}, where a loop over variants takes {}",
        count(questions.inputs() as u64),
        count(questions.passes_of_a_loop())
    ))?;
    line_of(&format!("seconds     {seconds:.1}"))?;
    let Some(agreement) = agreement else {
        return Ok(());
    };
    let measure = |value: Option<f64>| match value {
        Some(value) => format!("{value:.4}"),
        None => "undefined".to_owned(),
    };
    line_of(&format!("labelled    {}", count(agreement.labelled as u64)))?;
    for (name, found) in [
        ("Spearman", agreement.spearman),
        ("NDCG", agreement.ndcg),
        ("AUC", agreement.auc),
        ("MCC", agreement.mcc),
        ("top recall", agreement.top_recall),
    ] {
        line_of(&format!("{name:<12}{}", measure(found)))?;
    }
    Ok(())
}
