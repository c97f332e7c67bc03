//! What makes a run the same run: which settings it must have kept to be gone on with.

use toml::{Table, Value};

use crate::config::Config;

/// The settings that make a run the run it is: the model first, by which one recognises it, then what its optimizer remembers and
/// the stream of batches. An empty list is the whole section. The other settings may change between two starts.
const IDENTITY: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("objective", &[]),
    ("mixture", &[]),
    (
        "data",
        &[
            "tokenizer",
            "input_length",
            "target_length",
            "rows",
            "long_sequences",
            "seed",
        ],
    ),
    ("optimizer", &["name", "min_dim_size_to_factor"]),
    ("train", &["batch_size", "seed"]),
];

/// The first setting of [`IDENTITY`] that differs, with both values.
pub(super) fn first_difference(there: &Config, here: &Config) -> Option<(String, String, String)> {
    let [there, here] = [there, here].map(|config| Table::try_from(config).unwrap_or_default());
    let show = |value: Option<&Value>| value.map_or("unset".into(), Value::to_string);
    // Where data lies may change.
    let in_place = |value: &Value| match value {
        Value::Table(part) => {
            let mut part = part.clone();
            part.remove("dir");
            Value::Table(part)
        }
        other => other.clone(),
    };
    for (section, names) in IDENTITY {
        let table = |config: &Table| config.get(section).and_then(Value::as_table).cloned();
        let [there, here] = [table(&there), table(&here)].map(Option::unwrap_or_default);
        let all: Vec<&str> = there
            .keys()
            .chain(here.keys())
            .map(String::as_str)
            .collect();
        let names = if names.is_empty() {
            all.as_slice()
        } else {
            names
        };
        for name in names {
            let [there, here] = [&there, &here].map(|table| table.get(*name).map(in_place));
            if there != here {
                let [there, here] = [there, here].map(|value| show(value.as_ref()));
                return Some((format!("{section}.{name}"), there, here));
            }
        }
    }
    None
}
