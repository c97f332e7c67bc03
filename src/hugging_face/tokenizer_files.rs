//! The tokenizer in the files `transformers` reads: one letter, one token, `</s>` at the end.

use ankh_data::tokenizer::{EOS, PAD, Tokenizer, UNK, Vocabulary};
use serde_json::{Map, Value, json};

use super::config_json::text;

/// The tokenizer whose ids a model of this many embedding rows uses, if it can only be one.
pub(super) fn of_size(vocabulary: usize) -> Option<Vocabulary> {
    [Vocabulary::Ankh, Vocabulary::Ankh3]
        .into_iter()
        .find(|known| Tokenizer::of(*known).vocabulary_size() == vocabulary)
}

/// File names and contents.
pub(super) fn render(vocabulary: Vocabulary) -> [(&'static str, String); 3] {
    let tokenizer = Tokenizer::of(vocabulary);
    [
        ("tokenizer.json", text(&tokenizer_json(tokenizer))),
        ("tokenizer_config.json", text(&tokenizer_config(tokenizer))),
        (
            "special_tokens_map.json",
            text(&Value::Object(special_tokens(tokenizer))),
        ),
    ]
}

/// Every id that means something, with its name.
fn tokens(tokenizer: Tokenizer) -> Vec<(u8, String)> {
    let named = |id: &u8| *id == UNK || tokenizer.name(*id) != tokenizer.name(UNK);
    let ids = (0..=u8::MAX).take(tokenizer.vocabulary_size());
    ids.filter(named)
        .map(|id| (id, tokenizer.name(id)))
        .collect()
}

/// The tokens that are not residues.
fn special(tokenizer: Tokenizer) -> Vec<(u8, String)> {
    let mut tokens = tokens(tokenizer);
    tokens.retain(|(id, _)| tokenizer.residue(*id).is_none());
    tokens
}

/// The special tokens without a role of their own: marks of tasks, then the sentinels from the
/// first.
fn additional(tokenizer: Tokenizer) -> Vec<String> {
    let mut tokens = special(tokenizer);
    tokens.retain(|(id, _)| ![PAD, EOS, UNK].contains(id));
    tokens.sort_by_key(|(id, _)| tokenizer.sentinel_index(*id));
    tokens.into_iter().map(|(_, name)| name).collect()
}

/// The fast tokenizer's own format.
fn tokenizer_json(tokenizer: Tokenizer) -> Value {
    let added: Vec<Value> = special(tokenizer)
        .into_iter()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            })
        })
        .collect();
    let vocab: Map<String, Value> = tokens(tokenizer)
        .into_iter()
        .map(|(id, name)| (name, id.into()))
        .collect();
    let eos = tokenizer.name(EOS);
    let sequence = |id: &str, type_id: u8| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let end = json!({ "SpecialToken": { "id": eos, "type_id": 0 } });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        // Each letter alone; white space, as between the letters of `M K V`, is dropped.
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                { "type": "WhitespaceSplit" },
                { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence("A", 0), end],
            "pair": [sequence("A", 0), end, sequence("B", 0), end],
            "special_tokens": { &eos: { "id": eos, "ids": [EOS], "tokens": [eos] } },
        },
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": tokenizer.name(UNK) },
    })
}

fn special_tokens(tokenizer: Tokenizer) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(
        "additional_special_tokens".to_owned(),
        additional(tokenizer).into(),
    );
    for (role, id) in [
        ("eos_token", Some(EOS)),
        ("mask_token", tokenizer.sentinel(0)),
        ("pad_token", Some(PAD)),
        ("unk_token", Some(UNK)),
    ] {
        if let Some(id) = id {
            map.insert(role.to_owned(), tokenizer.name(id).into());
        }
    }
    map
}

fn tokenizer_config(tokenizer: Tokenizer) -> Value {
    let mut map = special_tokens(tokenizer);
    let settings = json!({
        "clean_up_tokenization_spaces": false,
        // T5 takes no token types, which this class would return by default.
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    if let Value::Object(settings) = settings {
        map.extend(settings);
    }
    Value::Object(map)
}
