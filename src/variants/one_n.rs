//! One-N: a share of one sequence is hidden, and filled anew.

use std::path::PathBuf;

use ankh_data::Key;
use serde_json::{Map, Value, json};

use crate::generate::Task;
use crate::inference::{LoadedModel, Unfinished};

use super::alignment::{Record, records};
use super::directory::Output;
use super::generation::Request;
use super::report::{Generated, Kind, Material};
use super::{Aligner, Alignment, Drawing, Error, Outcome, Report, Stage};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct OneN {
    /// The file with the sequence alone.
    pub sequence: PathBuf,
    /// An alignment of its family, for the report.
    pub family: Option<PathBuf>,
    /// Shares of residues that are hidden, each with a temperature.
    pub settings: Vec<(f64, f32)>,
    /// How sequences are drawn.
    pub drawing: Drawing,
    /// What places them in the columns of the family.
    pub aligner: Aligner,
    /// The directory to write.
    pub output: PathBuf,
    /// What becomes of the work of another command there.
    pub unfinished: Unfinished,
}

/// Hides, generates and reports. `progress` is told what is going on, and says whether to go on.
pub fn one_n(
    job: &OneN,
    model: &LoadedModel,
    progress: &mut dyn FnMut(Stage) -> bool,
) -> Result<Outcome, Error> {
    let tokenizer = model.tokenizer();
    let found = records(&job.sequence, tokenizer)?;
    let [wild_type] = &found[..] else {
        return Err(Error::NotOne {
            path: job.sequence.clone(),
            found: found.len(),
        });
    };
    let family = job.family.as_ref().map(|path| {
        job.aligner.check()?;
        Alignment::read(path, tokenizer)
    });
    let family = family.transpose()?;
    let residues = wild_type.residues();
    let masks = job
        .settings
        .iter()
        .map(|&(share, _)| mask(share, job.drawing.seed, wild_type));
    let masks: Vec<Vec<usize>> = masks.collect::<Result<_, _>>()?;
    let output = Output::open(&job.output, &job.plan(model, wild_type), job.unfinished)?;
    let mut generated = Vec::new();
    for (&(share, temperature), places) in job.settings.iter().zip(&masks) {
        let setting = format!("{share}-{temperature:?}");
        let prompt = masked(&residues, places);
        let name = format!("prompt-{setting}.fasta");
        let prompts = output.write_fasta(&name, [(wild_type.id.as_str(), prompt.as_str())])?;
        let name = format!("generated-{setting}.fasta");
        let request = Request {
            prompts: &prompts,
            name: &name,
            task: Task::Fill,
            limit: None,
            temperature,
        };
        let Some(records) = job.drawing.run(model, &output, &request, progress)? else {
            return Ok(Outcome::Stopped);
        };
        generated.push(Generated {
            temperature,
            mask: Some(share),
            file: output.path(&name),
            given: (0..residues.len())
                .map(|place| !places.contains(&place))
                .collect(),
            sequences: records.iter().map(Record::residues).collect(),
        });
    }
    if !progress(Stage::Measuring) {
        return Ok(Outcome::Stopped);
    }
    let report = Report::of(Material {
        kind: Kind::OneN,
        wild_type,
        family: family.as_ref(),
        aligner: job.aligner,
        generated: &generated,
    })?;
    report.write(&output)?;
    Ok(Outcome::Finished(Box::new(report)))
}

/// Which residues are hidden, ascending. A larger share hides those of a smaller one too, and more.
fn mask(share: f64, seed: u64, wild_type: &Record) -> Result<Vec<usize>, Error> {
    let residues = wild_type.residues().len();
    let masked = (share * residues as f64).round() as usize;
    if masked == 0 || masked >= residues {
        return Err(Error::Mask {
            share,
            masked,
            residues,
            id: wild_type.id.clone(),
        });
    }
    let mut order: Vec<usize> = (0..residues).collect();
    order.sort_by_key(|&place| (Key::new(seed).with(MASK).at(place as u64), place));
    let mut places = order[..masked].to_vec();
    places.sort_unstable();
    Ok(places)
}

/// The stream of random numbers that masks are drawn from.
const MASK: u64 = 1;

/// A prompt: the sequence with sentinels in some places, which ascend.
fn masked(residues: &[u8], places: &[usize]) -> String {
    let token = |(place, &residue): (usize, &u8)| match places.binary_search(&place) {
        Ok(number) => format!("<extra_id_{number}>"),
        Err(_) => char::from(residue).to_string(),
    };
    residues.iter().enumerate().map(token).collect()
}

impl OneN {
    /// What makes one command another.
    fn plan(&self, model: &LoadedModel, wild_type: &Record) -> Map<String, Value> {
        let plan = json!({
            "command": "one-n",
            "weights": format!("{:08x}", model.checksum()),
            "computation": self.drawing.computation,
            "sequence": String::from_utf8_lossy(&wild_type.residues()),
            "settings": self.settings,
            "seed": self.drawing.seed,
            "beams": self.drawing.beams,
            "samples": self.drawing.samples,
            "generation_batch_size": self.drawing.batch_size,
        });
        match plan {
            Value::Object(plan) => plan,
            _ => unreachable!("`json!` makes an object of braces"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_follows_from_the_seed_and_hides_its_share() {
        let wild_type = Record {
            id: "a".into(),
            line: 1,
            text: b"MKVAYTLLGW".to_vec(),
        };
        let places = mask(0.4, 3, &wild_type).unwrap();
        assert_eq!(
            (places.len(), mask(0.4, 3, &wild_type).unwrap()),
            (4, places.clone())
        );
        assert_ne!(mask(0.4, 4, &wild_type).unwrap(), places);
        let more = mask(0.5, 3, &wild_type).unwrap();
        assert!(more.len() == 5 && places.iter().all(|place| more.contains(place)));
        for share in [0.01, 0.99] {
            let error = mask(share, 3, &wild_type).unwrap_err();
            assert!(matches!(error, Error::Mask { .. }), "{error}");
        }
        assert_eq!(masked(b"MKV", &[0, 2]), "<extra_id_0>K<extra_id_1>");
    }
}
