//! Resolves names and arguments to one complete [`Config`].
//!
//! The defaults come first, then a preset or file after what it `extends`, then the `--set`
//! arguments in order. Each layer is checked when it is applied, so that an error names the layer
//! that caused it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::keys::{Keys, nearest_name, parts};
use super::objective::{ForeignSwitch, foreign_switch, switch_kinds};
use super::presets::{preset, preset_names};
use super::renamed::rename_recorded;
use super::{Config, ConfigError, Optimizer, Origin};

/// The first line of a resolved configuration.
pub const RESOLVED_HEADER: &str =
    "# The resolved configuration of this run: every setting, as it was used.\n";

/// What made a run: recorded beside the settings in a run directory's `config.toml`, and ignored
/// when that file is read as a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of this program.
    pub ankh: String,
    /// Of the plugin's C API, as `major.minor`.
    pub plugin_api: String,
    /// What the plugin calls its platform, with its version.
    pub platform: String,
}

/// The configuration that `base` (a preset or a file; the defaults without one) and the `key=value`
/// arguments `set` say.
///
/// The result has the right keys and types; whether the values make sense together is
/// [`Config::validate`]'s question, to be asked once the command line's other options are in.
pub fn resolve(base: Option<&str>, set: &[String]) -> Result<Config, ConfigError> {
    let layers = match base {
        Some(name) => Layer::chain(Layer::named(name, Path::new(""))?)?,
        None => Vec::new(),
    };
    resolve_over(Resolution::of(Config::default()).under(&layers)?, set)
}

/// The configuration that a run recorded in the file `path`, by this version or an earlier one.
pub fn resolve_recorded(path: &Path) -> Result<Config, ConfigError> {
    let mut layer = Layer::file(path.to_owned())?;
    rename_recorded(&mut layer.table);
    Resolution::of(Config::default()).under(&Layer::chain(layer)?)
}

/// The configuration that a saved state carries as JSON, from this version or an earlier one.
pub fn recorded_in_json(config: &serde_json::Value) -> Option<Config> {
    let toml::Value::Table(mut table) = without_nulls(config)? else {
        return None;
    };
    rename_recorded(&mut table);
    read(table).ok()
}

/// JSON as TOML, which has no word for a setting without a value.
fn without_nulls(value: &serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match value {
        Json::Null => return None,
        Json::Object(fields) => {
            let fields = fields.iter();
            let set = |(name, value): (&String, &Json)| Some((name.clone(), without_nulls(value)?));
            Value::Table(fields.filter_map(set).collect())
        }
        Json::Array(items) => Value::Array(items.iter().filter_map(without_nulls).collect()),
        other => Value::try_from(other).ok()?,
    })
}

/// `base` with the `key=value` arguments `set` laid over it.
pub fn resolve_over(base: Config, set: &[String]) -> Result<Config, ConfigError> {
    let layers = set.iter().map(|argument| Layer::argument(argument));
    let layers: Vec<Layer> = layers.collect::<Result<_, _>>()?;
    Resolution::of(base).under(&layers)
}

impl Config {
    /// The configuration as a file that [`resolve`] reads back.
    pub fn to_text(&self) -> String {
        toml::to_string(self).expect("structs of numbers, strings and named variants are TOML")
    }

    /// The same, with the versions that ran it.
    pub fn to_toml(&self, versions: &Versions) -> String {
        #[derive(Serialize)]
        struct File<'a> {
            #[serde(flatten)]
            config: &'a Config,
            versions: &'a Versions,
        }
        let file = File {
            config: self,
            versions,
        };
        let text = toml::to_string(&file)
            .expect("structs of numbers, strings and named variants are TOML");
        format!("{RESOLVED_HEADER}\n{text}")
    }
}

impl Config {
    /// The configuration as a file that [`resolve`] reads back: what it sets otherwise than `base`,
    /// a preset or a file (the defaults without one), which the file extends.
    pub fn to_toml_over(&self, base: Option<&str>) -> Result<String, ConfigError> {
        let mut extended = resolve(base, &[])?;
        let mut file = Table::new();
        if let Some(name) = base {
            let name = match preset(name) {
                Some(_) => name.to_owned(),
                // The file may be written to any directory.
                None => std::path::absolute(name)
                    .map_err(|source| ConfigError::Unreadable {
                        path: name.into(),
                        source,
                    })?
                    .to_string_lossy()
                    .into_owned(),
            };
            file.insert("extends".into(), Value::String(name));
        }
        if extended.optimizer.defaults() != self.optimizer.defaults() {
            // Another rule starts from its own defaults.
            extended.optimizer = self.optimizer.defaults();
            let name = to_table(self)["optimizer"]["name"].clone();
            put(&mut file, &["optimizer", "name"], Some(name));
        }
        let (mut before, after) = (to_table(&extended), to_table(self));
        let kind = after["objective"]["kind"].clone();
        if before["objective"].get("kind") != Some(&kind) {
            // The file says the new kind, which takes the former one's own switches away.
            put(&mut file, &["objective", "kind"], Some(kind));
            switch_kinds(&mut before, &file);
        }
        for (path, value) in leaves(&after) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            if at(&before, &path) != Some(value) {
                put(&mut file, &path, Some(value.clone()));
            }
        }
        for (path, _) in leaves(&before) {
            let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
            if at(&after, &path).is_none() {
                if path[0] == "mixture" && at(&after, &path[..2]).is_none() {
                    path.truncate(2);
                }
                put(&mut file, &path, Some(Value::String("none".into())));
            }
        }
        Ok(toml::to_string(&file).expect("a table of settings is TOML"))
    }
}

