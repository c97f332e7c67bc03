//! What can be wrong with a configuration, and where it was set.

use std::fmt;
use std::path::PathBuf;

use crate::validation::Problem;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A preset built into the program.
    Preset(String),
    /// A file.
    File(PathBuf),
    /// A `--set` argument, as typed.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Set(argument) => write!(f, "--set {argument}"),
        }
    }
}

/// A configuration that cannot be used.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No setting of this name exists.
    #[error("unknown setting `{key}` in {origin}{}", did_you_mean(nearest))]
    UnknownKey {
        key: String,
        origin: Origin,
        nearest: Option<String>,
        known: Vec<String>,
    },
    /// A setting that has another name now.
    #[error("the setting `{key}` in {origin} is called `{now}` now")]
    RenamedKey {
        key: String,
        origin: Origin,
        now: &'static str,
    },
    /// A switch of the objective that its kind does not have.
    #[error(
        "`{key}` in {origin} has no effect on the objective {kind}; {} {}",
        if let [_] = &kinds[..] { "the kind that has it is" } else { "the kinds that have it are" },
        kinds.join(", ")
    )]
    ForeignSwitch {
        /// The dotted key.
        key: String,
        /// The layer that sets it, or that sets the kind.
        origin: Origin,
        /// The kind that lacks it.
        kind: String,
        /// The kinds that have it.
        kinds: Vec<String>,
    },
    /// Neither a preset nor a file.
    #[error("no preset or file is called `{name}`{}", did_you_mean(nearest))]
    UnknownPreset {
        name: String,
        nearest: Option<String>,
        known: Vec<String>,
    },
    /// A file that is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A relative path, where there is no working directory to take it from.
    #[error(
        "{key} is {}, and the working directory it is relative to cannot be told",
        path.display()
    )]
    NoPlace {
        key: String,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A path that no configuration can hold.
    #[error(
        "{key} is {}, which is not UTF-8: a run could not record where its data is; \
         expected a path in UTF-8",
        path.display()
    )]
    NotUnicode { key: String, path: PathBuf },
    /// A text that is not TOML.
    #[error("{origin} is not TOML: {message}")]
    Syntax { origin: Origin, message: String },
    /// A setting of the wrong type, or a name that is none of those possible.
    #[error("`{key}` in {origin} cannot be {found}: expected {expected}")]
    WrongValue {
        key: String,
        origin: Origin,
        found: String,
        expected: String,
    },
    /// A `--set` argument that has no `=`.
    #[error("--set {argument} is not of the form key=value")]
    NotAnAssignment { argument: String },
    /// A chain of `extends` that comes back to where it was.
    #[error("`extends` goes in a circle: {}", chain.join(" -> "))]
    Circle { chain: Vec<String> },
    /// Settings that are possible one by one and do not fit together or make no sense.
    #[error("{}", listed(problems))]
    Invalid { problems: Vec<Problem> },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn listed(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        several => {
            let lines: Vec<String> = several
                .iter()
                .map(|problem| format!("\n  {problem}"))
                .collect();
            format!("{} settings do not fit:{}", several.len(), lines.concat())
        }
    }
}
