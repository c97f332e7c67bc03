//! Runs that are asked to stop or to save, killed, or run out of disk, through the binary on the
//! CPU plugin.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ankh::checkpoint::Store;
use ankh_proto::tensorboard::event::What;
use serde_json::{Map, Value};

use crate::support::runs::{Bench, events, expect, pretrain, run_by};

/// A run under way.
struct Run {
    process: Child,
    directory: PathBuf,
    /// What it has printed on standard error, which is told before the run directory is written.
    said: Arc<Mutex<String>>,
    listener: JoinHandle<()>,
}

/// More steps than any test waits for.
const ENDLESS: &str = "train.steps=1_000_000";

/// What a run may take to end. It takes some tenths of a second where the machine has nothing else
/// to do (`--nocapture` shows them); that it left out what it did not have to wait for is checked
/// by what it leaves behind.
const PROMPTLY: Duration = Duration::from_secs(20);

/// Prepared proteins, of which a fraction is held out.
fn bench(held_out: &str) -> Bench {
    Bench::holding(2000, held_out)
}

/// Training of the tiny model into the run directory `run`, with these settings.
fn train(bench: &Bench, settings: &[&str]) -> Command {
    train_on(bench, &bench.path("data").to_string_lossy(), settings)
}

fn train_on(bench: &Bench, data: &str, settings: &[&str]) -> Command {
    let mut command = pretrain();
    command.args(["--config", "tiny", "--data", data]);
    command.arg("--run-dir").arg(bench.path("run"));
    // Most of these runs do little but compile.
    let quickly = r#"compiler.flags=["xla_backend_optimization_level=0"]"#;
    let settings = settings.iter().chain([&quickly]);
    command.args(settings.flat_map(|setting| ["--set", setting]));
    command
}

/// The command, hearing SIGHUP even where these tests run under `nohup`.
fn hearing_sighup(command: Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP");
    run_by(env, &command)
}

impl Run {
    fn start(bench: &Bench, command: &mut Command) -> Run {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stderr = process.stderr.take().expect("it is piped");
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&String::from_utf8_lossy(&line));
                heard.push('\n');
            }
        });
        Run {
            process,
            directory: bench.path("run"),
            said,
            listener,
        }
    }

    /// Waits for something that the process brings about.
    #[track_caller]
    fn wait_for(&mut self, what: &str, happened: impl Fn(&Run) -> bool) {
        let patience = Instant::now() + Duration::from_secs(300);
        while !happened(self) {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the run ended before {what}: {ended:?}");
            assert!(Instant::now() < patience, "no {what} in five minutes");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Expects it to end with a code, promptly after now, and returns what it printed.
    #[track_caller]
    fn ends(self, code: i32, after: &str) -> String {
        let start = Instant::now();
        let output = self.process.wait_with_output().unwrap();
        let took = start.elapsed();
        self.listener.join().unwrap();
        let text = text(&output) + &self.said.lock().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(took < PROMPTLY, "it took {took:?} after {after}: {text}");
        println!("{after}: {took:?}");
        text
    }

    fn has_said(&self, words: &str) -> bool {
        self.said.lock().unwrap().contains(words)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log.jsonl")).unwrap_or_default()
    }

    /// Whole lines of metrics.
    fn metrics(&self) -> Vec<Map<String, Value>> {
        metrics(&self.directory)
    }

    fn steps_saved(&self) -> Vec<u64> {
        steps_saved(&self.directory)
    }
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn metrics(run: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| serde_json::from_str(line).expect("a line is an object"))
        .collect()
}

fn steps(metrics: &[Map<String, Value>]) -> Vec<u64> {
    let step = |line: &Map<String, Value>| line["step"].as_u64().unwrap();
    metrics.iter().map(step).collect()
}

fn steps_saved(run: &Path) -> Vec<u64> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    let mut steps: Vec<u64> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("commit.json").is_file())
        .filter_map(|path| {
            path.file_name()?
                .to_str()?
                .strip_prefix("step_")?
                .parse()
                .ok()
        })
        .collect();
    steps.sort_unstable();
    steps
}

/// Expects every step to be logged once and in order, and the last of them to be saved.
#[track_caller]
fn expect_saved_to_the_last_step(run: &Path) -> u64 {
    let steps = steps(&metrics(run));
    let last = *steps.last().expect("steps were logged");
    assert_eq!(steps, (1..=last).collect::<Vec<_>>());
    assert_eq!(steps_saved(run).last(), Some(&last));
    last
}

