//! Commands of other programs, as values: they are run, or shown.

use std::fmt;

use crate::Error;

/// A command of another program. Its arguments are seen by everyone on the machine, so no secret is
/// among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it reads on standard input.
    pub stdin: Option<Vec<u8>>,
    /// What a dry run takes for its answer.
    pub assumed: Answer,
}

/// What a command answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Call {
    /// A command, which a dry run takes for done.
    pub fn new<S: Into<String>>(program: &'static str, args: impl IntoIterator<Item = S>) -> Call {
        Call {
            program,
            args: args.into_iter().map(Into::into).collect(),
            stdin: None,
            assumed: Answer::done(""),
        }
    }

    /// Gives it something to read.
    pub fn reading(mut self, stdin: impl Into<Vec<u8>>) -> Call {
        self.stdin = Some(stdin.into());
        self
    }

    /// Says what a dry run takes for its answer.
    pub fn assuming(mut self, answer: Answer) -> Call {
        self.assumed = answer;
        self
    }

    /// The error of an answer to it that is none of those expected.
    pub fn failed(&self, answer: &Answer) -> Error {
        Error::Tool {
            command: self.to_string(),
            said: answer.said(),
        }
    }

    /// The error of an answer that cannot be read.
    pub fn unreadable(&self, answer: &Answer) -> Error {
        let out = answer.out.trim();
        Error::Answer {
            command: self.to_string(),
            said: out.chars().take(300).collect(),
        }
    }
}

impl Answer {
    /// A success with this output.
    pub fn done(out: impl Into<String>) -> Answer {
        Answer {
            code: Some(0),
            out: out.into(),
            err: String::new(),
        }
    }

    /// A failure with these words.
    pub fn failure(err: impl Into<String>) -> Answer {
        Answer {
            code: Some(1),
            out: String::new(),
            err: err.into(),
        }
    }

    /// Whether it succeeded.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The last words that explain a failure.
    pub fn said(&self) -> String {
        let text = match self.err.trim() {
            "" => self.out.trim(),
            err => err,
        };
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        match lines[lines.len().saturating_sub(6)..].join("\n") {
            text if !text.is_empty() => text,
            _ => match self.code {
                Some(code) => format!("exit code {code}, without a word"),
                None => "it was ended by a signal".into(),
            },
        }
    }
}

/// As a shell takes it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        for argument in &self.args {
            write!(f, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

/// A word as a POSIX shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_shown() {
        let words = ["", "plain", "two words", "it's", "$HOME `x` \\ \"y\"", "*"];
        let call = Call::new("printf", [["%s\\n"].as_slice(), &words].concat());
        let out = std::process::Command::new("sh")
            .args(["-c", &call.to_string()])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(out.stdout).unwrap(),
            words.join("\n") + "\n"
        );
    }
}
