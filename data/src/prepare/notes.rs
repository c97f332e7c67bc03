//! What a preparation writes down on its way, so that it can be continued, divided and merged.
//!
//! `plan.json` says what is prepared and how; whoever comes later with another plan is refused.
//! `chunk-00000.json` says that a chunk's files are complete, and is written after them.
//! `part-0-of-4.json` says that one of several machines has done its part.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PrepareOptions;
use super::report::Report;
use super::rows::SplitBy;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::manifest::{
    Amount, FORMAT, FORMAT_VERSION, FileInfo, Manifest, Settings, SourceInfo, TokenizerInfo, sha256,
};
use crate::tokenizer::Tokenizer;

pub(super) const PLAN: &str = "plan.json";

/// What is prepared, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The version of what is written.
    pub(super) format_version: u32,
    /// The program's version: another may write other bytes.
    pub(super) program: String,
    pub(super) tokenizer: TokenizerInfo,
    pub(super) settings: Settings,
    pub(super) inputs: Vec<PlannedInput>,
}

/// An input as it is found before it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlannedInput {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it was changed, in nanoseconds since 1970, where that can tell one content from another.
    pub(super) modified: Option<u64>,
    /// It can be read only once, so nobody can say later whether it was the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) passes: bool,
}

/// A chunk that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChunkNote {
    pub(super) plan: String,
    pub(super) chunk: u64,
    pub(super) files: Vec<FileInfo>,
    pub(super) report: Report,
}

/// A part that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartNote {
    pub(super) plan: String,
    pub(super) part: u64,
    pub(super) parts: u64,
    /// Chunks of all parts together.
    pub(super) chunks: u64,
    pub(super) source: Vec<SourceInfo>,
}

/// The name of a chunk's note.
pub(super) fn chunk_note(chunk: u64) -> String {
    format!("chunk-{chunk:05}.json")
}

impl PartNote {
    pub(super) fn name(&self) -> String {
        format!("part-{}-of-{}.json", self.part, self.parts)
    }
}

impl Plan {
    pub(super) fn new(
        inputs: Vec<PlannedInput>,
        options: &PrepareOptions,
        split_by: SplitBy,
    ) -> Plan {
        Plan {
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

    /// The plan as it is the same on every machine.
    pub(super) fn without_times(&self) -> Plan {
        let mut plan = self.clone();
        for input in &mut plan.inputs {
            input.modified = None;
        }
        plan
    }

    /// What names the plan in the other notes.
    pub(super) fn digest(&self) -> Result<String> {
        Ok(sha256(&to_json(PLAN, &self.without_times())?))
    }

    /// In what this plan differs from the one that is being followed.
    pub(super) fn differences(&self, begun: &Plan) -> Vec<String> {
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
        chunks: Vec<ChunkNote>,
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

/// Each value of the plan under its path, as text.
fn leaves(plan: &Plan) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), serde_json::json!(plan))];
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

/// A note as text.
pub(super) fn to_json(name: &str, note: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(note).map_err(|error| Error::Manifest {
        path: name.into(),
        reason: error.to_string(),
    })?;
    text.push(b'\n');
    Ok(text)
}
