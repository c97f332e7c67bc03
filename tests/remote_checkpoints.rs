//! Runs whose saved states are in a bucket: over a way on which requests fail, and while the
//! service is down.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ankh_storage::{Location, Storage, StorageOptions};

use crate::servers::{Fault, Faults, Proxy, S3, server};
use crate::support::runs::{Bench, expect, files, pretrain, wait_for, with_service};

/// Data, and a bucket behind a proxy.
struct Remote {
    bench: Bench,
    proxy: Proxy,
    /// Where runs save.
    directory: Location,
    /// The same, on a way on which nothing fails.
    saved: Storage,
}

impl Remote {
    fn new(faults: Faults) -> Remote {
        let s3 = S3::server();
        let directory = s3.bucket().join("runs/base");
        let options = StorageOptions {
            settings: server::environment(s3.address),
            ..StorageOptions::default()
        };
        Remote {
            bench: Bench::new(),
            proxy: Proxy::before(s3.address, faults),
            saved: Storage::open(&directory, &options).unwrap(),
            directory,
        }
    }

    /// A command that reaches the bucket.
    fn reaching(&self, command: Command) -> Command {
        with_service(command, &server::environment(self.proxy.address))
    }

    /// Training that saves in the bucket.
    fn train(&self, run: &str, arguments: &[&str]) -> Command {
        let directory = format!("checkpoint.directory={}", self.directory);
        let mut command = self.bench.train(run, arguments);
        command.args(["--set", &directory]);
        self.reaching(command)
    }

    /// The saved steps that have a marker.
    fn steps(&self) -> Vec<String> {
        let names = self.saved.list("").unwrap().into_iter();
        let names = names.filter_map(|entry| Some(entry.name.strip_suffix("/commit.json")?.into()));
        names.collect()
    }

    /// The files of a saved step but its marker, which has the settings of the run too.
    fn step(&self, step: u64) -> BTreeMap<PathBuf, Vec<u8>> {
        let directory = format!("step_{step:08}/");
        let entries = self.saved.list(&directory).unwrap().into_iter();
        let files = entries.map(|entry| {
            let bytes = self.saved.read(&entry.name).unwrap();
            (entry.name[directory.len()..].into(), bytes.into())
        });
        without_marker(files)
    }
}

fn without_marker(
    files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>,
) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files.into_iter();
    files
        .filter(|(name, _)| !name.ends_with("commit.json"))
        .collect()
}

/// Asks a run to stop, and gives all that it printed.
fn stop(process: Child) -> String {
    let id = process.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(sent.success());
    expect(
        process.wait_with_output().unwrap(),
        75,
        &["stopped on request"],
    )
}

