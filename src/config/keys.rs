//! Which settings exist. They are read from a complete configuration written as JSON, where a
//! setting without a value is `null` rather than missing, so that a new field of a section is known
//! here without further code.

use serde::Serialize;
use serde_json::{Map, Value};

use super::objective::all_switches;
use super::renamed::new_name;
use super::{Config, ConfigError, Optimizer, Origin};

/// The settings that exist, as trees: an object for a section, anything else for a setting.
pub(super) struct Keys {
    sections: Map<String, Value>,
    /// Those of a part of a mixture, whatever its name.
    part: Map<String, Value>,
}

/// The section whose sections are named by the user.
const MIXTURE: &str = "mixture";

impl Keys {
    /// The settings beside an optimizer of this kind: they depend on it.
    pub(super) fn beside(optimizer: &Optimizer) -> Self {
        let config = Config {
            optimizer: optimizer.defaults(),
            ..Config::default()
        };
        let mut sections = object(config);
        sections.insert("objective".into(), all_switches().into());
        let mut part = all_switches();
        part.extend([("weight".into(), 1.into()), ("dir".into(), Value::Null)]);
        Self { sections, part }
    }

    /// Whether the setting may go without a value, written `"none"` where a parent gave it one. Of
    /// a mixture that is every part, and every setting of one: the value is then that of the run.
    /// (A part without a task mark is another thing than one that says nothing.)
    pub(super) fn is_optional(&self, path: &[&str]) -> bool {
        match path {
            [MIXTURE, _] => true,
            [MIXTURE, _, setting] => *setting != "task",
            _ => self.at(path).is_some_and(Value::is_null),
        }
    }

    /// The first key of `layer` that does not exist, as an error.
    pub(super) fn check(&self, layer: &toml::Table, origin: &Origin) -> Result<(), ConfigError> {
        let unknown = &mut |key: String, siblings: &Map<String, Value>| {
            let origin = origin.clone();
            match new_name(&key) {
                Some(now) => ConfigError::RenamedKey { key, origin, now },
                None => ConfigError::UnknownKey {
                    nearest: self.nearest(&key),
                    known: siblings.keys().cloned().collect(),
                    key,
                    origin,
                },
            }
        };
        for (name, part) in parts(layer) {
            check(&self.part, part, &join(MIXTURE, name), unknown)?;
        }
        let mut others = layer.clone();
        if let Some(toml::Value::Table(_)) = layer.get(MIXTURE) {
            others.remove(MIXTURE);
        }
        check(&self.sections, &others, "", unknown)
    }

    fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.sections.get(*first)?, |value, name| value.get(name))
    }

    /// The existing key most like `key`: the same name in another section counts almost as much as
    /// a misspelt one in the same.
    fn nearest(&self, key: &str) -> Option<String> {
        let mut names = Vec::new();
        collect(&self.sections, "", &mut names);
        if let [MIXTURE, name, _, ..] = *key.split('.').collect::<Vec<_>>() {
            collect(&self.part, &join(MIXTURE, name), &mut names);
        }
        let likeness = |candidate: &String| {
            let whole = strsim::normalized_damerau_levenshtein(key, candidate);
            let (own, other) = (last(key), last(candidate));
            let name = strsim::normalized_damerau_levenshtein(own, other);
            let contained = own.len() > 3 && other.contains(own);
            let part = own.len() as f64 / other.len() as f64;
            let inside = if contained { 0.5 + 0.3 * part } else { 0.0 };
            whole.max(name - 0.05).max(inside)
        };
        names
            .into_iter()
            .map(|name| (likeness(&name), name))
            .filter(|(likeness, _)| *likeness >= 0.5)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name)
    }
}

/// A struct as JSON.
pub(super) fn object(value: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        // A struct with string keys and finite numbers is always an object.
        other => unreachable!("settings serialise to an object: {other:?}"),
    }
}

/// The parts of a mixture that a layer speaks of.
pub(super) fn parts(layer: &toml::Table) -> impl Iterator<Item = (&str, &toml::Table)> {
    let mixture = layer.get(MIXTURE).and_then(toml::Value::as_table);
    let parts = mixture.into_iter().flatten();
    parts.filter_map(|(name, part)| Some((name.as_str(), part.as_table()?)))
}

fn check(
    known: &Map<String, Value>,
    layer: &toml::Table,
    section: &str,
    unknown: &mut impl FnMut(String, &Map<String, Value>) -> ConfigError,
) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let key = join(section, name);
        match (known.get(name), value) {
            (None, value) => return Err(unknown(first_leaf(key, value), known)),
            (Some(Value::Object(inner)), toml::Value::Table(table)) => {
                check(inner, table, &key, unknown)?
            }
            // A value where a section belongs, or the reverse, is a matter of type.
            _ => {}
        }
    }
    Ok(())
}

/// The whole path to what was set, where a section of it is unknown.
fn first_leaf(key: String, value: &toml::Value) -> String {
    match value.as_table().and_then(|table| table.iter().next()) {
        Some((name, value)) => first_leaf(join(&key, name), value),
        None => key,
    }
}

fn collect(known: &Map<String, Value>, section: &str, names: &mut Vec<String>) {
    for (name, value) in known {
        let key = join(section, name);
        if let Value::Object(inner) = value {
            collect(inner, &key, names);
        }
        names.push(key);
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The name most like `name` among `names`, when one is like it at all.
pub(super) fn nearest_name<'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    names
        .into_iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.4)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.to_owned())
}
