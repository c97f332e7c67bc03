//! Converts every error to what the user sees: a message, advice and an exit code. Other modules
//! say what is wrong; what to do about it is said here.

use std::error::Error;
use std::process::ExitCode;

use ankh_hlo::AxisError;
use ankh_pjrt::{Code, Platform};

use crate::config::{ConfigError, LogicalAxis, setting_name};
use crate::devices::OpenMeshError;
use crate::generate::Fault;
use crate::inference::JournalError;
use crate::mesh::DeviceError;
use crate::mesh::executable_file::ExecutableFileError;
use crate::programs::sharding::ShardingError;
use crate::run_dir::{Contents, Damage, RunError};
use crate::telemetry::TelemetryError;
use crate::train::TrainError;
use crate::{benchmark, checkpoint, evaluate, generate, hugging_face, inference, score};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// Something failed on the way.
    Failed = 1,
    /// The arguments or the configuration cannot be used; nothing was begun.
    Usage = 2,
    /// The program does not fit the device's memory.
    Memory = 3,
    /// Stopped on request, after saving.
    Stopped = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the terminal.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    help: Option<String>,
}

impl CliError {
    /// An error that ends the program with `exit`.
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            exit,
            error: error.into(),
            help: None,
        }
    }

    /// Wrong arguments.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Usage, error)
    }

    /// Something failed.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Exit::Failed, error)
    }

    /// Adds what to do about it.
    pub fn help(mut self, advice: impl Into<String>) -> Self {
        self.help = Some(advice.into());
        self
    }

    /// The same with another code.
    pub fn exiting(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The code the program ends with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The message with its causes.
    pub fn message(&self) -> String {
        let mut message = self.error.to_string();
        let mut next = self.error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many libraries repeat the cause in their own message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            next = cause.source();
        }
        message
    }

    /// Prints the message and the advice to standard error.
    pub fn report(&self) {
        if self.exit == Exit::Done {
            return;
        }
        crate::telemetry::print_error(&format!("error: {}", self.message()));
        if let Some(help) = &self.help {
            crate::telemetry::print_error(&format!("help: {help}"));
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let help = match &error {
            ConfigError::UnknownKey { key, known, .. } => match key.rsplit_once('.') {
                Some((section, _)) => {
                    let section = section.split('.').next().unwrap_or(section);
                    Some(format!(
                        "beside it there are {} ({section})",
                        known.join(", ")
                    ))
                }
                None => Some(format!("the sections are {}", known.join(", "))),
            },
            ConfigError::UnknownPreset { known, .. } => {
                let named = known.iter().filter(|name| !name.contains('/'));
                let named: Vec<&str> = named.map(String::as_str).collect();
                Some(format!(
                    "presets are {}, and experiments/00 to experiments/23",
                    named.join(", ")
                ))
            }
            ConfigError::NotAnAssignment { .. } => {
                Some("write for example --set train.steps=100".into())
            }
            ConfigError::NotUnicode { .. } => Some("rename it, or give a link to it".into()),
            ConfigError::NoPlace { .. } => Some("give the path from the root".into()),
            ConfigError::Circle { .. } => Some("take one `extends` away".into()),
            _ => None,
        };
        Self {
            help,
            ..Self::usage(error)
        }
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let error = match error {
            RunError::Checkpoints(error) => return error.into(),
            error => error,
        };
        let help = match &error {
            RunError::Unwritable { .. } => Some("give a directory you may write to with --run-dir"),
            RunError::NotUnicode { .. } => Some("give a --run-dir whose name is UTF-8"),
            RunError::Url { .. } => {
                Some("give a directory of this machine, or one where the bucket is mounted")
            }
            RunError::Held { .. } => Some(
                "stop that process or wait for its end, then continue with --resume; or give another --run-dir",
            ),
            RunError::NotARun { contents, .. } => Some(match contents {
                Contents::PreparedData => "train on it with --data, and give another --run-dir",
                _ => {
                    "begin a run with these weights by --initialize-from, and give another --run-dir: --resume continues a run with its optimizer's state"
                }
            }),
            RunError::Occupied { .. } => {
                Some("continue it with --resume, or give another --run-dir")
            }
            RunError::AnotherRun { .. } => Some(
                "model, objective and data stay what they are as long as a run lasts: give another --run-dir, or the configuration of that run (--resume alone takes it)",
            ),
            RunError::Changed { .. } => Some(
                "--resume --accept-changes goes on all the same: weights are kept, data goes on behind the rows seen, another optimizer begins afresh; or give that run's settings, or another --run-dir",
            ),
            RunError::UnreadableConfig { source, .. } => Some(match **source {
                Damage::Wrong { .. } => {
                    "correct it; or remove it, and --resume takes the configuration that the newest saved state carries"
                }
                Damage::Missing | Damage::Empty | Damage::CutShort => {
                    "no saved state here carries the configuration either: restore the file from a copy, or give another --run-dir"
                }
            }),
            RunError::Lost(_) => {
                Some("another process may be training there: look before you resume")
            }
            RunError::StatesElsewhere { .. } => Some(
                "set checkpoint.directory to where they are, or copy them there first, commit.json last",
            ),
            RunError::Write { .. } | RunError::Checkpoints(_) => None,
        };
        let exit = match &error {
            RunError::Write { .. } | RunError::Held { .. } | RunError::Lost(_) => Exit::Failed,
            _ => Exit::Usage,
        };
        Self {
            help: help.map(Into::into),
            ..Self::new(exit, error)
        }
    }
}

