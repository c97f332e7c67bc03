//! What makes two configurations the same run: which settings must stay when a run resumes, which
//! may change with `--accept-changes`, and where the configuration of a run is recorded.
//!
//! It is recorded twice: `config.toml` has it as of the last start, and each checkpoint has the one
//! it was made with. The checkpoint decides, because the run resumes from it; `config.toml` records
//! the changes accepted since.

use std::fmt;
use std::fs;
use std::path::Path;

use ankh_storage::Location;
use toml::{Table, Value};

use super::{RunError, checkpoints_of};
use crate::checkpoint::{self, Store};
use crate::config::{Config, ConfigError, RESOLVED_HEADER, recorded_in_json, resolve_recorded};

/// The settings that make a run the run it is: the model first, by which one recognises it, then
/// the stream of data. An empty list is the whole section.
const FIXED: [(&str, &[&str]); 5] = [
    ("model", &[]),
    ("objective", &[]),
    ("mixture", &[]),
    (
        "data",
        &[
            "tokenizer",
            "input_length",
            "target_length",
            "packing",
            "long_sequences",
            "seed",
        ],
    ),
    ("train", &["seed", "initialize_from"]),
];

/// The settings that a run can go on with others of, at a price: it is then another run than it
/// would have been. All that are in neither list may change at any start.
const AGREED: [(&str, &[&str]); 2] = [
    ("train", &["batch_size", "freeze"]),
    ("optimizer", &["name", "min_dim_size_to_factor"]),
];

/// A setting that is one thing in a run directory and another in the configuration at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its dotted key.
    pub key: String,
    /// Its value in the run directory.
    pub there: String,
    /// Its value in this configuration.
    pub here: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { key, there, here } = self;
        write!(f, "{key} is {there} there and {here} here")
    }
}

/// All of them in one line.
pub(super) fn listed(differences: &[Difference]) -> String {
    let each: Vec<String> = differences.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// Whether a run may go on with a batch size or an optimizer that it did not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    Refused,
    Accepted,
}

/// Whether the run in `path`, with its saved states in `checkpoints`, can be gone on with as
/// `config` says.
pub(super) fn check_same(
    path: &Path,
    checkpoints: &Location,
    config: &Config,
    changes: Changes,
) -> Result<(), RunError> {
    let recorded = recorded(path);
    let there = match saved(checkpoints) {
        Some(saved) => saved.config,
        None => match &recorded {
            Ok(config) => config.clone(),
            Err(_) => {
                return recorded
                    .map(drop)
                    .map_err(|damage| unreadable(path, damage));
            }
        },
    };
    let fixed = differences(&FIXED, &there, config);
    let mut agreed = differences(&AGREED, &there, config);
    if !fixed.is_empty() {
        return Err(RunError::AnotherRun {
            path: path.to_owned(),
            differences: [fixed, agreed].concat(),
        });
    }
    // A run that was stopped before it could save again had its changes accepted when it was
    // started.
    if let Ok(recorded) = &recorded {
        let open = differences(&AGREED, recorded, config);
        agreed.retain(|difference| open.iter().any(|open| open.key == difference.key));
    }
    match changes {
        Changes::Refused if !agreed.is_empty() => Err(RunError::Changed {
            path: path.to_owned(),
            differences: agreed,
        }),
        Changes::Refused | Changes::Accepted => Ok(()),
    }
}

/// Where the run in `path` saved its states, if there are some, and none where `config` would look
/// for them: the run would begin anew.
pub(super) fn states_elsewhere(
    path: &Path,
    config: &Config,
) -> Result<Option<Location>, checkpoint::Error> {
    let Ok(recorded) = recorded(path) else {
        return Ok(None);
    };
    if recorded.checkpoint.directory == config.checkpoint.directory {
        return Ok(None);
    }
    let [there, here] = [&recorded, config].map(|config| checkpoints_of(path, config));
    let has_states = |at: &Location| Ok::<_, checkpoint::Error>(Store::at(at)?.latest()?.is_some());
    Ok((!has_states(&here)? && has_states(&there)?).then_some(there))
}

/// The configuration of the run in a directory.
#[derive(Debug)]
pub enum Recorded {
    /// As `config.toml` has it.
    Whole(Config),
    /// As the newest saved state carries it; `config.toml` is not to be used.
    Restored {
        /// The configuration.
        config: Config,
        /// Which state carried it.
        checkpoint: Location,
        /// What is wrong with `config.toml`.
        damage: Damage,
    },
}

