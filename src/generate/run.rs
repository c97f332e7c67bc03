//! A file of prompts becomes a FASTA file of sequences.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use ankh_data::batches::objective::TargetFormat;
use ankh_data::{Objective, Tokenizer};
use ankh_storage::atomic;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fasta::records;
use super::generator::{Generated, Generator, Item, Settings};
use super::prompt::{Freedom, Prompt, Task, objective_of};
use super::{Error, Fault, Search};
use crate::inference::{Journal, Lengths, LoadedModel, Unfinished};

/// What is to be generated, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The files of prompts.
    pub inputs: Vec<PathBuf>,
    /// The FASTA file to write.
    pub output: PathBuf,
    /// What is done with a prompt.
    pub task: Task,
    /// What may be generated.
    pub freedom: Freedom,
    /// How targets are written, where neither the weights nor the tokenizer tell.
    pub target_format: Option<TargetFormat>,
    /// Sequences for each prompt.
    pub samples: usize,
    /// Positions at most for targets that may be anything.
    pub limit: Option<usize>,
    /// The longest prompt, in tokens.
    pub max_length: usize,
    /// Rows at once.
    pub batch_size: usize,
    /// How tokens are chosen.
    pub settings: Settings,
    /// On what and in which type the model runs: what bits of results depend on.
    pub computation: String,
    /// Whether an output that is there is replaced.
    pub replace: bool,
    /// What becomes of unfinished work of another command.
    pub unfinished: Unfinished,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Prompts read.
    pub prompts: usize,
    /// Sequences written.
    pub sequences: usize,
    /// Distinct ones among them.
    pub distinct: usize,
    /// Targets that do not fit their prompt, and are left out.
    pub left_out: usize,
    /// Why the first of them does not.
    pub reason: Option<String>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is written.
    Finished(Summary),
    /// On request; what is done is kept for the same command.
    Stopped,
}

/// Generates. `progress` is told how many of how many batches are done, and says whether to go on.
/// The same command goes on where an earlier one was stopped, and writes the same bytes.
pub fn run(
    model: &LoadedModel,
    plan: &Plan,
    mut progress: impl FnMut(usize, usize) -> bool,
) -> Result<Outcome, Error> {
    if plan.output.is_dir() || (plan.output.exists() && !plan.replace) {
        return Err(Error::OutputExists(plan.output.clone()));
    }
    let tokenizer = model.tokenizer();
    let (trained, format) = (model.objective(), plan.target_format);
    let objective = objective_of(plan.task, trained, format, tokenizer);
    let prompts = read(plan, &objective, tokenizer)?;
    let batches = batches(&prompts, plan);
    let work = description(model, plan, &prompts, &objective);
    let (mut journal, generator) = (
        Journal::open(&plan.output, &work, plan.unfinished)?,
        Generator::new(model, plan.settings),
    );
    let mut samples: Vec<Vec<Option<Generated>>> = vec![vec![None; plan.samples]; prompts.len()];
    for (done, batch) in batches.iter().enumerate() {
        let kept = journal
            .next_kept()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let rows: Vec<Vec<Generated>> = match kept {
            Some(rows) => rows,
            None => {
                if !progress(done, batches.len()) {
                    return Ok(Outcome::Stopped);
                }
                let items: Vec<Item<'_>> = batch.iter().map(|part| part.item(&prompts)).collect();
                let rows = generator.run(&items, rows_of_a_batch(plan, batches.len(), batch))?;
                let bytes = serde_json::to_vec(&rows).expect("numbers have JSON");
                journal.append(&bytes)?;
                rows
            }
        };
        for (part, rows) in batch.iter().zip(rows) {
            let room = &mut samples[part.prompt][part.first_sample..];
            let results = part.results.min(room.len());
            room.iter_mut()
                .zip(rows)
                .take(results)
                .for_each(|(room, row)| *room = Some(row));
        }
    }
    progress(batches.len(), batches.len());
    let (text, summary) = fasta(&prompts, &samples, &objective, tokenizer);
    atomic::replace_file(&plan.output, text.as_bytes()).map_err(|source| Error::File {
        verb: "write",
        path: plan.output.clone(),
        source,
    })?;
    journal.remove()?;
    Ok(Outcome::Finished(summary))
}

/// A prompt in a batch, and which of its samples come of it.
#[derive(Clone, Copy, Debug)]
struct Part {
    prompt: usize,
    first_sample: usize,
    results: usize,
}

impl Part {
    fn item(self, prompts: &[Prompt]) -> Item<'_> {
        Item {
            prompt: &prompts[self.prompt],
            number: self.prompt as u32,
            first_sample: self.first_sample as u32,
        }
    }
}

/// Which prompts run together: those of like lengths, so that little is padding. A function of the
/// prompts and the plan alone.
fn batches(prompts: &[Prompt], plan: &Plan) -> Vec<Vec<Part>> {
    let rows = plan.settings.rows_per_prompt;
    // A beam search that draws nothing gives all results at once, one that draws one at a time.
    let results = match plan.settings.search {
        Search::Beam { sample: true, .. } => 1,
        Search::Beam { sample: false, .. } | Search::Greedy | Search::Sample => rows,
    };
    let lengths = Lengths::default();
    let together = |prompt: &Prompt| (lengths.of(prompt.input.len()), group(prompt));
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|&i| together(&prompts[i]));
    let parts = order.into_iter().flat_map(|prompt| {
        let firsts = (0..plan.samples).step_by(results);
        firsts.map(move |first_sample| Part {
            prompt,
            first_sample,
            results,
        })
    });
    let most = (plan.batch_size / rows).max(1);
    let mut batches: Vec<Vec<Part>> = Vec::new();
    for part in parts {
        let fits = |batch: &&mut Vec<Part>| {
            let last = &prompts[batch[0].prompt];
            batch.len() < most && together(last) == together(&prompts[part.prompt])
        };
        match batches.last_mut().filter(fits) {
            Some(batch) => batch.push(part),
            None => batches.push(vec![part]),
        }
    }
    batches
}