#[test]
fn a_stop_while_compiling_ends_the_run_at_once_with_nothing_begun() {
    let bench = bench("0.2");
    for signal in ["-TERM", "-INT", "-USR2"] {
        let mut run = Run::start(&bench, &mut train(&bench, &[ENDLESS]));
        run.wait_for("the compiler's start", |run| run.has_said("compiling"));
        run.signal(signal);
        let directory = run.directory.clone();
        let text = run.ends(75, signal);
        assert!(text.contains("stopped on request after step 0"), "{text}");
        assert!(text.contains("next: "), "{text}");
        assert!(!directory.exists(), "{signal}");
    }
}

#[test]
fn a_stop_while_data_is_waited_for_ends_the_run_at_once() {
    let bench = bench("0.2");
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let environment: BTreeMap<&str, &str> = [
        ("AWS_ENDPOINT_URL", address.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "something"),
        ("AWS_REGION", "us-east-1"),
    ]
    .into();
    let mut command = train_on(&bench, "s3://bucket/proteins", &[]);
    let mut run = Run::start(&bench, command.arg("--json").envs(environment));
    silent.set_nonblocking(true).unwrap();
    run.wait_for("a request of data", |_| silent.accept().is_ok());
    run.signal("-TERM");
    let text = run.ends(75, "a request of data");
    let summary = text.lines().find(|line| line.starts_with('{')).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["stopped"], true);
    assert_eq!(summary["steps"], 0);
}

#[test]
fn a_stop_between_steps_saves_the_last_and_ends() {
    let bench = bench("0.2");
    let settings = [ENDLESS, "evaluation.every=0", "checkpoint.every=1_000_000"];
    let mut before = 0;
    for signal in ["-INT", "-HUP"] {
        let mut command = hearing_sighup(train(&bench, &settings));
        let mut run = Run::start(&bench, command.arg("--resume"));
        run.wait_for("a few steps", |run| run.metrics().len() > before + 3);
        run.signal(signal);
        let directory = run.directory.clone();
        let text = run.ends(75, signal);
        let last = expect_saved_to_the_last_step(&directory);
        let words = format!("stopped on request after step {last}");
        assert!(
            text.contains(&words) && last as usize > before + 3,
            "{text}"
        );
        before = last as usize;
    }
}

#[test]
fn a_stop_while_evaluating_gives_the_evaluation_up_and_saves() {
    let bench = bench("0.9");
    let settings = [
        ENDLESS,
        "evaluation.every=2",
        "evaluation.batches=0",
        "model.d_model=64",
        "model.d_ff=256",
        "schedule.steps=1000",
    ];
    // Before the first step there is an evaluation too, with nothing to save.
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("the compiler's end", |run| run.has_said("compiled"));
    std::thread::sleep(Duration::from_millis(200));
    run.signal("-TERM");
    let text = run.ends(75, "SIGTERM in the first evaluation");
    assert!(text.contains("after step 0"), "{text}");

    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("the first step", |run| !run.metrics().is_empty());
    // The second takes a few milliseconds, and its evaluation much longer.
    std::thread::sleep(Duration::from_millis(150));
    run.signal("-INT");
    let directory = run.directory.clone();
    run.ends(75, "SIGINT in an evaluation");
    assert_eq!(expect_saved_to_the_last_step(&directory), 2);
    let last = &metrics(&directory)[1];
    assert!(
        !last.contains_key("validation_loss"),
        "the evaluation was too fast to be given up"
    );

    // It is not given up for good: the next process makes up for it.
    let brief = [
        "train.steps=4",
        "evaluation.every=2",
        "evaluation.batches=2",
    ];
    let settings = [&settings[3..], &brief].concat();
    let resumed = train(&bench, &settings).arg("--resume").output();
    expect(resumed.unwrap(), 0, &[]);
    let lines = metrics(&directory);
    let of = |line: &Map<String, Value>| {
        let step = line["step"].as_u64().unwrap();
        (step, line.contains_key("validation_loss"))
    };
    let found: Vec<(u64, bool)> = lines.iter().map(of).collect();
    assert_eq!(found, [(1, false), (2, true), (3, false), (4, true)]);
}

