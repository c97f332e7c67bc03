//! Errors of weights, and of what is done with them.

use super::{CliError, Exit, of_input};
use crate::generate::Fault;
use crate::inference::JournalError;
use crate::{benchmark, evaluate, generate, hugging_face, inference, score};

impl From<generate::Error> for CliError {
    fn from(error: generate::Error) -> Self {
        match error {
            generate::Error::Inference(error) => error.into(),
            generate::Error::Journal(error) => error.into(),
            error @ (generate::Error::NotFasta { .. }
            | generate::Error::NoPrompts(_)
            | generate::Error::File { verb: "read", .. }) => Self::usage(error),
            error @ generate::Error::Prompt { .. } => {
                let help = match &error {
                    generate::Error::Prompt {
                        fault: Fault::NothingToFill { .. },
                        ..
                    } => {
                        "mark places with <extra_id_0>, <extra_id_1> ..., or add residues with --extend N"
                    }
                    generate::Error::Prompt {
                        fault: Fault::TooLong { .. },
                        ..
                    } => {
                        "shorten it, or raise --max-length: memory grows with the square of the length"
                    }
                    _ => "mend the prompt, and run the command once more",
                };
                Self::usage(error).help(help)
            }
            error @ generate::Error::OutputExists(_) => {
                Self::usage(error).help("remove it, name another --output, or pass --replace")
            }
            error @ generate::Error::NotFinite { .. } => {
                Self::failed(error).help("try --dtype float32; see that the weights are whole")
            }
            error => Self::failed(error),
        }
    }
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        match error {
            error @ JournalError::Other { .. } => Self::usage(error).help(
                "finish it with the command that began it, throw it away with --restart, or give another --output",
            ),
            error @ JournalError::Busy { .. } => {
                Self::failed(error).help("wait for it, or give another --output")
            }
            error @ JournalError::File { .. } => Self::failed(error),
        }
    }
}

impl From<inference::Error> for CliError {
    fn from(error: inference::Error) -> Self {
        match error {
            inference::Error::Weights(error) => error.into(),
            inference::Error::Mesh(error) => error.into(),
            inference::Error::Device(error) => error.into(),
            error @ (inference::Error::UnknownTokenizer { .. }
            | inference::Error::SmallVocabulary { .. }) => {
                Self::usage(error).help("name it with --tokenizer ankh or --tokenizer ankh3")
            }
            error @ inference::Error::Program(_) => Self::failed(error),
        }
    }
}

impl From<evaluate::Error> for CliError {
    fn from(error: evaluate::Error) -> Self {
        match error {
            evaluate::Error::Data(error) => error.into(),
            evaluate::Error::Model(error) => error.into(),
            evaluate::Error::Score(error) => error.into(),
            error @ evaluate::Error::NoTargets => Self::failed(error),
        }
    }
}

impl From<benchmark::Error> for CliError {
    fn from(error: benchmark::Error) -> Self {
        use benchmark::Error as E;
        let error = match error {
            E::Dataset(error) => return error.into(),
            E::Inference(error) => return error.into(),
            E::Journal(error) => return error.into(),
            error => error,
        };
        let exit = match &error {
            E::File { .. } | E::NotFinite { .. } => Exit::Failed,
            _ => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

impl From<benchmark::dataset::Error> for CliError {
    fn from(error: benchmark::dataset::Error) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<score::Error> for CliError {
    fn from(error: score::Error) -> Self {
        use score::{Error as E, Fault};
        let error = match error {
            E::Model(error) => return error.into(),
            E::Journal(error) => return error.into(),
            E::Sequences(error) => return of_input(error),
            error => error,
        };
        let help = match &error {
            E::NoColumn { wanted, .. } if wanted.contains("mutant") => Some(
                "name the column of mutations `mutant`, or that of sequences `mutated_sequence`",
            ),
            E::ColumnExists { .. } => Some("rename or remove that column"),
            E::WildType { .. } => Some("give --wild-type a FASTA file, or residues"),
            E::NotOneSequence { .. } => Some("give --wild-type a file with the wild type alone"),
            E::NotInReference { .. } => Some("give the wild type itself with --wild-type"),
            E::OutputExists(_) => Some("give another --output, or --replace"),
            E::Row { fault, .. } => match fault {
                Fault::NoWildType => {
                    Some("give it with --wild-type or --reference, or as a column `target_seq`")
                }
                Fault::TooLong { .. } => Some("leave it out, or raise --max-length"),
                Fault::Indel { .. } => {
                    Some("--method pseudo-likelihood scores insertions and deletions too")
                }
                Fault::SeveralWildTypes { .. } => Some(
                    "give the wild type with --wild-type, or each row's as a column `target_seq`",
                ),
                Fault::OtherWildType { .. } => Some(
                    "see that positions count from 1 in the sequence that is given as the wild type",
                ),
                _ => None,
            },
            E::NotFinite(_) => {
                Some("see that the weights are whole; with --dtype bfloat16, try float32")
            }
            _ => None,
        };
        let exit = match &error {
            E::Write { .. } | E::NotFinite(_) => Exit::Failed,
            _ => Exit::Usage,
        };
        Self {
            help: help.map(Into::into),
            ..Self::new(exit, error)
        }
    }
}

impl From<hugging_face::Error> for CliError {
    fn from(error: hugging_face::Error) -> Self {
        match error {
            hugging_face::Error::Checkpoint(error) => error.into(),
            hugging_face::Error::OtherFormat {
                ref directory,
                installed,
                hint,
                ..
            } => {
                let directory = directory.display();
                let help = format!(
                    "with {installed} installed, convert it once by\n  \
                     python -c \"from transformers import T5ForConditionalGeneration as T5; \
                     T5.from_pretrained('{directory}'{hint}).save_pretrained('{directory}')\""
                );
                Self::failed(error).help(help)
            }
            error @ (hugging_face::Error::NoWeights(_) | hugging_face::Error::NoConfig(_)) => {
                Self::usage(error)
            }
            error => Self::failed(error),
        }
    }
}
