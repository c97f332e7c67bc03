//! Errors of inputs and of prepared data.

use super::{CliError, Exit};
use crate::config::setting_name;

impl From<ankh_storage::Error> for CliError {
    fn from(error: ankh_storage::Error) -> Self {
        use ankh_storage::Error as E;
        let (exit, help) = match &error {
            E::Location { .. } => (Exit::Usage, None),
            E::NoSuchBucket { .. } => (
                Exit::Usage,
                Some("check its name, and for a server of your own AWS_ENDPOINT_URL"),
            ),
            E::Request { .. } => (
                Exit::Failed,
                Some("see that the service can be reached from here, then run the same again"),
            ),
            E::Refused { .. } => (
                Exit::Failed,
                Some("docs/storage.md says where credentials are looked for"),
            ),
            _ => (Exit::Failed, None),
        };
        Self {
            help: help.map(Into::into),
            ..Self::new(exit, error)
        }
    }
}

/// An error of inputs that are read before anything is begun: all but a service that cannot be
/// reached is a wrong argument.
pub(in crate::cli) fn of_input(error: ankh_data::Error) -> CliError {
    use ankh_data::Error as E;
    use ankh_storage::Error as S;
    let is_input = match &error {
        E::Storage(error) => matches!(error, S::Io { .. } | S::NoSuchObject { .. }),
        error => !matches!(error, E::WorkerDied),
    };
    let error = CliError::from(error);
    match is_input {
        true => error.exiting(Exit::Usage),
        false => error,
    }
}

impl From<ankh_data::Error> for CliError {
    fn from(error: ankh_data::Error) -> Self {
        use ankh_data::{Error as E, Split};
        let error = match error {
            E::Storage(error) => return error.into(),
            error => error,
        };
        let (exit, help) = match &error {
            E::Setting { setting, .. } => {
                let help = format!("the setting is {}", setting_name(*setting));
                return Self::usage(error).help(help);
            }
            E::NoInputs
            | E::NoSequenceFiles { .. }
            | E::Passing { .. }
            | E::EmptyFile { .. }
            | E::Binary { line: 1, .. }
            | E::NoRecords { .. }
            | E::NoUsableRecords { .. }
            | E::UnsupportedFormat { .. } => (Exit::Usage, None),
            E::NotPrepared { .. } => (
                Exit::Usage,
                Some("make it with `pretrain prepare --output DIR INPUT...`"),
            ),
            E::AlreadyPrepared { .. } => (Exit::Usage, Some("give another --output, or --replace")),
            E::ForeignOutput { .. } | E::AlreadyInPlace { .. } => {
                (Exit::Usage, Some("give another --output"))
            }
            E::OtherPreparation { .. } => (
                Exit::Usage,
                Some(
                    "finish it with the command that began it, throw it away with --restart, or give another --output",
                ),
            ),
            E::NotMerged { .. } => (
                Exit::Usage,
                Some(
                    "when all parts are done, `pretrain prepare --merge --output` makes one data set of them",
                ),
            ),
            E::CannotMerge { .. } => (
                Exit::Failed,
                Some("prepare what is missing with --part, from the same inputs"),
            ),
            E::Busy { .. } => (Exit::Failed, Some("wait for it, or give another --output")),
            E::WrongTokenizer { .. } => (
                Exit::Usage,
                Some("set data.tokenizer to that of the data, or prepare it anew"),
            ),
            E::EmptySplit { split, .. } => (
                Exit::Failed,
                Some(match split {
                    Split::Train => {
                        "prepare more sequences, or hold fewer of them out with --validation-fraction"
                    }
                    Split::Validation => {
                        "train without looking at held-out sequences with --set evaluation.every=0, or prepare again: more sequences, a larger --validation-fraction, or where many share an id --split-by sequence"
                    }
                    Split::Test => {
                        "prepare again with a larger --test-fraction, or where many sequences share an id with --split-by sequence"
                    }
                }),
            ),
            E::NoColumn { .. } => (
                Exit::Usage,
                Some(
                    "name the column of the sequences with --column, that of their ids with --id-column",
                ),
            ),
            E::NotFasta { .. } => (
                Exit::Usage,
                Some("if it is a table, name the column of the sequences with --column"),
            ),
            E::Checksum { .. } => (Exit::Failed, Some("prepare the data anew")),
            _ => (Exit::Failed, None),
        };
        Self {
            help: help.map(Into::into),
            ..Self::new(exit, error)
        }
    }
}
