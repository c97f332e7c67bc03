//! The tokenizer in the files `transformers` reads: one letter, one token, `</s>` at the end. And
//! which tokenizer a directory's weights are of.

use std::collections::HashMap;
use std::path::Path;

use ankh_data::tokenizer::{EOS, PAD, Tokenizer, UNK, Vocabulary};
use serde_json::{Map, Value, json};

use super::config_json::text;

/// The tokenizers whose ids are known.
const KNOWN: [Vocabulary; 2] = [Vocabulary::Ankh, Vocabulary::Ankh3];

/// An embedding table is padded to a multiple of at most so many rows.
const PADDING: usize = 128;

/// Which token ids weights were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIds {
    /// Those of this tokenizer: a file says so.
    Known(Vocabulary),
    /// Those of this tokenizer, by the number of embedding rows.
    Likely(Vocabulary),
    /// Others, or none that can be told.
    Unknown,
}

impl TokenIds {
    /// The tokenizer.
    pub fn vocabulary(self) -> Option<Vocabulary> {
        match self {
            TokenIds::Known(vocabulary) | TokenIds::Likely(vocabulary) => Some(vocabulary),
            TokenIds::Unknown => None,
        }
    }
}

/// The tokenizer whose ids a model of this many embedding rows uses, if it can only be one.
pub(super) fn of_size(vocabulary: usize) -> Option<Vocabulary> {
    KNOWN
        .into_iter()
        .find(|known| Tokenizer::of(*known).vocabulary_size() == vocabulary)
}

/// The token ids of the weights in a Hugging Face directory, of so many embedding rows: those of
/// its tokenizer.json where that can be read, else those of the largest vocabulary that the rows
/// hold with some padding.
pub(super) fn of_directory(directory: &Path, rows: usize) -> TokenIds {
    match std::fs::read_to_string(directory.join("tokenizer.json")) {
        Ok(text) => of_text(&text).unwrap_or_else(|| of_rows(rows)),
        Err(_) => of_rows(rows),
    }
}

fn of_rows(rows: usize) -> TokenIds {
    let sizes = KNOWN.map(|known| (Tokenizer::of(known).vocabulary_size(), known));
    let fits = |(size, _): &(usize, Vocabulary)| (*size..size + PADDING).contains(&rows);
    let largest = sizes.into_iter().filter(fits).max_by_key(|(size, _)| *size);
    largest.map_or(TokenIds::Unknown, |(_, known)| TokenIds::Likely(known))
}

/// The token ids that the text of a tokenizer.json gives the residues; nothing where it gives them
/// none.
fn of_text(text: &str) -> Option<TokenIds> {
    let json: Value = serde_json::from_str(text).ok()?;
    let mut ids: HashMap<&str, u64> = HashMap::new();
    match json.pointer("/model/vocab")? {
        Value::Object(map) => ids.extend(
            map.iter()
                .filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?))),
        ),
        // Tokens with their scores, in the order of their ids.
        Value::Array(list) => ids.extend(
            (0..)
                .zip(list)
                .filter_map(|(id, token)| Some((token.get(0)?.as_str()?, id))),
        ),
        _ => return None,
    }
    let residues = "ACDEFGHIKLMNPQRSTVWY".split_terminator("").skip(1);
    let residues: Vec<&str> = residues.collect();
    let given: Option<Vec<u64>> = residues.iter().map(|r| ids.get(r).copied()).collect();
    let given = given?;
    let is_it = |known: &Vocabulary| {
        let tokenizer = Tokenizer::of(*known);
        let own = residues
            .iter()
            .map(|r| tokenizer.residue_id(r.as_bytes()[0]).map(u64::from));
        own.eq(given.iter().map(|id| Some(*id)))
    };
    let known = KNOWN.into_iter().find(is_it);
    Some(known.map_or(TokenIds::Unknown, TokenIds::Known))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_file_decides_and_else_the_number_of_rows() {
        let directory = tempfile::tempdir().unwrap();
        let of = |rows| of_directory(directory.path(), rows);
        for (rows, ids) in [
            (143, TokenIds::Unknown),
            (144, TokenIds::Likely(Vocabulary::Ankh)),
            (160, TokenIds::Likely(Vocabulary::Ankh)),
            (255, TokenIds::Likely(Vocabulary::Ankh)),
            (256, TokenIds::Likely(Vocabulary::Ankh3)),
            (383, TokenIds::Likely(Vocabulary::Ankh3)),
            (384, TokenIds::Unknown),
            (32128, TokenIds::Unknown),
        ] {
            assert_eq!(of(rows), ids, "{rows}");
        }
        let file = directory.path().join("tokenizer.json");
        for known in KNOWN {
            let [(_, text), ..] = render(known);
            std::fs::write(&file, &text).unwrap();
            assert_eq!(of(256), TokenIds::Known(known));
            // As a list with scores, as SentencePiece's models are written.
            let json: Value = serde_json::from_str(&text).unwrap();
            let mut list = vec![json!(["<unused>", 0.0]); 300];
            for (token, id) in json["model"]["vocab"].as_object().unwrap() {
                list[id.as_u64().unwrap() as usize] = json!([token, -1.5]);
            }
            let text = json!({ "model": { "vocab": list } }).to_string();
            std::fs::write(&file, &text).unwrap();
            assert_eq!(of(256), TokenIds::Known(known));
            // The ids of somebody else.
            list.swap(10, 20);
            let text = json!({ "model": { "vocab": list } }).to_string();
            std::fs::write(&file, &text).unwrap();
            assert_eq!(of(256), TokenIds::Unknown);
        }
        for text in [
            "version https://git-lfs",
            "{}",
            r#"{"model":{"vocab":{"A":3}}}"#,
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(of(160), TokenIds::Likely(Vocabulary::Ankh), "{text}");
        }
    }
}
