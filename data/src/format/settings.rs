//! How prepared data was made, as its manifest says.

use serde::{Deserialize, Serialize};

/// The options that shaped the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The share of ids that goes to validation.
    pub validation_fraction: f64,
    /// The share of ids that goes to the test.
    pub test_fraction: f64,
    /// Shorter sequences were left out.
    pub min_length: usize,
    /// Longer sequences were left out.
    pub max_length: Option<usize>,
    /// What was done with repeated sequences.
    pub duplicates: Duplicates,
    /// The records of the inputs that share their files.
    pub chunk_records: u64,
    /// What decided which split a row is in; not written where it was the id.
    #[serde(default, skip_serializing_if = "SplitBy::is_id")]
    pub split_by: SplitBy,
    /// What the columns of tables are called; not written where they were looked for by the usual
    /// names.
    #[serde(default, skip_serializing_if = "ColumnNames::are_usual")]
    pub columns: ColumnNames,
}

/// What is done with records that have the same residues as an earlier one, of any input and split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// They are kept.
    #[default]
    Keep,
    /// They are left out. The inputs are read twice.
    Remove,
}

/// What decides whether a record is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Its id.
    #[default]
    Id,
    /// Its letters, as they are written. Taken where all records of the inputs have one and the
    /// same id, by which they would all be in one split.
    Sequence,
}

impl SplitBy {
    /// Whether it is the id, as nearly always.
    pub fn is_id(&self) -> bool {
        *self == SplitBy::Id
    }
}

/// What the columns of the tables are called, where it is not one of the usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNames {
    /// The column of the sequences. The usual names are `sequence`, `seq`, `aa_sequence`,
    /// `protein_sequence`, `reference sequence` and `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    /// The column of the ids. The usual names are `id`, `accession`, `entry`, `name`,
    /// `primary_accession`, `uniref_id`, `cluster id` and `cluster_id`. Without such a column, rows
    /// are numbered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl ColumnNames {
    /// Whether no name was given.
    pub fn are_usual(&self) -> bool {
        *self == ColumnNames::default()
    }
}
