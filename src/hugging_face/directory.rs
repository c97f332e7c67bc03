//! Reads a Hugging Face model directory.

use std::path::Path;

use ankh_pjrt::{ElementType, HostTensor};
use serde::{Deserialize, Serialize};

use super::error::{Error, Mismatch, Result, WrongTensor};
use super::head::{Head, Stored};
use super::layout::{self, reorient};
use super::names::{self, EMBEDDING, EMBEDDING_COPIES, OUTPUT, Parameter, UNUSED};
use super::note::Note;
use super::tensors::{Format, Tensors, is_readable};
use super::tokenizer_files::{self, TokenIds};
use super::{config_json, file_kind, wrappers};
use crate::config::{Model, TieEmbeddings};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const GENERATION: &str = "generation_config.json";

/// The files that are read, and the indexes of several; the first that is there.
const FORMATS: [(&str, &str, Format); 2] = [
    (WEIGHTS, "model.safetensors.index.json", Format::Safetensors),
    (
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        Format::PyTorch,
    ),
];

/// Formats that are recognised to be refused, with what has to be installed and what
/// `from_pretrained` needs to read them, which version 5 does not.
const OTHER_FORMATS: [(&str, &str, &str); 3] = [
    ("flax_model.msgpack", FLAX, ", from_flax=True"),
    ("flax_model.msgpack.index.json", FLAX, ", from_flax=True"),
    (
        "tf_model.h5",
        "transformers 4, torch and tensorflow",
        ", from_tf=True",
    ),
];
const FLAX: &str = "transformers 4, torch and flax";

/// What of a directory our configuration and tensors do not hold, kept so that an export gives the
/// same bytes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The text of config.json.
    pub config: String,
    /// The JSON text of the weights file's metadata.
    pub metadata: Option<String>,
    /// The names under which the embedding table was stored.
    pub embedding_names: Vec<String>,
}

/// An opened and checked Hugging Face directory: every parameter of the model is there, once, with
/// the right shape.
#[derive(Debug)]
pub(super) struct Directory {
    tensors: Tensors,
    head: Head,
    pub model: Model,
    pub token_ids: TokenIds,
    pub origin: Origin,
    pub notes: Vec<Note>,
}