#[test]
fn a_save_while_evaluating_comes_first_and_the_evaluation_after_it() {
    let bench = bench("0.9");
    let settings = [
        "train.steps=3",
        "evaluation.every=2",
        "evaluation.batches=0",
        "checkpoint.every=3",
        "model.d_model=64",
        "model.d_ff=256",
    ];
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("the first step", |run| !run.metrics().is_empty());
    // The second takes a few milliseconds, and its evaluation much longer.
    std::thread::sleep(Duration::from_millis(150));
    run.signal("-USR1");
    let directory = run.directory.clone();
    run.wait_for("an evaluation given up", |run| {
        run.has_said("the evaluation at step 2 is given up")
    });
    run.wait_for("the last step", |run| run.metrics().len() == 3);
    run.ends(0, "the last step");
    let store = Store::open(directory.join("checkpoints"));
    assert_eq!(store.list().unwrap(), [2, 3]);
    let lines = metrics(&directory);
    let evaluated = |line: &Map<String, Value>| line.contains_key("validation_loss");
    let evaluated: Vec<bool> = lines.iter().map(evaluated).collect();
    assert_eq!(evaluated, [false, true, true]);
}

#[test]
fn a_stop_while_saving_waits_for_the_save_and_saves_the_last_step() {
    let bench = bench("0.2");
    // Some 10 MB of state, so that a save takes longer than a step.
    let settings = [
        ENDLESS,
        "evaluation.every=0",
        "checkpoint.every=5",
        "checkpoint.keep=0",
        "model.d_ff=8192",
    ];
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("a save", |run| {
        let names = fs::read_dir(run.directory.join("checkpoints"));
        let mut names = names.into_iter().flatten().flatten();
        names.any(|name| {
            name.file_name()
                .as_encoded_bytes()
                .starts_with(b".step_00000005.")
        })
    });
    run.signal("-TERM");
    let directory = run.directory.clone();
    run.ends(75, "SIGTERM in a save");
    expect_saved_to_the_last_step(&directory);
    assert_eq!(steps_saved(&directory)[0], 5);
    let names = fs::read_dir(directory.join("checkpoints")).unwrap();
    let hidden =
        names.filter(|name| name.as_ref().unwrap().file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(hidden.count(), 0);
}

#[test]
fn sigusr1_saves_and_goes_on_or_ends_as_configured() {
    let bench = bench("0.2");
    let settings = [ENDLESS, "evaluation.every=0", "checkpoint.every=1_000_000"];
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("the compiler's start", |run| run.has_said("compiling"));
    run.signal("-USR1");
    run.wait_for("the answer", |run| run.has_said("nothing to save yet"));
    for saves in 1..=2 {
        let before = run.metrics().len();
        run.wait_for("a few steps", |run| run.metrics().len() > before + 3);
        run.signal("-USR1");
        run.wait_for("a save", |run| run.steps_saved().len() == saves);
    }
    let saved = *run.steps_saved().last().unwrap() as usize;
    run.wait_for("steps after it", |run| run.metrics().len() > saved + 3);
    run.signal("-TERM");
    let directory = run.directory.clone();
    run.ends(75, "SIGTERM");
    let last = expect_saved_to_the_last_step(&directory) as usize;

    let settings = [&settings[..], &["checkpoint.on_sigusr1=stop"]].concat();
    let mut run = Run::start(&bench, train(&bench, &settings).arg("--resume"));
    run.wait_for("a few steps", |run| run.metrics().len() > last + 3);
    run.signal("-USR1");
    run.ends(75, "SIGUSR1");
    expect_saved_to_the_last_step(&directory);
}

/// Compute Engine's metadata server, which says whether the machine is about to be taken away.
struct MetadataServer {
    address: String,
    is_preempted: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
}

impl MetadataServer {
    /// A server that fails for the first question.
    fn start() -> MetadataServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = MetadataServer {
            address: listener.local_addr().unwrap().to_string(),
            is_preempted: Arc::default(),
            answers: Arc::default(),
        };
        let (is_preempted, answers) = (server.is_preempted.clone(), server.answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let status = match answers.load(Ordering::SeqCst) {
                    0 => "503 Service Unavailable",
                    _ => "200 OK",
                };
                let text = match is_preempted.load(Ordering::SeqCst) {
                    false => "FALSE",
                    true => "TRUE",
                };
                answer(&stream, status, text);
                answers.fetch_add(1, Ordering::SeqCst);
            }
        });
        server
    }

    /// From now on it says that the machine is about to be taken away.
    fn preempt(&self) {
        self.is_preempted.store(true, Ordering::SeqCst);
    }

    /// How many questions have been answered.
    fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: &TcpStream, status: &str, text: &str) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let question = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(question.starts_with("GET /computeMetadata/v1/instance/preempted "));
    let flavor = |line: &String| line.eq_ignore_ascii_case("metadata-flavor: google");
    assert!(headers.iter().any(flavor));
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nMetadata-Flavor: Google\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all((head + text).as_bytes());
}

