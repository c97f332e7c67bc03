//! Converts weights between Hugging Face directories and our checkpoints, exactly, in both
//! directions.
//!
//! A Hugging Face directory has one tensor per layer and stores linear layers `[out, in]`; our
//! parameters are stacked over layers and stored `[in, out]`. One table of names relates them
//! (`names`), and one file relates config.json to our [`Model`] (`config_json`). Weights files are
//! those of safetensors or of PyTorch (`tensors`). Importing a directory and exporting it again
//! gives the same bytes of config.json and model.safetensors, as far as `transformers` 4 and 5 both
//! read the model in them; otherwise the export is what both read (`head`). Prefixes that wrappers
//! put before names are dropped (`wrappers`). An import refuses what it cannot represent. bfloat16
//! and float16 weights are read as float32, exactly, and exported as float32. This module does not
//! know how a model computes.

mod config_json;
mod directory;
mod error;
mod export;
mod file_kind;
mod head;
mod layout;
mod names;
mod note;
mod pytorch_file;
mod safetensors_file;
mod tensors;
mod tokenizer_files;
mod weights_reader;
mod wrappers;

#[cfg(test)]
mod tests;

use std::path::Path;

use ankh_pjrt::HostTensor;
use ankh_storage::Location;
use serde_json::{Value, json};

use crate::checkpoint::{self, Reader, Writer};
use crate::config::{Model, Objective, Vocabulary};

pub use error::{Error, Mismatch, Result, WrongTensor};
pub use export::{from_hugging_face, to_hugging_face};
pub use note::Note;
pub use tokenizer_files::TokenIds;
pub use weights_reader::{Difference, WeightsReader, open};

use directory::{Directory, Origin};

/// A model's configuration and parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// What the parameters belong to.
    pub model: Model,
    /// The ids its inputs are made of, where that is known.
    pub tokenizer: Option<Vocabulary>,
    /// What it was trained to do, where that is known.
    pub objective: Option<Objective>,
    /// Our parameters by name, float32.
    pub tensors: Vec<(String, HostTensor)>,
    /// What was read otherwise than it is written.
    pub notes: Vec<Note>,
}

/// A Hugging Face directory that became a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Where the checkpoint is.
    pub checkpoint: Location,
    /// What was read otherwise than it is written.
    pub notes: Vec<Note>,
}

/// The names and shapes of a model's parameters.
pub fn parameters(model: &Model) -> Vec<(&'static str, Vec<usize>)> {
    names::parameters(model)
        .into_iter()
        .map(|parameter| (parameter.name, parameter.shape))
        .collect()
}

/// Loads the parameters of whatever is at a location: a Hugging Face directory, one of our
/// checkpoints, or a run directory (its newest checkpoint).
pub fn load(location: impl Into<Location>) -> Result<Weights> {
    open(&location.into(), |weights| {
        Ok(Weights {
            tensors: weights.tensors()?,
            model: weights.model().clone(),
            tokenizer: weights.token_ids().vocabulary(),
            objective: weights.objective().cloned(),
            notes: weights.notes().to_vec(),
        })
    })
}

/// Reads a Hugging Face directory.
pub fn import(directory: &Path) -> Result<Weights> {
    let source = Directory::open(directory)?;
    let parameters = names::parameters(&source.model);
    let tensors = parameters
        .iter()
        .map(|parameter| Ok((parameter.name.to_owned(), source.read(parameter)?)));
    let tensors = tensors.collect::<Result<_>>()?;
    Ok(Weights {
        tokenizer: source.token_ids.vocabulary(),
        model: source.model,
        objective: None,
        tensors,
        notes: source.notes,
    })
}

/// Writes a Hugging Face directory, which must not exist yet or be empty: config.json,
/// model.safetensors, generation_config.json, and the tokenizer's files where the tokenizer is
/// known. Returns the names of the files.
pub fn export(weights: &Weights, directory: &Path) -> Result<Vec<String>> {
    let find = |name: &str| {
        weights
            .tensors
            .iter()
            .find(|(ours, _)| ours == name)
            .map(|(_, tensor)| tensor)
    };
    export::check(
        &weights.model,
        "weights",
        weights
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor)),
    )?;
    export::write(
        directory,
        &weights.model,
        weights.tokenizer,
        None,
        |parameter| {
            // The check above found every parameter.
            Ok(find(parameter.name)
                .expect("every parameter is there")
                .clone())
        },
    )
}

