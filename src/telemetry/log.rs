//! The log: for people on standard error, for programs in `log.jsonl`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::MultiProgress;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::TelemetryError;
use super::append::{Appending, Turn};

/// What is drawn on the terminal; lines of the log are written above it.
pub(super) static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The process's log.
pub struct Log;

impl Log {
    /// Starts logging to standard error and, where a path is given, as JSON lines to a file. `RUST_LOG` chooses what is shown on standard error
    /// (warnings and what the program itself says, unless set). A second start is without effect.
    pub fn start(file: Option<&Path>) -> Result<(), TelemetryError> {
        let filter =
            || EnvFilter::new("warn,ankh=info,ankh_data=info,ankh_pjrt=info,pretrain=info");
        let shown = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter());
        let people = fmt::layer()
            .with_writer(|| Terminal(Vec::new()))
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .without_time()
            .compact();
        let programs = match file {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.and_then(Appending::to);
                let file = file.map_err(TelemetryError::on("open", path))?;
                let layer = fmt::layer().json().with_writer(JsonLines(Mutex::new(file)));
                Some(layer.with_filter(filter()))
            }
        };
        let layers = tracing_subscriber::registry()
            .with(people.with_filter(shown))
            .with(programs);
        // It fails only when a log is running already.
        let _ = layers.try_init();
        Ok(())
    }
}

/// Writes a line to standard error, above whatever progress is drawn there.
pub fn print_line(line: &str) {
    TERMINAL.suspend(|| {
        // Nobody reads a standard error that cannot be written.
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// One line of the log, shown when complete.
struct Terminal(Vec<u8>);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.0);
        if !line.is_empty() {
            print_line(line.trim_end());
        }
    }
}

/// The file; each write is a whole line.
struct JsonLines(Mutex<Appending>);

impl<'a> MakeWriter<'a> for JsonLines {
    type Writer = &'a JsonLines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &JsonLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Its fields hold whole records whenever a thread lets go of it.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = file.record(line.to_vec());
        drop(file);
        // Not through the log: it is what cannot be written.
        match turn {
            None | Some(Turn::Recovered { lost: 0 }) => {}
            Some(Turn::Failing(error)) => print_line(&format!(
                "cannot write the log's file: {error}; its lines are kept until there is room"
            )),
            Some(Turn::Recovered { lost }) => print_line(&format!(
                "the log's file is written again; {lost} of its lines are lost"
            )),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
