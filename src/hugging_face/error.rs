//! What can go wrong between a Hugging Face directory and our tensors.

use std::fmt;
use std::path::PathBuf;

use ankh_storage::Location;

use super::weights_reader::Difference;
use super::wrappers;
use crate::checkpoint;

/// The result of reading or writing weights.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why weights could not be read or written.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path is neither a Hugging Face directory nor a checkpoint.
    #[error(
        "{0} holds no weights: expected a Hugging Face directory (config.json, and model.safetensors or pytorch_model.bin), a checkpoint or a run directory"
    )]
    NoWeights(Location),
    /// A Hugging Face directory without config.json.
    #[error("{} has no config.json: it is not a Hugging Face model directory", .0.display())]
    NoConfig(PathBuf),
    /// The weights are there, in a format that is not read.
    #[error(
        "{} has {found}, which is not read: expected model.safetensors or pytorch_model.bin",
        .directory.display()
    )]
    OtherFormat {
        directory: PathBuf,
        found: &'static str,
        /// What has to be installed to read it.
        installed: &'static str,
        /// What `from_pretrained` needs to be told.
        hint: &'static str,
    },
    /// A setting of config.json that the model cannot follow.
    #[error("{}: `{key}` is {found}, expected {expected}", .file.display())]
    Setting {
        file: PathBuf,
        key: &'static str,
        found: String,
        expected: &'static str,
    },
    /// A file whose contents do not match its name.
    #[error("{}: {problem}", .file.display())]
    Malformed { file: PathBuf, problem: String },
    /// The tensors are not those of the model.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// Two names of one tied tensor hold different values.
    #[error(
        "{}: `{copy}` differs from `{original}`, but the model has one embedding table",
        .place.display()
    )]
    Untied {
        place: PathBuf,
        original: String,
        copy: String,
    },
    /// The weights are of another model than the configured one.
    #[error("{weights} holds weights of another model: {}", listed(differences))]
    OtherModel {
        weights: Location,
        /// The settings that differ.
        differences: Vec<Difference>,
    },
    /// A checkpoint does not record its model.
    #[error("checkpoint {checkpoint} does not say which model it holds: {problem}")]
    NoModel {
        checkpoint: Location,
        /// What is missing or wrong in its metadata.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
}

impl Error {
    /// An [`Error::Io`] maker for `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// How a set of tensors differs from the model's parameters: every name of it.
#[derive(Debug, Default, PartialEq)]
pub struct Mismatch {
    /// Where the tensors came from.
    pub place: String,
    /// Parameters that are not there.
    pub missing: Vec<String>,
    /// Tensors the model has no use for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or element type.
    pub different: Vec<WrongTensor>,
}

/// A tensor of another shape or element type than the model's parameter has.
#[derive(Debug, PartialEq)]
pub struct WrongTensor {
    /// Its name.
    pub name: String,
    /// What the model has.
    pub expected: String,
    /// What the tensor has.
    pub found: String,
}

impl Mismatch {
    /// The error, unless there is no difference.
    pub(super) fn into_result(self) -> Result<()> {
        match self.missing.is_empty() && self.unexpected.is_empty() && self.different.is_empty() {
            true => Ok(()),
            false => Err(Error::Mismatch(Box::new(self))),
        }
    }
}

impl Mismatch {
    /// What stands before unexpected names that are missing without it, and before how many.
    fn wrapper(&self) -> Option<(&str, usize)> {
        let of = |name: &'_ String| {
            let missing = |missing: &String| {
                wrappers::before(name, missing).filter(|wrapper| !wrapper.is_empty())
            };
            self.missing.iter().find_map(missing).map(str::len)
        };
        let (first, length) = self
            .unexpected
            .iter()
            .find_map(|name| Some((name, of(name)?)))?;
        let wrapper = &first[..length];
        let count = self.unexpected.iter().filter(|name| {
            name.strip_prefix(wrapper)
                .is_some_and(|bare| self.missing.iter().any(|missing| missing == bare))
        });
        Some((wrapper, count.count()))
    }
}

fn listed(differences: &[Difference]) -> String {
    let each = differences.iter().map(|difference| {
        let Difference {
            key,
            weights,
            configured,
        } = difference;
        format!("{key} is {weights} there and {configured} here")
    });
    each.collect::<Vec<_>>().join("; ")
}

/// The first few, and how many more there are.
fn some_of(names: &[String], separator: &str) -> String {
    const SHOWN: usize = 4;
    let shown = names[..names.len().min(SHOWN)].join(separator);
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the tensors do not fit the model", self.place)?;
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", some_of(names, ", "))?;
            }
        }
        let different: Vec<String> = (self.different.iter())
            .map(|wrong| {
                let WrongTensor {
                    name,
                    expected,
                    found,
                } = wrong;
                format!("{name}: expected {expected}, found {found}")
            })
            .collect();
        if !different.is_empty() {
            write!(f, "; {}", some_of(&different, "; "))?;
        }
        if let Some((wrapper, count)) = self.wrapper() {
            write!(
                f,
                "; `{wrapper}` stands before {count} names that are missing"
            )?;
        }
        Ok(())
    }
}