impl Directory {
    /// Whether `path` looks like a Hugging Face directory rather than one of ours.
    pub fn is_at(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// Opens a directory and compares what it holds with what its config.json describes.
    pub fn open(directory: &Path) -> Result<Directory> {
        if !Directory::is_at(directory) {
            return Err(Error::NoConfig(directory.to_path_buf()));
        }
        let file = directory.join(CONFIG);
        let config = file_kind::read_json(&file)?;
        let described = config_json::parse(&config, &file)?;
        let generation = directory.join(GENERATION);
        if described.decoder_start.is_none() && generation.is_file() {
            config_json::check_generation(&file_kind::read_json(&generation)?, &generation)?;
        }
        let mut tensors = open_weights(directory)?;
        let mut notes = unwrap(&mut tensors);
        if tensors.forget(UNUSED) {
            let name = UNUSED.to_owned();
            notes.push(Note::Ignored { name });
        }

        let mut embedding_names = vec![EMBEDDING];
        embedding_names.extend(EMBEDDING_COPIES);
        embedding_names.retain(|name| tensors.contains(name));
        let stored = stored(&tensors, embedding_names.first().copied())?;
        let head = described.said.head(stored);
        if head == Head::Scaled {
            notes.push(Note::ScaledHead);
        }
        let model = described.model(head.tie());
        let token_ids = tokenizer_files::of_directory(directory, model.vocabulary);
        notes.extend(note_of(token_ids, model.vocabulary));
        let tied = model.tie_embeddings != TieEmbeddings::Untied && tensors.contains(OUTPUT);
        embedding_names.extend(tied.then_some(OUTPUT));
        for (key, layers) in [
            ("num_layers", model.encoder_layers),
            ("num_decoder_layers", model.decoder_layers),
        ] {
            if layers > tensors.count() {
                return Err(Error::Setting {
                    file,
                    key,
                    found: layers.to_string(),
                    expected: "no more layers than the weights file has tensors",
                });
            }
        }
        check(
            directory,
            &tensors,
            &names::parameters(&model),
            &embedding_names,
        )?;
        if let [original, copies @ ..] = &embedding_names[..] {
            let values = tensors.read_f32(original)?;
            for copy in copies {
                if tensors.read_f32(copy)? != values {
                    return Err(Error::Untied {
                        place: directory.to_path_buf(),
                        original: (*original).to_owned(),
                        copy: (*copy).to_owned(),
                    });
                }
            }
        }
        let origin = Origin {
            config,
            metadata: tensors.metadata.clone(),
            embedding_names: embedding_names.into_iter().map(str::to_owned).collect(),
        };
        Ok(Directory {
            tensors,
            head,
            model,
            token_ids,
            origin,
            notes,
        })
    }

    /// Reads one parameter, float32: its layers stacked, its matrices in our order.
    pub fn read(&self, parameter: &Parameter) -> Result<HostTensor> {
        let part: usize = parameter.part_shape().iter().product::<usize>() * 4;
        let mut bytes = vec![0; part * parameter.theirs.len()];
        for (name, to) in parameter
            .theirs
            .iter()
            .zip(bytes.chunks_exact_mut(part.max(1)))
        {
            let name = if name == EMBEDDING {
                &self.origin.embedding_names[0]
            } else {
                name
            };
            let mut from = self.tensors.read_f32(name)?;
            if name == OUTPUT && self.head == Head::Scaled {
                layout::scale(&mut from, (self.model.d_model as f64).powf(-0.5));
            }
            reorient(parameter.orientation, &from, to, &parameter.their_shape());
        }
        let dims = parameter.shape.iter().map(|&size| size as i64).collect();
        Ok(HostTensor {
            element_type: ElementType::F32,
            dims,
            bytes,
        })
    }
}

/// Takes off the wrapper that all names are in, if there is one.
fn unwrap(tensors: &mut Tensors) -> Vec<Note> {
    let Some(names) = wrappers::unwrapped(tensors.names()) else {
        return Vec::new();
    };
    let pairs = tensors.names().zip(&names);
    let changed = pairs.into_iter().find(|(wrapped, name)| wrapped != name);
    let note = changed.map(|(wrapped, name)| Note::Unwrapped {
        wrapped: wrapped.to_owned(),
        name: name.clone(),
    });
    tensors.rename(names);
    note.into_iter().collect()
}

/// What there is to say of the token ids of this many embedding rows.
fn note_of(token_ids: TokenIds, rows: usize) -> Option<Note> {
    match token_ids {
        TokenIds::Likely(tokenizer) if tokenizer_files::of_size(rows).is_none() => {
            Some(Note::Padded { rows, tokenizer })
        }
        TokenIds::Known(_) | TokenIds::Likely(_) => None,
        TokenIds::Unknown => Some(Note::UnknownTokenIds),
    }
}

/// What is stored as the output projection, beside the embedding table that is stored as
/// `embedding`.
fn stored(tensors: &Tensors, embedding: Option<&str>) -> Result<Stored> {
    let Some(head) = tensors.info(OUTPUT) else {
        return Ok(Stored::Nothing);
    };
    let Some(embedding) = embedding else {
        // The only copy there is.
        return Ok(Stored::Copy);
    };
    let readable = |(dtype, shape): (_, &[usize])| is_readable(dtype).then(|| shape.to_vec());
    let same = match (readable(head), tensors.info(embedding).and_then(readable)) {
        (Some(one), Some(other)) => {
            one == other && tensors.read_f32(OUTPUT)? == tensors.read_f32(embedding)?
        }
        _ => false,
    };
    Ok(match same {
        true => Stored::Copy,
        false => Stored::Other,
    })
}

fn open_weights(directory: &Path) -> Result<Tensors> {
    for (single, index, format) in FORMATS {
        let (single, index) = (directory.join(single), directory.join(index));
        if single.is_file() {
            return Tensors::open(&single, format);
        }
        if index.is_file() {
            return Tensors::open_index(&index, format);
        }
    }
    match OTHER_FORMATS
        .into_iter()
        .find(|(name, ..)| directory.join(name).is_file())
    {
        Some((found, installed, hint)) => Err(Error::OtherFormat {
            directory: directory.to_path_buf(),
            found,
            installed,
            hint,
        }),
        None => Err(Error::NoWeights(directory.into())),
    }
}

/// Compares all names, types and shapes, and reports every difference at once.
fn check(
    directory: &Path,
    tensors: &Tensors,
    parameters: &[Parameter],
    embedding_names: &[&str],
) -> Result<()> {
    let mut mismatch = Mismatch {
        place: directory.display().to_string(),
        ..Mismatch::default()
    };
    let mut known: std::collections::HashSet<&str> = embedding_names.iter().copied().collect();
    for parameter in parameters {
        let shape = parameter.their_shape();
        for name in &parameter.theirs {
            let stored: Vec<&str> = match name == EMBEDDING {
                true => embedding_names.to_vec(),
                false => tensors
                    .contains(name)
                    .then_some(name.as_str())
                    .into_iter()
                    .collect(),
            };
            if stored.is_empty() {
                mismatch.missing.push(name.clone());
            }
            for name in stored {
                known.insert(name);
                let Some((dtype, found)) = tensors.info(name) else {
                    continue;
                };
                if found != shape || !is_readable(dtype) {
                    let expected = format!("F32 (or BF16, F16) {shape:?}");
                    mismatch.different.push(WrongTensor {
                        name: name.to_owned(),
                        expected,
                        found: format!("{dtype} {found:?}"),
                    });
                }
            }
        }
    }
    mismatch.unexpected = tensors
        .names()
        .filter(|name| !known.contains(name))
        .map(str::to_owned)
        .collect();
    mismatch.into_result()
}
