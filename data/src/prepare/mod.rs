//! Sequence files to a directory of tokenised Parquet, on all cores or on many machines.
//!
//! Records stream through: cut into blocks, tokenised by workers, put in order again, encoded by
//! workers, written in order. Every 2^20 records of the inputs, a *chunk*, have files of their own,
//! so that the bytes of a file are a function of the inputs and the options: not of the number of
//! threads, nor of who made which chunk, nor of how often it was interrupted. A chunk that is done
//! is recorded; who starts again goes on after it. Whether a record is held out depends on its id
//! alone, so that adding sequences later never moves one between the splits. Ids need not be
//! unique; where all records have one and the same, their letters take its place.
//!
//! Memory does not grow with the inputs: 64 MiB, and 64 MiB a thread; where they hold nothing but
//! sequences of many million residues, 320 MiB a thread. `docs/design/prepare.md` has the argument.

mod collect;
mod duplicates;
mod engine;
mod groups;
pub mod input;
mod inputs;
mod invisible;
mod merge;
mod nucleotides;
mod parts;
mod plot;
mod progress;
mod report;
pub mod residues;
mod rows;
mod sort;
mod staging;
mod work;

use ankh_storage::{Location, StorageOptions};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Setting};
use crate::format::{ColumnNames, Duplicates, Manifest, SplitBy};
use crate::tokenizer::Vocabulary;
pub use merge::merge;
pub use parts::{Part, PartReport, prepare_part};
pub use rows::Shares;
use staging::StagingDir;
use work::Job;

/// What is done if the output holds prepared data already. A directory with anything else in it is
/// never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// It is kept, and preparing fails before any work.
    #[default]
    Keep,
    /// It is replaced, once the new data is complete.
    Replace,
}

/// What is done with work that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// It is continued. If it was begun with other inputs or options, preparing fails before any
    /// work.
    #[default]
    Continue,
    /// It is thrown away.
    Discard,
}

/// How to prepare.
#[derive(Clone, Debug, PartialEq)]
pub struct PrepareOptions {
    /// Which ids to write.
    pub tokenizer: Vocabulary,
    /// The share of ids to hold out for evaluation while training.
    pub validation_fraction: f64,
    /// The share of ids to hold out for the end.
    pub test_fraction: f64,
    /// Shorter sequences are left out.
    pub min_length: usize,
    /// Longer sequences are left out.
    pub max_length: Option<usize>,
    /// What is done with repeated sequences.
    pub duplicates: Duplicates,
    /// What decides whether a record is held out; without, its id, unless all have the same.
    pub split_by: Option<SplitBy>,
    /// What the columns of tables are called.
    pub columns: ColumnNames,
    /// So many records of the inputs make a chunk, which has files of its own.
    pub chunk_records: u64,
    /// Worker threads; 0 for one a core. They change no byte.
    pub threads: usize,
    /// What is done with data that is there already.
    pub existing: Existing,
    /// What is done with work that was interrupted.
    pub unfinished: Unfinished,
    /// How remote inputs and outputs are reached.
    pub storage: StorageOptions,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            tokenizer: Vocabulary::Ankh,
            validation_fraction: 0.01,
            test_fraction: 0.0,
            min_length: 1,
            max_length: None,
            duplicates: Duplicates::Keep,
            split_by: None,
            columns: ColumnNames::default(),
            chunk_records: 1 << 20,
            threads: 0,
            existing: Existing::Keep,
            unfinished: Unfinished::Continue,
            storage: StorageOptions::default(),
        }
    }
}

/// What the inputs are being read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// To find a second id, where the first records all have the same.
    CompareIds,
    /// To find the records that repeat earlier ones.
    FindDuplicates,
    /// To write the rows.
    Write,
}

/// How far preparing has come.
#[derive(Clone, Debug)]
pub struct ProgressUpdate<'a> {
    /// What the inputs are being read for.
    pub pass: Pass,
    /// The input that is being read.
    pub input: &'a str,
    /// Bytes read of all inputs in this pass, as stored.
    pub bytes: u64,
    /// Bytes of all inputs together.
    pub total_bytes: u64,
    /// Records read in this pass.
    pub records: u64,
    /// Rows made, in this run or one before it.
    pub rows: u64,
    /// Residues of those rows.
    pub residues: u64,
}

/// Prepares the inputs, in their order, and returns the manifest that was written. `progress` is
/// called now and then, and at the end.
///
/// A directory or a prefix stands for the sequence files below it, in the order of their names; `-`
/// for standard input, which is read once: work on it cannot be continued, nor divided.
///
/// A local output appears whole or not at all. A remote one gets its manifest last, and must not
/// hold prepared data before. Work that was interrupted is continued: the inputs are read again,
/// but the chunks that were done are only counted.
pub fn prepare(
    inputs: &[Location],
    output: &Location,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(ProgressUpdate<'_>),
) -> Result<Manifest> {
    let job = Job::new(inputs, options, progress)?;
    let staging = match output.local() {
        Some(path) => {
            StagingDir::beside(path, &job.preparation, options.existing, options.unfinished)?
        }
        None => {
            let (unfinished, storage) = (options.unfinished, &options.storage);
            StagingDir::within(output, &job.preparation, "whole", unfinished, storage)?
        }
    };
    let made = job.make(&staging, |_| true, progress).and_then(|made| {
        let chunks = made.chunks.into_values().collect();
        job.preparation.clone().manifest(made.source, chunks)
    });
    match made {
        Ok(manifest) => {
            staging.commit(&manifest)?;
            Ok(manifest)
        }
        Err(error) => {
            match job.passing() {
                Some(_) => staging.discard(),
                None => staging.abandon(&error),
            }
            Err(error)
        }
    }
}

impl PrepareOptions {
    /// Checks each option.
    pub fn validate(&self) -> Result<()> {
        let shares = [
            ("validation_fraction", self.validation_fraction),
            ("test_fraction", self.test_fraction),
        ];
        for (name, share) in shares {
            if !(0.0..1.0).contains(&share) {
                let reason = format!("must be at least 0 and below 1, but is {share}");
                return Err(Error::setting(Setting::Prepare(name), reason));
            }
        }
        if self.validation_fraction + self.test_fraction >= 1.0 {
            let reason = "and validation_fraction must leave something to train on";
            return Err(Error::setting(Setting::Prepare("test_fraction"), reason));
        }
        if self.max_length.is_some_and(|most| most < self.min_length) {
            let reason = format!("must be at least min_length = {}", self.min_length);
            return Err(Error::setting(Setting::Prepare("max_length"), reason));
        }
        if self.chunk_records == 0 {
            return Err(Error::setting(
                Setting::Prepare("chunk_records"),
                "must be at least 1, but is 0",
            ));
        }
        Ok(())
    }
}
