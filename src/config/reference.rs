//! What each setting means, for people: read from the types of the configuration.
//!
//! The words are the doc comments of the fields, the values those that the types take, and the
//! defaults those of the code. So a page or a file made from this cannot differ from what the
//! program does, and a new setting is in it without further code.

use schemars::schema_for;
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use super::{Config, Objective, Optimizer, Part};

/// A table of a configuration file.
#[derive(Clone, Debug)]
pub struct Section {
    /// `train`, or `sharding.rules` for a table in another.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// What may stand in it, in the order of the code.
    pub settings: Vec<Setting>,
}

/// A setting in a section.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name there.
    pub name: String,
    /// What it does.
    pub about: String,
    /// What it takes, in words. Where there are choices, they say it.
    pub takes: String,
    /// The values that have a meaning of their own.
    pub choices: Vec<Choice>,
    /// Its value, as TOML; `None` where it is not set.
    pub value: Option<String>,
    /// The value it has where no file and no preset sets it, as TOML.
    pub default: Option<String>,
    /// A value that it could have, as TOML.
    pub example: String,
}

/// A value that a setting may have.
#[derive(Clone, Debug)]
pub struct Choice {
    /// As TOML, or in words.
    pub value: String,
    /// What it means.
    pub about: String,
}

/// What follows another kind of optimizer or objective: the section as it is then.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The setting that chooses it, as TOML: `name = "adamw"`.
    pub chosen_by: String,
    /// What it is.
    pub about: String,
    /// Its own settings, without the one that chooses it.
    pub settings: Vec<Setting>,
}

/// All sections of a configuration, with its values. A mixture has a section for each part.
pub fn sections(config: &Config) -> Vec<Section> {
    let schema = schema_for!(Config).to_value();
    let part = schema_for!(Part).to_value();
    let defaults = Config {
        optimizer: config.optimizer.defaults(),
        objective: defaults_of(&config.objective),
        ..Config::default()
    };
    let mut walk = Walk {
        root: &schema,
        sections: Vec::new(),
    };
    let (values, defaults) = (json(config), json(&defaults));
    let order = order_of(config);
    for (name, below) in &order.0 {
        let node = &schema["properties"][name];
        if name == MIXTURE {
            walk.mixture(config, &part, &values[name], below);
        } else {
            walk.section(name, node, below, &values[name], &defaults[name]);
        }
    }
    walk.sections
}

/// The kinds of a section that has some, each with its own defaults; none for another section.
pub fn kinds(section: &str) -> Vec<Kind> {
    let configs: Vec<Config> = match section {
        "optimizer" => Optimizer::kinds()
            .into_iter()
            .map(|optimizer| Config {
                optimizer,
                ..Config::default()
            })
            .collect(),
        "objective" => Objective::kinds()
            .into_iter()
            .map(|objective| Config {
                objective,
                ..Config::default()
            })
            .collect(),
        _ => Vec::new(),
    };
    let of_kind = |config: &Config| {
        let section = sections(config).into_iter().find(|s| s.name == section)?;
        let (tag, settings) = section.settings.split_first()?;
        let value = tag.value.clone()?;
        let chosen = tag.choices.iter().find(|choice| choice.value == value)?;
        Some(Kind {
            chosen_by: format!("{} = {value}", tag.name),
            about: chosen.about.clone(),
            settings: settings.to_vec(),
        })
    };
    configs.iter().filter_map(of_kind).collect()
}

/// The section of a part of a mixture, whatever its name: its own settings, beside which any of
/// `objective` may stand.
pub fn part_of_mixture() -> Section {
    let part: Part = serde_json::from_value(Map::new().into()).expect("a part may say nothing");
    let config = Config {
        mixture: [("NAME".to_owned(), part)].into(),
        ..Config::default()
    };
    let mut sections = sections(&config).into_iter();
    let section = sections.find(|section| section.name == "mixture.NAME");
    section.expect("every part has a section")
}

/// The section whose sections are named by the user.
pub(super) const MIXTURE: &str = "mixture";

struct Walk<'s> {
    /// The schema of a whole configuration.
    root: &'s Value,
    sections: Vec<Section>,
}