impl Recorded {
    /// Reads it; nothing where no run was begun. A file that was cut short, or is gone, is made up
    /// for by the newest saved state. One that somebody has made a mistake in is not: what they
    /// meant is in it.
    pub fn of(directory: &Path) -> Result<Option<Self>, RunError> {
        let damage = match recorded(directory) {
            Ok(config) => return Ok(Some(Self::Whole(config))),
            Err(damage) => damage,
        };
        match (damage, saved(&directory.join("checkpoints").into())) {
            (damage @ Damage::Wrong { .. }, _) => Err(unreadable(directory, damage)),
            (Damage::Missing, None) => Ok(None),
            (damage, None) => Err(unreadable(directory, damage)),
            (damage, Some(Saved { config, checkpoint })) => Ok(Some(Self::Restored {
                config,
                checkpoint,
                damage,
            })),
        }
    }
}

/// Why a `config.toml` is not the configuration of its run.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is empty, or has nothing but comments.
    #[error("it has no settings: it was emptied")]
    Empty,
    /// A part of what was recorded.
    #[error("it was cut short: what a run records ends with the section [versions]")]
    CutShort,
    /// It is whole and cannot be used.
    #[error("{error}{}", other_version(written_by))]
    Wrong {
        error: Box<ConfigError>,
        /// The version of the program that wrote it, if that is another than this.
        written_by: Option<String>,
    },
}

fn other_version(written_by: &Option<String>) -> String {
    let written_by = written_by.as_ref();
    written_by.map_or_else(String::new, |version| {
        let this = env!("CARGO_PKG_VERSION");
        format!("; ankh {version} wrote it, and this is {this}")
    })
}

fn unreadable(path: &Path, damage: Damage) -> RunError {
    RunError::UnreadableConfig {
        path: path.to_owned(),
        source: Box::new(damage),
    }
}

/// What `config.toml` says.
fn recorded(directory: &Path) -> Result<Config, Damage> {
    let file = directory.join("config.toml");
    let wrong = |error: ConfigError, text: &str| Damage::Wrong {
        error: Box::new(error),
        written_by: writer(text).filter(|version| version != env!("CARGO_PKG_VERSION")),
    };
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Damage::Missing),
        Err(source) => return Err(wrong(ConfigError::Unreadable { path: file, source }, "")),
    };
    let text = String::from_utf8_lossy(&bytes);
    // A file system that lost power may leave zeros in place of what was written.
    let says_something = |line: &str| {
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        !line.is_empty() && !line.starts_with('#')
    };
    if !text.lines().any(says_something) {
        return Err(Damage::Empty);
    }
    if text.starts_with(RESOLVED_HEADER.trim_end()) && !is_whole(&text) {
        return Err(Damage::CutShort);
    }
    resolve_recorded(&file).map_err(|error| wrong(error, &text))
}

/// Whether a recorded file has its end: the last setting of its last section, and the end of that
/// line.
fn is_whole(text: &str) -> bool {
    let end = text.split_once("\n[versions]\n").map(|(_, end)| end);
    let last = |end: &str| {
        let mut lines = end.split_inclusive('\n');
        lines.any(|line| line.starts_with("platform = ") && line.ends_with('\n'))
    };
    end.is_some_and(last)
}

/// The version of the program that recorded a file, by its own words.
fn writer(text: &str) -> Option<String> {
    let (_, versions) = text.split_once("\n[versions]\n")?;
    let line = versions
        .lines()
        .find_map(|line| line.strip_prefix("ankh = "))?;
    Some(line.trim().trim_matches('"').to_owned())
}

/// A configuration, and the saved state that carries it.
struct Saved {
    config: Config,
    checkpoint: Location,
}

/// The configuration that the newest saved state was made with. One that no run made (imported
/// weights), or that is damaged, has none: what is wrong with it is said when it is read.
fn saved(checkpoints: &Location) -> Option<Saved> {
    let store = Store::at(checkpoints).ok()?;
    let step = store.latest().ok()??;
    let metadata = store.metadata(step).ok()?;
    Some(Saved {
        config: saved_config(&metadata)?,
        checkpoint: store.directory_of(step),
    })
}

/// The configuration that a saved state was made with, by its metadata, if a run made it.
pub(crate) fn saved_config(metadata: &serde_json::Value) -> Option<Config> {
    // Imported weights have a model there, and nothing of a run.
    metadata.get("examples_per_epoch")?;
    recorded_in_json(metadata.get("config")?)
}

