//! What preparing found in the inputs, as the manifest keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// The input files some of whose records have the letters of DNA and RNA alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nucleotides: BTreeMap<String, Nucleotides>,
    /// What to look at before training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Records of an input file that may be DNA or RNA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nucleotides {
    /// Those that have the letters A, C, G, T, U and N alone.
    pub records: u64,
    /// The records kept that are long enough to tell.
    pub of: u64,
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

/// One bar of the histogram. Lengths below 16 have a bar each; from there on, the lengths from one
/// power of two to the next share eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LengthBin {
    /// The least length.
    pub from: u64,
    /// The greatest length.
    pub to: u64,
    /// Sequences.
    pub rows: u64,
}

/// Why a record is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its header names no id. Such records are kept and named by their line now; data that was
    /// prepared before has the reason.
    NoId,
    /// Its header does not begin a line, so its residues cannot be told from those before it.
    HiddenHeader,
    /// Its lines end in CR and in LF, so that its header cannot be told from its residues.
    MixedLineEnds,
    /// It is DNA or RNA, as its header says.
    NucleicAcid,
    /// Its header is followed by no residue.
    NoSequence,
    /// It has a stop before its end.
    InnerStop,
    /// It has a character that stands for no residue.
    NotAResidue,
    /// It is shorter than asked for.
    TooShort,
    /// It is longer than asked for, or than can be read.
    TooLong,
    /// Its residues are those of an earlier record.
    Duplicate,
}

impl Reason {
    /// What is wrong with a record that has this fault, whatever its residues are.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Reason::HiddenHeader => "expected '>' at the beginning of a line, found it within one",
            Reason::MixedLineEnds => "expected one kind of line end, found CR and LF",
            Reason::NucleicAcid => "expected a protein, found a header that names a nucleic acid",
            other => other.describe(),
        }
    }

    /// The reason in words.
    pub fn describe(self) -> &'static str {
        match self {
            Reason::NoId => "no id in the header",
            Reason::HiddenHeader => "a header that does not begin a line",
            Reason::MixedLineEnds => "a header that ends in CR before lines that end in LF",
            Reason::NucleicAcid => "DNA or RNA by their headers",
            Reason::NoSequence => "no sequence",
            Reason::InnerStop => "a stop inside the sequence",
            Reason::NotAResidue => "a character that is no residue",
            Reason::TooShort => "too short",
            Reason::TooLong => "too long",
            Reason::Duplicate => "the same residues as an earlier one",
        }
    }
}
