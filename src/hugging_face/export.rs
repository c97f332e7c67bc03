//! Writes a Hugging Face directory, and converts single tensors from our names to theirs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ankh_data::tokenizer::{Tokenizer, Vocabulary};
use ankh_pjrt::{ElementType, HostTensor};

use super::directory::{CONFIG, GENERATION, Origin, WEIGHTS};
use super::error::{Error, Mismatch, Result, WrongTensor};
use super::head::Said;
use super::layout::reorient;
use super::names::{self, EMBEDDING, OUTPUT, Parameter};
use super::safetensors_file::Output;
use super::{config_json, tokenizer_files};
use crate::checkpoint::{self, Reader, files};
use crate::config::{Model, TieEmbeddings};

/// The metadata that transformers expects of a weights file.
const METADATA: &str = r#"{"format":"pt"}"#;

/// Writes a Hugging Face directory: into a hidden sibling first, which takes its name when all is
/// on disk. `read` gives one parameter at a time.
pub(super) fn write(
    directory: &Path,
    model: &Model,
    tokenizer: Option<Vocabulary>,
    origin: Option<&Origin>,
    mut read: impl FnMut(&Parameter) -> Result<HostTensor>,
) -> Result<Vec<String>> {
    if !files::is_vacant(directory)? {
        return Err(checkpoint::Error::Occupied(directory.into()).into());
    }
    let partial = files::Remains::Partial.beside(directory);
    files::remove_tree(&partial)?;
    files::create(&partial)?;
    let written = fill(&partial, model, tokenizer, origin, &mut read).and_then(|names| {
        files::sync_tree(&partial)?;
        files::rename(&partial, directory)?;
        Ok(names)
    });
    if written.is_err() {
        // The failure itself is reported.
        let _ = files::remove_tree(&partial);
    }
    written
}

/// Writes all files into `directory` and returns their names.
fn fill(
    directory: &Path,
    model: &Model,
    tokenizer: Option<Vocabulary>,
    origin: Option<&Origin>,
    read: &mut impl FnMut(&Parameter) -> Result<HostTensor>,
) -> Result<Vec<String>> {
    let mut texts = vec![
        (CONFIG, config_text(model, origin)?),
        (GENERATION, config_json::render_generation()),
    ];
    let fitting =
        tokenizer.filter(|known| Tokenizer::of(*known).vocabulary_size() <= model.vocabulary);
    texts.extend(fitting.into_iter().flat_map(tokenizer_files::render));
    for (name, text) in &texts {
        let path = directory.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    write_weights(&directory.join(WEIGHTS), model, origin, read)?;
    Ok(texts
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .chain([WEIGHTS.to_owned()])
        .collect())
}

/// The original text, if the model is still the one it describes; of what it says of the output
/// projection, what both versions of `transformers` understand.
fn config_text(model: &Model, origin: Option<&Origin>) -> Result<String> {
    let tie = model.tie_embeddings;
    let parsed = |origin: &Origin| config_json::parse(&origin.config, Path::new(CONFIG)).ok();
    let described = origin.and_then(|origin| Some((origin, parsed(origin)?)));
    match described {
        Some((origin, described)) if same_shape(&described.model(tie), model) => {
            match described.said.means(tie) {
                true => Ok(origin.config.clone()),
                false => config_json::saying(&origin.config, Said::of(tie)),
            }
        }
        _ => Ok(config_json::render(model)),
    }
}

fn write_weights(
    path: &Path,
    model: &Model,
    origin: Option<&Origin>,
    read: &mut impl FnMut(&Parameter) -> Result<HostTensor>,
) -> Result<()> {
    let parameters = names::parameters(model);
    let own_name = || vec![EMBEDDING.to_owned()];
    let mut embedding_names = origin.map_or_else(own_name, |origin| origin.embedding_names.clone());
    if model.tie_embeddings == TieEmbeddings::Unscaled
        && !embedding_names.iter().any(|name| name == OUTPUT)
    {
        embedding_names.push(OUTPUT.to_owned());
    }
    let names_of = |name: &String| match name == EMBEDDING {
        true => embedding_names.clone(),
        false => vec![name.clone()],
    };
    let entries = parameters.iter().flat_map(|parameter| {
        let names = parameter.theirs.iter().flat_map(names_of);
        names.map(|name| (name, parameter.their_shape()))
    });
    let metadata = match origin {
        Some(origin) => origin.metadata.as_deref(),
        None => Some(METADATA),
    };
    let output = Output::create(path, metadata, entries.collect())?;
    for parameter in &parameters {
        let tensor = read(parameter)?;
        for (name, bytes) in parts(parameter, &tensor) {
            for name in names_of(name) {
                output.write(&name, &bytes)?;
            }
        }
    }
    Ok(())
}

/// Whether two models are the same but for how their first weights are drawn, which config.json
/// does not say.
fn same_shape(one: &Model, other: &Model) -> bool {
    *one == Model {
        initialization: one.initialization,
        ..other.clone()
    }
}

/// A parameter's tensor as theirs, one at a time.
fn parts<'t>(
    parameter: &'t Parameter,
    tensor: &'t HostTensor,
) -> impl Iterator<Item = (&'t String, Vec<u8>)> {
    let part = parameter.part_shape().iter().product::<usize>() * 4;
    parameter
        .theirs
        .iter()
        .zip(tensor.bytes.chunks_exact(part.max(1)))
        .map(|(name, from)| {
            let mut to = vec![0; from.len()];
            reorient(parameter.orientation, from, &mut to, parameter.part_shape());
            (name, to)
        })
}

