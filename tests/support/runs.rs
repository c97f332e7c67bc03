//! Runs of the binary on small data, and what they leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ankh_proto::tensorboard::Event;
use prost::Message;
use serde_json::{Map, Value};

/// The binary. Compiled programs are kept where all tests find them and nobody else: most runs are
/// of the same tiny model, and compiling it takes more time than the run.
pub fn pretrain() -> Command {
    static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
        // Those of an earlier execution of the tests.
        let _ = fs::remove_dir_all(&directory);
        directory
    });
    pretrain_keeping(&PROGRAMS)
}

/// The binary, which compiles all programs and keeps none.
pub fn pretrain_compiling() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
    command.env("ANKH_COMPILATION_CACHE", "");
    command
}

/// The binary, which keeps compiled programs in this directory, for others that do.
pub fn pretrain_keeping(programs: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
    command.env("ANKH_COMPILATION_CACHE", programs);
    command
}

/// Has a command use a service as these variables say, and nothing of the credentials of whoever
/// runs the tests.
pub fn with_service(mut command: Command, environment: &BTreeMap<String, String>) -> Command {
    for (name, _) in std::env::vars() {
        if name.starts_with("AWS_") || name.starts_with("GOOGLE_") {
            command.env_remove(name);
        }
    }
    command.envs(environment);
    command
}

/// A command that is run by another one, which comes with arguments of its own.
pub fn run_by(mut outer: Command, inner: &Command) -> Command {
    let set = inner.get_envs();
    outer.envs(set.filter_map(|(name, value)| Some((name, value?))));
    outer.arg(inner.get_program()).args(inner.get_args());
    outer
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn expect(output: Output, exit: i32, words: &[&str]) -> String {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{all}");
    for word in words {
        assert!(all.contains(word), "expected {word:?} in {all}");
    }
    all
}

/// Proteins of different residues and these lengths, as FASTA.
pub fn fasta(lengths: impl IntoIterator<Item = usize>) -> String {
    let residues = b"ALGVSREDTIPKFQNYMHWC";
    let mut fasta = String::new();
    for (i, length) in lengths.into_iter().enumerate() {
        let letters = (0..length).map(|j| residues[(7 * i + 3 * j + j * j) % 20] as char);
        fasta += &format!(">protein{i}\n{}\n", letters.collect::<String>());
    }
    fasta
}

/// A directory with prepared data, and commands that use it.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// With 64 proteins, a fifth of them held out.
    pub fn new() -> Self {
        Self::holding(64, "0.2")
    }

    /// The same in memory, where saving is quick.
    pub fn in_memory() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        let bench = Self { directory };
        bench.prepare("data", 64);
        bench
    }

    /// With so many proteins, of which this fraction is held out.
    pub fn holding(proteins: usize, held_out: &str) -> Self {
        let bench = Self::empty();
        bench.prepare_holding_out("data", proteins, held_out);
        bench
    }

    /// Without data.
    pub fn empty() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Prepares so many proteins, a fifth of them held out.
    pub fn prepare(&self, name: &str, proteins: usize) {
        self.prepare_holding_out(name, proteins, "0.2");
    }

    fn prepare_holding_out(&self, name: &str, proteins: usize, held_out: &str) {
        let input = self.path("proteins.fasta");
        fs::write(&input, fasta((0..proteins).map(|i| 20 + i % 30))).unwrap();
        let mut command = pretrain();
        command.args(["prepare", "--validation-fraction", held_out, "--output"]);
        expect(
            command.arg(self.path(name)).arg(input).output().unwrap(),
            0,
            &[],
        );
    }

    /// A place in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Training of the tiny model into the run directory `run`.
    pub fn train(&self, run: &str, arguments: &[&str]) -> Command {
        let mut command = pretrain();
        command
            .args(["--config", "tiny", "--data"])
            .arg(self.path("data"));
        command.arg("--run-dir").arg(self.path(run)).args(arguments);
        command
    }

    pub fn metrics(&self, run: &str) -> Vec<Map<String, Value>> {
        let file = self.path(run).join("metrics.jsonl");
        let lines = fs::read_to_string(file).unwrap_or_default();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is an object"))
            .collect()
    }

    /// Whole lines of metrics; the last may still be on its way.
    pub fn metrics_lines(&self, run: &str) -> usize {
        let file = fs::read(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        file.iter().filter(|byte| **byte == b'\n').count()
    }

    pub fn checkpoint(&self, run: &str, step: u64) -> PathBuf {
        self.path(run).join(format!("checkpoints/step_{step:08}"))
    }
}

/// Waits for something that a running process brings about.
pub fn wait_for(process: &mut Child, what: &str, mut happened: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(300);
    while !happened() {
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "the run ended before {what}");
        assert!(Instant::now() < patience, "no {what} in five minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The whole events of a run, in the order in which TensorBoard reads them.
pub fn events(run: &Path) -> Vec<Event> {
    let entries = fs::read_dir(run).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let is_events = |path: &PathBuf| path.to_string_lossy().contains("tfevents");
    let mut files: Vec<PathBuf> = entries.filter(is_events).collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut rest = bytes.as_slice();
        // A record that a kill cut short ends its file.
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            let Some(message) = after.get(4..4 + length) else {
                break;
            };
            events.push(Event::decode(message).unwrap());
            rest = after.get(8 + length..).unwrap_or_default();
        }
    }
    events
}

/// All files below a directory with their bytes, except the named ones.
pub fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_owned();
                found.push((name, fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
