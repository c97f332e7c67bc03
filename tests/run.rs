//! Whole runs through the binary, on the CPU plugin: what they leave behind, how they stop, and
//! that stopping changes nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Map;

use crate::support::runs::{Bench, expect, files, pretrain, wait_for};

/// Overwrites one byte in the middle of the largest file below a directory.
fn flip_a_byte(directory: &Path) {
    let largest = files(directory)
        .into_iter()
        .max_by_key(|(_, bytes)| bytes.len());
    let (name, mut bytes) = largest.expect("a checkpoint has files");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(directory.join(name), bytes).unwrap();
}

#[test]
fn a_run_leaves_what_its_readers_rely_on() {
    let bench = Bench::new();
    let words = [
        "done: step 20",
        "training loss",
        "held-out loss",
        "token frequencies",
        "next: ",
    ];
    expect(bench.train("run", &[]).output().unwrap(), 0, &words);
    let run = bench.path("run");
    for name in [
        "config.toml",
        "metrics.jsonl",
        "log.jsonl",
        "hlo/train_step.txt",
        "hlo/train_step.pb",
    ] {
        assert!(run.join(name).is_file(), "{name}");
    }
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(
        config.contains("[versions]") && config.contains("d_model = 24"),
        "{config}"
    );
    let events = fs::read_dir(&run).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("events.out.tfevents.")
    });
    assert_eq!(events.count(), 1);
    let metrics = bench.metrics("run");
    let steps: Vec<u64> = metrics
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=20).collect::<Vec<u64>>());
    let evaluated = metrics
        .iter()
        .filter(|line| line.contains_key("validation_loss"));
    assert_eq!(evaluated.count(), 2);
    assert!(bench.checkpoint("run", 20).is_dir());

    // The same directory once more, without and with --resume.
    expect(
        bench.train("run", &[]).output().unwrap(),
        2,
        &["holds a run already", "--resume"],
    );
    let other = ["--resume", "--set", "model.d_model=32"];
    expect(
        bench.train("run", &other).output().unwrap(),
        2,
        &["another model's run", "model.d_model"],
    );
    bench.prepare("data2", 40);
    let data = bench.path("data2");
    let other = [
        "--resume",
        "--run-dir",
        run.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    expect(
        pretrain().args(other).output().unwrap(),
        2,
        &["the data the run was begun with"],
    );
    let windows = ["--resume", "--set", "data.memory=1 kB"];
    expect(
        bench.train("run", &windows).output().unwrap(),
        2,
        &["shuffled as a whole, and this run has", "in windows of"],
    );
    flip_a_byte(&bench.checkpoint("run", 20));
    expect(
        bench
            .train(
                "run",
                &["--resume", "--steps", "25", "--set", "schedule.steps=25"],
            )
            .output()
            .unwrap(),
        0,
        &[
            "damaged",
            "set aside as",
            "resuming step=10",
            "done: step 25",
        ],
    );
}

#[test]
fn resuming_equals_never_stopping() {
    let bench = Bench::new();
    // Large enough that step 20 is some time after step 10; packed, so that what a step shows
    // follows from a plan.
    let size = [
        "--set",
        "data.packing=packed",
        "--set",
        "data.input_length=64",
        "--set",
        "data.target_length=auto",
        "--set",
        "model.d_model=64",
        "--set",
        "model.d_ff=256",
        "--set",
        "train.batch_size=66 sequences",
    ];
    expect(bench.train("whole", &size).output().unwrap(), 0, &[]);
    let mut process = bench
        .train("killed", &size)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let saved = bench.checkpoint("killed", 10).join("commit.json");
    wait_for(&mut process, "the checkpoint of step 10", || saved.exists());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(
        !bench.checkpoint("killed", 20).exists(),
        "the run was too fast to be killed"
    );
    expect(
        bench
            .train("killed", &[&size[..], &["--resume"]].concat())
            .output()
            .unwrap(),
        0,
        &["done: step 20"],
    );

    let untimed = |run: &str| {
        let timed = |name: &str| {
            ["mfu", "goodput"].contains(&name)
                || name.ends_with("_seconds")
                || name.ends_with("_per_second")
        };
        let lines = bench.metrics(run).into_iter();
        lines
            .map(|line| line.into_iter().filter(|(name, _)| !timed(name)).collect())
            .collect::<Vec<Map<_, _>>>()
    };
    let whole = untimed("whole");
    assert_eq!(whole, untimed("killed"));
    let last = &whole[whole.len() - 1];
    // The mean sequence has 34 residues, and a step about the 66 sequences asked for.
    let sequences = last["residues"].as_f64().unwrap() / 34.0 / 20.0;
    assert!((sequences / 66.0 - 1.0).abs() < 0.1, "{last:?}");
    let arrays = |run: &str| {
        let all = files(&bench.checkpoint(run, 20)).into_iter();
        all.filter(|(name, _)| name.components().any(|part| part.as_os_str() == "c"))
            .collect::<Vec<_>>()
    };
    let (whole, killed) = (arrays("whole"), arrays("killed"));
    assert!(!whole.is_empty());
    for ((name, whole), (other, killed)) in whole.iter().zip(&killed) {
        assert_eq!(name, other);
        assert!(whole == killed, "{} differs", name.display());
    }
    assert_eq!(whole.len(), killed.len());
}