/// The settings of a list that differ.
fn differences(list: &[(&str, &[&str])], there: &Config, here: &Config) -> Vec<Difference> {
    let kept = here.optimizer.continues(&there.optimizer);
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
    let mut found: Vec<Difference> = Vec::new();
    for (section, names) in list {
        let table = |config: &Table| config.get(*section).and_then(Value::as_table).cloned();
        let [there, here] = [table(&there), table(&here)].map(Option::unwrap_or_default);
        let mut names: Vec<&str> = match names.is_empty() {
            false => names.to_vec(),
            true => there
                .keys()
                .chain(here.keys())
                .map(String::as_str)
                .collect(),
        };
        names.dedup();
        for name in names {
            let key = format!("{section}.{name}");
            let [there, here] = [&there, &here].map(|table| table.get(name).map(in_place));
            // Of two rules, each has settings that the other has not.
            let other_rule = found.iter().any(|found| found.key == "optimizer.name");
            let same = *section == "optimizer" && (kept || other_rule);
            if there != here && !same && found.iter().all(|found| found.key != key) {
                let [there, here] = [there, here].map(|value| show(value.as_ref()));
                found.push(Difference { key, there, here });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use ankh_pjrt::HostTensor;
    use serde_json::json;

    use super::*;
    use crate::config::{Versions, resolve};

    fn tiny(set: &[&str]) -> Config {
        let set: Vec<String> = set.iter().map(|argument| (*argument).to_owned()).collect();
        resolve(Some("tiny"), &set).unwrap()
    }

    fn text(config: &Config) -> String {
        config.to_toml(&Versions {
            ankh: env!("CARGO_PKG_VERSION").into(),
            plugin_api: "0.115".into(),
            platform: "cpu".into(),
        })
    }

    fn save(directory: &Path, step: u64, metadata: serde_json::Value) {
        let store = Store::open(directory.join("checkpoints"));
        let tensor = HostTensor::new::<f32>([1], &[0.0]);
        store.save(step, &metadata, [("w", &tensor)]).unwrap();
    }

    fn run(config: &Config) -> serde_json::Value {
        json!({ "config": config, "examples_per_epoch": 7 })
    }

    #[test]
    fn a_configuration_cut_anywhere_is_made_up_for_by_the_newest_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (old, config) = (tiny(&["train.batch_size=2"]), tiny(&["mixture.a.weight=2"]));
        save(path, 10, run(&old));
        save(path, 20, run(&config));
        let whole = text(&config);
        let file = path.join("config.toml");
        // Everywhere, and with more care around the ends of lines.
        let ends = whole.match_indices('\n').flat_map(|(at, _)| [at, at + 1]);
        let cuts: Vec<usize> = (0..whole.len()).step_by(7).chain(ends).collect();
        for cut in cuts.into_iter().filter(|&cut| cut < whole.len()) {
            fs::write(&file, &whole[..cut]).unwrap();
            match Recorded::of(path) {
                Ok(Some(Recorded::Restored {
                    config: found,
                    checkpoint,
                    ..
                })) => {
                    assert_eq!(found, config);
                    assert_eq!(checkpoint.name(), "step_00000020");
                }
                other => panic!("cut at {cut}: {other:?}"),
            }
            check_same(
                path,
                &path.join("checkpoints").into(),
                &config,
                Changes::Refused,
            )
            .unwrap();
        }
        fs::write(&file, &whole).unwrap();
        let found = Recorded::of(path).unwrap();
        assert!(matches!(found, Some(Recorded::Whole(found)) if found == config));
    }

    #[test]
    fn an_emptied_configuration_is_called_that() {
        let config = tiny(&[]);
        for text in [
            "",
            " \n\t\n",
            "# a comment\n\n# another",
            "\0\0\0\0",
            RESOLVED_HEADER,
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            fs::write(path.join("config.toml"), text).unwrap();
            let message = |error: RunError| {
                let cause = std::error::Error::source(&error).unwrap().to_string();
                format!("{error}: {cause}")
            };
            let error = message(Recorded::of(path).unwrap_err());
            assert!(
                error.contains("config.toml") && error.contains("emptied"),
                "{error}"
            );
            let checkpoints: Location = path.join("checkpoints").into();
            let same = || check_same(path, &checkpoints, &config, Changes::Refused);
            assert!(message(same().unwrap_err()).contains("emptied"));
            // Imported weights say nothing of a run.
            save(path, 0, json!({ "config": { "model": config.model } }));
            assert!(message(same().unwrap_err()).contains("emptied"));
            save(path, 5, run(&config));
            same().unwrap();
            let other = tiny(&["model.d_ff=24"]);
            let error = check_same(path, &checkpoints, &other, Changes::Refused).unwrap_err();
            assert!(
                error.to_string().contains("model.d_ff is 48 there"),
                "{error}"
            );
            assert!(matches!(
                Recorded::of(path).unwrap(),
                Some(Recorded::Restored {
                    damage: Damage::Empty,
                    ..
                })
            ));
        }
    }

    #[test]
    fn a_mistake_in_the_configuration_is_not_undone_but_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let config = tiny(&[]);
        save(path, 20, run(&config));
        let cause = |text: &str| {
            fs::write(path.join("config.toml"), text).unwrap();
            let error = Recorded::of(path).unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        let whole = text(&config);
        let wrong = cause(&whole.replace("\nsteps = 20", "\nstepz = 20"));
        assert!(
            wrong.contains("train.stepz") && !wrong.contains("wrote it"),
            "{wrong}"
        );
        let newer = whole
            .replace("[versions]\n", "[versions]\nnew = 1\n")
            .replace("d_ff = 48", "d_ff = 48\nexperts = 8")
            .replace(env!("CARGO_PKG_VERSION"), "99.0.0");
        let newer = cause(&newer);
        for words in ["unknown setting `model.experts`", "ankh 99.0.0 wrote it"] {
            assert!(newer.contains(words), "{words} in {newer}");
        }
        let broken = cause(&whole.replace("[train]", "[train"));
        assert!(broken.contains("is not TOML"), "{broken}");
        // A file that a person wrote has no end to miss.
        fs::write(path.join("config.toml"), "extends = \"tiny\"\n").unwrap();
        assert!(matches!(
            Recorded::of(path).unwrap(),
            Some(Recorded::Whole(found)) if found == config
        ));
    }

    #[test]
    fn what_was_accepted_once_need_not_be_accepted_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let checkpoints: Location = path.join("checkpoints").into();
        let (before, now) = (
            tiny(&[]),
            tiny(&["train.batch_size=8", "optimizer.name=adamw"]),
        );
        save(path, 20, run(&before));
        let check = |config: &Config, changes| check_same(path, &checkpoints, config, changes);
        // Started with other settings, and stopped before it saved.
        fs::write(path.join("config.toml"), text(&now)).unwrap();
        check(&now, Changes::Refused).unwrap();
        check(&before, Changes::Refused).unwrap();
        let third = tiny(&["train.batch_size=16", "optimizer.name=adamw"]);
        let error = check(&third, Changes::Refused).unwrap_err().to_string();
        assert!(
            error.contains("batch_size is 4 there and 16 here"),
            "{error}"
        );
        check(&third, Changes::Accepted).unwrap();
    }

    #[test]
    fn what_an_earlier_version_recorded_is_read_under_todays_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let config = tiny(&["data.packing=packed", "objective.kind=masked_only"]);
        let mut recorded = run(&config);
        let data = recorded["config"]["data"].as_object_mut().unwrap();
        let packing = data.remove("packing").unwrap();
        data.insert("rows".into(), packing);
        // Every objective had all switches.
        recorded["config"]["objective"]["target_format"] = "runs".into();
        save(path, 20, recorded);
        let kind = "kind = \"masked_only\"\n";
        let all = format!("{kind}mean_span = 3.0\ntarget_format = \"runs\"\n");
        let text = text(&config)
            .replace("\npacking = ", "\nrows = ")
            .replace(kind, &all);
        assert!(text.contains(&all), "{text}");
        assert!(text.contains("\nrows = \"packed\""), "{text}");
        fs::write(path.join("config.toml"), text).unwrap();
        let found = Recorded::of(path).unwrap();
        assert!(matches!(found, Some(Recorded::Whole(found)) if found == config));
        let check = |config: &Config| {
            check_same(
                path,
                &path.join("checkpoints").into(),
                config,
                Changes::Refused,
            )
        };
        check(&config).unwrap();
        let error = check(&tiny(&[])).unwrap_err().to_string();
        assert!(
            error.contains("data.packing is \"packed\" there"),
            "{error}"
        );
    }
}