impl Walk<'_> {
    /// Adds a section, and those in it.
    fn section(
        &mut self,
        name: &str,
        node: &Value,
        order: &Order,
        values: &Value,
        defaults: &Value,
    ) {
        let schema = Schema {
            root: self.root,
            node,
        };
        let fields = schema.fields(values);
        let mut section = Section {
            name: name.to_owned(),
            about: schema.about(),
            settings: Vec::new(),
        };
        let place = self.sections.len();
        for (field, below) in ordered(order, &fields) {
            let node = &fields[&field];
            match &values[&field] {
                inner @ Value::Object(_) => {
                    let name = format!("{name}.{field}");
                    self.section(&name, node, below, inner, &defaults[&field]);
                }
                value => {
                    let schema = Schema {
                        root: self.root,
                        node,
                    };
                    let setting = schema.setting(field.clone(), value, &defaults[&field]);
                    section.settings.push(setting);
                }
            }
        }
        self.sections.insert(place, section);
    }

    /// Adds a section for each part of a mixture. What a part says is its own settings, and those
    /// of the objective that differ.
    fn mixture(&mut self, config: &Config, part: &Value, values: &Value, order: &Order) {
        let about = text_of(&self.root["properties"][MIXTURE]);
        let objective = Schema {
            root: self.root,
            node: &self.root["properties"]["objective"],
        };
        let mut fields = Map::new();
        for kind in Objective::kinds() {
            fields.extend(objective.fields(&json(&kind)));
        }
        fields.extend(object(&part["properties"]));
        for (name, below) in &order.0 {
            let values = &values[name];
            let said = |field: &String| {
                values.get(field).is_some() || !part["properties"][field].is_null()
            };
            let names = ordered(below, &fields).into_iter().map(|(field, _)| field);
            let settings = names.filter(said).map(|field| {
                let schema = Schema {
                    root: self.root,
                    node: &fields[&field],
                };
                // What a part leaves out of the objective is the run's.
                let default = &part["properties"][&field]["default"];
                schema.setting(field.clone(), &values[&field], default)
            });
            self.sections.push(Section {
                name: format!("{MIXTURE}.{name}"),
                about: about.clone(),
                settings: settings.collect(),
            });
        }
        if config.mixture.is_empty() {
            self.sections.push(Section {
                name: MIXTURE.to_owned(),
                about,
                settings: Vec::new(),
            });
        }
    }
}

/// A node of the schema, in the schema that its references point into.
#[derive(Clone, Copy)]
struct Schema<'s> {
    root: &'s Value,
    node: &'s Value,
}

impl<'s> Schema<'s> {
    fn at(self, node: &'s Value) -> Self {
        Self { node, ..self }
    }

    /// What is said of the field, or else of its type.
    fn about(self) -> String {
        match text_of(self.node) {
            about if about.is_empty() => text_of(self.resolved().node),
            about => about,
        }
    }

    /// The type itself: without references, and without the choice of leaving the field out.
    fn resolved(self) -> Self {
        if let Some(name) = self.node["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap_or(name);
            return self.at(&self.root["$defs"][name]).resolved();
        }
        if let Some(choices) = self.node["anyOf"].as_array() {
            let set = choices.iter().find(|choice| choice["type"] != "null");
            return set.map_or(self, |set| self.at(set).resolved());
        }
        self
    }

    /// The variants of a type that has some.
    fn variants(self) -> Vec<Self> {
        let node = self.resolved().node;
        let variants = node["oneOf"].as_array().into_iter().flatten();
        variants.map(|variant| self.at(variant)).collect()
    }

    /// The fields of a section with these values: of the kind that it is, if there are several.
    fn fields(self, values: &Value) -> Map<String, Value> {
        let variants = self.variants();
        let Some(tag) = variants.first().and_then(|variant| variant.tag()) else {
            return object(&self.resolved().node["properties"]);
        };
        let chosen = variants.iter().find(|variant| {
            let name = &variant.node["properties"][&tag]["const"];
            values.get(&tag) == Some(name)
        });
        let mut fields = Map::new();
        if let Some(chosen) = chosen {
            let type_of_kind = chosen.resolved().node;
            fields.extend(object(&type_of_kind["properties"]));
            fields.extend(object(&chosen.node["properties"]));
        }
        let names = variants.iter().map(|variant| {
            let name = &variant.node["properties"][&tag]["const"];
            serde_json::json!({ "const": name, "description": text_of(variant.node) })
        });
        let about = "Which kind it is. Each has settings of its own, with its own defaults.";
        let choices =
            serde_json::json!({ "oneOf": names.collect::<Vec<_>>(), "description": about });
        fields.insert(tag, choices);
        fields
    }

    /// The field that says which kind a variant is.
    fn tag(self) -> Option<String> {
        let fields = self.node["properties"].as_object()?;
        let mut tags = fields
            .iter()
            .filter(|(_, node)| node.get("const").is_some());
        tags.next().map(|(name, _)| name.clone())
    }