#[test]
fn a_notice_of_preemption_saves_the_last_step_and_ends() {
    let bench = bench("0.2");
    let settings = [ENDLESS, "evaluation.every=0", "checkpoint.every=1_000_000"];
    let server = MetadataServer::start();
    let mut command = train(&bench, &settings);
    command.env_remove("TPU_SKIP_MDS_QUERY");
    command.env("GCE_METADATA_HOST", &server.address);
    let mut run = Run::start(&bench, &mut command);
    run.wait_for("steps and answers", |run| {
        run.metrics().len() > 3 && server.answers() > 2
    });
    server.preempt();
    let directory = run.directory.clone();
    let text = run.ends(75, "a notice of preemption");
    assert!(text.contains("about to be taken away"), "{text}");
    assert_eq!(text.matches("status 503").count(), 1, "{text}");
    let last = expect_saved_to_the_last_step(&directory);
    let words = format!("stopped on request after step {last}");
    assert!(text.contains(&words) && last > 3, "{text}");

    // Before the first step there is nothing to save.
    fs::remove_dir_all(&directory).unwrap();
    let run = Run::start(&bench, &mut command);
    let text = run.ends(75, "a notice before the start");
    assert!(text.contains("stopped on request after step 0"), "{text}");
    assert!(steps_saved(&directory).is_empty());
}

