//! `manifest.json`: what a directory of prepared data holds, written last and read first.

mod pieces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::input::ColumnNames;
use crate::prepare::{Duplicates, NOTES, Report, SplitBy};
use crate::storage::Storage;
use crate::tokenizer::{Tokenizer, Vocabulary};
pub(crate) use pieces::{COLUMNS, Places, with_pages};
pub use pieces::{Footer, GroupInfo, PageInfo, Pieces};

/// The name of the manifest in its directory.
pub const MANIFEST: &str = "manifest.json";
/// What `format` says in every manifest of ours.
pub const FORMAT: &str = "ankh prepared data";
/// The version of the layout this crate writes and reads.
pub const FORMAT_VERSION: u32 = 2;

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// The layout's version, [`FORMAT_VERSION`] when written by this crate.
    pub format_version: u32,
    /// The tokenizer the token ids belong to.
    pub tokenizer: TokenizerInfo,
    /// Rows of all splits together.
    pub rows: u64,
    /// Residues of all splits together.
    pub residues: u64,
    /// Rows and residues of each split.
    pub splits: BTreeMap<Split, Amount>,
    /// The files, in the order of their rows.
    pub files: Vec<FileInfo>,
    /// What the data was made from.
    pub source: Vec<SourceInfo>,
    /// How the data was made.
    pub settings: Settings,
    /// What was found on the way.
    pub report: Report,
}

/// The tokenizer, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerInfo {
    /// Its id order.
    pub name: Vocabulary,
    /// Its number of ids.
    pub vocabulary_size: usize,
}

impl From<Tokenizer> for TokenizerInfo {
    fn from(tokenizer: Tokenizer) -> Self {
        TokenizerInfo {
            name: tokenizer.vocabulary(),
            vocabulary_size: tokenizer.vocabulary_size(),
        }
    }
}

/// Rows and the residues in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Sequences.
    pub rows: u64,
    /// Letters of those sequences.
    pub residues: u64,
}

/// One Parquet file of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name in the directory.
    pub path: String,
    /// The split its rows belong to.
    pub split: Split,
    /// Its rows.
    pub rows: u64,
    /// Its residues.
    pub residues: u64,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// What verifies parts of it.
    #[serde(flatten)]
    pub pieces: Pieces,
}

/// One input file the data was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its name, without the directory; with the way from there, if the directory was given.
    pub name: String,
    /// Its size as stored, so compressed if it is.
    pub bytes: u64,
    /// The SHA-256 of those bytes, in hexadecimal.
    pub sha256: String,
    /// Records read from it.
    pub records: u64,
    /// What was wrong with it, though it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

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
    /// What the columns of tables are called; not written where they were looked for by the usual names.
    #[serde(default, skip_serializing_if = "ColumnNames::are_usual")]
    pub columns: ColumnNames,
}

impl Manifest {
    /// Reads the manifest of a directory, and checks that this crate understands it.
    pub fn read(storage: &Storage) -> Result<Manifest> {
        let path = PathBuf::from(storage.location(MANIFEST).to_string());
        match storage.read(MANIFEST) {
            Ok(text) => Manifest::parse(&text, &path),
            Err(error @ Error::NoSuchBucket { .. }) => Err(error),
            Err(error) if error.is_missing() => {
                let path = path.parent().unwrap_or(&path).to_path_buf();
                let parts = storage.list(&format!("{NOTES}/"))?;
                Err(match parts.is_empty() {
                    true => Error::NotPrepared { path },
                    false => Error::NotMerged { path },
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The manifest that a text is; `path` is for messages.
    pub fn parse(text: &[u8], path: &Path) -> Result<Manifest> {
        let wrong = |reason: String| Error::Manifest {
            path: path.to_path_buf(),
            reason,
        };
        // The version comes first: another version may differ in everything else.
        let header: Header = serde_json::from_slice(text)
            .map_err(|error| wrong(format!("is not a manifest of prepared data: {error}")))?;
        if header.format != FORMAT {
            let found = header.format;
            return Err(wrong(format!(
                "expected the format {FORMAT:?}, found {found:?}"
            )));
        }
        if header.format_version != FORMAT_VERSION {
            let found = header.format_version;
            return Err(wrong(format!(
                "has format version {found}, but this program reads version {FORMAT_VERSION}: prepare the data again"
            )));
        }
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// Whether the totals agree with the files.
    fn check(&self) -> std::result::Result<(), String> {
        let of = |split| {
            let files = self.files.iter().filter(|file| file.split == split);
            files.fold(Amount::default(), |sum, file| Amount {
                rows: sum.rows.saturating_add(file.rows),
                residues: sum.residues.saturating_add(file.residues),
            })
        };
        for split in Split::ALL {
            let (said, summed) = (self.amount(split), of(split));
            if said != summed {
                return Err(format!(
                    "says {} {split} rows with {} residues, but lists files with {} and {}",
                    said.rows, said.residues, summed.rows, summed.residues
                ));
            }
        }
        for file in &self.files {
            let name = &file.path;
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(format!("lists {name:?}, which is not the name of a file"));
            }
            let pieces = file.pieces.check(file.rows, file.bytes);
            pieces.map_err(|reason| format!("lists {name}, but {reason}"))?;
        }
        Ok(())
    }

    /// What a split holds.
    pub fn amount(&self, split: Split) -> Amount {
        self.splits.get(&split).copied().unwrap_or_default()
    }

    /// How it comes that a split has no rows, in words.
    pub fn why_empty(&self, split: Split) -> String {
        let sequences = match self.rows {
            1 => "its one sequence".to_string(),
            rows => format!("none of its {rows} sequences"),
        };
        let Settings {
            validation_fraction,
            test_fraction,
            ..
        } = self.settings;
        let (share, option) = match (split, self.rows) {
            (Split::Train, 1) => return format!("{sequences} is held out"),
            (Split::Train, rows) => return format!("all of its {rows} sequences are held out"),
            (Split::Validation, _) => (validation_fraction, "--validation-fraction"),
            (Split::Test, _) => (test_fraction, "--test-fraction"),
        };
        if share == 0.0 {
            return format!("it was prepared with {option} 0");
        }
        let by = match self.settings.split_by {
            SplitBy::Id => "id",
            SplitBy::Sequence => "sequence",
        };
        let fell = match self.rows {
            1 => format!("{sequences} did not fall"),
            _ => format!("{sequences} fell"),
        };
        format!("{fell} into the share of {share} that is held out by {by} ({option})")
    }
}

#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u32,
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
