//! `manifest.json`: what a directory of prepared data holds, written last and read first.

mod checksums;
mod report;
mod settings;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ankh_storage::{Storage, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ManifestFault, Result};
use crate::split::Split;
use crate::tokenizer::{Tokenizer, Vocabulary};
pub(crate) use checksums::{COLUMNS, FileOffsets, with_pages};
pub use checksums::{Footer, GroupInfo, PageInfo, PartChecksums};
pub use report::{LengthBin, LengthReport, Nucleotides, Reason, Reject, RejectExample, Report};
pub use settings::{ColumnNames, Duplicates, Settings, SplitBy};

/// The name of the manifest in its directory.
pub const MANIFEST: &str = "manifest.json";
/// What `format` says in every manifest of ours.
pub const FORMAT: &str = "ankh prepared data";
/// Where progress files are in an output that is prepared in parts, until the parts are merged.
pub(crate) const PROGRESS_DIR: &str = ".preparing";
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
    pub checksums: PartChecksums,
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

impl Manifest {
    /// Reads the manifest of a directory, and checks that this crate understands it.
    pub fn read(storage: &Storage) -> Result<Manifest> {
        let path = PathBuf::from(storage.location(MANIFEST).to_string());
        match storage.read(MANIFEST) {
            Ok(text) => Manifest::parse(&text, &path),
            Err(error @ ankh_storage::Error::NoSuchBucket { .. }) => Err(error.into()),
            // A file in place of the directory.
            Err(ankh_storage::Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotADirectory =>
            {
                let path = path.parent().unwrap_or(&path).to_path_buf();
                Err(Error::NotPrepared { path })
            }
            Err(error) if error.is_missing() => {
                let path = path.parent().unwrap_or(&path).to_path_buf();
                let parts = storage.list(&format!("{PROGRESS_DIR}/"))?;
                Err(match parts.is_empty() {
                    true => Error::NotPrepared { path },
                    false => Error::NotMerged { path },
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest that a text is; `path` is for messages.
    pub fn parse(text: &[u8], path: &Path) -> Result<Manifest> {
        let wrong = |fault| Error::Manifest {
            path: path.to_path_buf(),
            fault,
        };
        // The version comes first: another version may differ in everything else.
        let header: Header = serde_json::from_slice(text)
            .map_err(|error| wrong(ManifestFault::NotAManifest(error)))?;
        if header.format != FORMAT {
            return Err(wrong(ManifestFault::OtherFormat {
                expected: FORMAT,
                found: header.format,
            }));
        }
        if header.format_version != FORMAT_VERSION {
            return Err(wrong(ManifestFault::OtherVersion {
                expected: FORMAT_VERSION,
                found: header.format_version,
            }));
        }
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|error| wrong(ManifestFault::Field(error)))?;
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// Whether the totals agree with the files.
    fn check(&self) -> std::result::Result<(), ManifestFault> {
        let of = |split| {
            let files = self.files.iter().filter(|file| file.split == split);
            files.fold(Amount::default(), |sum, file| Amount {
                rows: sum.rows.saturating_add(file.rows),
                residues: sum.residues.saturating_add(file.residues),
            })
        };
        for split in Split::ALL {
            let (said, listed) = (self.amount(split), of(split));
            if said != listed {
                return Err(ManifestFault::Totals {
                    split,
                    rows: said.rows,
                    residues: said.residues,
                    listed_rows: listed.rows,
                    listed_residues: listed.residues,
                });
            }
        }
        for file in &self.files {
            let name = &file.path;
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(ManifestFault::NotAFileName { name: name.clone() });
            }
            let checked = file.checksums.check(file.rows, file.bytes);
            checked.map_err(|fault| ManifestFault::Parts {
                name: name.clone(),
                fault,
            })?;
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
        let (share, name) = match (split, self.rows) {
            (Split::Train, 1) => return format!("{sequences} is held out"),
            (Split::Train, rows) => return format!("all of its {rows} sequences are held out"),
            (Split::Validation, _) => (validation_fraction, "validation"),
            (Split::Test, _) => (test_fraction, "test"),
        };
        if share == 0.0 {
            return format!("it was prepared with a {name} fraction of 0");
        }
        let by = match self.settings.split_by {
            SplitBy::Id => "id",
            SplitBy::Sequence => "sequence",
        };
        let fell = match self.rows {
            1 => format!("{sequences} did not fall"),
            _ => format!("{sequences} fell"),
        };
        format!("{fell} into the share of {share} that is held out by {by}")
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