#[test]
fn sighup_stays_ignored_under_nohup() {
    let bench = bench("0.2");
    let command = train(&bench, &[ENDLESS, "evaluation.every=0"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let mut shell = run_by(shell, &command);
    let mut run = Run::start(&bench, &mut shell);
    run.wait_for("a few steps", |run| run.metrics().len() > 3);
    run.signal("-HUP");
    let before = run.metrics().len();
    run.wait_for("more steps", |run| run.metrics().len() > before + 20);
    run.signal("-TERM");
    run.ends(75, "SIGTERM");
}

#[test]
fn one_request_that_arrives_twice_is_one_and_one_that_is_repeated_ends_at_once() {
    let bench = bench("0.2");
    let mut run = Run::start(&bench, &mut train(&bench, &[ENDLESS, "evaluation.every=0"]));
    run.wait_for("a few steps", |run| run.metrics().len() > 3);
    // As `timeout` does, and terminals whose signals a wrapper passes on.
    for signal in ["-TERM", "-TERM", "-INT"] {
        run.signal(signal);
    }
    let directory = run.directory.clone();
    run.ends(75, "three signals");
    let last = expect_saved_to_the_last_step(&directory);

    // While the last step cannot be saved, the run goes on trying for some seconds.
    let mut run = Run::start(
        &bench,
        train(&bench, &[ENDLESS, "evaluation.every=0"]).arg("--resume"),
    );
    run.wait_for("a few steps", |run| run.metrics().len() > last as usize + 3);
    let (steps, away) = (directory.join("checkpoints"), directory.join("away"));
    fs::rename(&steps, &away).unwrap();
    fs::write(&steps, "a file where directories belong").unwrap();
    run.signal("-TERM");
    run.wait_for("a try", |run| run.log().contains("cannot be saved"));
    std::thread::sleep(Duration::from_millis(300));
    run.signal("-TERM");
    let status = run.process.wait().unwrap();
    assert_eq!(status.signal(), Some(15), "{status:?}");
}

#[test]
fn training_goes_on_while_the_disk_is_full_and_saves_when_there_is_room() {
    let bench = bench("0.2");
    // No file may grow beyond this while the disk is full. The state's largest arrays are longer,
    // and so is what the run logs.
    let settings = [ENDLESS, "evaluation.every=0", "checkpoint.every=40"];
    let command = train(&bench, &settings);
    let mut shell = Command::new("sh");
    // The system ends a program that does not ignore that a file is too long.
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
    let mut shell = run_by(shell, &command);
    let mut run = Run::start(&bench, &mut shell);
    run.wait_for("the first save", |run| run.steps_saved().contains(&40));
    let room = |run: &Run, room: &str| {
        let id = run.process.id().to_string();
        let limit = ["--pid", &id, &format!("--fsize={room}")];
        assert!(
            Command::new("prlimit")
                .args(limit)
                .status()
                .unwrap()
                .success()
        );
    };
    room(&run, "4096:unlimited");
    // The log is full too, so it is the next save's absence that tells. Steps are some
    // milliseconds.
    let (saved, start) = (run.steps_saved(), Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        run.wait_for("time", |_| true);
        std::thread::sleep(Duration::from_millis(10));
    }
    let newest = *saved.last().unwrap();
    assert!(
        run.steps_saved().iter().all(|step| *step <= newest + 40),
        "{:?}",
        run.steps_saved()
    );
    room(&run, "unlimited");
    let resumed = run.steps_saved().last().copied().unwrap();
    run.wait_for("a save", |run| run.steps_saved().last().unwrap() > &resumed);
    run.signal("-TERM");
    let directory = run.directory.clone();
    let text = run.ends(75, "SIGTERM");
    for words in [
        "cannot be saved",
        "the last saved step is ",
        "is saved, after ",
        "cannot write",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    // All that there was no room for is there, whole and in order.
    expect_saved_to_the_last_step(&directory);
    let log = fs::read_to_string(directory.join("log.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let failures = lines.filter(|line| {
        let message = line["fields"]["message"].as_str().unwrap_or_default();
        line["level"] == "ERROR" && message.contains("cannot be saved")
    });
    assert!(failures.count() >= 1, "{log}");
    assert_eq!(shown(&directory), steps(&metrics(&directory)));
}

#[test]
fn a_run_that_cannot_save_its_last_step_says_what_it_leaves() {
    let bench = bench("0.2");
    let settings = [
        "train.steps=400",
        "evaluation.every=0",
        "checkpoint.every=50",
    ];
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    // When the second is there, the first is known to be.
    run.wait_for("two saves", |run| run.steps_saved().contains(&100));
    let directory = run.directory.clone();
    let (steps, away) = (directory.join("checkpoints"), directory.join("away"));
    fs::rename(&steps, &away).unwrap();
    fs::write(&steps, "a file where directories belong").unwrap();
    let output = run.process.wait_with_output().unwrap();
    run.listener.join().unwrap();
    let text = text(&output) + &run.said.lock().unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [
        "error: the run ends at step 400, which cannot be saved; the last saved step is ",
        "help: ",
        "--resume",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    assert_eq!(metrics(&directory).len(), 400);
    // What it said first, it said at once: in the log, long before its end.
    let log = fs::read_to_string(directory.join("log.jsonl")).unwrap();
    assert!(log.contains("cannot be saved"), "{log}");
}

/// The steps that TensorBoard shows: the files in the order of their names, without what a later
/// session's start makes void.
fn shown(run: &Path) -> Vec<u64> {
    let mut shown: Vec<u64> = Vec::new();
    for event in events(run) {
        match event.what {
            Some(What::SessionLog(_)) => shown.retain(|step| *step < event.step as u64),
            Some(What::Summary(summary)) => {
                let losses = summary
                    .value
                    .iter()
                    .filter(|value| value.tag == "train/loss");
                shown.extend(losses.map(|_| event.step as u64));
            }
            _ => {}
        }
    }
    shown
}

#[test]
fn tensorboard_shows_a_run_that_was_killed_and_resumed_as_one_that_never_stopped() {
    let bench = bench("0.2");
    let settings = [ENDLESS, "evaluation.every=0", "checkpoint.every=10"];
    let mut run = Run::start(&bench, &mut train(&bench, &settings));
    run.wait_for("steps after a save", |run| {
        let saved = run.steps_saved().last().copied();
        saved.is_some_and(|saved| run.metrics().len() as u64 > saved + 3)
    });
    run.process.kill().unwrap();
    run.process.wait().unwrap();
    let (logged, saved) = (
        run.metrics().len() as u64,
        *run.steps_saved().last().unwrap(),
    );
    assert!(logged > saved, "the run was too fast to be killed");
    let last = format!("train.steps={}", saved + 2);
    let mut command = train(&bench, &[&last, "evaluation.every=0"]);
    let output = command.arg("--resume").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(shown(&run.directory), (1..=saved + 2).collect::<Vec<_>>());
}