impl From<TelemetryError> for CliError {
    fn from(error: TelemetryError) -> Self {
        Self::failed(error)
    }
}

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
pub(super) fn of_input(error: ankh_data::Error) -> CliError {
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

const LESS_MEMORY: &str = "lower train.batch_size or data.input_length, raise train.gradient_accumulation, or set train.remat=full";

impl From<ankh_pjrt::Error> for CliError {
    fn from(error: ankh_pjrt::Error) -> Self {
        if error.code() == Some(Code::ResourceExhausted) {
            return Self::new(Exit::Memory, error).help(LESS_MEMORY);
        }
        let advice = match &error {
            ankh_pjrt::Error::NoPlugin { platform, .. } => Some(match platform {
                Platform::Tpu => {
                    "`pretrain doctor --fetch --slice v4-8` fetches one, in a checkout `make libtpu`"
                }
                Platform::Cpu => {
                    "`pretrain doctor --fetch` fetches one, in a checkout `make plugin`"
                }
                Platform::Cuda => "set ANKH_PJRT_PLUGIN to one that you have",
            }),
            _ => None,
        };
        Self {
            help: advice.map(Into::into),
            ..Self::failed(error)
        }
    }
}

impl From<DeviceError> for CliError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Pjrt(error) => error.into(),
            DeviceError::ExecutableFile(error @ ExecutableFileError::File { .. }) => Self::failed(error),
            DeviceError::ExecutableFile(error @ ExecutableFileError::SeveralCpuDevices) => {
                Self::usage(error).help("leave out --output, or use --slice cpu-1")
            }
            DeviceError::ExecutableFile(error) => Self::usage(error)
                .help("run without --executable to compile anew, or make it again with `pretrain plan --output`"),
            error @ (DeviceError::DeviceAssignment(_)
            | DeviceError::SimulatedHosts { .. }
            | DeviceError::Variable { .. }
            | DeviceError::NoHost { .. }) => Self::usage(error),
            error @ (DeviceError::DoesNotFit { .. } | DeviceError::Exhausted { .. }) => {
                Self::new(Exit::Memory, error).help(LESS_MEMORY)
            }
            error => Self::failed(error),
        }
    }
}

impl From<OpenMeshError> for CliError {
    fn from(error: OpenMeshError) -> Self {
        match error {
            OpenMeshError::Device(error) => error.into(),
            OpenMeshError::Sharding(error) => error.into(),
        }
    }
}

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

impl From<ShardingError> for CliError {
    fn from(error: ShardingError) -> Self {
        let help: String = match &error {
            ShardingError::Devices { devices, .. } => {
                format!(
                    "choose two that multiply to one of {}",
                    list(&divisors(*devices))
                )
            }
            ShardingError::Mesh { .. } => {
                "set sharding.data=0, which takes as many as the other axes leave".into()
            }
            ShardingError::Axes {
                error: AxisError::IndivisibleDim(dim),
                ..
            } => match dim.name == LogicalAxis::Batch.name() {
                true => format!(
                    "set train.batch_size so that each of train.gradient_accumulation parts is a multiple of {}",
                    dim.shards
                ),
                false => format!(
                    "make sharding.{} a divisor of {}, or take it out of sharding.rules.{}",
                    dim.axis, dim.size, dim.name
                ),
            },
            ShardingError::Axes { .. } => "correct sharding.rules".into(),
        };
        Self::usage(error).help(help)
    }
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}

