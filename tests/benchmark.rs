//! `pretrain benchmark`: every kind of label, killed and continued, on one device and on eight, and
//! what it refuses.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ankh::benchmark::dataset::{self, Files};
use ankh::benchmark::presets::Preset;
use ankh::benchmark::{
    BenchmarkOptions, Features, HeadTraining, Predictor, Progress, TestFigures, benchmark,
};
use ankh::config::Compute;
use ankh::hugging_face;
use ankh::inference::{LoadedModel, ModelOptions, Unfinished};
use serde_json::{Map, Value, json};

use crate::support::Random;
use crate::support::runs::{expect, pretrain_keeping, text, wait_for};

/// Of figures and losses on another number of devices.
const TOLERANCE: f64 = 1e-4;

/// A directory with labelled proteins, and the command that learns from them.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(files: &[(&str, String)]) -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        fs::create_dir(bench.path("")).unwrap();
        for (name, content) in files {
            fs::write(bench.path(name), content).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("work").join(name)
    }

    fn weights() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gated-silu/hf")
    }

    fn command(&self, benchmark: &str, data: &str, output: &str) -> Command {
        let mut command = pretrain_keeping(&self.0.path().join("programs"));
        command.current_dir(self.path(""));
        command.args(["benchmark", benchmark, "--data", data, "--output", output]);
        command.arg("--weights").arg(Bench::weights());
        command
    }

    /// What a benchmark finds.
    #[track_caller]
    fn result(&self, benchmark: &str, data: &str, arguments: &[&str]) -> Value {
        let mut command = self.command(benchmark, data, "result.json");
        let output = command.args(["--replace", "--json"]).args(arguments);
        let output = output.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let written = fs::read(self.path("result.json")).unwrap();
        assert_eq!(printed, serde_json::from_slice::<Value>(&written).unwrap());
        printed
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

const LETTERS: &[u8] = b"ACDEFGHIKLMNPQRSTVWY";

fn sequences(count: usize) -> Vec<String> {
    let mut random = Random(3);
    let letter =
        |random: &mut Random| char::from(LETTERS[random.below(LETTERS.len() as i64) as usize]);
    (0..count)
        .map(|i| (0..20 + i % 17).map(|_| letter(&mut random)).collect())
        .collect()
}

/// The state of a residue follows from its letter.
fn structure(count: usize) -> String {
    let state = |letter: char| match letter {
        'A'..='F' => 'H',
        'G'..='M' => 'E',
        _ => 'C',
    };
    let record = |(i, sequence): (usize, String)| {
        let states: String = sequence.chars().map(state).collect();
        format!(">p{i} TARGET={states}\n{sequence}\n")
    };
    sequences(count)
        .into_iter()
        .enumerate()
        .map(record)
        .collect()
}

fn figure(result: &Value, measure: &str) -> f64 {
    let figures = result["tests"]["test"]["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["measure"] == measure);
    found.unwrap()["value"].as_f64().unwrap()
}

const SHORT: &[&str] = &["--folds", "2", "--epochs", "3", "--batch", "4"];

#[test]
fn a_killed_benchmark_goes_on_and_ends_in_the_same_bytes_as_one_that_was_not() {
    let bench = Bench::new(&[("structure.fasta", structure(24))]);
    let command = |output: &str| {
        let mut command = bench.command("q3", "structure.fasta", output);
        // Seconds of epochs, so that a signal comes before the end.
        command.args(["--folds", "2", "--epochs", "60", "--batch", "4"]);
        command
    };
    expect(command("whole.json").output().unwrap(), 0, &["accuracy"]);
    for (signal, code) in [("-KILL", None), ("-TERM", Some(75))] {
        let mut killed = command("killed.json");
        let mut process = killed
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // After an epoch: the first one, and one of those that the first process left.
        let epochs = bench.path(".killed.json.epochs");
        let known = fs::read(&epochs).unwrap_or_default();
        let is_later = || fs::read(&epochs).is_ok_and(|found| found != known);
        wait_for(&mut process, "an epoch", is_later);
        let id = process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        assert_eq!(process.wait().unwrap().code(), code);
        assert!(!bench.path("killed.json").exists());
    }
    let mut other = command("killed.json");
    let output = other.args(["--learning-rate", "0.1"]).output().unwrap();
    expect(output, 2, &["killed.json", "--learning-rate"]);
    expect(command("killed.json").output().unwrap(), 0, &["accuracy"]);
    let [whole, killed] =
        ["whole.json", "killed.json"].map(|name| fs::read(bench.path(name)).unwrap());
    assert_eq!(text(&whole), text(&killed));
    assert_eq!(
        bench.entries(),
        ["killed.json", "structure.fasta", "whole.json"]
    );
}

#[test]
fn states_that_are_known_are_not_computed_again() {
    // Of more tokens than five batches of the encoder have.
    let record = |(i, sequence)| format!(">p{i} TARGET={}\n{sequence}\n", i % 2);
    let proteins = sequences(400).into_iter().enumerate().map(record).collect();
    let bench = Bench::new(&[("classes.fasta", proteins)]);
    let files = Files {
        sequences: vec![bench.path("classes.fasta")],
        ..Files::default()
    };
    let reading = Preset::named("solubility").unwrap().reading(None);
    let (dataset, _) = dataset::read(&files, &reading).unwrap();
    let options = ModelOptions {
        slice: "cpu-1".parse().unwrap(),
        compute: Compute::Float32,
        tokenizer: None,
    };
    let weights = hugging_face::load(Bench::weights()).unwrap();
    let model = LoadedModel::open_encoder(weights, options).unwrap();
    // How many states were known after each batch, and what was found, if it was not stopped.
    let run = |output: &str, stop_after: usize| -> (Vec<usize>, Option<TestFigures>) {
        let options = BenchmarkOptions {
            output: bench.path(output),
            features: Features::States,
            predictor: Predictor::Nearest,
            training: HeadTraining::default(),
            seeds: vec![7],
            folds: 2,
            unfinished: Unfinished::Continue,
        };
        let mut known = Vec::new();
        let mut each = |progress| {
            if let Progress::States(done, all) = progress {
                assert_eq!(all, 400);
                known.push(done);
            }
            match known.len() < stop_after {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let found = benchmark(&model, &dataset, &options, Map::new(), &mut each).unwrap();
        (
            known,
            found.map(|(results, _)| results.tests["test"].clone()),
        )
    };
    let (whole, expected) = run("whole.json", usize::MAX);
    assert!(whole.len() > 4 && whole.last() == Some(&400), "{whole:?}");
    let (first, none) = run("stopped.json", 2);
    assert!(none.is_none());
    let (second, none) = run("stopped.json", 1);
    assert!(none.is_none());
    let (third, found) = run("stopped.json", usize::MAX);
    assert_eq!([first, second, third].concat(), whole);
    assert_eq!(found.unwrap().figures, expected.unwrap().figures);
    let [whole, stopped] = [".whole.json.states", ".stopped.json.states"]
        .map(|name| fs::read(bench.path(name)).unwrap());
    assert!(whole == stopped, "the states differ");
}

#[test]
fn random_weights_are_others_and_always_the_same() {
    let bench = Bench::new(&[("structure.fasta", structure(12))]);
    let arguments = ["--folds", "2", "--epochs", "1", "--batch", "4"];
    let random = [&arguments[..], &["--baseline", "random"]].concat();
    let own = bench.result("q3", "structure.fasta", &arguments);
    let found = bench.result("q3", "structure.fasta", &random);
    assert_eq!(found["baseline"], "random weights");
    assert_ne!(found["weights"], own["weights"]);
    assert_ne!(found["trainings"], own["trainings"]);
    assert_eq!(found, bench.result("q3", "structure.fasta", &random));
}

#[test]
fn figures_are_those_of_the_predictions() {
    let bench = Bench::new(&[("structure.fasta", structure(12))]);
    let arguments = ["--folds", "2", "--epochs", "1", "--batch", "4"];
    let predictions = ["--seeds", "2", "--predictions", "predictions.jsonl"];
    let arguments = [&arguments[..], &predictions].concat();
    let found = bench.result("q3", "structure.fasta", &arguments);
    let lines = fs::read_to_string(bench.path("predictions.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 24);
    let share = |seed: u64| {
        let own = lines.iter().filter(|line| line["seed"] == seed);
        let pairs = own.flat_map(|line| {
            let classes = |of: &str| line[of].as_array().unwrap().clone();
            let (labels, found) = (classes("label"), classes("prediction"));
            assert_eq!(labels.len(), found.len());
            labels.into_iter().zip(found)
        });
        let right: Vec<bool> = pairs.map(|(label, found)| label == found).collect();
        right.iter().filter(|right| **right).count() as f64 / right.len() as f64
    };
    let seeds = &found["tests"]["test"]["figures"][0]["seeds"];
    assert_eq!(*seeds, json!([share(7), share(8)]));

    let mut again = bench.command("q3", "structure.fasta", "other.json");
    let output = again.args(["--predictions", "predictions.jsonl"]).output();
    expect(output.unwrap(), 2, &["predictions.jsonl", "--predictions"]);
    assert!(!bench.path("other.json").exists());
}

#[test]
fn eight_devices_find_what_one_finds() {
    let bench = Bench::new(&[("structure.fasta", structure(24))]);
    let on = |slice| {
        let arguments = [SHORT, &["--slice", slice]].concat();
        bench.result("q3", "structure.fasta", &arguments)
    };
    let (one, eight) = (on("cpu-1"), on("cpu-8"));
    let numbers = |result: &Value| -> Vec<f64> {
        let trainings = result["trainings"].as_array().unwrap().iter();
        let epochs = trainings.flat_map(|training| training["epochs"].as_array().unwrap().clone());
        let losses = epochs.flat_map(|e| {
            [
                e["loss"].as_f64().unwrap(),
                e["validation"].as_f64().unwrap(),
            ]
        });
        losses.chain([figure(result, "accuracy")]).collect()
    };
    let (one, eight) = (numbers(&one), numbers(&eight));
    assert_eq!(one.len(), 13);
    for (one, eight) in one.iter().zip(&eight) {
        assert!((one - eight).abs() < TOLERANCE, "{one} and {eight}");
    }
}

#[test]
fn a_head_learns_what_a_residue_tells_from_states_and_from_letters() {
    let bench = Bench::new(&[("structure.fasta", structure(40))]);
    let arguments = [
        "--folds",
        "2",
        "--epochs",
        "8",
        "--batch",
        "4",
        "--learning-rate",
        "0.01",
    ];
    for baseline in [&[][..], &["--baseline", "composition"]] {
        let arguments = [&arguments[..], baseline].concat();
        let found = bench.result("q3", "structure.fasta", &arguments);
        let accuracy = figure(&found, "accuracy");
        assert!(accuracy > 0.9, "{baseline:?}: {accuracy}");
        let interval = &found["tests"]["test"]["figures"][0]["interval"];
        let [low, high] = [0, 1].map(|end| interval[end].as_f64().unwrap());
        assert!(low <= accuracy && accuracy <= high && high - low < 0.2);
    }
}

#[test]
fn every_kind_of_label_has_its_figures() {
    let rich = |sequence: &str| sequence.bytes().filter(|&l| l < b'K').count();
    let classes = |(i, s): (usize, &String)| {
        let set = if i % 3 == 0 { "test" } else { "train" };
        let class = u8::from(rich(s) * 2 > s.len());
        format!(">p{i} SET={set} TARGET={class}\n{s}\n")
    };
    let values = |(i, s): (usize, &String)| {
        let set = if i % 3 == 0 { "test" } else { "train" };
        format!("{s},{}.5,{set},\n", rich(s))
    };
    let all = sequences(36);
    let table: String = all.iter().enumerate().map(values).collect();
    let contacts = |part: &[String]| {
        let record = |(i, s): (usize, &String)| {
            let place = |n: usize| [3.0 * (n % 10) as f64, f64::from(n as u32 / 10), 0.0];
            let tertiary: Vec<[f64; 3]> = (0..s.len()).map(place).collect();
            let mask = vec![1; s.len()];
            json!({ "id": format!("{}{i}", part.len()), "primary": s, "tertiary": tertiary, "valid_mask": mask })
        };
        let records: Vec<Value> = part.iter().enumerate().map(record).collect();
        Value::from(records).to_string()
    };
    let bench = Bench::new(&[
        (
            "classes.fasta",
            all.iter().enumerate().map(classes).collect(),
        ),
        (
            "values.csv",
            format!("sequence,target,set,validation\n{table}"),
        ),
        ("contacts_train.json", contacts(&all[..7])),
        ("contacts_test.json", contacts(&all[7..11])),
    ]);
    let two = ["--epochs", "2", "--batch", "8", "--seeds", "2"];
    let found = bench.result("solubility", "classes.fasta", &two);
    for measure in ["accuracy", "AUC"] {
        assert!((0.0..=1.0).contains(&figure(&found, measure)), "{found}");
    }
    assert!((-1.0..=1.0).contains(&figure(&found, "MCC")));
    let seeds = &found["tests"]["test"]["figures"][0]["seeds"];
    assert_eq!(seeds.as_array().unwrap().len(), 2);
    let found = bench.result("binding", "values.csv", &two);
    assert!(
        (-1.0..=1.0).contains(&figure(&found, "Spearman")),
        "{found}"
    );
    let mut command = bench.command("contacts", "contacts_train.json", "contacts.json");
    command.args([
        "--data",
        "contacts_test.json",
        "--epochs",
        "1",
        "--batch",
        "2",
    ]);
    let words = ["precision at L ", "precision at L/5"];
    expect(command.output().unwrap(), 0, &words);
    // The nearest neighbour of a protein that is trained on is itself.
    let known: String = all
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let class = u8::from(rich(s) * 2 > s.len());
            format!(">a{i} SET=train TARGET={class}\n{s}\n>b{i} SET=test TARGET={class}\n{s}\n")
        })
        .collect();
    fs::write(bench.path("known.fasta"), known).unwrap();
    let found = bench.result("solubility", "known.fasta", &["--head", "nearest"]);
    assert_eq!(figure(&found, "accuracy"), 1.0);
}

#[test]
fn what_cannot_be_measured_is_one_error_and_nothing_is_written() {
    let bench = Bench::new(&[
        ("structure.fasta", structure(4)),
        ("empty.fasta", String::new()),
        ("short.fasta", ">a TARGET=HHH\nMKTA\n".into()),
    ]);
    let before = bench.entries();
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("empty.fasta", &[], &["empty.fasta"]),
        ("missing.fasta", &[], &["missing.fasta"]),
        ("short.fasta", &[], &["short.fasta:1"]),
        (
            "structure.fasta",
            &["--folds", "5"],
            &["5 folds", "4 examples"],
        ),
        (
            "structure.fasta",
            &["--head", "nearest"],
            &["whole protein"],
        ),
    ];
    for (data, arguments, words) in cases {
        let mut command = bench.command("q3", data, "result.json");
        expect(command.args(arguments).output().unwrap(), 2, words);
        assert_eq!(bench.entries(), before, "{data} {arguments:?}");
    }
    fs::write(bench.path("result.json"), "mine").unwrap();
    let mut command = bench.command("q3", "structure.fasta", "result.json");
    expect(
        command.output().unwrap(),
        2,
        &["exists already", "--replace"],
    );
    assert_eq!(fs::read(bench.path("result.json")).unwrap(), b"mine");
}