#[test]
fn a_mixture_trains_and_stays_the_mixture_it_is() {
    let bench = Bench::new();
    bench.prepare("more", 40);
    let more = format!("mixture.rare.dir={}", bench.path("more").display());
    let mixture = [
        "--set",
        "mixture.often.weight=3",
        "--set",
        "mixture.rare.ngram=2",
        "--set",
        &more,
    ];
    let train = |arguments: &[&str]| {
        let arguments = [&mixture[..], arguments].concat();
        bench.train("run", &arguments).output().unwrap()
    };
    let words = ["done: step 4", "often: ", "rare: ", "shuffled as a whole"];
    expect(train(&["--steps", "4"]), 0, &words);
    let other = ["--resume", "--steps", "6", "--set", "mixture.rare.weight=2"];
    expect(train(&other), 2, &["mixture.rare is"]);
    expect(train(&["--resume", "--steps", "6"]), 0, &["done: step 6"]);
}

#[test]
fn a_terminated_run_saves_and_says_so() {
    let bench = Bench::new();
    let mut command = bench.train(
        "run",
        &["--steps", "1000000", "--set", "evaluation.every=0"],
    );
    let mut process = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut process, "a few steps", || {
        bench.metrics_lines("run") > 3
    });
    let id = process.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = process.wait_with_output().unwrap();
    expect(
        output,
        75,
        &["stopped on request after step", " --resume --run-dir "],
    );
    let last = bench.metrics("run").last().unwrap()["step"]
        .as_u64()
        .unwrap();
    assert!(bench.checkpoint("run", last).is_dir(), "step {last}");

    // Its own configuration is enough to go on, here for two steps.
    let steps = (last + 2).to_string();
    let run = bench.path("run");
    let resume = [
        "--resume",
        "--run-dir",
        run.to_str().unwrap(),
        "--steps",
        &steps,
    ];
    expect(
        pretrain().args(resume).output().unwrap(),
        0,
        &[&format!("done: step {steps}")],
    );
}

#[test]
fn a_batch_too_large_for_memory_is_refused_before_the_first_step() {
    let bench = Bench::new();
    let output = bench
        .train("run", &["--set", "train.batch_size=500_000_000"])
        .output()
        .unwrap();
    expect(output, 3, &["memory", "help: lower train.batch_size"]);
}

#[test]
fn a_missing_or_wrong_plugin_is_named() {
    let bench = Bench::new();
    let missing = bench.path("none.so");
    let mut command = bench.train("run", &[]);
    let output = command.env("ANKH_PJRT_PLUGIN", &missing).output().unwrap();
    expect(output, 1, &["none.so"]);
    let wrong = bench.path("wrong.so");
    fs::write(&wrong, "not a library").unwrap();
    let mut command = bench.train("run", &[]);
    let output = command.env("ANKH_PJRT_PLUGIN", &wrong).output().unwrap();
    expect(output, 1, &["wrong.so is not a PJRT plugin"]);
}

#[test]
fn forward_writes_what_the_reference_writes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/defaults");
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("ours.safetensors");
    let mut command = pretrain();
    command
        .arg("forward")
        .arg("--weights")
        .arg(golden.join("hf"));
    command
        .arg("--batch")
        .arg(golden.join("batch.safetensors"))
        .arg("--output")
        .arg(&output);
    command.args(["--gradients", "--optimizer-steps", "5"]);
    expect(command.output().unwrap(), 0, &[]);
    let (ours, expected) = (
        fs::read(output).unwrap(),
        fs::read(golden.join("expected.safetensors")).unwrap(),
    );
    let ours = safetensors::SafeTensors::deserialize(&ours).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&expected).unwrap();
    for (name, tensor) in expected.tensors() {
        // The reference also keeps the weights after its first step, which it was not asked for
        // here.
        if name.starts_with("after1.") {
            continue;
        }
        let found = ours
            .tensor(&name)
            .unwrap_or_else(|_| panic!("{name} is missing"));
        assert_eq!(found.shape(), tensor.shape(), "{name}");
    }
    let value = |file: &safetensors::SafeTensors<'_>| {
        let bytes = file.tensor("loss").unwrap().data().try_into().unwrap();
        f32::from_le_bytes(bytes)
    };
    let (ours, expected) = (value(&ours), value(&expected));
    assert!(
        (ours / expected - 1.0).abs() < 1e-5,
        "{ours} and {expected}"
    );
}
