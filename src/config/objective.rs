//! The `[objective]` table: which settings each kind of objective has.
//!
//! A setting that the kind does not have is an error where it is written. If a layer changes only
//! the kind, the settings that both kinds have keep their values, and those of the former kind
//! alone are dropped. The same holds for a component of a mixture, whose kind is that of
//! `[objective]` unless it names another.

use std::borrow::Cow;

use ankh_data::{Objective, Setting};
use toml::{Table, Value};

use super::keys::object;

/// The tag that says which kind an objective is.
const KIND: &str = "kind";

/// The section of a run's parts.
const MIXTURE: &str = "mixture";

/// A switch that an objective does not have, though another kind has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignSwitch {
    /// Its dotted key.
    pub key: String,
    /// The kind that lacks it.
    pub kind: String,
    /// The kinds that have it.
    pub kinds: Vec<String>,
}

/// All switches of all kinds, as JSON.
pub(super) fn all_switches() -> serde_json::Map<String, serde_json::Value> {
    Objective::kinds().into_iter().flat_map(object).collect()
}

/// Changes the kinds of a configuration's objectives to what a layer says, and drops the switches
/// that the new kinds do not have. A name that is no kind changes nothing.
pub(super) fn switch_kinds(config: &mut Table, layer: &Table) {
    let switch = |objective: Option<&mut Value>, written: Option<&Value>| {
        let kind = written.and_then(Value::as_table).and_then(kind_of);
        let objective = objective.and_then(Value::as_table_mut);
        if let (Some(objective), Some(kind)) = (objective, kind)
            && switches_of(kind).is_some()
        {
            objective.insert(KIND.into(), kind.into());
            drop_foreign(objective, kind);
        }
    };
    switch(config.get_mut("objective"), layer.get("objective"));
    let written = layer.get(MIXTURE).and_then(Value::as_table);
    let parts = config.get_mut(MIXTURE).and_then(Value::as_table_mut);
    for (name, part) in parts.into_iter().flatten() {
        switch(Some(part), written.and_then(|parts| parts.get(name)));
    }
}

/// Drops the switches that the objectives of a configuration do not have.
pub(super) fn drop_foreign_switches(config: &mut Table) {
    let drop = |objective: &mut Value, inherited: &str| {
        if let Some(objective) = objective.as_table_mut() {
            let kind = kind_of(objective).unwrap_or(inherited).to_owned();
            drop_foreign(objective, &kind);
        }
    };
    let kind = kind_of_run(config);
    if let Some(objective) = config.get_mut("objective") {
        drop(objective, &kind);
    }
    let parts = config.get_mut(MIXTURE).and_then(Value::as_table_mut);
    for (_, part) in parts.into_iter().flatten() {
        drop(part, &kind);
    }
}

/// The first switch of a configuration that its objective does not have.
pub(super) fn foreign_switch(config: &Table) -> Option<ForeignSwitch> {
    let kind = kind_of_run(config);
    let parts = config.get(MIXTURE).and_then(Value::as_table);
    let parts = parts.into_iter().flatten();
    let parts = parts.map(|(name, part)| (format!("{MIXTURE}.{name}"), part));
    let objective = config.get("objective").into_iter();
    let mut objectives = objective
        .map(|objective| ("objective".into(), objective))
        .chain(parts);
    objectives.find_map(|(section, objective)| {
        let objective = objective.as_table()?;
        let kind = kind_of(objective).unwrap_or(&kind);
        let switch = foreign(objective, kind).next()?;
        let kinds = Objective::kinds().into_iter().map(object);
        let kinds = kinds.filter(|switches| switches.contains_key(switch));
        Some(ForeignSwitch {
            key: format!("{section}.{switch}"),
            kind: kind.to_owned(),
            kinds: kinds.filter_map(|switches| name_of(&switches)).collect(),
        })
    })
}

/// An objective with the settings of a part laid over it; `"none"` takes the task mark away.
pub(super) fn laid_over(objective: &Objective, over: &Table) -> Result<Objective, toml::de::Error> {
    let mut table = Table::try_from(objective).expect("a struct of numbers and names is TOML");
    if let Some(kind) = kind_of(over) {
        drop_foreign(&mut table, kind);
    }
    for (name, value) in over {
        match (name.as_str(), value.as_str()) {
            ("task", Some("none")) => table.remove(name),
            _ => table.insert(name.clone(), value.clone()),
        };
    }
    Value::Table(table).try_into()
}

fn kind_of(objective: &Table) -> Option<&str> {
    objective.get(KIND).and_then(Value::as_str)
}

/// The kind of `[objective]`, which parts have that say none.
fn kind_of_run(config: &Table) -> String {
    let objective = config.get("objective").and_then(Value::as_table);
    objective.and_then(kind_of).unwrap_or_default().to_owned()
}

fn name_of(switches: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    Some(switches.get(KIND)?.as_str()?.to_owned())
}

/// The switches of a kind, `kind` among them; nothing where there is no such kind.
fn switches_of(kind: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let mut kinds = Objective::kinds().into_iter().map(object);
    kinds.find(|switches| name_of(switches).as_deref() == Some(kind))
}

/// The settings of a table that are switches of other kinds alone.
fn foreign<'t>(objective: &'t Table, kind: &str) -> impl Iterator<Item = &'t str> {
    let (own, all) = (switches_of(kind), all_switches());
    objective.keys().map(String::as_str).filter(move |switch| {
        let own = own.as_ref().is_none_or(|own| own.contains_key(*switch));
        !own && all.contains_key(*switch)
    })
}

fn drop_foreign(objective: &mut Table, kind: &str) {
    let dropped: Vec<String> = foreign(objective, kind).map(str::to_owned).collect();
    for switch in dropped {
        objective.remove(&switch);
    }
}

/// What a setting of the data is called in the configuration, or else as an option.
pub fn setting_name(setting: Setting) -> Cow<'static, str> {
    match setting {
        Setting::GlobalBatch => "train.batch_size".into(),
        Setting::InputLength => "data.input_length".into(),
        Setting::TargetLength => "data.target_length".into(),
        Setting::Packing => "data.packing".into(),
        Setting::Threads => "data.threads".into(),
        Setting::Mixture => "mixture".into(),
        Setting::Data => "data.dir".into(),
        Setting::Host => "--host".into(),
        Setting::Step => "--from".into(),
        Setting::Objective(name) => format!("objective.{name}").into(),
        Setting::Prepare("inputs") => "the inputs".into(),
        Setting::Prepare(name) => format!("--{}", name.replace('_', "-")).into(),
        other => other.to_string().into(),
    }
}
