//! One data set from many machines.
//!
//! Part `i` of `n` makes the chunks whose number leaves `i` when divided by `n`. Parts do not
//! communicate: each reads all inputs, counts the records and makes its own chunks.
//! [`super::merge`] joins the parts.

use std::fmt;
use std::str::FromStr;

use ankh_storage::Location;
use serde::Serialize;

use super::progress::PartProgress;
use super::staging::StagingDir;
use super::work::Job;
use super::{PrepareOptions, ProgressUpdate, Unfinished};
use crate::error::{Error, Result};
use crate::format::{Amount, Report, SourceInfo};

/// One of several machines' shares of the work, counted from 0 as Kubernetes counts the pods of an
/// Indexed Job: `0/4` to `3/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: u64,
    of: u64,
}

impl Part {
    /// Part `index` of `of`; nothing unless `index < of`.
    pub fn new(index: u64, of: u64) -> Option<Part> {
        (index < of).then_some(Part { index, of })
    }

    fn owns(self, chunk: u64) -> bool {
        chunk % self.of == self.index
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Part> {
        let part = text
            .split_once('/')
            .and_then(|(index, of)| Part::new(index.parse().ok()?, of.parse().ok()?));
        part.ok_or_else(|| Error::NotAPart {
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What a part has made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartReport {
    /// Which part of how many.
    pub part: u64,
    /// How many parts there are.
    pub parts: u64,
    /// Its chunks.
    pub chunks: u64,
    /// The chunks of all parts.
    pub all_chunks: u64,
    /// Rows and residues in its chunks.
    pub amount: Amount,
    /// The inputs, which every part reads.
    pub source: Vec<SourceInfo>,
    /// What to look at before training on its chunks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Prepares the chunks that belong to a part, in the output itself. Other parts may be prepared in
/// the same output at the same time, here or on other machines, or in outputs of their own. The
/// data can be used after [`super::merge`]. Work that was interrupted is continued.
pub fn prepare_part(
    inputs: &[Location],
    output: &Location,
    part: Part,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(ProgressUpdate<'_>),
) -> Result<PartReport> {
    let job = Job::new(inputs, options, progress)?;
    if let Some(input) = job.passing() {
        return Err(Error::Passing {
            name: input.name.clone(),
            reason: "every part reads all inputs",
        });
    }
    let label = format!("part-{}-of-{}", part.index, part.of);
    let continued = Unfinished::Continue;
    let staging = StagingDir::within(
        output,
        &job.preparation,
        &label,
        continued,
        &options.storage,
    )?;
    let made = job.make(&staging, |chunk| part.owns(chunk), progress)?;
    staging.end_part(PartProgress {
        preparation: String::new(),
        part: part.index,
        parts: part.of,
        chunks: made.all_chunks,
        source: made.source.clone(),
    })?;
    let mut found = Report::default();
    for done in made.chunks.values() {
        found.add(&done.report);
    }
    found.finish(&made.source);
    let amounts = made.chunks.values().map(|done| &done.report);
    Ok(PartReport {
        part: part.index,
        parts: part.of,
        chunks: made.chunks.len() as u64,
        all_chunks: made.all_chunks,
        amount: amounts.fold(Amount::default(), |sum, report| Amount {
            rows: sum.rows + report.rows,
            residues: sum.residues + report.residues,
        }),
        source: made.source,
        warnings: found.warnings,
    })
}
