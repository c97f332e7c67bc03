//! The configuration of a run as text, key by key, and in which keys runs differ.
//!
//! It is read as TOML and not as a [`crate::config::Config`], so that runs of other versions can be
//! compared too.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::{Table, Value};

/// Each setting by its dotted key, as TOML writes it.
pub type Settings = BTreeMap<String, String>;

/// A setting that is not the same in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its dotted key.
    pub key: String,
    /// Its value in each run, in their order; none where the run has no such setting.
    pub values: Vec<Option<String>>,
}

/// The settings of a configuration file.
pub fn settings(text: &str) -> Result<Settings, toml::de::Error> {
    let mut settings = Settings::new();
    flatten("", text.parse::<Table>()?, &mut settings);
    Ok(settings)
}

fn flatten(prefix: &str, table: Table, into: &mut Settings) {
    for (key, value) in table {
        let key = match prefix {
            "" => key,
            prefix => format!("{prefix}.{key}"),
        };
        match value {
            Value::Table(table) => flatten(&key, table, into),
            // Text needs no quotes in a table of its own.
            Value::String(text) => drop(into.insert(key, text)),
            value => drop(into.insert(key, value.to_string())),
        }
    }
}

/// The settings that differ. A run without a configuration differs in nothing.
pub fn differences(runs: &[Option<&Settings>]) -> Vec<Difference> {
    let known = || runs.iter().flatten();
    let keys: BTreeSet<&String> = known().flat_map(|settings| settings.keys()).collect();
    let differs = |key: &&String| {
        let mut values = known().map(|settings| settings.get(*key));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let difference = |key: &String| Difference {
        key: key.clone(),
        values: runs
            .iter()
            .map(|settings| settings.and_then(|settings| settings.get(key).cloned()))
            .collect(),
    };
    keys.into_iter().filter(differs).map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_differ_in_values_and_in_keys_that_some_do_not_have() {
        let a = settings("[train]\nsteps = 10\nseed = 0\n[sharding.rules]\nbatch = [\"data\"]\n");
        let b = settings("[train]\nsteps = 10\nseed = 1\n[sharding.rules]\nbatch = [\"data\"]\n");
        let c =
            settings("[train]\nsteps = 10\nseed = 0\nnew = \"x\"\n[sharding.rules]\nbatch = []\n");
        let [a, b, c] = [a, b, c].map(Result::unwrap);
        assert_eq!(a["sharding.rules.batch"], "[\"data\"]");
        let found = differences(&[Some(&a), None, Some(&b), Some(&c)]);
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["sharding.rules.batch", "train.new", "train.seed"]);
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(found[2].values, [text("0"), None, text("1"), text("0")]);
        assert_eq!(found[1].values, [None, None, None, text("x")]);
        assert_eq!(differences(&[Some(&a), Some(&a)]), []);
        assert_eq!(differences(&[Some(&a), None]), []);
        assert_eq!(differences(&[]), []);
    }
}
