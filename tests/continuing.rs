//! Runs that begin with weights: `--initialize-from`.
//!
//! That every form of published weights is read as transformers reads it, `golden` shows; here are
//! whole runs, and what becomes of weights that do not fit.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ankh::hugging_face;
use ankh_data::Tokenizer;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::runs::{Bench, expect, fasta, files, pretrain, pretrain_keeping, text};

/// A directory of weights as transformers writes it, with what it computes from them.
fn golden(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden/directories").join(name)
}

/// The loss that transformers has for the first batch of a run.
fn run_loss(name: &str) -> f64 {
    let bytes = fs::read(golden(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let loss = file.tensor("run_loss").unwrap();
    f32::from_le_bytes(loss.data().try_into().unwrap()).into()
}

/// The settings that the first batch depends on.
const BATCH: [&str; 4] = [
    "--set",
    "data.input_length=64",
    "--set",
    "train.batch_size=4",
];

/// A short run with all losses.
const SHORT: [&str; 10] = [
    "--set",
    "schedule.steps=4",
    "--set",
    "train.log_every=1",
    "--set",
    "schedule.warmup_steps=1",
    "--set",
    "evaluation.every=0",
    "--steps",
    "2",
];

/// The binary, which keeps what it compiles for the bench's other runs.
fn keeping(bench: &Bench) -> Command {
    pretrain_keeping(&bench.path("programs"))
}

/// Training on the bench's data into `run`, with these weights.
fn begin(bench: &Bench, weights: &Path, run: &str) -> Command {
    let mut command = keeping(bench);
    command.arg("--initialize-from").arg(weights);
    command.arg("--data").arg(bench.path("data"));
    command.arg("--run-dir").arg(bench.path(run));
    command.args(BATCH).args(SHORT);
    command
}

#[track_caller]
fn assert_begins_with(bench: &Bench, run: &str, expected: f64) {
    let first = &bench.metrics(run)[0];
    assert_eq!(first["step"], 1);
    let loss = first["loss"].as_f64().unwrap();
    let difference = (loss / expected - 1.0).abs();
    assert!(difference < 1e-5, "{loss}, and transformers has {expected}");
}

#[test]
fn first_losses_are_those_of_transformers() {
    let bench = Bench::new();
    let mut command = pretrain();
    command.args(["batches", "--json", "--data"]);
    let printed = command
        .arg(bench.path("data"))
        .args(BATCH)
        .output()
        .unwrap();
    let printed = text(&printed.stdout);
    let known = golden("run_batch.json");
    if std::env::var_os("WRITE_GOLDENS").is_some() {
        return fs::write(known, printed).unwrap();
    }
    let known = fs::read_to_string(known).unwrap();
    assert_eq!(printed, known, "make goldens");

    // Of a checkpoint, each of two hosts reads what its device holds.
    let weights = golden("4-untied-padded").join("hf");
    let checkpoint = bench.path("imported/step_00000000");
    hugging_face::import_to_checkpoint(&weights, checkpoint.clone()).unwrap();
    let here = bench.path("");
    for host in on_two_hosts(&bench, &checkpoint, "padded", [&here, &here]) {
        expect(host, 0, &["step_00000000"]);
    }
    assert_begins_with(&bench, "padded", run_loss("4-untied-padded"));
}

/// What two hosts say that begin a run together, each in a working directory of its own.
fn on_two_hosts(bench: &Bench, weights: &Path, run: &str, places: [&Path; 2]) -> [Output; 2] {
    let start = |host: usize| {
        let mut command = begin(bench, weights, run);
        command.args(["--slice", "cpu-2", "--simulate-hosts", "2"]);
        command.args(["--set", "sharding.fsdp=2", "--host", &host.to_string()]);
        command.current_dir(places[host]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    [start(0), start(1)].map(|host| host.wait_with_output().unwrap())
}

#[test]
fn hosts_that_find_different_weights_end_before_the_first_step() {
    let bench = Bench::new();
    // At one path, each finds what is in its own working directory.
    let places = ["4-untied", "5-untied-scaled"].map(golden);
    let weights = Path::new("/proc/self/cwd/hf");
    let places = places.each_ref().map(PathBuf::as_path);
    let ended = on_two_hosts(&bench, weights, "run", places);
    let said = ended.map(|host| {
        assert!(!host.status.success());
        text(&host.stderr)
    });
    let words = "host 1 finds other weights in /proc/self/cwd/hf than host 0";
    assert!(said.iter().any(|said| said.contains(words)), "{said:?}");
    assert_eq!(bench.metrics_lines("run"), 0);
}

#[test]
fn a_run_that_was_begun_goes_on_from_its_own_states() {
    let bench = Bench::new();
    let weights = bench.path("weights");
    let copy = |to: &Path| {
        fs::create_dir(to).unwrap();
        for (name, bytes) in files(&golden("4-untied-bin-parts").join("hf")) {
            fs::write(to.join(name), bytes).unwrap();
        }
    };
    copy(&weights);
    // PyTorch's files of float16, without a configuration: the model is that of the weights.
    let said = expect(
        begin(&bench, &weights, "run").output().unwrap(),
        0,
        &["beginning with the weights of"],
    );
    assert!(!said.contains("note:"), "{said}");
    assert_begins_with(&bench, "run", run_loss("4-untied-bin-parts"));
    let recorded = fs::read_to_string(bench.path("run/config.toml")).unwrap();
    for line in [
        format!("initialize_from = {:?}", weights.display().to_string()),
        "d_model = 8".to_owned(),
        "kind = \"partial_demasking\"".to_owned(),
    ] {
        assert!(recorded.contains(&line), "{line} in\n{recorded}");
    }

    // Begun again, it would lose what it has done.
    let again = begin(&bench, &weights, "run").output().unwrap();
    expect(again, 2, &["holds a run already", "--resume"]);
    // With other weights, or none, it would be another run.
    let resume = |arguments: &[&str]| {
        let mut command = keeping(&bench);
        command.arg("--resume").args(arguments);
        command.arg("--run-dir").arg(bench.path("run"));
        command.output().unwrap()
    };
    let other = golden("4-untied").join("hf");
    let other = ["--initialize-from", other.to_str().unwrap()];
    let differs = "train.initialize_from is";
    expect(resume(&other), 2, &["another model's run", differs]);
    let config = bench.path("bare.toml");
    let bare = recorded
        .lines()
        .filter(|line| !line.starts_with("initialize_from"));
    fs::write(&config, bare.collect::<Vec<_>>().join("\n")).unwrap();
    let bare = ["--config", config.to_str().unwrap()];
    expect(resume(&bare), 2, &[differs, "unset here"]);

    // With the same weights and --resume it goes on, and needs them no more.
    fs::remove_dir_all(&weights).unwrap();
    let same = ["--initialize-from", weights.to_str().unwrap()];
    let longer = ["--steps", "4"];
    let said = expect(
        resume(&[&same[..], &longer].concat()),
        0,
        &["resuming step=2", "done: step 4"],
    );
    assert!(!said.contains("beginning with"), "{said}");

    // A run that saved nothing begins once more, with the weights that it has recorded.
    fs::remove_dir_all(bench.path("run/checkpoints")).unwrap();
    fs::write(bench.path("run/metrics.jsonl"), "").unwrap();
    let gone = resume(&[]);
    expect(gone, 2, &["weights holds no weights", "help:"]);
    copy(&weights);
    expect(resume(&[]), 0, &["beginning with the weights of"]);
    assert_begins_with(&bench, "run", run_loss("4-untied-bin-parts"));
}

#[test]
fn weights_that_do_not_fit_are_refused_before_anything_is_made() {
    let bench = Bench::new();
    let at = |name: &str| bench.path(name);
    let hf = golden("4-untied-bin").join("hf");
    // Copies of the weights with one file changed.
    let changed = |name: &str, file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        fs::create_dir(at(name)).unwrap();
        for (other, bytes) in files(&hf) {
            let bytes = match other.to_str() == Some(file) {
                true => change(bytes),
                false => bytes,
            };
            fs::write(at(name).join(other), bytes).unwrap();
        }
        at(name)
    };
    let file = "pytorch_model.bin";
    let cut = changed("cut", file, &|bytes| bytes[..bytes.len() / 2].to_vec());
    let hostile = changed("hostile", file, &|bytes| {
        let at = bytes.windows(11).position(|part| part == b"OrderedDict");
        let mut bytes = bytes.clone();
        bytes[at.unwrap()] = b'o';
        bytes
    });
    let wider = changed("wider", "config.json", &|bytes| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace("\"d_model\": 8", "\"d_model\": 16").into()
    });
    let bare = changed("bare", "config.json", &|bytes| bytes);
    fs::remove_file(bare.join(file)).unwrap();
    let tokenizer = |name: &str, of: Tokenizer| {
        let to = changed(name, "config.json", &|bytes| bytes);
        let ids = ('A'..='Z').filter_map(|letter| {
            let id = of.residue_id(letter as u8)?;
            Some((letter.to_string(), json!(id)))
        });
        let vocab: serde_json::Map<String, Value> = ids.collect();
        let text = json!({ "model": { "vocab": vocab } }).to_string();
        fs::write(to.join("tokenizer.json"), text).unwrap();
        to
    };
    let ankh = tokenizer("ankh", Tokenizer::ankh());
    let ankh3 = tokenizer("ankh3", Tokenizer::ankh3());
    let input = at("proteins.fasta");
    fs::write(&input, fasta((0..40).map(|i| 20 + i % 30))).unwrap();
    let mut prepare = pretrain();
    prepare.args(["prepare", "--tokenizer", "ankh3", "--output"]);
    let prepared = prepare.arg(at("data3")).arg(&input).output().unwrap();
    expect(prepared, 0, &[]);
    let data3 = at("data3").display().to_string();

    for (weights, arguments, words) in [
        (
            &hf,
            &["--config", "tiny"][..],
            &[
                "model.d_model is 8 there and 24 here",
                "model.d_ff is 12 there and 48 here",
                "leave out --config",
            ][..],
        ),
        (
            &hf,
            &["--set", "model.activation=gated-silu"],
            &["model.activation is \"gated-gelu\" there and \"gated-silu\" here"],
        ),
        (&at("nothing"), &[], &["nothing holds no weights"]),
        (&at("data"), &[], &["data holds no weights"]),
        (&bare, &[], &["bare holds no weights"]),
        (&cut, &[], &["pytorch_model.bin: cut short", "fetch"]),
        (&hostile, &[], &["pytorch_model.bin", "fetch"]),
        (&wider, &[], &["do not fit the model", "other weights"]),
        (
            &ankh,
            &["--data", &data3],
            &[
                "prepared with the tokenizer ankh3",
                "prepare --tokenizer ankh",
            ],
        ),
        (
            &ankh3,
            &["--set", "data.tokenizer=ankh"],
            &["for the tokenizer ankh3, and data.tokenizer is ankh"],
        ),
        (
            &at("x"),
            &["--initialize-from", "gs:/bucket"],
            &["--initialize-from"],
        ),
    ] {
        let mut command = pretrain();
        if !arguments.contains(&"--initialize-from") {
            command.arg("--initialize-from").arg(weights);
        }
        if !arguments.contains(&"--data") {
            command.arg("--data").arg(at("data"));
        }
        command.arg("--run-dir").arg(at("run"));
        command.args(BATCH).args(SHORT).args(arguments);
        let said = expect(command.output().unwrap(), 2, words);
        assert_eq!(said.matches("error:").count(), 1, "{said}");
        assert!(!at("run").exists(), "{said}");
    }
}

/// What is wrong inside the files of weights is found only while they are read, after the run
/// directory is taken. A run that never began leaves none, and the next try just works.
#[test]
fn a_run_that_cannot_begin_leaves_no_directory_and_is_in_nobodys_way() {
    let bench = Bench::new();
    let copy = |from: &Path, to: &str| {
        let to = bench.path(to);
        for (name, bytes) in files(from) {
            let file = to.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        to
    };
    // A byte, or what is behind it, of the first of the files with such a name.
    let change = |weights: &Path, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut all = files(weights).into_iter();
        let (file, mut bytes) = all
            .find(|(file, _)| file.to_string_lossy().contains(name))
            .unwrap();
        change(&mut bytes);
        fs::write(weights.join(file), bytes).unwrap();
    };
    let hf = golden("4-untied").join("hf");
    let good = bench.path("imported/step_00000000");
    hugging_face::import_to_checkpoint(&hf, good.clone()).unwrap();
    let flipped = copy(&good, "flipped/step_00000000");
    change(&flipped, "c/", &|bytes| bytes[9] ^= 1);
    let cut = copy(&good, "cut/step_00000000");
    change(&cut, "c/", &|bytes| bytes.truncate(9));
    let gone = copy(&good, "gone/step_00000000");
    let chunk = files(&gone).into_iter();
    let chunk = chunk.map(|(file, _)| file);
    let mut chunk = chunk.filter(|file| file.to_string_lossy().contains("c/"));
    fs::remove_file(gone.join(chunk.next().unwrap())).unwrap();
    // The last tensor of a file is at its end.
    let [nan, infinite] =
        [("nan", f32::NAN), ("infinite", f32::NEG_INFINITY)].map(|(to, value)| {
            let to = copy(&hf, to);
            change(&to, "model.safetensors", &|bytes| {
                let end = bytes.len() - 4;
                bytes[end..].copy_from_slice(&value.to_le_bytes());
            });
            to
        });
    let short = copy(&hf, "short");
    change(&short, "model.safetensors", &|bytes| {
        bytes.truncate(bytes.len() - 4);
    });

    let run = bench.path("runs/run");
    let nothing = || assert!(!bench.path("runs").exists());
    for (weights, words) in [
        (&flipped, &["step_00000000 is damaged", "checksum"][..]),
        (&cut, &["step_00000000 is damaged"]),
        (&gone, &["step_00000000 is damaged"]),
        (&nan, &["model.safetensors: element", "not a finite number"]),
        (&infinite, &["model.safetensors: element"]),
        (&short, &["model.safetensors"]),
    ] {
        let words = [words, &["help: give other weights"]].concat();
        let said = expect(
            begin(&bench, weights, "runs/run").output().unwrap(),
            2,
            &words,
        );
        assert_eq!(said.matches("error:").count(), 1, "{said}");
        nothing();
    }

    // An empty directory stays one.
    fs::create_dir_all(&run).unwrap();
    let refused = begin(&bench, &flipped, "runs/run").output().unwrap();
    expect(refused, 2, &["is damaged"]);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    fs::remove_dir_all(bench.path("runs")).unwrap();

    // One of two hosts finds the damage, and both end.
    let ended = on_two_hosts(
        &bench,
        &flipped,
        "runs/run",
        [&bench.path(""), &bench.path("")],
    );
    assert!(ended.iter().all(|host| !host.status.success()));
    // The one that made it may end while the other is still in it.
    if bench.path("runs").exists() {
        assert!(files(&bench.path("runs")).is_empty());
        fs::remove_dir_all(bench.path("runs")).unwrap();
    }

    // Stopped before its first step.
    for signal in ["-TERM", "-INT"] {
        let mut command = begin(&bench, &good, "runs/run");
        command.env("ANKH_COMPILATION_CACHE", "");
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("compiling the training step") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before");
        }
        assert!(run.join(".lease/00000001.json").exists());
        let id = process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        let words = ["stopped on request after step 0", "with the same arguments"];
        expect(process.wait_with_output().unwrap(), 75, &words);
        drop(said);
        nothing();
    }

    expect(
        begin(&bench, &good, "runs/run").output().unwrap(),
        0,
        &["done: step 2"],
    );
    assert_begins_with(&bench, "runs/run", run_loss("4-untied"));
}

/// The sequences of the bundled sample whose names have these words, and the others.
fn split_off(words: &str) -> (String, String) {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample/uniprot_sample.fasta.gz");
    let unpacked = Command::new("gzip").args(["-dc"]).arg(sample).output();
    let unpacked = text(&unpacked.unwrap().stdout);
    let (mut family, mut others) = (String::new(), String::new());
    for record in unpacked.split('>').skip(1) {
        let name = record.lines().next().unwrap_or_default();
        let to = match name.contains(words) {
            true => &mut family,
            false => &mut others,
        };
        to.push('>');
        to.push_str(record);
    }
    (family, others)
}

/// A model learns proteins without a family. From its weights, a run on some of the family lowers
/// the loss on the rest of it, and below what the same run reaches without the weights.
#[test]
fn a_continued_run_lowers_the_loss_on_a_family_it_was_not_trained_on() {
    let bench = Bench::empty();
    let (family, others) = split_off("Threonine--tRNA ligase");
    assert_eq!(family.matches('>').count(), 30);
    for (name, sequences, held_out) in [("family", family, "0.4"), ("others", others, "0.02")] {
        let input = bench.path(&format!("{name}.fasta"));
        fs::write(&input, sequences).unwrap();
        let mut prepare = pretrain();
        prepare.args(["prepare", "--validation-fraction", held_out, "--output"]);
        let prepared = prepare.arg(bench.path(name)).arg(input).output().unwrap();
        expect(prepared, 0, &[]);
    }
    let train = |data: &str, run: &str, arguments: &[&str]| {
        let mut command = keeping(&bench);
        command.args(["--config", "tiny", "--steps", "100", "--json"]);
        for setting in [
            "data.input_length=64",
            "data.target_length=auto",
            "train.batch_size=16",
            "train.log_every=50",
            "schedule.warmup_steps=20",
            "schedule.peak_learning_rate=2e-2",
            "checkpoint.every=100",
            "evaluation.every=100",
            "evaluation.batches=4",
        ] {
            command.args(["--set", setting]);
        }
        command.arg("--data").arg(bench.path(data));
        command.arg("--run-dir").arg(bench.path(run));
        let output = command.args(arguments).output().unwrap();
        let printed = text(&output.stdout);
        expect(output, 0, &[]);
        let summary: Value = serde_json::from_str(&printed).unwrap();
        let loss = |when: &str| summary["held_out_loss"][when].as_f64().unwrap();
        (loss("first"), loss("last"))
    };
    let (drawn, _) = train("others", "base", &[]);
    let base = bench.path("base").display().to_string();
    let (before, after) = train("family", "continued", &["--initialize-from", &base]);
    let (_, without) = train("family", "without", &[]);
    println!("{drawn} drawn; {before} before, {after} after, {without} without the weights");
    assert!(
        before < drawn - 1.0,
        "the weights are those of the first run"
    );
    assert!(after < before - 0.1, "{before} before, {after} after");
    assert!(
        after < without - 0.1,
        "{after}, and {without} without the weights"
    );
}
