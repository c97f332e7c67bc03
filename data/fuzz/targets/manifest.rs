//! Any bytes as a manifest, and valid ones with some of their values changed.
//!
//! If the first byte is even, the rest is the text; otherwise every four bytes are a change made to
//! a valid manifest. What holds: nothing panics, and a manifest that is accepted is the same after
//! it was written and read again.

#![no_main]

use std::path::Path;

use ankh_data::Manifest;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const VALID: &[u8] = include_bytes!("../seeds/valid_manifest.json");

fuzz_target!(
    init: {
        // Otherwise nothing would be tested: after a change of the format, `prepare` makes another.
        Manifest::parse(VALID, Path::new("valid")).expect("the manifest to change is valid");
    },
    |data: &[u8]| {
        let Some((how, rest)) = data.split_first() else {
            return;
        };
        let text = match how % 2 {
            0 => rest.to_vec(),
            _ => changed(rest).to_string().into_bytes(),
        };
        if let Ok(manifest) = Manifest::parse(&text, Path::new("manifest.json")) {
            let written = serde_json::to_vec(&manifest).expect("a manifest is text");
            let again = Manifest::parse(&written, Path::new("again")).expect("it was valid before");
            assert_eq!(manifest, again);
            assert_eq!(written, serde_json::to_vec(&again).expect("a manifest is text"));
        }
    }
);

fn changed(changes: &[u8]) -> Value {
    let mut manifest: Value = serde_json::from_slice(VALID).expect("it was parsed before");
    for change in changes.as_chunks::<4>().0.iter().take(8) {
        let &[high, low, what, how] = change;
        let mut places = vec![];
        collect(&manifest, String::new(), &mut places);
        let place = &places[usize::from(u16::from_be_bytes([high, low])) % places.len()];
        let value = manifest.pointer_mut(place).expect("it was collected");
        change_value(value, what, how);
    }
    manifest
}

/// The pointers of all values.
fn collect(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(name, item)| collect(item, format!("{place}/{name}"), places)),
        Value::Object(items) => items
            .iter()
            .for_each(|(name, item)| collect(item, format!("{place}/{name}"), places)),
        _ => {}
    }
    places.push(place);
}

fn change_value(value: &mut Value, what: u8, how: u8) {
    let number = u64::from(how);
    let changed = match (what % 16, &*value) {
        (0, _) => Value::Null,
        (1, _) => json!(number),
        (2, _) => json!(u64::MAX - number),
        (3, _) => json!(-1 - i64::from(how)),
        (4, _) => json!(f64::from(how) / 255.0),
        (5, _) => json!(1e300 * f64::from(how)),
        (6, _) => json!("../x"),
        (7, _) => json!(["", ".", "a/b", "validation", "train", "ankh3", "\u{0}"][number as usize % 7]),
        (8, Value::Number(old)) => json!(old.as_u64().unwrap_or(0).wrapping_add(number)),
        (9, Value::Number(old)) => json!(old.as_f64().unwrap_or(0.0) * (1.0 + number as f64 / 7.0)),
        (10, Value::Array(items)) => [items.as_slice(), items].concat().into(),
        (11, Value::Array(items)) => items.iter().skip(1 + number as usize % 3).cloned().collect(),
        (12, Value::Object(items)) => {
            let skipped = number as usize % items.len().max(1);
            let kept = items.iter().enumerate().filter(|(at, _)| *at != skipped);
            Value::Object(kept.map(|(_, (name, item))| (name.clone(), item.clone())).collect())
        }
        (13, Value::Object(items)) => {
            let mut items = items.clone();
            items.insert(format!("new{how}"), json!(how));
            Value::Object(items)
        }
        (14, _) => json!([[number, number], [number]]),
        (15, _) => json!({"rows": number, "residues": number}),
        _ => return,
    };
    *value = changed;
}
