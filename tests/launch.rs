//! Runs under `pretrain launch`: killed, stopped, hung and failing, through the binary on the CPU
//! plugin.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ankh::checkpoint::Store;

use crate::support::runs::{Bench, expect, pretrain, text, wait_for};

/// More steps than any test waits for.
const ENDLESS: &str = "1000000";

/// A launched run of the tiny model, in the directory `run` of its bench.
struct Launched {
    bench: Bench,
    launcher: Child,
    /// What it and its children have printed on standard error.
    said: Arc<Mutex<String>>,
    listener: JoinHandle<()>,
}

/// Training of the tiny model into the directory `run`, by a launcher or without one.
fn train(bench: &Bench, launch: &[&str], run: &str, steps: &str) -> Command {
    let mut command = pretrain();
    command.args(launch).args(["--config", "tiny", "--data"]);
    command.arg(bench.path("data")).arg("--run-dir");
    command.arg(bench.path(run)).args(["--steps", steps]);
    for setting in [
        "evaluation.every=0",
        "checkpoint.every=40",
        // Most of these runs do little but compile.
        "compiler.flags=[\"xla_backend_optimization_level=0\"]",
    ] {
        command.args(["--set", setting]);
    }
    // What one process has compiled the next one loads.
    command.env("ANKH_COMPILATION_CACHE", bench.path("cache"));
    // What a debugger prints takes long.
    command.env("PATH", "/nowhere");
    command
}

fn signal(signal: &str, process: u32) {
    let id = process.to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

/// Whether a process runs. One that has ended and that nobody has asked about does not.
fn lives(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z")
}

impl Launched {
    fn start(options: &[&str], steps: &str) -> Launched {
        Self::start_in(Bench::new(), options, steps)
    }

    fn start_in(bench: Bench, options: &[&str], steps: &str) -> Launched {
        let launch = [&["launch"], options].concat();
        let mut command = train(&bench, &launch, "run", steps);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut launcher = command.spawn().unwrap();
        let stderr = launcher.stderr.take().expect("it is piped");
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = text(&line) + "\n";
                heard.lock().unwrap().push_str(&line);
            }
        });
        Launched {
            bench,
            launcher,
            said,
            listener,
        }
    }

    /// The processes that have trained so far.
    fn trainers(&self) -> Vec<u32> {
        let said = self.said.lock().unwrap();
        let lines = said.lines();
        let numbers = lines.filter_map(|line| line.split_once("training runs in process "));
        numbers
            .map(|(_, number)| number.trim().parse().unwrap())
            .collect()
    }

    /// Waits until so many lines of metrics are written.
    fn wait_for_steps(&mut self, steps: usize) {
        let bench = &self.bench;
        wait_for(&mut self.launcher, "steps", || {
            bench.metrics_lines("run") > steps
        });
    }

    fn wait_until_said(&mut self, words: &str) {
        let said = &self.said;
        wait_for(&mut self.launcher, words, || {
            said.lock().unwrap().contains(words)
        });
    }

    /// Waits for the end of the launcher and of whatever writes to its standard error, and returns
    /// all that was printed.
    fn ends(&mut self) -> (ExitStatus, String) {
        let status = self.launcher.wait().unwrap();
        let listener = std::mem::replace(&mut self.listener, std::thread::spawn(|| {}));
        listener.join().unwrap();
        for process in self.trainers() {
            assert!(!lives(process), "process {process} has outlived its run");
        }
        (status, self.said.lock().unwrap().clone())
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) -> String {
        let (status, said) = self.ends();
        assert_eq!(status.code(), Some(code), "{said}");
        said
    }

    /// Every step is in the metrics once, and the last of them is saved.
    #[track_caller]
    fn assert_saved_to_the_last_step(&self) {
        let metrics = self.bench.metrics("run");
        let step = |line: &serde_json::Map<_, serde_json::Value>| line["step"].as_u64().unwrap();
        let steps: Vec<u64> = metrics.iter().map(step).collect();
        let last = *steps.last().expect("steps were done");
        assert_eq!(steps, (1..=last).collect::<Vec<_>>());
        assert_eq!(self.store("run").latest().unwrap(), Some(last));
    }

    fn store(&self, run: &str) -> Store {
        Store::open(self.bench.path(run).join("checkpoints"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bench.path("run/log.jsonl")).unwrap()
    }
}