/// Settings from one place.
struct Layer {
    origin: Origin,
    table: Table,
}

impl Layer {
    /// A layer and all it extends, the furthest ancestor first.
    fn chain(last: Self) -> Result<Vec<Self>, ConfigError> {
        let mut chain: Vec<Self> = Vec::new();
        let mut next = Some(last);
        while let Some(mut layer) = next {
            let origins = || chain.iter().map(|layer| layer.origin.to_string());
            if chain.iter().any(|earlier| earlier.origin == layer.origin) {
                return Err(ConfigError::Circle {
                    chain: origins().chain([layer.origin.to_string()]).collect(),
                });
            }
            let directory = match &layer.origin {
                Origin::File(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
                _ => PathBuf::new(),
            };
            next = match layer.table.remove("extends") {
                None => None,
                Some(Value::String(parent)) => Some(Self::named(&parent, &directory)?),
                Some(other) => {
                    return Err(ConfigError::WrongValue {
                        key: "extends".into(),
                        origin: layer.origin,
                        found: other.to_string(),
                        expected: "the name of a preset or of a file".into(),
                    });
                }
            };
            layer.table.remove("versions");
            chain.push(layer);
        }
        chain.reverse();
        Ok(chain)
    }

    /// A preset or, failing that, a file; a relative path starts at `directory`.
    fn named(name: &str, directory: &Path) -> Result<Self, ConfigError> {
        if let Some(text) = preset(name) {
            return Self::parse(Origin::Preset(name.to_owned()), text);
        }
        Self::file(directory.join(name)).map_err(|error| match error {
            ConfigError::Unreadable { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                ConfigError::UnknownPreset {
                    name: name.to_owned(),
                    nearest: nearest_name(name, preset_names()),
                    known: preset_names().map(str::to_owned).collect(),
                }
            }
            other => other,
        })
    }

    fn file(path: PathBuf) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(Origin::File(path), &text),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }

    fn parse(origin: Origin, text: &str) -> Result<Self, ConfigError> {
        match text.parse() {
            Ok(table) => Ok(Self { origin, table }),
            Err(error) => {
                let message = error.to_string().trim_end().to_owned();
                Err(ConfigError::Syntax { origin, message })
            }
        }
    }

    /// A `--set` argument: a dotted key, `=`, and a TOML value or a bare string.
    fn argument(argument: &str) -> Result<Self, ConfigError> {
        let not_an_assignment = || ConfigError::NotAnAssignment {
            argument: argument.to_owned(),
        };
        let (key, text) = argument.split_once('=').ok_or_else(not_an_assignment)?;
        let (key, text) = (key.trim(), text.trim());
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(not_an_assignment());
        }
        let as_toml = |text: &str| -> Option<Value> {
            let mut table: Table = format!("value = {text}").parse().ok()?;
            let value = table.remove("value")?;
            table.is_empty().then_some(value)
        };
        let value = as_toml(text).unwrap_or_else(|| Value::String(text.to_owned()));
        let path: Vec<&str> = key.split('.').collect();
        Ok(Self {
            origin: Origin::Set(argument.to_owned()),
            table: nest(&path, value),
        })
    }
}

/// The layers laid down so far: always a complete configuration.
struct Resolution {
    table: Table,
    config: Config,
}

impl Resolution {
    fn of(config: Config) -> Self {
        Self {
            table: to_table(&config),
            config,
        }
    }

    /// The configuration once these layers lie on it, in order.
    fn under(mut self, layers: &[Layer]) -> Result<Config, ConfigError> {
        for layer in layers {
            self.lay(layer)?;
        }
        Ok(self.config)
    }

