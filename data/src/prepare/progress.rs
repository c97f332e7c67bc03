//! Progress files of a preparation, by which it can be continued, split into parts and merged.
//!
//! `plan.json` records what is prepared and how; a later process with other inputs or options is
//! refused. `chunk-00000.json` records that a chunk's files are complete, and is written after
//! them. `part-0-of-4.json` records that one of several machines has finished its part.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PrepareOptions;
use crate::error::{Error, Result};
use crate::format::{
    Amount, FORMAT, FORMAT_VERSION, FileInfo, Manifest, Report, Settings, SourceInfo, SplitBy,
    TokenizerInfo, sha256,
};
use crate::split::Split;
use crate::tokenizer::Tokenizer;

pub(super) const PREPARATION: &str = "plan.json";

/// What is prepared, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Preparation {
    /// The version of what is written.
    pub(super) format_version: u32,
    /// The program's version: another may write other bytes.
    pub(super) program: String,
    pub(super) tokenizer: TokenizerInfo,
    pub(super) settings: Settings,
    pub(super) inputs: Vec<InputStamp>,
}

/// An input as it is found before it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputStamp {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it was changed, in nanoseconds since 1970, where that can tell one content from
    /// another.
    pub(super) modified: Option<u64>,
    /// It can be read only once, so nobody can say later whether it was the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) passes: bool,
}

/// A chunk that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChunkProgress {
    #[serde(rename = "plan")]
    pub(super) preparation: String,
    pub(super) chunk: u64,
    pub(super) files: Vec<FileInfo>,
    pub(super) report: Report,
}

/// A part that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartProgress {
    #[serde(rename = "plan")]
    pub(super) preparation: String,
    pub(super) part: u64,
    pub(super) parts: u64,
    /// Chunks of all parts together.
    pub(super) chunks: u64,
    pub(super) source: Vec<SourceInfo>,
}

/// The name of the file that says that a chunk is done.
pub(super) fn chunk_file(chunk: u64) -> String {
    format!("chunk-{chunk:05}.json")
}

impl PartProgress {
    pub(super) fn name(&self) -> String {
        format!("part-{}-of-{}.json", self.part, self.parts)
    }
}

impl Preparation {
    pub(super) fn new(
        inputs: Vec<InputStamp>,
        options: &PrepareOptions,
        split_by: SplitBy,
    ) -> Preparation {
        Preparation {
            format_version: FORMAT_VERSION,
            program: concat!("ankh-data ", env!("CARGO_PKG_VERSION")).into(),
            tokenizer: Tokenizer::of(options.tokenizer).into(),
            settings: Settings {
                validation_fraction: options.validation_fraction,
                test_fraction: options.test_fraction,
                min_length: options.min_length,
                max_length: options.max_length,
                duplicates: options.duplicates,
                chunk_records: options.chunk_records,
                split_by,
                columns: options.columns.clone(),
            },
            inputs,
        }
    }

    /// The preparation as it is the same on every machine.
    pub(super) fn without_times(&self) -> Preparation {
        let mut preparation = self.clone();
        for input in &mut preparation.inputs {
            input.modified = None;
        }
        preparation
    }

    /// What names the preparation in the other files.
    pub(super) fn digest(&self) -> Result<String> {
        Ok(sha256(&to_json(PREPARATION, &self.without_times())?))
    }

    /// In what this preparation differs from the one that was begun.
    pub(super) fn differences(&self, begun: &Preparation) -> Vec<String> {
        if let Some(input) = self.inputs.iter().find(|input| input.passes) {
            let name = &input.name;
            return vec![format!(
                "{name} can be read only once, so work on it cannot be continued"
            )];
        }
        let (now, then) = (leaves(self), leaves(begun));
        let names = now.keys().chain(then.keys()).collect::<BTreeSet<_>>();
        let differing = names
            .into_iter()
            .filter(|name| now.get(*name) != then.get(*name));
        let shown = |value: Option<&String>| value.map_or("nothing", String::as_str).to_string();
        differing
            .map(|name| {
                let (now, then) = (shown(now.get(name)), shown(then.get(name)));
                format!("{name} is {now}, but was {then}")
            })
            .collect()
    }

    /// The manifest of all chunks.
    pub(super) fn manifest(
        self,
        source: Vec<SourceInfo>,
        chunks: Vec<ChunkProgress>,
    ) -> Result<Manifest> {
        let mut report = Report::default();
        let mut files = Vec::new();
        for chunk in chunks {
            report.add(&chunk.report);
            files.extend(chunk.files);
        }
        if report.records == 0 {
            let inputs: Vec<String> = source.into_iter().map(|source| source.name).collect();
            return Err(Error::NoRecords {
                inputs: inputs.join(", "),
            });
        }
        if report.rows == 0 {
            return Err(Error::NoUsableRecords {
                records: report.records,
                reasons: report.rejects_in_words(),
            });
        }
        report.finish(&source);
        // Stable: the chunks of a split stay in their order.
        files.sort_by_key(|file| file.split);
        let mut splits = BTreeMap::from(Split::ALL.map(|split| (split, Amount::default())));
        for file in &files {
            let amount = splits.entry(file.split).or_default();
            amount.rows += file.rows;
            amount.residues += file.residues;
        }
        Ok(Manifest {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            tokenizer: self.tokenizer,
            rows: report.rows,
            residues: report.residues,
            splits,
            files,
            source,
            settings: self.settings,
            report,
        })
    }
}

/// Each value of the preparation under its path, as text.
fn leaves(preparation: &Preparation) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), serde_json::json!(preparation))];
    while let Some((path, value)) = left.pop() {
        let below = |name: &str| match path.is_empty() {
            true => name.to_string(),
            false => format!("{path}.{name}"),
        };
        match value {
            Value::Object(fields) => {
                left.extend(
                    fields
                        .into_iter()
                        .map(|(name, value)| (below(&name), value)),
                );
            }
            Value::Array(items) => {
                let items = (0..).zip(items);
                left.extend(items.map(|(index, value)| (below(&format!("{index}")), value)));
            }
            value => {
                found.insert(path, value.to_string());
            }
        }
    }
    found
}

/// A progress file as text.
pub(super) fn to_json(name: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::Progress {
        location: name.into(),
        reason: error.to_string(),
    })?;
    text.push(b'\n');
    Ok(text)
}
