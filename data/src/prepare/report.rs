//! What preparing found: counts, lengths, frequencies, and what was left out and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::residues::{Changes, Reason};

/// Examples kept for each reason.
const EXAMPLES: usize = 5;

/// What was read, kept, changed and rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Records read.
    pub records: u64,
    /// Records kept.
    pub rows: u64,
    /// Residues of the records kept.
    pub residues: u64,
    /// Records rejected.
    pub rejected: u64,
    /// The rejected records by reason.
    pub rejects: Vec<Reject>,
    /// Letters that became `X`.
    pub replaced_by_x: u64,
    /// Gaps removed.
    pub gaps_removed: u64,
    /// Stops removed from ends.
    pub stops_removed: u64,
    /// Lower-case letters read.
    pub lower_case: u64,
    /// The lengths of the records kept.
    pub lengths: LengthReport,
    /// How often each residue occurs.
    pub residue_counts: BTreeMap<char, u64>,
}

/// The records rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// The first few.
    pub examples: Vec<RejectExample>,
}

/// One rejected record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectExample {
    /// The input file's name.
    pub file: String,
    /// The line of its header, or the row of the table, counted from 1.
    pub line: u64,
    /// Its id.
    pub id: String,
    /// What is wrong with it.
    pub detail: String,
}

/// How long sequences are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LengthReport {
    /// The shortest.
    pub min: u64,
    /// The longest.
    pub max: u64,
    /// Their mean.
    pub mean: f64,
    /// How many have a length of at least `from` and at most `to`.
    pub histogram: Vec<LengthBin>,
}

/// One bar of the histogram; each spans twice the lengths of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthBin {
    /// The least length.
    pub from: u64,
    /// The greatest length.
    pub to: u64,
    /// Sequences.
    pub rows: u64,
}

impl Report {
    pub(super) fn keep(&mut self, length: u64, changes: Changes) {
        self.records += 1;
        self.lengths.min = match self.rows {
            0 => length,
            _ => self.lengths.min.min(length),
        };
        self.lengths.max = self.lengths.max.max(length);
        self.rows += 1;
        self.residues += length;
        self.replaced_by_x += changes.replaced;
        self.gaps_removed += changes.gaps;
        self.stops_removed += changes.stops;
        self.lower_case += changes.lower_case;
        let bin = length.max(1).ilog2() as usize;
        while self.lengths.histogram.len() <= bin {
            let from = 1u64 << self.lengths.histogram.len();
            self.lengths.histogram.push(LengthBin {
                from,
                to: 2 * from - 1,
                rows: 0,
            });
        }
        self.lengths.histogram[bin].rows += 1;
    }

    pub(super) fn reject(&mut self, reason: Reason, example: impl FnOnce() -> RejectExample) {
        self.records += 1;
        self.rejected += 1;
        let place = match self.rejects.iter().position(|r| r.reason >= reason) {
            Some(place) if self.rejects[place].reason == reason => place,
            place => {
                let place = place.unwrap_or(self.rejects.len());
                let new = Reject {
                    reason,
                    count: 0,
                    examples: Vec::new(),
                };
                self.rejects.insert(place, new);
                place
            }
        };
        let reject = &mut self.rejects[place];
        reject.count += 1;
        if reject.examples.len() < EXAMPLES {
            reject.examples.push(example());
        }
    }

    pub(super) fn finish(&mut self) {
        if self.rows > 0 {
            self.lengths.mean = self.residues as f64 / self.rows as f64;
        }
    }

    /// The rejected records in one line: `2 no sequence (first: a.fasta, line 7, P12345: 0 residues)`.
    pub fn rejects_in_words(&self) -> String {
        let words = self.rejects.iter().map(|reject| {
            let mut text = format!("{} {}", reject.count, reject.reason.describe());
            if let Some(first) = reject.examples.first() {
                let RejectExample {
                    file,
                    line,
                    id,
                    detail,
                } = first;
                text += &format!(" (first: {file}, line {line}, {id}: {detail})");
            }
            text
        });
        words.collect::<Vec<_>>().join("; ")
    }
}