fn list(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(|n| n.to_string()).collect();
    words.join(", ")
}

impl From<TrainError> for CliError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Device(error) => error.into(),
            TrainError::Sharding(error) => error.into(),
            TrainError::Data(error) => error.into(),
            TrainError::Checkpoint(error) => error.into(),
            TrainError::Run(error) => error.into(),
            TrainError::Telemetry(error) => error.into(),
            error @ TrainError::Batch(_) => Self::usage(error)
                .help("set data.dir or pass --data with what `pretrain prepare` wrote"),
            error @ TrainError::OtherData { .. } => Self::usage(error)
                .help("give the data the run was begun with, or another --run-dir"),
            error @ TrainError::OtherOrder { .. } => Self::usage(error).help(
                "give the data and the data.memory the run was begun with, or another --run-dir",
            ),
            TrainError::RateJump { ref choices, .. } => {
                let choices: Vec<String> = choices
                    .iter()
                    .map(|choice| format!("\n  {choice}"))
                    .collect();
                Self::usage(error).help(format!(
                    "a run of more steps stretches its schedule; say which you want:{}",
                    choices.concat()
                ))
            }
            error @ TrainError::DataOfHosts { .. } => {
                Self::usage(error).help("give every host a copy of the same prepared data")
            }
            TrainError::Weights(error) => super::initialization::refused(error),
            error @ TrainError::WeightsOfHosts { .. } => Self::usage(error)
                .help("give every host the same weights; of a run that goes on, name one checkpoint"),
            error @ TrainError::OtherStep { .. } => Self::usage(error)
                .help("give every host the same --run-dir on storage that all of them share"),
            // The end is told by the thread that heard of it.
            TrainError::Parted(_) => super::hosts::await_end(),
            error @ TrainError::Unsaved { .. } => Self::failed(error).help(
                "make room, or see why nothing can be written there, and go on from the last saved step with --resume",
            ),
            error @ TrainError::OtherOptimizer { .. } => {
                Self::failed(error).help("go on from there with --resume")
            }
            error @ TrainError::Diverged { .. } => Self::failed(error).help(
                "resume with a lower schedule.peak_learning_rate, or set optimizer.clip_norm=1",
            ),
            error => Self::failed(error),
        }
    }
}

impl From<checkpoint::Error> for CliError {
    fn from(error: checkpoint::Error) -> Self {
        let error = match error {
            checkpoint::Error::Storage(error) => return error.into(),
            error => error,
        };
        let exit = match &error {
            checkpoint::Error::NotACheckpoint(_)
            | checkpoint::Error::NoStep { .. }
            | checkpoint::Error::Occupied(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_each_cause_once() {
        let cause = std::io::Error::other("the disk is full");
        let error = RunError::Write {
            path: "metrics.jsonl".into(),
            source: cause,
        };
        assert_eq!(
            CliError::from(error).message(),
            "cannot write metrics.jsonl: the disk is full"
        );
    }

    #[test]
    fn weights_in_another_format_come_with_the_command_that_converts_them() {
        let error = CliError::from(hugging_face::Error::OtherFormat {
            directory: "model".into(),
            found: "tf_model.h5",
            installed: "transformers and torch",
            hint: "",
        });
        assert_eq!(error.exit(), Exit::Failed);
        let help = error.advice().unwrap();
        assert!(
            help.starts_with("with transformers and torch installed"),
            "{help}"
        );
        assert!(
            help.ends_with("T5.from_pretrained('model').save_pretrained('model')\""),
            "{help}"
        );
    }

    #[test]
    fn a_missing_plugin_comes_with_the_command_that_fetches_it() {
        for (platform, command) in [
            (Platform::Cpu, "`make plugin`"),
            (Platform::Tpu, "`make libtpu`"),
        ] {
            let searched = vec!["/somewhere".into()];
            let error = CliError::from(ankh_pjrt::Error::NoPlugin { platform, searched });
            let advice = error.advice().unwrap_or_default();
            assert!(advice.contains(command), "{advice}");
            assert!(error.message().contains("/somewhere"));
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Memory,
            Exit::Stopped,
        ];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 75]);
    }
}
