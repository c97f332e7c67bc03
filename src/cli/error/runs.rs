//! Errors of a run: its configuration, its directory, its training, its checkpoints.

use super::{CliError, Exit};
use crate::checkpoint;
use crate::cli::hosts::await_end;
use crate::cli::initialization::refused;
use crate::config::ConfigError;
use crate::run_dir::{Contents, Damage, RunError};
use crate::telemetry::TelemetryError;
use crate::train::TrainError;

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
            TrainError::Weights(error) => refused(error),
            error @ TrainError::WeightsOfHosts { .. } => Self::usage(error)
                .help("give every host the same weights; of a run that goes on, name one checkpoint"),
            error @ TrainError::OtherStep { .. } => Self::usage(error)
                .help("give every host the same --run-dir on storage that all of them share"),
            // The end is told by the thread that heard of it.
            TrainError::Parted(_) => await_end(),
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