#[test]
fn a_run_that_saves_to_a_bucket_through_faults_and_resumes_equals_an_undisturbed_one() {
    let remote = Remote::new(Faults::of(21, 0.3));
    let bench = &remote.bench;
    let arguments = ["--steps", "100", "--set", "checkpoint.every=1000"];
    expect(
        bench.train("undisturbed", &arguments).output().unwrap(),
        0,
        &["done: step 100"],
    );

    let mut command = remote.train("run", &arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    wait_for(&mut process, "30 steps", || {
        bench.metrics_lines("run") >= 30
    });
    let printed = stop(process);
    let checkpoint = format!("checkpoint     {}/step_", remote.directory);
    assert!(printed.contains(&checkpoint), "{printed}");
    let stopped = bench.metrics_lines("run");
    assert!(
        (30..100).contains(&stopped),
        "stopped after {stopped} steps"
    );
    assert!(!bench.path("run/checkpoints").exists());

    // Where it saves is among what it has recorded.
    let mut resume = pretrain();
    resume
        .arg("--resume")
        .arg("--run-dir")
        .arg(bench.path("run"));
    let printed = expect(
        remote.reaching(resume).output().unwrap(),
        0,
        &["done: step 100", &checkpoint],
    );
    assert!(printed.contains("resuming"), "{printed}");
    let whole = without_marker(files(&bench.checkpoint("undisturbed", 100)));
    let saved = remote.step(100);
    assert!(whole.len() > 20);
    assert!(whole.keys().eq(saved.keys()));
    for (name, bytes) in &whole {
        assert!(*bytes == saved[name], "{}", name.display());
    }
    for entry in remote.saved.list("").unwrap() {
        let is_of = |step: &String| entry.name.starts_with(step);
        assert!(remote.steps().iter().any(is_of), "{} is left", entry.name);
    }

    let faults: usize = Fault::PASSING
        .map(|fault| remote.proxy.met(fault))
        .iter()
        .sum();
    assert!(faults > 100, "{faults}");

    // The weights go elsewhere from there.
    remote.proxy.set(Faults::none());
    let run = bench.path("run").display().to_string();
    for (name, checkpoint) in [
        ("hf-run", run),
        ("hf", remote.directory.to_string()),
        (
            "hf-step",
            remote.directory.join("step_00000100").to_string(),
        ),
        ("hf-local", bench.path("undisturbed").display().to_string()),
    ] {
        let mut export = pretrain();
        export.args(["export", "--checkpoint", &checkpoint, "--output"]);
        let output = remote.reaching(export).arg(bench.path(name)).output();
        expect(output.unwrap(), 0, &[]);
    }
    let weights = |name: &str| fs::read(bench.path(name).join("model.safetensors")).unwrap();
    for name in ["hf-run", "hf", "hf-step"] {
        assert!(weights(name) == weights("hf-local"), "{name}");
    }
    // And back, to another place in the bucket.
    let imported = remote.directory.join("imported/step_00000000").to_string();
    let mut import = pretrain();
    import.args(["import", "--output", &imported, "--input"]);
    let output = remote.reaching(import).arg(bench.path("hf")).output();
    expect(output.unwrap(), 0, &[&imported]);
    assert!(remote.steps().contains(&"imported/step_00000000".into()));
}

#[test]
fn training_goes_on_while_the_bucket_is_down_and_saves_when_it_is_back() {
    let remote = Remote::new(Faults::none());
    let bench = &remote.bench;
    let arguments = ["--steps", "1000000", "--set", "checkpoint.every=20"];
    let mut command = remote.train("run", &arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    wait_for(&mut process, "a saved step", || !remote.steps().is_empty());

    remote.proxy.set(Faults::always(Fault::Unavailable));
    let log = || fs::read_to_string(bench.path("run/log.jsonl")).unwrap_or_default();
    wait_for(&mut process, "a failed save", || {
        log().contains("cannot be saved")
    });
    let said = log();
    for words in [
        remote.directory.to_string().as_str(),
        "the server answered 503",
        "given up after 10 attempts",
        "the last saved step is ",
        "another try follows",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let lines = bench.metrics_lines("run");
    wait_for(&mut process, "further steps", || {
        bench.metrics_lines("run") > lines + 20
    });

    remote.proxy.set(Faults::none());
    wait_for(&mut process, "a save", || {
        log().contains(" is saved, after ")
    });
    stop(process);
    let last = format!("step_{:08}", bench.metrics_lines("run"));
    assert_eq!(remote.steps().last(), Some(&last));
}

#[test]
fn a_bucket_that_cannot_be_used_is_named_before_anything_is_done() {
    let remote = Remote::new(Faults::none());
    let bench = &remote.bench;
    let train = |directory: &str| {
        let directory = format!("checkpoint.directory={directory}");
        let command = bench.train("run", &["--steps", "4", "--set", &directory]);
        remote.reaching(command).output().unwrap()
    };
    expect(
        train("s3://no-such-bucket/run"),
        2,
        &[
            "s3://no-such-bucket/run",
            "there is no such bucket",
            "help: check its name",
        ],
    );
    remote.proxy.set(Faults::always(Fault::Forbidden));
    let directory = remote.directory.to_string();
    expect(
        train(&directory),
        1,
        &["not allowed to", &directory, "docs/storage.md"],
    );
    expect(train("http://host/run"), 2, &["gs://BUCKET/KEY"]);
    assert!(!bench.path("run/config.toml").exists());

    // Another run's states are not overwritten.
    remote.proxy.set(Faults::none());
    expect(train(&directory), 0, &["done: step 4"]);
    let mut other = remote.train("other", &["--steps", "4"]);
    expect(other.output().unwrap(), 2, &["holds a run already"]);
}