    fn setting(self, name: String, value: &Value, default: &Value) -> Setting {
        let choices = self.choices();
        let example = match choices.first() {
            Some(choice) => choice.value.clone(),
            None => self.example().into(),
        };
        Setting {
            name,
            about: self.about(),
            takes: self.takes(),
            choices,
            value: toml_of(value),
            default: toml_of(default),
            example,
        }
    }

    fn choices(self) -> Vec<Choice> {
        let variants = self.variants().into_iter();
        let choice = |variant: Self| {
            let node = variant.node;
            let names = match (node.get("const"), node["enum"].as_array()) {
                (Some(name), _) => vec![toml_of(name).unwrap_or_default()],
                (None, Some(names)) => names.iter().filter_map(toml_of).collect(),
                (None, None) => vec![variant.takes()],
            };
            let about = text_of(node);
            names.into_iter().map(move |value| Choice {
                value,
                about: about.clone(),
            })
        };
        variants.flat_map(choice).collect()
    }

    /// What the type takes, in the words of the errors about it.
    fn takes(self) -> String {
        let node = self.resolved().node;
        if !self.variants().is_empty() {
            return String::new();
        }
        // Types that are read in a way of their own say so themselves.
        let own = text_of(node);
        if !own.is_empty() && !std::ptr::eq(node, self.node) {
            return own;
        }
        match type_of(node) {
            "integer" => "a whole number".into(),
            "number" => "a number".into(),
            "boolean" => "true or false".into(),
            "array" => match self.at(&node["items"]).choices() {
                names if names.is_empty() => "a list of strings".into(),
                names => {
                    let names: Vec<_> = names.into_iter().map(|name| name.value).collect();
                    format!("a list of {}", names.join(", "))
                }
            },
            _ if node["format"] == "ip" => "an IP address".into(),
            _ => "a string".into(),
        }
    }

    fn example(self) -> &'static str {
        let node = self.resolved().node;
        match type_of(node) {
            "integer" => "0",
            "number" => "0.0",
            "boolean" => "false",
            "array" => "[]",
            _ => "\"\"",
        }
    }
}

/// The type of a node, the first that is not the absence of a value.
fn type_of(node: &Value) -> &str {
    match &node["type"] {
        Value::Array(types) => {
            let mut types = types.iter().filter_map(Value::as_str);
            types.find(|name| *name != "null").unwrap_or_default()
        }
        name => name.as_str().unwrap_or_default(),
    }
}

/// A doc comment as running text: its lines are those of the source.
fn text_of(node: &Value) -> String {
    let text = node["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn toml_of(value: &Value) -> Option<String> {
    // Nothing is no value, and neither is a section.
    let value = toml::Value::try_from(value).ok()?;
    match value.as_float() {
        // As people write it: 1e-30.
        Some(number) if number != 0.0 && number.abs() < 1e-3 => Some(format!("{number:e}")),
        _ => (!value.is_table()).then(|| value.to_string()),
    }
}

fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("settings are numbers, strings and named variants")
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn defaults_of(objective: &Objective) -> Objective {
    let same = |kind: &Objective| std::mem::discriminant(kind) == std::mem::discriminant(objective);
    let kind = Objective::kinds().into_iter().find(same);
    kind.expect("every objective is of a kind")
}

/// The names of a section's fields in the order of the code, each with the order of what it has:
/// JSON values do not keep it.
struct Order(Vec<(String, Order)>);

static UNORDERED: Order = Order(Vec::new());

fn order_of(config: &Config) -> Order {
    let text = serde_json::to_string(config).expect("settings are JSON");
    serde_json::from_str(&text).expect("JSON has been written")
}

/// The fields in their order. Those that are not written because they have no value come last.
fn ordered<'o>(order: &'o Order, fields: &Map<String, Value>) -> Vec<(String, &'o Order)> {
    let written = order.0.iter().map(|(name, below)| (name.clone(), below));
    let written: Vec<_> = written
        .filter(|(name, _)| fields.contains_key(name))
        .collect();
    let is_written = |name: &String| order.0.iter().any(|(written, _)| written == name);
    let unset = fields.keys().filter(|name| !is_written(name));
    let unset: Vec<_> = unset.map(|name| (name.clone(), &UNORDERED)).collect();
    [written, unset].concat()
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Order;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Order, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Order(fields))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Order, A::Error> {
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(Order(Vec::new()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }

            fn visit_str<E>(self, _: &str) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }

            fn visit_unit<E>(self) -> Result<Order, E> {
                Ok(Order(Vec::new()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
