//! Sequence files to a directory of tokenised Parquet.
//!
//! Records stream through: read, tokenise, choose the split, write; memory holds one record and one
//! row group. The same inputs and options give the same bytes on any machine. The directory appears
//! whole or not at all: everything is written beside it and renamed at the end, the manifest last.
//! Whether a record is held out depends on its id alone, so that adding sequences later never moves
//! one between the splits. Ids need not be unique: a record that comes twice is kept twice.

mod output;
mod report;
mod shards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::input::{Input, RecordRef};
use crate::manifest::{
    Amount, FORMAT, FORMAT_VERSION, FileInfo, MANIFEST, Manifest, Settings, SourceInfo,
};
use crate::random::Key;
use crate::residues::{Lengths, Reason, Rejection, tokenize};
use crate::storage::StorageOptions;
use crate::tokenizer::{Tokenizer, Vocabulary};
use output::Output;
pub use report::{LengthBin, LengthReport, Reject, RejectExample, Report};
use shards::Shards;

/// What is done if the output directory holds prepared data already. A directory with anything else
/// in it is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// It is kept, and preparing fails before any work.
    #[default]
    Keep,
    /// It is replaced, once the new data is complete.
    Replace,
}

/// How to prepare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrepareOptions {
    /// Which ids to write.
    pub tokenizer: Vocabulary,
    /// The share of ids to hold out.
    pub validation_fraction: f64,
    /// Shorter sequences are left out.
    pub min_length: usize,
    /// Longer sequences are left out.
    pub max_length: Option<usize>,
    /// A file ends when it holds so many residues.
    pub file_residues: u64,
    /// What is done with data that is there already.
    pub existing: Existing,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            tokenizer: Vocabulary::Ankh,
            validation_fraction: 0.01,
            min_length: 1,
            max_length: None,
            file_residues: 1 << 28,
            existing: Existing::Keep,
        }
    }
}

/// How far preparing has come.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// The file that is being read.
    pub path: &'a Path,
    /// Bytes read of all files, as stored.
    pub bytes: u64,
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Records read.
    pub records: u64,
    /// Records kept.
    pub rows: u64,
    /// Residues kept.
    pub residues: u64,
}

/// Records between two calls of the progress callback.
const PROGRESS_EVERY: u64 = 1024;

/// Prepares the inputs, in their order, and returns the manifest that was written. `progress` is
/// called now and then, and at the end of every file.
pub fn prepare(
    inputs: &[PathBuf],
    output: impl AsRef<Path>,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest> {
    options.validate()?;
    if inputs.is_empty() {
        return Err(Error::NoInputs);
    }
    let mut total_bytes = 0;
    for path in inputs {
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        total_bytes += metadata.len();
    }
    let output = Output::begin(output.as_ref(), options.existing)?;
    let mut writer = Writer::new(&output, options);
    let mut source = Vec::new();
    for path in inputs {
        let before: u64 = source.iter().map(|source: &SourceInfo| source.bytes).sum();
        let mut told = |bytes: u64, report: &Report| {
            progress(Progress {
                path,
                bytes: before + bytes,
                total_bytes,
                records: report.records,
                rows: report.rows,
                residues: report.residues,
            });
        };
        source.push(writer.read_file(path, &mut told)?);
    }
    let manifest = writer.finish(source)?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::Manifest {
        path: output.path().join(MANIFEST),
        reason: error.to_string(),
    })?;
    output.commit(&text)?;
    Ok(manifest)
}

impl PrepareOptions {
    /// Checks each option.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.validation_fraction) {
            let reason = format!(
                "must be at least 0 and below 1, but is {}",
                self.validation_fraction
            );
            return Err(Error::setting("validation_fraction", reason));
        }
        if self.max_length.is_some_and(|most| most < self.min_length) {
            let reason = format!("must be at least min_length = {}", self.min_length);
            return Err(Error::setting("max_length", reason));
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            validation_fraction: self.validation_fraction,
            min_length: self.min_length,
            max_length: self.max_length,
        }
    }
}

