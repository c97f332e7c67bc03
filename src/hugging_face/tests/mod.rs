mod damage;
mod pytorch;
mod refusals;
mod round_trips;
mod versions;
mod wrapped;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use super::head::Stored;
use super::*;
use crate::checkpoint::Store;
use crate::config::{Activation, Initialization, TieEmbeddings};

fn tiny() -> Model {
    Model {
        vocabulary: 144,
        d_model: 8,
        d_ff: 12,
        heads: 2,
        d_kv: 3,
        encoder_layers: 3,
        decoder_layers: 2,
        relative_buckets: 4,
        relative_max_distance: 16,
        ..Model::default()
    }
}

/// Weights in which every number is another.
fn weights(model: Model) -> Weights {
    let mut next = 0;
    let mut tensors = Vec::new();
    for (name, shape) in parameters(&model) {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (next..next + count).map(|i| i as f32 / 8.0 - 3.0).collect();
        next += count;
        let dims: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        tensors.push((name.to_owned(), HostTensor::new::<f32>(dims, &values)));
    }
    Weights {
        tokenizer: tokenizer_files::of_size(model.vocabulary),
        objective: None,
        model,
        tensors,
        notes: Vec::new(),
    }
}

fn tensor<'w>(tensors: &'w [(String, HostTensor)], name: &str) -> &'w HostTensor {
    &tensors
        .iter()
        .find(|(other, _)| other == name)
        .unwrap_or_else(|| panic!("no {name}"))
        .1
}

fn assert_same_files(one: &Path, other: &Path, names: &[&str]) {
    for name in names {
        let [one, other] = [one, other].map(|directory| fs::read(directory.join(name)).unwrap());
        assert!(
            one == other,
            "{name}: {} and {} bytes, not the same",
            one.len(),
            other.len()
        );
    }
}

/// A Hugging Face directory with `change` made to its tensors (name, shape, float32 bytes).
fn changed(change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<u8>)>)) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let weights = weights(tiny());
    fs::write(
        root.path().join("config.json"),
        config_json::render(&weights.model),
    )
    .unwrap();
    let theirs = to_hugging_face(&weights.model, &weights.tensors).unwrap();
    let mut tensors = theirs
        .into_iter()
        .map(|(name, t)| (name, t.dims.iter().map(|&d| d as usize).collect(), t.bytes))
        .collect();
    change(&mut tensors);
    write_safetensors(&root.path().join("model.safetensors"), Dtype::F32, &tensors);
    root
}

fn write_safetensors(path: &Path, dtype: Dtype, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn models() -> impl Strategy<Value = Model> {
    let activation = prop::sample::select(vec![
        Activation::GatedGelu,
        Activation::GatedSilu,
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
    ]);
    let tie = prop::sample::select(vec![
        TieEmbeddings::Untied,
        TieEmbeddings::Scaled,
        TieEmbeddings::Unscaled,
    ]);
    let sizes = (1usize..300, 1usize..9, 1usize..9, 1usize..4, 1usize..5);
    (
        sizes,
        1usize..5,
        1usize..5,
        1usize..6,
        activation,
        tie,
        1e-9..1e-3f64,
    )
        .prop_map(
            |(
                (vocabulary, d_model, d_ff, heads, d_kv),
                encoder_layers,
                decoder_layers,
                relative_buckets,
                activation,
                tie_embeddings,
                norm_epsilon,
            )| {
                Model {
                    vocabulary,
                    d_model,
                    d_ff,
                    heads,
                    d_kv,
                    encoder_layers,
                    decoder_layers,
                    relative_buckets,
                    relative_max_distance: relative_buckets * 7,
                    activation,
                    tie_embeddings,
                    norm_epsilon,
                    initialization: Initialization::Flax,
                }
            },
        )
}