/// Prompts whose target may be anything run together where they have one limit, and others where
/// their targets are about as long.
fn group(prompt: &Prompt) -> usize {
    match prompt.target.is_empty() {
        true => prompt.limit,
        false => Lengths::default().of(prompt.limit),
    }
}

/// As many rows in all batches, so that one program runs them, unless there is one batch alone.
fn rows_of_a_batch(plan: &Plan, batches: usize, batch: &[Part]) -> usize {
    match batches {
        1 => batch.len(),
        _ => (plan.batch_size / plan.settings.rows_per_prompt).max(1),
    }
}

fn read(plan: &Plan, objective: &Objective, tokenizer: Tokenizer) -> Result<Vec<Prompt>, Error> {
    let mut prompts = Vec::new();
    for path in &plan.inputs {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File {
            verb: "read",
            path: path.clone(),
            source,
        })?;
        for record in records(path, &text)? {
            let name = match record.id {
                "" => format!("line{}", record.line),
                id => id.to_owned(),
            };
            let sequence = record.sequence();
            let form = (objective, plan.freedom);
            let (task, limit) = (plan.task, plan.limit);
            let prompt = Prompt::parse(&name, sequence.as_bytes(), task, form, tokenizer, limit);
            let prompt = prompt.and_then(|prompt| within(prompt, plan.max_length));
            prompts.push(prompt.map_err(|fault| Error::Prompt {
                path: path.clone(),
                line: record.line,
                fault,
            })?);
        }
    }
    Ok(prompts)
}

fn within(prompt: Prompt, most: usize) -> Result<Prompt, Fault> {
    match prompt.input.len() > most {
        false => Ok(prompt),
        true => Err(Fault::TooLong {
            found: prompt.input.len(),
            id: prompt.id,
            most,
        }),
    }
}

/// What makes one command another: the weights, the prompts, and what changes the results.
fn description(
    model: &LoadedModel,
    plan: &Plan,
    prompts: &[Prompt],
    objective: &Objective,
) -> Map<String, Value> {
    let prompts = prompts.iter().fold(0, |sum, prompt| {
        let sum = crc32c::crc32c_append(sum, prompt.id.as_bytes());
        crc32c::crc32c_append(sum, &prompt.input)
    });
    let Settings {
        search,
        rows_per_prompt,
        temperature,
        top_k,
        top_p,
        length_penalty,
        seed,
    } = plan.settings;
    let work = json!({
        "weights": format!("{:08x}", model.checksum()),
        "computation": plan.computation,
        "prompts": prompts,
        "objective": objective,
        "task": format!("{:?}", plan.task),
        "freedom": format!("{:?}", plan.freedom),
        "samples": plan.samples,
        "limit": plan.limit,
        "batch_size": plan.batch_size,
        "search": format!("{search:?}"),
        "rows_per_prompt": rows_per_prompt,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "length_penalty": length_penalty,
        "seed": seed,
    });
    match work {
        Value::Object(work) => work,
        _ => unreachable!("`json!` makes an object of braces"),
    }
}

/// The sequences of all prompts, in order.
fn fasta(
    prompts: &[Prompt],
    samples: &[Vec<Option<Generated>>],
    objective: &Objective,
    tokenizer: Tokenizer,
) -> (String, Summary) {
    let mut text = String::new();
    let mut summary = Summary {
        prompts: prompts.len(),
        sequences: 0,
        distinct: 0,
        left_out: 0,
        reason: None,
    };
    let mut distinct = HashSet::new();
    for (prompt, rows) in prompts.iter().zip(samples) {
        for (number, row) in rows.iter().enumerate() {
            let Some(row) = row else {
                continue;
            };
            let sequence = match sequence(prompt, row, objective, tokenizer) {
                Ok(sequence) => sequence,
                Err(reason) => {
                    summary.left_out += 1;
                    summary
                        .reason
                        .get_or_insert(format!("{}: {reason}", prompt.id));
                    continue;
                }
            };
            let name = match rows.len() {
                1 => prompt.id.clone(),
                _ => format!("{}/{}", prompt.id, number + 1),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, ">{name} score={:.4}", row.score);
            for line in sequence.as_bytes().chunks(LINE) {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            summary.sequences += 1;
            distinct.insert(sequence);
        }
    }
    summary.distinct = distinct.len();
    (text, summary)
}

/// Residues on a line.
const LINE: usize = 60;

fn sequence(
    prompt: &Prompt,
    row: &Generated,
    objective: &Objective,
    tokenizer: Tokenizer,
) -> Result<String, String> {
    let tokens = objective.unmask(tokenizer, &prompt.input, &row.tokens);
    let tokens = tokens.map_err(|error| error.to_string())?;
    match tokens.iter().find(|&&id| tokenizer.residue(id).is_none()) {
        None => Ok(tokenizer.decode(&tokens)),
        Some(&id) => Err(format!("{} is no residue", tokenizer.name(id))),
    }
}
