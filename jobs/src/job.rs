//! What a job is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::digest::{sha256, sha256_of_file};
use crate::error::Error;
use crate::place::Place;

/// A program with its configuration, and where it runs. It is what a name stands for, here and on
/// the machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub name: Name,
    /// What it computes on.
    pub slice: Slice,
    /// The program.
    pub program: Program,
    /// The configuration, complete, as a file that the program reads.
    pub configuration: String,
    /// Further arguments of the program.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub place: Place,
}

/// A job's name, also that of its machine and of its service there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The facts of a slice that a job needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// As the program takes it: `v5e-16`.
    pub name: String,
    /// The generation of its TPUs, if it has any.
    pub generation: Option<String>,
    /// The number in its accelerator type.
    pub size: usize,
    /// Its machines.
    pub hosts: usize,
    /// Its chips.
    pub chips: usize,
    /// Its torus: `2x4x4`.
    pub topology: String,
}

/// The program of a job; none where the place has it already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The file on this machine. Another one with the same bytes is the same program.
    #[serde(skip)]
    pub path: PathBuf,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Program {
    /// A program that is a file of this machine.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_file(path: &Path) -> Result<Program, Error> {
        Ok(Program {
            path: path.to_owned(),
            sha256: sha256_of_file(path)?,
        })
    }
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names of machines and Kubernetes objects are at most 63 letters, and others are made of these.
const LONGEST_NAME: usize = 40;

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name, Error> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ends = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
        match ends && text.len() <= LONGEST_NAME && text.chars().all(allowed) {
            true => Ok(Name(text.to_owned())),
            false => Err(Error::Name(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Name, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Slice {
    /// What Google's tools call its chips.
    pub(crate) fn accelerator(&self) -> Option<&'static Accelerator> {
        Accelerator::of(self.generation.as_deref()?)
    }

    /// What Google's tools call it: `v5litepod-16`.
    pub(crate) fn accelerator_type(&self) -> Result<String, Error> {
        Ok(format!("{}-{}", self.tpus()?.kind, self.size))
    }

    pub(crate) fn tpus(&self) -> Result<&'static Accelerator, Error> {
        let none = || {
            Error::Place(format!(
                "{} is no slice of TPUs that can be rented",
                self.name
            ))
        };
        self.accelerator().ok_or_else(none)
    }
}

impl Job {
    /// The arguments with which the program runs on each host.
    pub(crate) fn command(&self, configuration: &str, run_dir: &str) -> Vec<String> {
        let own = ["--slice", &self.slice.name, "--config", configuration];
        let own = own.into_iter().chain(["--run-dir", run_dir, "--resume"]);
        let own = own.map(str::to_owned);
        own.chain(self.arguments.iter().cloned()).collect()
    }

    /// A short name of what it is, which two jobs that differ do not share.
    pub(crate) fn fingerprint(&self) -> String {
        let text = serde_json::to_string(self).expect("words and numbers are JSON");
        sha256(text.as_bytes())[..16].to_owned()
    }

    /// What differs between this job and an earlier one of its name, in words.
    pub fn differences(&self, earlier: &Job) -> Vec<String> {
        let (new, old) = (fields(self), fields(earlier));
        let keys: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
        let value = |of: &BTreeMap<String, String>, key: &String| {
            let short = |text: &String| match text.len() == 64 {
                true => text[..12].to_owned(),
                false => text.clone(),
            };
            of.get(key).map_or_else(|| "nothing".to_owned(), short)
        };
        let mut differences: Vec<String> = keys
            .into_iter()
            .filter(|key| new.get(*key) != old.get(*key))
            .map(|key| {
                format!(
                    "{key} is {} there and {} here",
                    value(&old, key),
                    value(&new, key)
                )
            })
            .collect();
        if differences.is_empty() && self.configuration != earlier.configuration {
            differences.push("the text of the configuration".into());
        }
        differences
    }
}

/// Every value of a job by its name; of the configuration by section and key.
fn fields(job: &Job) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut value = serde_json::to_value(job).expect("words and numbers are JSON");
    if let Some(object) = value.as_object_mut() {
        object.remove("configuration");
    }
    flatten("", &value, &mut fields);
    let mut section = String::new();
    for line in job.configuration.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_matches(['[', ']']));
        } else if let Some((key, value)) = line.split_once(" = ") {
            fields.insert(format!("{section}{key}"), value.to_owned());
        }
    }
    fields
}

fn flatten(prefix: &str, value: &serde_json::Value, fields: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                let separator = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{separator}{key}"), value, fields);
            }
        }
        serde_json::Value::Null => {}
        other => {
            let text = match other.as_str() {
                Some(text) => text.to_owned(),
                None => other.to_string(),
            };
            fields.insert(prefix.to_owned(), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_machines_can_be_called() {
        for good in ["a", "large-2", "ankh-large-uniref50"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "a".repeat(41);
        for bad in ["", "Large", "2-large", "large-", "a_b", "a b", &long] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
