//! High-N: a family, learned by the decoder, and sequences from a short beginning.

use std::path::PathBuf;

use ankh_data::Key;
use ankh_storage::Location;
use serde_json::{Map, Value, json};

use crate::generate::Task;
use crate::hugging_face;
use crate::inference::{LoadedModel, ModelOptions, Unfinished};
use crate::run_dir::Requests;

use super::alignment::Record;
use super::directory::Output;
use super::generation::Request;
use super::report::{Generated, Kind, Material};
use super::{Aligner, Alignment, Drawing, Error, FineTuning, Origin, Outcome, Report, Stage};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct HighN {
    /// The alignment of the family.
    pub family: PathBuf,
    /// The sequence of the family that prompts are taken from; without, its first.
    pub wild_type: Option<String>,
    /// How many sequences of the family prompts are taken from: the wild type, and others that are
    /// drawn. It divides the number of samples.
    pub prompts: usize,
    /// How the family is learned.
    pub fine_tuning: FineTuning,
    /// How sequences are drawn.
    pub drawing: Drawing,
    /// The temperatures, each of which gives as many sequences.
    pub temperatures: Vec<f32>,
    /// What places them in the columns of the family.
    pub aligner: Aligner,
    /// The directory to write.
    pub output: PathBuf,
    /// What becomes of the work of another command there.
    pub unfinished: Unfinished,
}

/// Fine-tunes, generates and reports. `progress` is told what is going on, and says whether to go
/// on.
pub fn high_n(
    job: &HighN,
    origin: &Origin,
    requests: &Requests,
    progress: &mut dyn FnMut(Stage) -> bool,
) -> Result<Outcome, Error> {
    job.aligner.check()?;
    let family = Alignment::read(&job.family, origin.tokenizer)?;
    let wild_type = job.wild_type(&family)?;
    let residues = wild_type.residues();
    let prompt = job.fine_tuning.prompt;
    if residues.len() <= prompt {
        return Err(Error::Prompt {
            path: job.family.clone(),
            line: wild_type.line,
            id: wild_type.id.clone(),
            residues: residues.len(),
            prompt,
        });
    }
    let output = Output::open(&job.output, &job.plan(origin, &family), job.unfinished)?;
    let texts: Vec<Vec<u8>> = family.records.iter().map(Record::residues).collect();
    let text = |residues: &[u8]| String::from_utf8_lossy(residues).into_owned();
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let learned: Vec<(String, String)> = family
        .records
        .iter()
        .zip(&texts)
        .map(|(record, residues)| (record.id.clone(), text(residues)))
        .collect();
    let learned = learned
        .iter()
        .map(|(id, residues)| (id.as_str(), residues.as_str()));
    let learned = output.write_fasta("family.fasta", learned)?;
    let prompts = job.prompts(&family, wild_type, &texts);
    let prompts = prompts.map(|(id, residues)| (id, text(&residues[..prompt])));
    let prompts: Vec<(&str, String)> = prompts.collect();
    let prompts = prompts
        .iter()
        .map(|(id, residues)| (*id, residues.as_str()));
    let number = prompts.len();
    let prompts = output.write_fasta("prompts.fasta", prompts)?;

    let begins = || {
        progress(Stage::FineTuning);
    };
    let tuned = job
        .fine_tuning
        .run(origin, &learned, longest, &job.output, requests, begins)?;
    let Some(run) = tuned else {
        return Ok(Outcome::Stopped);
    };
    let weights = hugging_face::load(Location::from(run))?;
    let options = ModelOptions {
        slice: origin.slice,
        compute: origin.compute,
        tokenizer: Some(origin.tokenizer.vocabulary()),
    };
    let model = LoadedModel::open(weights, options)?;
    let drawing = Drawing {
        samples: job.drawing.samples.div_ceil(number),
        ..job.drawing.clone()
    };
    let mut generated = Vec::new();
    for &temperature in &job.temperatures {
        let name = format!("generated-{temperature:?}.fasta");
        let request = Request {
            prompts: &prompts,
            name: &name,
            task: Task::Complete,
            limit: Some(job.fine_tuning.target_tokens(longest)),
            temperature,
        };
        let Some(records) = drawing.run(&model, &output, &request, progress)? else {
            return Ok(Outcome::Stopped);
        };
        generated.push(Generated {
            temperature,
            mask: None,
            file: output.path(&name),
            given: (0..residues.len()).map(|place| place < prompt).collect(),
            sequences: records.iter().map(Record::residues).collect(),
        });
    }
    if !progress(Stage::Measuring) {
        return Ok(Outcome::Stopped);
    }
    let report = Report::of(Material {
        kind: Kind::HighN,
        wild_type,
        family: Some(&family),
        aligner: job.aligner,
        generated: &generated,
    })?;
    report.write(&output)?;
    Ok(Outcome::Finished(Box::new(report)))
}

/// The stream of random numbers that prompts are drawn from.
const PROMPTS: u64 = 2;

impl HighN {
    fn wild_type<'f>(&self, family: &'f Alignment) -> Result<&'f Record, Error> {
        let Some(id) = &self.wild_type else {
            return Ok(&family.records[0]);
        };
        let mut records = family.records.iter();
        records
            .find(|record| record.id == *id)
            .ok_or_else(|| Error::NoWildType {
                path: family.path.clone(),
                id: id.clone(),
            })
    }

    /// The sequences that prompts are the beginnings of: the wild type, and others of the family
    /// that are long enough, fewer where there are not so many.
    fn prompts<'f>(
        &self,
        family: &'f Alignment,
        wild_type: &'f Record,
        texts: &'f [Vec<u8>],
    ) -> impl Iterator<Item = (&'f str, &'f [u8])> {
        let all: Vec<(&Record, &[u8])> = family
            .records
            .iter()
            .zip(texts.iter().map(Vec::as_slice))
            .collect();
        let is_other = |record: &Record| !std::ptr::eq(record, wild_type);
        let prompt = self.fine_tuning.prompt;
        let (others, own): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|(record, text)| !is_other(record) || text.len() > prompt)
            .partition(|(record, _)| is_other(record));
        let mut random = Key::new(self.drawing.seed).with(PROMPTS).stream();
        let wanted = self.prompts.saturating_sub(1).min(others.len());
        let chosen = random.choose(wanted, others.len());
        let chosen = chosen.into_iter().map(move |place| others[place]);
        let chosen = own.into_iter().chain(chosen);
        chosen.map(|(record, residues)| (record.id.as_str(), residues))
    }

    /// What makes one command another.
    fn plan(&self, origin: &Origin, family: &Alignment) -> Map<String, Value> {
        let FineTuning {
            epochs,
            learning_rate,
            batch_size,
            length,
            prompt,
            seed,
        } = self.fine_tuning;
        let checksum = family.records.iter().fold(0, |sum, record| {
            let sum = crc32c::crc32c_append(sum, record.id.as_bytes());
            crc32c::crc32c_append(sum, &record.text)
        });
        let plan = json!({
            "command": "high-n",
            "weights": origin.weights.to_string(),
            "computation": self.drawing.computation,
            "family": format!("{checksum:08x}"),
            "wild_type": self.wild_type,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "length": length,
            "prompt": prompt,
            "seed": seed,
            "beams": self.drawing.beams,
            "samples": self.drawing.samples,
            "generation_batch_size": self.drawing.batch_size,
            "prompts": self.prompts,
            "temperatures": self.temperatures,
        });
        match plan {
            Value::Object(plan) => plan,
            _ => unreachable!("`json!` makes an object of braces"),
        }
    }
}
