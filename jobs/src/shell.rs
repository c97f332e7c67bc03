//! Where commands are run and files written: for real, or on paper.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use ankh_storage::atomic;

use crate::{Answer, Call, Error};

/// Where commands are run and files written.
pub trait Shell: Sync {
    /// Runs a command to its end, whatever that is.
    ///
    /// # Errors
    /// Only where it cannot be run at all.
    fn run(&self, call: &Call) -> Result<Answer, Error>;

    /// Writes a file for its owner alone, whole or not at all, with its directory.
    ///
    /// # Errors
    /// A directory or file that cannot be written.
    fn write(&self, path: &Path, content: &str) -> Result<(), Error>;

    /// Says what is being done.
    fn say(&self, words: &str);

    /// Whether nothing is really done.
    fn is_dry(&self) -> bool;

    /// Runs a command that has to succeed, and returns its output.
    ///
    /// # Errors
    /// Where it cannot be run, or fails.
    fn expect(&self, call: &Call) -> Result<String, Error> {
        let answer = self.run(call)?;
        match answer.ok() {
            true => Ok(answer.out),
            false => Err(call.failed(&answer)),
        }
    }
}

/// Does what it is told. What it says goes to a listener.
pub struct Live<F>(pub F);

impl<F: Fn(&str) + Sync> Shell for Live<F> {
    fn run(&self, call: &Call) -> Result<Answer, Error> {
        let missing = |source| Error::NoTool {
            program: call.program,
            source,
        };
        let stdin = match call.stdin {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        let mut child = Command::new(call.program)
            .args(&call.args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(missing)?;
        let output = std::thread::scope(|scope| {
            if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), &call.stdin) {
                // Who ends without reading all of it says why.
                scope.spawn(move || pipe.write_all(bytes));
            }
            child.wait_with_output()
        });
        let output = output.map_err(missing)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        })
    }

    fn write(&self, path: &Path, content: &str) -> Result<(), Error> {
        let directory = atomic::parent(path);
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        let write = |file: &mut fs::File| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(content.as_bytes())
        };
        atomic::replace_file_with(path, write).map_err(Error::file(path))
    }

    fn say(&self, words: &str) {
        (self.0)(words);
    }

    fn is_dry(&self) -> bool {
        false
    }
}

/// Writes down what would be done, and does nothing.
pub struct Dry<W>(Mutex<W>);

impl<W: Write> Dry<W> {
    /// Writes to `out`.
    pub fn to(out: W) -> Dry<W> {
        Dry(Mutex::new(out))
    }

    fn lines(&self, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), Error> {
        let mut out = self.0.lock().unwrap_or_else(|e| e.into_inner());
        write(&mut out).map_err(Error::Output)
    }
}

impl<W: Write + Send> Shell for Dry<W> {
    fn run(&self, call: &Call) -> Result<Answer, Error> {
        self.lines(|out| {
            writeln!(
                out,
                "$ {call}{}",
                if call.stdin.is_some() { " <<'EOF'" } else { "" }
            )?;
            if let Some(stdin) = &call.stdin {
                let text = String::from_utf8_lossy(stdin);
                writeln!(out, "{}EOF", ended(&text))?;
            }
            Ok(())
        })?;
        Ok(call.assumed.clone())
    }

    fn write(&self, path: &Path, content: &str) -> Result<(), Error> {
        self.lines(|out| {
            writeln!(out, "> {}", path.display())?;
            for line in content.lines() {
                writeln!(out, "{}", format!("    {line}").trim_end())?;
            }
            Ok(())
        })
    }

    fn say(&self, words: &str) {
        // Where nothing can be written, the next command says so.
        let _ = self.lines(|out| writeln!(out, "# {words}"));
    }

    fn is_dry(&self) -> bool {
        true
    }
}

/// The text with a line end at its end.
fn ended(text: &str) -> String {
    match text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_reads_and_says_comes_whole() {
        let shell = Live(|_: &str| {});
        let long = "x".repeat(1 << 20);
        let call = Call::new("sh", ["-c", "cat; echo why >&2; exit 3"]).reading(long.clone());
        let answer = shell.run(&call).unwrap();
        assert_eq!(answer.out, long);
        assert_eq!((answer.code, answer.said()), (Some(3), "why".into()));
        let none = Call::new("ankh-has-no-such-program", ["x"]);
        assert!(matches!(shell.run(&none), Err(Error::NoTool { .. })));
    }

    #[test]
    fn files_are_for_their_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/file");
        Live(|_: &str| {}).write(&path, "text").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
