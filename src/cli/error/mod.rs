//! Converts every error to what the user sees: a message, advice and an exit code. Other modules
//! say what is wrong; what to do about it is said here.

mod data;
mod devices;
mod runs;
mod weights;

use std::error::Error;
use std::process::ExitCode;

pub(super) use data::of_input;

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

#[cfg(test)]
mod tests {
    use ankh_pjrt::Platform;

    use super::*;
    use crate::hugging_face;
    use crate::run_dir::RunError;

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
