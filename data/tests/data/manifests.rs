use std::path::Path;

use ankh_data::Manifest;
use proptest::prelude::*;
use serde_json::Value;

/// What the fuzz target changes, too: it must stay valid for either to test anything. After a
/// change of the format, `prepare` makes another.
const VALID: &str = include_str!("../../fuzz/seeds/valid_manifest.json");

fn parse(text: &[u8]) -> Result<Manifest, ankh_data::Error> {
    Manifest::parse(text, Path::new("manifest.json"))
}

/// The pointers of all values.
fn places(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (name, item) in items.iter().enumerate() {
                places(item, format!("{place}/{name}"), found);
            }
        }
        Value::Object(items) => {
            for (name, item) in items {
                places(item, format!("{place}/{name}"), found);
            }
        }
        _ => {}
    }
    found.push(place);
}

fn other_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..100).prop_map(Value::from),
        "[a-z./0-9]{0,8}".prop_map(Value::from),
        prop::collection::vec(0u64..100, 0..3).prop_map(Value::from),
    ]
}

#[test]
fn the_manifest_that_is_changed_is_valid() {
    let manifest = parse(VALID.as_bytes()).unwrap();
    assert!(manifest.rows > 0 && manifest.report.rejected > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_manifest_is_refused_or_the_same_when_written_again(
        changes in prop::collection::vec((any::<prop::sample::Index>(), other_value()), 1..3)
    ) {
        let mut manifest: Value = serde_json::from_str(VALID).unwrap();
        for (place, value) in changes {
            let mut found = vec![];
            places(&manifest, String::new(), &mut found);
            let place: &String = place.get(&found);
            *manifest.pointer_mut(place).unwrap() = value;
        }
        match parse(manifest.to_string().as_bytes()) {
            Ok(manifest) => {
                let written = serde_json::to_vec(&manifest).unwrap();
                prop_assert_eq!(parse(&written).unwrap(), manifest);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("manifest.json: "), "{error}"),
        }
    }

    #[test]
    fn a_damaged_text_of_a_manifest_never_panics(
        place: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut text = VALID.as_bytes().to_vec();
        let place = place.index(text.len());
        let end = text.len().min(place + bytes.len());
        text.splice(place..end, bytes);
        let _ = parse(&text);
    }
}
