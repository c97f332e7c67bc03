//! Settings that had another name in an earlier version.
//!
//! A configuration that a person writes must use today's names: an old key is refused with the new
//! one in the message. What a run recorded is read all the same, so that it can be resumed.

use toml::{Table, Value};

use super::objective::drop_foreign_switches;

/// Old and new dotted keys.
const RENAMED: [(&str, &str); 2] = [
    ("data.rows", "data.packing"),
    ("train.accumulation", "train.gradient_accumulation"),
];

/// What a setting of an earlier version is called today.
pub(super) fn new_name(key: &str) -> Option<&'static str> {
    let renamed = RENAMED.iter().find(|(old, _)| *old == key);
    renamed.map(|(_, new)| *new)
}

/// Gives the settings that an earlier version recorded today's names, and leaves out those of the
/// objective that had no effect.
pub(super) fn rename_recorded(config: &mut Table) {
    for (old, new) in RENAMED {
        if let Some(value) = remove(config, old) {
            insert(config, new, value);
        }
    }
    // Every objective had all switches, those without effect too.
    drop_foreign_switches(config);
}

fn remove(table: &mut Table, key: &str) -> Option<Value> {
    match key.split_once('.') {
        None => table.remove(key),
        Some((section, rest)) => remove(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

/// Inserts a value, unless the section or its place is taken by something else.
fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.entry(key).or_insert(value);
        }
        Some((section, rest)) => {
            let section = table.entry(section).or_insert(Value::Table(Table::new()));
            if let Some(section) = section.as_table_mut() {
                insert(section, rest, value);
            }
        }
    }
}