/// `pretrain import`: turns the Hugging Face directory `directory` into the checkpoint
/// `checkpoint`, one parameter at a time. The checkpoint is of step 0, unless its directory is
/// named after another.
pub fn import_to_checkpoint(directory: &Path, checkpoint: impl Into<Location>) -> Result<Imported> {
    let checkpoint = checkpoint.into();
    let source = Directory::open(directory)?;
    let tokenizer = source.token_ids.vocabulary();
    let step = checkpoint::step_of(&checkpoint).unwrap_or(0);
    let mut writer = Writer::create(checkpoint, step)?;
    for parameter in names::parameters(&source.model) {
        writer.add(parameter.name, &source.read(&parameter)?)?;
    }
    let mut config = json!({ "model": source.model });
    if let Some(tokenizer) = tokenizer {
        config["data"] = json!({ "tokenizer": tokenizer });
    }
    let checkpoint = writer.commit(&json!({ "config": config, ORIGIN: source.origin }))?;
    Ok(Imported {
        checkpoint,
        notes: source.notes,
    })
}

/// `pretrain export`: turns a checkpoint, or the newest one of a run directory, into the Hugging
/// Face directory `directory`, one parameter at a time. Returns the names of the files written.
pub fn export_checkpoint(checkpoint: impl Into<Location>, directory: &Path) -> Result<Vec<String>> {
    checkpoint::read(&checkpoint.into(), |reader| {
        let held = Held::of(reader)?;
        export::write(
            directory,
            &held.model,
            held.token_ids.vocabulary(),
            held.origin.as_ref(),
            |parameter| Ok(reader.tensor(parameter.name)?),
        )
    })
}

/// Where a checkpoint's metadata keeps what an import could not turn into configuration and
/// tensors.
const ORIGIN: &str = "hugging_face";

/// The model that a checkpoint records.
#[derive(Debug)]
struct Held {
    model: Model,
    token_ids: TokenIds,
    objective: Option<Objective>,
    origin: Option<Origin>,
}

impl Held {
    /// Reads the metadata and checks that the checkpoint has the model's parameters and, `step` and
    /// optimizer state (`<slot>/<name>`) aside, nothing else.
    fn of(reader: &Reader) -> Result<Held> {
        let unknown = |problem: String| Error::NoModel {
            checkpoint: reader.directory().clone(),
            problem,
        };
        let metadata = reader.metadata();
        let config = metadata
            .get("config")
            .ok_or_else(|| unknown("its metadata has no `config`".to_owned()))?;
        let model: Model = part(config, "/model")
            .map_err(unknown)?
            .ok_or_else(|| unknown("its `config` has no `model`".to_owned()))?;
        let token_ids = match part(config, "/data/tokenizer").map_err(unknown)? {
            Some(known) => TokenIds::Known(known),
            None => {
                let likely = tokenizer_files::of_size(model.vocabulary);
                likely.map_or(TokenIds::Unknown, TokenIds::Likely)
            }
        };
        let origin = part(metadata, &format!("/{ORIGIN}")).map_err(unknown)?;
        let tensors = reader
            .names()
            .filter(|name| !name.contains('/') && *name != "step");
        let described = tensors.map(|name| Ok((name, export::described_in(reader, name)?)));
        export::check_described(
            &model,
            &reader.directory().to_string(),
            described.collect::<Result<_>>()?,
        )?;
        Ok(Held {
            model,
            token_ids,
            objective: part(config, "/objective").map_err(unknown)?,
            origin,
        })
    }
}

/// Reads one part of a JSON value, if it is there.
fn part<T: serde::de::DeserializeOwned>(value: &Value, pointer: &str) -> Result<Option<T>, String> {
    let Some(part) = value.pointer(pointer) else {
        return Ok(None);
    };
    T::deserialize(part).map(Some).map_err(|e| {
        format!(
            "its `{}`: {e}",
            pointer.trim_start_matches('/').replace('/', ".")
        )
    })
}