    fn lay(&mut self, layer: &Layer) -> Result<(), ConfigError> {
        self.switch_optimizer(layer)?;
        switch_kinds(&mut self.table, &layer.table);
        let keys = Keys::beside(&self.config.optimizer);
        keys.check(&layer.table, &layer.origin)?;
        let mut table = self.table.clone();
        for (name, part) in parts(&layer.table) {
            // A part that says nothing is a part.
            if part.is_empty() && at(&table, &["mixture", name]).is_none() {
                put(&mut table, &["mixture", name], Some(Table::new().into()));
            }
        }
        for (path, value) in leaves(&layer.table) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let none = value.as_str() == Some("none") && keys.is_optional(&path);
            put(&mut table, &path, (!none).then(|| value.clone()));
        }
        if let Some(ForeignSwitch { key, kind, kinds }) = foreign_switch(&table) {
            return Err(ConfigError::ForeignSwitch {
                key,
                origin: layer.origin.clone(),
                kind,
                kinds,
            });
        }
        match read(table) {
            Ok(config) => {
                // Written anew, so that values take the form their types give them.
                *self = Self {
                    table: to_table(&config),
                    config,
                };
                Ok(())
            }
            Err(error) => Err(self.blame(layer, error.message())),
        }
    }

    /// Another `optimizer.name` starts from that optimizer's own defaults: nothing of the former
    /// one's settings applies to it.
    fn switch_optimizer(&mut self, layer: &Layer) -> Result<(), ConfigError> {
        let Some(name) = layer
            .table
            .get("optimizer")
            .and_then(|table| table.get("name"))
        else {
            return Ok(());
        };
        let named = |table: &Table| table["optimizer"].get("name") == Some(name);
        if named(&self.table) {
            return Ok(());
        }
        for optimizer in Optimizer::kinds() {
            let config = Config {
                optimizer,
                ..self.config.clone()
            };
            let table = to_table(&config);
            if named(&table) {
                *self = Self { table, config };
                return Ok(());
            }
        }
        let message = read(with(&self.table, &["optimizer", "name"], name))
            .map_or_else(|error| error.message().to_owned(), |_| String::new());
        Err(wrong_value("optimizer.name".into(), layer, name, &message))
    }

    /// The setting of `layer` that does not deserialise: the first that alone, over what was there
    /// before, fails.
    fn blame(&self, layer: &Layer, message: &str) -> ConfigError {
        let failing = leaves(&layer.table).into_iter().find_map(|(path, value)| {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let error = read(with(&self.table, &names, value)).err()?;
            // A section where a value belongs is one wrong value, not several unknown settings.
            let within = (1..names.len())
                .find(|&end| at(&self.table, &names[..end]).is_some_and(|v| !v.is_table()));
            let names = &names[..within.unwrap_or(names.len())];
            Some((
                names.join("."),
                at(&layer.table, names)?,
                error.message().to_owned(),
            ))
        });
        match failing {
            Some((key, value, message)) => wrong_value(key, layer, value, &message),
            None => {
                let key = layer.table.keys().next().cloned().unwrap_or_default();
                wrong_value(key, layer, &Value::Table(layer.table.clone()), message)
            }
        }
    }
}

fn wrong_value(key: String, layer: &Layer, value: &Value, message: &str) -> ConfigError {
    ConfigError::WrongValue {
        key,
        origin: layer.origin.clone(),
        found: value.to_string(),
        expected: expectation(message, value),
    }
}

/// What serde expected, in words: its message ends in the Rust type or the list of variants.
fn expectation(message: &str, value: &Value) -> String {
    let Some((_, expected)) = message.split_once("expected ") else {
        return message.to_owned();
    };
    let mut words = match expected {
        "u64" | "usize" | "u32" | "u8" => "a whole number, 0 or more".to_owned(),
        "i64" | "isize" => "a whole number".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" | "a string" => "a string".to_owned(),
        other if other.starts_with("struct ") => "a section of settings".to_owned(),
        other => other.to_owned(),
    };
    if let Some(found) = value.as_str() {
        let names = expected.split('`').skip(1).step_by(2);
        if let Some(nearest) = nearest_name(found, names) {
            // Writing to a string cannot fail.
            let _ = write!(words, "; did you mean `{nearest}`?");
        }
    }
    words
}

/// The configuration that a table says, every part of its mixture included.
fn read(table: Table) -> Result<Config, toml::de::Error> {
    let config = Config::deserialize(table)?;
    config.check_parts()?;
    Ok(config)
}

fn to_table(config: &Config) -> Table {
    Table::try_from(config).expect("structs of numbers, strings and named variants are TOML")
}

/// The settings of a table with their paths, in the order of the table.
fn leaves(table: &Table) -> Vec<(Vec<String>, &Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(leaves(inner).into_iter().map(|(mut path, value)| {
                    path.insert(0, name.clone());
                    (path, value)
                }))
            }
            _ => found.push((vec![name.clone()], value)),
        }
    }
    found
}

fn with(table: &Table, path: &[&str], value: &Value) -> Table {
    let mut table = table.clone();
    put(&mut table, path, Some(value.clone()));
    table
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(table.get(*first)?, |value, name| value.get(*name))
}

/// Writes `value` at `path`, or removes what is there.
fn put(table: &mut Table, path: &[&str], value: Option<Value>) {
    match (path, value) {
        ([], _) => {}
        ([name], Some(value)) => {
            table.insert((*name).to_owned(), value);
        }
        ([name], None) => {
            table.remove(*name);
        }
        ([name, rest @ ..], value) => match table.get_mut(*name) {
            Some(Value::Table(inner)) => put(inner, rest, value),
            _ => {
                if let Some(value) = value {
                    table.insert((*name).to_owned(), Value::Table(nest(rest, value)));
                }
            }
        },
    }
}

fn nest(path: &[&str], value: Value) -> Table {
    match path {
        [] => Table::new(),
        [name] => Table::from_iter([((*name).to_owned(), value)]),
        [name, rest @ ..] => {
            Table::from_iter([((*name).to_owned(), Value::Table(nest(rest, value)))])
        }
    }
}
