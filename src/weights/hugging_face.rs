//! A Hugging Face model directory as a source of our parameters.

use std::fs;
use std::path::{Path, PathBuf};

use ankh_pjrt::{ElementType, HostTensor};
use serde::{Deserialize, Serialize};

use super::config_json;
use super::error::{Error, Mismatch, Result};
use super::layout::reorient;
use super::names::{self, EMBEDDING, EMBEDDING_COPIES, Parameter, TIED_OUTPUT};
use super::safetensors_file::{Tensors, is_readable};
use crate::config::Model;

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Formats that are recognised to be refused, with what `from_pretrained` needs to read them.
const OTHER_FORMATS: [(&str, &str); 5] = [
    ("pytorch_model.bin", ""),
    ("pytorch_model.bin.index.json", ""),
    ("flax_model.msgpack", ", from_flax=True"),
    ("flax_model.msgpack.index.json", ", from_flax=True"),
    ("tf_model.h5", ", from_tf=True"),
];

/// What of a directory our configuration and tensors do not hold, kept so that an export gives the same bytes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The text of config.json.
    pub config: String,
    /// The JSON text of the weights file's metadata.
    pub metadata: Option<String>,
    /// The names under which the embedding table was stored.
    pub embedding_names: Vec<String>,
}

/// An opened and checked Hugging Face directory: every parameter of the model is there, once, with the right shape.
#[derive(Debug)]
pub(super) struct Directory {
    tensors: Tensors,
    pub model: Model,
    pub origin: Origin,
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
        let config = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let model = config_json::parse(&config, &file)?;
        let tensors = open_weights(directory)?;

        let mut embedding_names = vec![EMBEDDING];
        embedding_names.extend(EMBEDDING_COPIES);
        embedding_names.extend(model.tie_embeddings.then_some(TIED_OUTPUT));
        embedding_names.retain(|name| tensors.contains(name));
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
            model,
            origin,
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
            let from = self.tensors.read_f32(name)?;
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

fn open_weights(directory: &Path) -> Result<Tensors> {
    let (single, index): (PathBuf, PathBuf) = (directory.join(WEIGHTS), directory.join(INDEX));
    if single.is_file() {
        return Tensors::open(&single);
    }
    if index.is_file() {
        return Tensors::open_index(&index);
    }
    match OTHER_FORMATS
        .into_iter()
        .find(|(name, _)| directory.join(name).is_file())
    {
        Some((found, hint)) => Err(Error::OtherFormat {
            directory: directory.to_path_buf(),
            found,
            hint,
        }),
        None => Err(Error::NoWeights(directory.to_path_buf())),
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
        place: directory.to_path_buf(),
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
                    mismatch.different.push((
                        name.to_owned(),
                        expected,
                        format!("{dtype} {found:?}"),
                    ));
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