/// The split of an id: its hash, as a fraction, is below the held-out share or not.
pub fn split_of(id: &str, validation_fraction: f64) -> Split {
    // A contract: another constant or hash would move sequences between the splits.
    let mut key = Key::new(0x616e_6b68_2073_706c).with(id.len() as u64);
    for chunk in id.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        key = key.with(u64::from_le_bytes(word));
    }
    match key.stream().unit() < validation_fraction {
        true => Split::Validation,
        false => Split::Train,
    }
}

struct Writer {
    tokenizer: Tokenizer,
    lengths: Lengths,
    settings: Settings,
    train: Shards,
    validation: Shards,
    report: Report,
    counts: [u64; 256],
}

impl Writer {
    fn new(output: &Output, options: &PrepareOptions) -> Writer {
        let shards = |split| Shards::new(output.path(), split, options.file_residues);
        Writer {
            tokenizer: Tokenizer::of(options.tokenizer),
            lengths: Lengths {
                min: options.min_length,
                max: options.max_length,
            },
            settings: options.settings(),
            train: shards(Split::Train),
            validation: shards(Split::Validation),
            report: Report::default(),
            counts: [0; 256],
        }
    }

    fn read_file(
        &mut self,
        path: &Path,
        progress: &mut dyn FnMut(u64, &Report),
    ) -> Result<SourceInfo> {
        let mut input = Input::open(&path.into(), &StorageOptions::default())?;
        let name = match path.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => path.display().to_string(),
        };
        let before = self.report.records;
        let mut tokens = Vec::new();
        while let Some(block) = input.next_block()? {
            block.for_each(&mut |record| {
                tokens.clear();
                self.add(&name, record, &mut tokens)?;
                if self.report.records.is_multiple_of(PROGRESS_EVERY) {
                    progress(input.bytes_read(), &self.report);
                }
                Ok(())
            })?;
        }
        progress(input.bytes_read(), &self.report);
        Ok(SourceInfo {
            name,
            bytes: input.bytes_read(),
            sha256: input.sha256(),
            records: self.report.records - before,
        })
    }

    fn add(&mut self, file: &str, record: RecordRef<'_>, tokens: &mut Vec<u8>) -> Result<()> {
        let sequence = record.sequence;
        let result = match record.id.is_empty() {
            true => Err(Rejection {
                reason: Reason::NoId,
                detail: "expected an id directly after '>'".into(),
            }),
            false => tokenize(
                self.tokenizer,
                self.lengths,
                sequence,
                record.length,
                tokens,
            ),
        };
        match result {
            Ok(changes) => {
                self.report.keep(tokens.len() as u64, changes);
                for &token in tokens.iter() {
                    self.counts[usize::from(token)] += 1;
                }
                match split_of(record.id, self.settings.validation_fraction) {
                    Split::Train => self.train.push(record.id, tokens),
                    Split::Validation => self.validation.push(record.id, tokens),
                }
            }
            Err(rejection) => {
                self.report.reject(rejection.reason, || RejectExample {
                    file: file.to_string(),
                    line: record.line,
                    id: record.id.to_string(),
                    detail: rejection.detail,
                });
                Ok(())
            }
        }
    }

    fn finish(mut self, source: Vec<SourceInfo>) -> Result<Manifest> {
        if self.report.rows == 0 {
            return Err(Error::NoUsableRecords {
                records: self.report.records,
                reasons: self.report.rejects_in_words(),
            });
        }
        self.report.finish();
        for (id, &count) in (0..=u8::MAX).zip(&self.counts) {
            if let (Some(letter), 1..) = (self.tokenizer.residue(id), count) {
                self.report.residue_counts.insert(letter, count);
            }
        }
        let mut files = self.train.finish()?;
        files.extend(self.validation.finish()?);
        let amount = |split| {
            let of_split = files.iter().filter(|file: &&FileInfo| file.split == split);
            of_split.fold(Amount::default(), |sum, file| Amount {
                rows: sum.rows + file.rows,
                residues: sum.residues + file.residues,
            })
        };
        let splits = [Split::Train, Split::Validation];
        Ok(Manifest {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            tokenizer: self.tokenizer.into(),
            rows: self.report.rows,
            residues: self.report.residues,
            splits: splits
                .map(|split| (split, amount(split)))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            files,
            source,
            settings: self.settings,
            report: self.report,
        })
    }
}
