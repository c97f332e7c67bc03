//! `pretrain benchmark --during`: every checkpoint of a run, and the curves that come of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::runs::{Bench, expect, files, pretrain, pretrain_keeping, text, wait_for};

/// A run of the tiny model with checkpoints of two steps, and labelled proteins.
struct During(Bench);

impl During {
    fn new() -> During {
        let bench = Bench::new();
        let labelled: String = (0..12)
            .map(|i| {
                let letter = &"ACDEFGHIKLMN"[i..=i];
                let set = if i % 3 == 0 { "test" } else { "train" };
                format!(">p{i} SET={set} TARGET=HHHHEEEECC\nMKTAYIAK{letter}R\n")
            })
            .collect();
        fs::write(bench.path("labelled.fasta"), labelled).unwrap();
        let during = During(bench);
        expect(during.train(&["--steps", "4"]).output().unwrap(), 0, &[]);
        during
    }

    fn train(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.train("run", arguments);
        command.args(["--set", "checkpoint.every=2"]);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pretrain_keeping(&self.0.path("programs"));
        command.args(["benchmark", "q3", "--epochs", "2", "--batch", "4", "--data"]);
        command.arg(self.0.path("labelled.fasta"));
        command.arg("--during").arg(self.0.path("run"));
        command.args(arguments);
        command
    }

    /// The steps of what `--json` prints.
    #[track_caller]
    fn printed(&self) -> Vec<u64> {
        let printed = expect_json(self.command(&["--json"]));
        let lines = printed.lines();
        let step = |line: &str| -> u64 {
            let result: Value = serde_json::from_str(line).unwrap();
            assert_eq!(result["tests"]["test"]["figures"][0]["measure"], "accuracy");
            result["step"].as_u64().unwrap()
        };
        lines.map(step).collect()
    }

    fn result(&self, step: u64) -> PathBuf {
        let name = format!("run/benchmarks/q3/step_{step:08}.json");
        self.0.path(&name)
    }
}

#[track_caller]
fn expect_json(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What tells a file from one that took its place.
fn identity(path: &Path) -> (u64, Vec<u8>) {
    (fs::metadata(path).unwrap().ino(), fs::read(path).unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let files = files(directory).into_iter();
    files.map(|(name, _)| name.display().to_string()).collect()
}

#[test]
fn every_checkpoint_is_measured_once_and_the_page_has_the_curve() {
    let during = During::new();
    let run = during.0.path("run");
    let before = files(&run);
    let mut killed = during.command(&[]);
    let killed = killed.stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = killed.spawn().unwrap();
    wait_for(&mut process, "a result", || during.result(2).exists());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!during.result(4).exists());
    let first = identity(&during.result(2));
    let all = expect(during.command(&[]).output().unwrap(), 0, &["accuracy"]);
    let lines = all.lines().filter(|line| line.contains("accuracy"));
    assert_eq!(lines.count(), 2, "{all}");
    assert_eq!(identity(&during.result(2)), first);
    let measured = ["step_00000002.json", "step_00000004.json"];
    assert_eq!(names(&run.join("benchmarks/q3")), measured);
    let second = identity(&during.result(4));
    let of_step =
        |step| -> Value { serde_json::from_slice(&identity(&during.result(step)).1).unwrap() };
    assert_ne!(of_step(2)["weights"], of_step(4)["weights"]);

    // The run is as it was, and goes on.
    let besides = files(&run).into_iter();
    let besides = besides.filter(|(name, _)| !name.starts_with("benchmarks"));
    assert!(besides.eq(before));
    let more = during
        .train(&["--steps", "6", "--set", "checkpoint.keep=2", "--resume"])
        .output();
    expect(more.unwrap(), 0, &[]);
    assert!(!during.0.checkpoint("run", 2).exists());
    // A checkpoint that was saved anew is not the one that was measured.
    let stale = of_step(4)["checkpoint"].as_str().unwrap().to_owned();
    let stale = text(&second.1).replace(&stale, "00000000");
    fs::write(during.result(4), stale).unwrap();
    assert_eq!(during.printed(), [2, 4, 6]);
    assert_eq!(identity(&during.result(2)), first);
    assert_eq!(identity(&during.result(4)).1, second.1);

    let mut report = pretrain();
    report
        .arg("report")
        .arg(&run)
        .arg("--output")
        .arg(during.0.path("page.html"));
    expect(report.output().unwrap(), 0, &[]);
    let page = fs::read_to_string(during.0.path("page.html")).unwrap();
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    let curve = &data["series"][0]["benchmarks"]["q3 accuracy"];
    assert_eq!(curve["steps"], json!([2, 4, 6]));
    let value = of_step(6)["tests"]["test"]["figures"][0]["value"]
        .as_f64()
        .unwrap();
    for shown in [
        &curve["values"][2],
        &data["state"]["runs"][0]["benchmarks"]["q3 accuracy"],
    ] {
        assert!((shown.as_f64().unwrap() - value).abs() < 1e-6, "{shown}");
    }
}

#[test]
fn what_was_measured_otherwise_is_named_and_replaced_on_request_alone() {
    let during = During::new();
    let run = during.0.path("run");
    let other = ["--weights", "hf"];
    let words = ["--during <RUN_DIR>", "cannot be used with", "--weights"];
    expect(during.command(&other).output().unwrap(), 2, &words);
    let words = ["there is no run in", "--during"];
    let mut nowhere = pretrain();
    nowhere.args(["benchmark", "q3", "--data", "x", "--during", "nowhere"]);
    expect(nowhere.output().unwrap(), 2, &words);
    assert!(!run.join("benchmarks").exists());

    // What a killed process left of a checkpoint that is gone.
    let left = run.join("benchmarks/q3/.step_00000001.json.unfinished");
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, "{}\n").unwrap();
    let measured = |arguments: &[&str]| during.command(arguments).output().unwrap();
    expect(measured(&[]), 0, &[]);
    assert!(!left.exists());
    let made = [2, 4].map(|step| identity(&during.result(step)));
    let differs = [
        "step_00000002.json was measured otherwise",
        "seeds is [7] there and [7,8] here",
        "--replace",
    ];
    expect(measured(&["--seeds", "2"]), 2, &differs);
    assert_eq!([2, 4].map(|step| identity(&during.result(step))), made);
    // Of a checkpoint that is gone there will be no other result.
    let gone = during.0.checkpoint("run", 2);
    let aside = during.0.path("aside");
    fs::rename(&gone, &aside).unwrap();
    let words = ["step_00000002.json", "its checkpoint is gone"];
    expect(measured(&["--seeds", "2", "--replace"]), 2, &words);
    fs::rename(&aside, &gone).unwrap();
    expect(measured(&["--seeds", "2", "--replace"]), 0, &["accuracy"]);
    let again = [2, 4].map(|step| identity(&during.result(step)));
    assert!(
        made.iter()
            .zip(&again)
            .all(|(before, now)| before.1 != now.1)
    );
    // These follow from the same settings, so there is nothing to replace.
    expect(measured(&["--seeds", "2", "--replace"]), 0, &["accuracy"]);
    assert_eq!([2, 4].map(|step| identity(&during.result(step))), again);
}
