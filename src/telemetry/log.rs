//! The log: on standard error for people, or for what collects the lines of many machines; in
//! `log.jsonl` for programs.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use indicatif::MultiProgress;
use serde_json::{Map, Value};
use tracing::Level;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::TelemetryError;
use super::append::{Appending, Turn};
use super::structured::{Structured, structured};

/// What is drawn on the terminal; lines of the log are written above it.
pub(super) static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// What has been logged for programs so far, or where it goes.
static RECORD: Mutex<Record> = Mutex::new(Record::Nowhere);

/// Where the lines for programs go.
enum Record {
    /// Nowhere: this process keeps no record.
    Nowhere,
    /// Here, until there is a file for them.
    Held(Vec<Vec<u8>>),
    /// To a file.
    File(Appending),
}

/// How standard error is written.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// How standard error is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object each line, with the fields that Google's Cloud Logging expects: `severity`,
    /// `message`, `timestamp`, and those of the message.
    Json,
}

impl LogFormat {
    /// Of this process.
    pub(super) fn chosen() -> LogFormat {
        FORMAT.get().copied().unwrap_or_default()
    }
}

/// The process's log.
pub struct Log;

impl Log {
    /// Chooses how standard error is written from now on. A second choice is without effect.
    pub fn choose(format: LogFormat) {
        let _ = FORMAT.set(format);
    }

    /// Starts logging to standard error. `RUST_LOG` chooses what is shown there (warnings and what
    /// the program itself says, unless set). What is logged is also held as JSON lines, for
    /// [`Log::record_to`]. A second start is without effect.
    pub fn start() {
        let filter =
            || EnvFilter::new("warn,ankh=info,ankh_data=info,ankh_pjrt=info,pretrain=info");
        let shown = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter());
        let standard_error = fmt::layer().with_writer(|| Terminal(Vec::new()));
        let standard_error = match LogFormat::chosen() {
            LogFormat::Text => standard_error
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .without_time()
                .compact()
                .boxed(),
            LogFormat::Json => standard_error.event_format(Structured).boxed(),
        };
        let programs = fmt::layer().json().with_writer(|| JsonLines);
        let layers = tracing_subscriber::registry()
            .with(standard_error.with_filter(shown))
            .with(programs.with_filter(filter()));
        // It fails only when a log is running already.
        if layers.try_init().is_ok() {
            *record() = Record::Held(Vec::new());
        }
    }

    /// Appends what has been logged so far to a file, and from now on each line. A process whose
    /// work fails before this leaves the file as it was.
    pub fn record_to(path: &Path) -> Result<(), TelemetryError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.and_then(Appending::to);
        let mut file = file.map_err(TelemetryError::on("open", path))?;
        let mut record = record();
        if let Record::Held(lines) = &mut *record {
            for line in lines.drain(..) {
                // What finds no room waits in the file's own memory, and is told with a later line.
                file.record(line);
            }
        }
        *record = Record::File(file);
        Ok(())
    }
}

fn record() -> MutexGuard<'static, Record> {
    // Whoever panicked while writing a line left at worst that line cut short.
    RECORD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to standard error, above whatever progress is drawn there.
pub fn print_line(line: &str) {
    print_with(Level::INFO, line, Map::new());
}

/// The same of an error.
pub fn print_error(line: &str) {
    print_with(Level::ERROR, line, Map::new());
}

/// The same with numbers, which only programs get.
pub(super) fn print_with(level: Level, line: &str, fields: Map<String, Value>) {
    match LogFormat::chosen() {
        LogFormat::Text => write_line(line),
        LogFormat::Json => write_line(&structured(level, line, fields)),
    }
}

fn write_line(line: &str) {
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
            write_line(line.trim_end());
        }
    }
}

/// The lines for programs; each write is a whole line.
struct JsonLines;

impl Write for JsonLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let turn = match &mut *record() {
            Record::Nowhere => None,
            Record::Held(lines) => {
                lines.push(line.to_vec());
                None
            }
            Record::File(file) => file.record(line.to_vec()),
        };
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
