//! `config.json` of a Hugging Face T5 model, and our model configuration.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Error, Result};
use crate::config::{Activation, Model};

/// What we read of config.json. A key that is absent has `T5Config`'s default: `transformers` does not write those that equal it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct T5Config {
    model_type: String,
    is_encoder_decoder: bool,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
    eos_token_id: Option<i64>,
    decoder_start_token_id: Option<i64>,
}

impl Default for T5Config {
    fn default() -> T5Config {
        T5Config {
            model_type: String::new(),
            is_encoder_decoder: true,
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            dense_act_fn: None,
            is_gated_act: None,
            tie_word_embeddings: true,
            pad_token_id: Some(0),
            eos_token_id: Some(1),
            decoder_start_token_id: None,
        }
    }
}

impl T5Config {
    /// Whether the feed-forward layer is gated, and its non-linearity, read as `T5Config` does: `gated-gelu` means the tanh approximation, and
    /// keys that spell the result out come first.
    fn feed_forward(&self) -> (bool, &str) {
        let (gated, function) = match self.feed_forward_proj.strip_prefix("gated-") {
            Some("gelu") => (true, "gelu_new"),
            Some(function) => (true, function),
            None => (false, self.feed_forward_proj.as_str()),
        };
        (
            self.is_gated_act.unwrap_or(gated),
            self.dense_act_fn.as_deref().unwrap_or(function),
        )
    }
}

/// Reads the text of the config.json at `file`.
pub(super) fn parse(text: &str, file: &Path) -> Result<Model> {
    let config: T5Config = serde_json::from_str(text).map_err(|e| Error::Malformed {
        file: file.to_path_buf(),
        problem: e.to_string(),
    })?;
    let refuse = |key, found: String, expected| {
        Err(Error::Setting {
            file: file.to_path_buf(),
            key,
            found,
            expected,
        })
    };
    let id = |id: Option<i64>| id.map_or("null".to_owned(), |id| id.to_string());
    if config.model_type != "t5" {
        return refuse("model_type", format!("`{}`", config.model_type), "`t5`");
    }
    if !config.is_encoder_decoder {
        return refuse("is_encoder_decoder", "false".to_owned(), "true");
    }
    // The model starts decoding with padding and the data pipeline ends every sequence with id 1.
    if config.pad_token_id != Some(0) {
        return refuse("pad_token_id", id(config.pad_token_id), "0");
    }
    if config.eos_token_id != Some(1) {
        return refuse("eos_token_id", id(config.eos_token_id), "1");
    }
    if config.decoder_start_token_id.unwrap_or(0) != 0 {
        return refuse(
            "decoder_start_token_id",
            id(config.decoder_start_token_id),
            "0",
        );
    }
    let activation = match config.feed_forward() {
        (true, "gelu_new") => Activation::GatedGelu,
        (true, "silu" | "swish") => Activation::GatedSilu,
        (false, "relu") => Activation::Relu,
        (false, "gelu_new") => Activation::Gelu,
        (false, "silu" | "swish") => Activation::Silu,
        (gated, function) => {
            let found = format!(
                "`{}` ({}{function})",
                config.feed_forward_proj,
                if gated { "gated, " } else { "" }
            );
            return refuse(
                "feed_forward_proj",
                found,
                "`gated-gelu`, `gated-silu`, `relu`, `gelu_new` or `silu`",
            );
        }
    };
    Ok(Model {
        vocabulary: config.vocab_size,
        d_model: config.d_model,
        d_ff: config.d_ff,
        heads: config.num_heads,
        d_kv: config.d_kv,
        encoder_layers: config.num_layers,
        decoder_layers: config.num_decoder_layers.unwrap_or(config.num_layers),
        relative_buckets: config.relative_attention_num_buckets,
        relative_max_distance: config.relative_attention_max_distance,
        activation,
        tie_embeddings: config.tie_word_embeddings,
        norm_epsilon: config.layer_norm_epsilon,
        ..Model::default()
    })
}

/// The config.json of `model`.
pub(super) fn render(model: &Model) -> String {
    let projection = match model.activation {
        Activation::GatedGelu => "gated-gelu",
        Activation::GatedSilu => "gated-silu",
        Activation::Relu => "relu",
        Activation::Gelu => "gelu_new",
        Activation::Silu => "silu",
    };
    text(&json!({
        "architectures": ["T5ForConditionalGeneration"],
        "classifier_dropout": 0.0,
        "d_ff": model.d_ff,
        "d_kv": model.d_kv,
        "d_model": model.d_model,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        "eos_token_id": 1,
        "feed_forward_proj": projection,
        "initializer_factor": 1.0,
        "is_encoder_decoder": true,
        "layer_norm_epsilon": model.norm_epsilon,
        "model_type": "t5",
        "num_decoder_layers": model.decoder_layers,
        "num_heads": model.heads,
        "num_layers": model.encoder_layers,
        "pad_token_id": 0,
        "relative_attention_max_distance": model.relative_max_distance,
        "relative_attention_num_buckets": model.relative_buckets,
        "tie_word_embeddings": model.tie_embeddings,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": model.vocabulary,
    }))
}

/// The generation_config.json that goes with every model.
pub(super) fn render_generation() -> String {
    text(
        &json!({ "_from_model_config": true, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0 }),
    )
}

/// JSON as these files are written: indented, with a newline at the end.
pub(super) fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
