//! What can be wrong with prepared data in itself.

use crate::split::Split;

/// Why a manifest cannot be used, or does not fit its files.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// It is no manifest, or one that breaks off.
    #[error("is not a manifest of prepared data: {0}")]
    NotAManifest(serde_json::Error),
    /// Another program's file of that name.
    #[error("expected the format {expected:?}, found {found:?}")]
    OtherFormat {
        expected: &'static str,
        found: String,
    },
    /// Data that another version of this crate wrote.
    #[error(
        "has format version {found}, but this program reads version {expected}: prepare the data again"
    )]
    OtherVersion { expected: u32, found: u32 },
    /// A field that is missing, or is another than it may be.
    #[error("{0}")]
    Field(serde_json::Error),
    /// Totals that are not those of the files.
    #[error(
        "says {rows} {split} rows with {residues} residues, but lists files with {listed_rows} and {listed_residues}"
    )]
    Totals {
        split: Split,
        rows: u64,
        residues: u64,
        listed_rows: u64,
        listed_residues: u64,
    },
    /// A file outside the directory.
    #[error("lists {name:?}, which is not the name of a file")]
    NotAFileName { name: String },
    /// A file whose parts do not add up.
    #[error("lists {name}, but {fault}")]
    Parts { name: String, fault: PartsFault },
    /// A file with other parts than are listed.
    #[error("has other row groups or pages than the manifest says")]
    OtherParts,
    /// A file that holds something else than is listed.
    #[error(
        "holds {rows} rows with {residues} residues, but the manifest says {listed_rows} and {listed_residues}"
    )]
    OtherAmount {
        rows: u64,
        residues: u64,
        listed_rows: u64,
        listed_residues: u64,
    },
}

/// Listed parts of a file that are not those of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartsFault {
    /// Row groups.
    #[error("its row groups do not add up to {rows} rows")]
    Groups { rows: u64 },
    /// Pages.
    #[error("the pages of its row group {group} do not add up to {rows} rows")]
    Pages { group: usize, rows: u64 },
    /// The footer.
    #[error("its footer is larger than its {bytes} bytes")]
    Footer { bytes: u64 },
}

/// In what a Parquet file is not laid out as prepared data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StructureFault {
    /// Other columns.
    #[error("its columns are not id, tokens, length")]
    Columns,
    /// No lengths in their column.
    #[error("it has no lengths")]
    NoLengths,
    /// No page index.
    #[error("it has no page index")]
    NoPageIndex,
    /// Pages that do not follow one another.
    #[error("its pages are out of order")]
    PageOrder,
    /// A number of rows below 0.
    #[error("a count is negative")]
    NegativeCount,
    /// An offset or a size below 0.
    #[error("a place in it is negative")]
    NegativeOffset,
    /// Parts beyond its end.
    #[error("it is shorter than its footer says")]
    TooShort,
}