/// Tensors that have our parameters' names and shapes (parameters, gradients), under Hugging Face's
/// names and in their shapes. All of them have to be there.
pub fn to_hugging_face(
    model: &Model,
    tensors: &[(String, HostTensor)],
) -> Result<Vec<(String, HostTensor)>> {
    check(
        model,
        "tensors",
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)),
    )?;
    let by_name: HashMap<&str, &HostTensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut theirs = Vec::new();
    for parameter in names::parameters(model) {
        let dims: Vec<i64> = parameter
            .their_shape()
            .iter()
            .map(|&size| size as i64)
            .collect();
        for (name, bytes) in parts(&parameter, by_name[parameter.name]) {
            theirs.push((
                name.clone(),
                HostTensor {
                    element_type: ElementType::F32,
                    dims: dims.clone(),
                    bytes,
                },
            ));
        }
    }
    Ok(theirs)
}

/// The reverse of [`to_hugging_face`].
pub fn from_hugging_face(
    model: &Model,
    tensors: &[(String, HostTensor)],
) -> Result<Vec<(String, HostTensor)>> {
    let parameters = names::parameters(model);
    let expected = parameters.iter().flat_map(|parameter| {
        parameter
            .theirs
            .iter()
            .map(|name| (name.as_str(), parameter.their_shape()))
    });
    let found = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), described(tensor)));
    compare("tensors", expected.collect(), found.collect())?;
    let by_name: HashMap<&str, &HostTensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let ours = parameters.iter().map(|parameter| {
        let mut bytes = Vec::with_capacity(parameter.shape.iter().product::<usize>() * 4);
        for name in &parameter.theirs {
            let from = &by_name[name.as_str()].bytes;
            let start = bytes.len();
            bytes.resize(start + from.len(), 0);
            reorient(
                parameter.orientation,
                from,
                &mut bytes[start..],
                &parameter.their_shape(),
            );
        }
        let dims = parameter.shape.iter().map(|&size| size as i64).collect();
        (
            parameter.name.to_owned(),
            HostTensor {
                element_type: ElementType::F32,
                dims,
                bytes,
            },
        )
    });
    Ok(ours.collect())
}

/// Compares tensors with the parameters of `model`: names, shapes, types, sizes.
pub(super) fn check<'t>(
    model: &Model,
    place: &str,
    tensors: impl Iterator<Item = (&'t str, &'t HostTensor)>,
) -> Result<()> {
    check_described(
        model,
        place,
        tensors
            .map(|(name, tensor)| (name, described(tensor)))
            .collect(),
    )
}

/// Like [`check`], of tensors that are only described yet.
pub(super) fn check_described(
    model: &Model,
    place: &str,
    found: Vec<(&str, Described)>,
) -> Result<()> {
    let parameters = names::parameters(model);
    let expected = parameters
        .iter()
        .map(|parameter| (parameter.name, parameter.shape.clone()))
        .collect();
    compare(place, expected, found)
}

/// The shape of a float32 tensor, or what it is instead.
pub(super) type Described = std::result::Result<Vec<usize>, String>;

/// Describes a tensor of a checkpoint without reading it.
pub(super) fn described_in(reader: &Reader, name: &str) -> Result<Described> {
    let (data_type, shape) = (reader.data_type(name)?, reader.shape(name)?);
    Ok(match data_type {
        "float32" => Ok(shape.iter().map(|&size| size as usize).collect()),
        other => Err(format!("{other} {shape:?}")),
    })
}

fn described(tensor: &HostTensor) -> Described {
    match tensor.check() {
        Err(problem) => Err(problem.to_string()),
        Ok(()) if tensor.element_type != ElementType::F32 => Err(format!("{tensor:?}")),
        // `check` found the dimensions countable.
        Ok(()) => Ok(tensor.dims.iter().map(|&size| size as usize).collect()),
    }
}

fn compare(
    place: &str,
    expected: Vec<(&str, Vec<usize>)>,
    found: Vec<(&str, Described)>,
) -> Result<()> {
    let mut mismatch = Mismatch {
        place: place.to_owned(),
        ..Mismatch::default()
    };
    let mut rest: HashMap<&str, Described> = found.into_iter().collect();
    for (name, shape) in expected {
        match rest.remove(name) {
            None => mismatch.missing.push(name.to_owned()),
            Some(Ok(found)) if found == shape => {}
            Some(found) => {
                let found = found.map_or_else(|problem| problem, |shape| format!("{shape:?}"));
                mismatch.different.push(WrongTensor {
                    name: name.to_owned(),
                    expected: format!("{shape:?}"),
                    found,
                });
            }
        }
    }
    mismatch.unexpected = rest.into_keys().map(str::to_owned).collect();
    mismatch.unexpected.sort();
    mismatch.into_result()
}
