//! Small files in each public format, and in each way in which they are wrong.

mod bad_input;
mod formats;

use std::fs;
use std::path::PathBuf;

use super::{Counts, Dataset, Files, Kind, Reading, Split, States};
use crate::benchmark::presets::Preset;

/// A directory of files made for a test.
struct Made(tempfile::TempDir);

impl Made {
    fn new(files: &[(&str, &str)]) -> Made {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Made(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, names: &[&str]) -> Files {
        Files {
            sequences: names.iter().map(|name| self.path(name)).collect(),
            ..Files::default()
        }
    }

    /// An error without the directory in its text.
    fn error(&self, files: &Files, reading: &Reading) -> String {
        let error = super::read(files, reading).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn reading(kind: Kind) -> Reading {
    Reading {
        kind,
        field: None,
        states: States::AsWritten,
        tests: Vec::new(),
        max_length: None,
    }
}

/// Reads files in the way of a preset.
fn preset(name: &str, made: &[(&str, &str)]) -> (Dataset, Counts) {
    let names: Vec<&str> = made.iter().map(|(name, _)| *name).collect();
    let made = Made::new(made);
    let reading = Preset::named(name).unwrap().reading(None);
    super::read(&made.files(&names), &reading).unwrap()
}

fn test() -> Option<Split> {
    Some(Split::Test("test".into()))
}
