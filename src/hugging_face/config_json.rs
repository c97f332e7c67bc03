//! `config.json` of a Hugging Face T5 model, and our model configuration.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::head::Said;
use crate::config::{Activation, Model, TieEmbeddings};

/// What we read of config.json. A key that is absent has `T5Config`'s default: `transformers` does
/// not write those that equal it.
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
    #[serde(deserialize_with = "said")]
    tie_word_embeddings: Option<bool>,
    #[serde(deserialize_with = "said")]
    scale_decoder_outputs: Option<bool>,
    pad_token_id: Option<i64>,
    #[serde(deserialize_with = "one_id")]
    eos_token_id: Option<i64>,
    decoder_start_token_id: Option<i64>,
}

/// True or false where the key is there: the versions of `transformers` do not agree on what `null`
/// means.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    bool::deserialize(deserializer).map(Some)
}

/// An id, alone or as a list of one, which `transformers` 5 allows.
fn one_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an id")]
    enum Ids {
        Alone(Option<i64>),
        Listed([i64; 1]),
    }
    Ok(match Ids::deserialize(deserializer)? {
        Ids::Alone(id) => id,
        Ids::Listed([id]) => Some(id),
    })
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
            tie_word_embeddings: None,
            scale_decoder_outputs: None,
            pad_token_id: Some(0),
            eos_token_id: Some(1),
            decoder_start_token_id: None,
        }
    }
}

impl T5Config {
    /// Whether the feed-forward layer is gated, and its non-linearity, read as `T5Config` does:
    /// `gated-gelu` means the tanh approximation, and keys that spell the result out come first.
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

    fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }
}

/// The contents of a config.json.
#[derive(Debug)]
pub(super) struct Described {
    /// The model but for its output projection, which the weights have a say in.
    model: Model,
    /// What it sets about the output projection.
    pub said: Said,
    /// The id that decoding starts from; `None` where it is not set.
    pub decoder_start: Option<i64>,
}

impl Described {
    /// The model, with the output projection that was found.
    pub fn model(&self, tie_embeddings: TieEmbeddings) -> Model {
        Model {
            tie_embeddings,
            ..self.model.clone()
        }
    }
}

/// Widths and counts that no model exceeds, so that products of two are numbers.
const LARGEST_SIZE: usize = i32::MAX as usize;

/// Reads the text of the config.json at `file`.
pub(super) fn parse(text: &str, file: &Path) -> Result<Described> {
    let malformed = |problem: String| Error::Malformed {
        file: file.to_path_buf(),
        problem,
    };
    let keys: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    let config = T5Config::deserialize(Value::Object(keys.clone())).map_err(|e| {
        // Alone, the key at fault fails too.
        let alone = |(key, value): &(String, Value)| {
            let one = Map::from_iter([(key.clone(), value.clone())]);
            T5Config::deserialize(Value::Object(one)).is_err()
        };
        let key = keys.into_iter().find(alone).map(|(key, _)| key);
        malformed(format!("`{}`: {e}", key.unwrap_or_default()))
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
        let found = match config.model_type.as_str() {
            "" => "not there".to_owned(),
            other => format!("`{other}`"),
        };
        return refuse("model_type", found, "`t5`");
    }
    if !config.is_encoder_decoder {
        return refuse("is_encoder_decoder", "false".to_owned(), "true");
    }
    for (key, size) in [
        ("vocab_size", config.vocab_size),
        ("d_model", config.d_model),
        ("d_kv", config.d_kv),
        ("d_ff", config.d_ff),
        ("num_heads", config.num_heads),
        ("num_layers", config.num_layers),
        ("num_decoder_layers", config.decoder_layers()),
        (
            "relative_attention_num_buckets",
            config.relative_attention_num_buckets,
        ),
        (
            "relative_attention_max_distance",
            config.relative_attention_max_distance,
        ),
    ] {
        if !(1..=LARGEST_SIZE).contains(&size) {
            return refuse(key, size.to_string(), "a number from 1 to 2147483647");
        }
    }
    // The model starts decoding with padding and the data pipeline ends every sequence with id 1.
    if config.pad_token_id != Some(0) {
        return refuse("pad_token_id", id(config.pad_token_id), "0");
    }
    if config.eos_token_id != Some(1) {
        return refuse("eos_token_id", id(config.eos_token_id), "1");
    }
    check_decoder_start(config.decoder_start_token_id, file)?;
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
    let model = Model {
        vocabulary: config.vocab_size,
        d_model: config.d_model,
        d_ff: config.d_ff,
        heads: config.num_heads,
        d_kv: config.d_kv,
        encoder_layers: config.num_layers,
        decoder_layers: config.decoder_layers(),
        relative_buckets: config.relative_attention_num_buckets,
        relative_max_distance: config.relative_attention_max_distance,
        activation,
        norm_epsilon: config.layer_norm_epsilon,
        ..Model::default()
    };
    Ok(Described {
        model,
        said: Said {
            tied: config.tie_word_embeddings,
            scaled: config.scale_decoder_outputs,
        },
        decoder_start: config.decoder_start_token_id,
    })
}

/// Checks the id that decoding starts from in the text of the generation_config.json at `file`,
/// where some directories say it instead.
pub(super) fn check_generation(text: &str, file: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Generation {
        #[serde(default)]
        decoder_start_token_id: Option<i64>,
    }
    let generation: Generation = serde_json::from_str(text).map_err(|e| Error::Malformed {
        file: file.to_path_buf(),
        problem: e.to_string(),
    })?;
    check_decoder_start(generation.decoder_start_token_id, file)
}

fn check_decoder_start(id: Option<i64>, file: &Path) -> Result<()> {
    match id {
        None | Some(0) => Ok(()),
        Some(other) => Err(Error::Setting {
            file: file.to_path_buf(),
            key: "decoder_start_token_id",
            found: other.to_string(),
            expected: "0",
        }),
    }
}

const TIED: &str = "tie_word_embeddings";
const SCALED: &str = "scale_decoder_outputs";

/// `config`, a text that [`parse`] took, with what it says of the output projection replaced.
pub(super) fn saying(config: &str, said: Said) -> Result<String> {
    let malformed = |e: serde_json::Error| Error::Malformed {
        file: "config.json".into(),
        problem: e.to_string(),
    };
    let mut keys: Map<String, Value> = serde_json::from_str(config).map_err(malformed)?;
    keys.insert(TIED.to_owned(), said.tied.into());
    keys.insert(SCALED.to_owned(), said.scaled.into());
    Ok(text(&Value::Object(keys)))
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
    let said = Said::of(model.tie_embeddings);
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
        SCALED: said.scaled,
        TIED: said.tied,
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