#[test]
fn a_run_whose_process_is_killed_trains_what_an_undisturbed_one_does() {
    let mut run = Launched::start(&[], "160");
    run.wait_for_steps(50);
    signal("-KILL", run.trainers()[0]);
    let said = run.ends_with(0);
    assert!(said.contains("ended by SIGKILL"), "{said}");
    assert!(said.contains("loaded what was compiled before"), "{said}");
    assert_eq!(run.trainers().len(), 2, "{said}");
    run.assert_saved_to_the_last_step();
    assert!(run.log().contains("restart 1, "), "{}", run.log());
    let undisturbed = train(&run.bench, &[], "undisturbed", "160").output();
    expect(undisturbed.unwrap(), 0, &["done: step 160"]);
    let weights = |name: &str| run.store(name).load(160).unwrap().tensors;
    assert!(weights("run") == weights("undisturbed"));
}

#[test]
fn a_process_that_hangs_is_written_down_and_killed_and_the_run_goes_on() {
    let mut run = Launched::start(&["--hang-seconds", "1"], ENDLESS);
    run.wait_for_steps(50);
    let hung = run.trainers()[0];
    signal("-STOP", hung);
    run.wait_until_said("restart 1, ");
    assert!(!lives(hung));
    let dumps = fs::read_dir(run.bench.path("run/hangs")).unwrap();
    let dumps: Vec<PathBuf> = dumps.map(|entry| entry.unwrap().path()).collect();
    let dump = fs::read_to_string(&dumps[0]).unwrap();
    for words in [
        "it hung while training",
        "(signals): T, stopped by a signal",
    ] {
        assert!(dump.contains(words), "{words:?} in {dump}");
    }
    let steps = run.bench.metrics_lines("run");
    run.wait_for_steps(steps + 10);
    signal("-TERM", run.launcher.id());
    let said = run.ends_with(75);
    let file = dumps[0].display().to_string();
    assert!(said.contains(&file), "{file} in {said}");
    run.assert_saved_to_the_last_step();
}

#[test]
fn a_stop_of_the_launcher_saves_the_last_step_and_ends_with_75() {
    let mut run = Launched::start(&[], ENDLESS);
    run.wait_for_steps(5);
    signal("-TERM", run.launcher.id());
    let said = run.ends_with(75);
    assert_eq!(run.trainers().len(), 1, "{said}");
    run.assert_saved_to_the_last_step();
}

#[test]
fn a_launcher_that_is_killed_does_not_leave_its_process_behind() {
    let mut run = Launched::start(&[], ENDLESS);
    run.wait_for_steps(5);
    run.launcher.kill().unwrap();
    let (_, said) = run.ends();
    assert!(said.contains("the launcher is gone"), "{said}");
    run.assert_saved_to_the_last_step();
}

/// Prepared data and a run directory that is somebody else's, so that no process can train there.
fn held_bench() -> (Bench, File) {
    let bench = Bench::new();
    let lease = bench.path("run/.lease");
    fs::create_dir_all(&lease).unwrap();
    let lock = File::create(lease.join("lock")).unwrap();
    lock.lock().unwrap();
    (bench, lock)
}

#[test]
fn a_run_that_always_fails_ends_at_the_limit_of_restarts() {
    let (bench, _lock) = held_bench();
    let mut run = Launched::start_in(bench, &["--max-restarts", "1"], ENDLESS);
    let said = run.ends_with(1);
    for words in [
        "run is in use",
        "started again in 1 s",
        "error: training failed 2 times in a row without a new step (there was none); the last time it ended with exit code 1",
        "help: ",
        "run/log.jsonl",
    ] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert_eq!(run.trainers().len(), 2, "{said}");
}

#[test]
fn a_stop_before_a_restart_ends_the_launcher_at_once() {
    let (bench, _lock) = held_bench();
    let mut run = Launched::start_in(bench, &[], ENDLESS);
    run.wait_until_said("started again in 2 s");
    signal("-TERM", run.launcher.id());
    let said = run.ends_with(75);
    assert_eq!(run.trainers().len(), 2, "{said}");
}

#[test]
fn a_launcher_of_wrong_arguments_ends_with_2_and_restarts_nothing() {
    let unknown = ["--set", "train.stepz=1"];
    let mut run = Launched::start_in(Bench::empty(), &unknown, "1");
    let said = run.ends_with(2);
    assert!(said.contains("train.stepz"), "{said}");
    assert_eq!(run.trainers().len(), 1, "{said}");
    let output = pretrain().args(["launch", "--hang-seconds", "0"]).output();
    expect(output.unwrap(), 2, &["--hang-seconds"]);
}
