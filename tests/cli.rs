//! The command line as its users meet it: through the binary.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::runs;

fn pretrain(arguments: &[&str]) -> Output {
    let mut command = runs::pretrain();
    command.args(arguments).output().expect("the binary runs")
}

/// Runs in a directory, on a machine that says this of itself.
fn pretrain_on(machine: &[(&str, &str)], directory: &Path, arguments: &[&str]) -> Output {
    let mut command = runs::pretrain();
    let command = command.args(arguments).current_dir(directory);
    for name in [
        "TPU_ACCELERATOR_TYPE",
        "TPU_TOPOLOGY",
        "TPU_CHIPS_PER_HOST_BOUNDS",
        "TPU_WORKER_ID",
        "CLOUD_TPU_TASK_ID",
        "TPU_WORKER_HOSTNAMES",
    ] {
        command.env_remove(name);
    }
    let command = command.env("TPU_SKIP_MDS_QUERY", "1");
    let machine = machine.iter().copied();
    command.envs(machine).output().expect("the binary runs")
}

/// The third machine of a v4-32, with a libtpu that is never loaded.
const WORKER_OF_A_V4_32: [(&str, &str); 4] = [
    ("TPU_ACCELERATOR_TYPE", "v4-32"),
    ("TPU_WORKER_ID", "2"),
    ("TPU_WORKER_HOSTNAMES", "a,b,c,d"),
    ("ANKH_PJRT_PLUGIN", env!("CARGO_BIN_EXE_pretrain")),
];

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs and expects this exit code and these words on standard error, and nothing on standard
/// output.
#[track_caller]
fn refused(arguments: &[&str], exit: i32, words: &[&str]) {
    let output = pretrain(arguments);
    let text = err(&output);
    assert_eq!(code(&output), exit, "{arguments:?}: {text}");
    assert_eq!(out(&output), "", "{arguments:?}");
    for word in words {
        assert!(
            text.contains(word),
            "{arguments:?}: expected {word:?} in {text}"
        );
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small FASTA file and the data prepared from it.
fn prepared(directory: &Path) -> String {
    let fasta = directory.join("proteins.fasta");
    fs::write(&fasta, runs::fasta((0..64).map(|i| 20 + i % 30))).unwrap();
    let output = directory.join("prepared");
    let arguments = [
        "prepare",
        "--validation-fraction",
        "0.2",
        "--output",
        path(&output),
        path(&fasta),
    ];
    let done = pretrain(&arguments);
    assert_eq!(code(&done), 0, "{}", err(&done));
    path(&output).to_owned()
}

#[test]
fn wrong_usage_exits_with_2() {
    refused(&["--no-such-option"], 2, &["--no-such-option"]);
    refused(&["prepare"], 2, &["--output"]);
    refused(
        &["--config", "demo", "--slice", "v9-1"],
        2,
        &["v9-1", "cpu-1"],
    );
    refused(&["no-such-command"], 2, &["no-such-command"]);
}

#[test]
fn a_tpu_slice_elsewhere_says_what_is_missing_and_what_comes_next() {
    let directory = tempfile::tempdir().unwrap();
    let machine = [("ANKH_PJRT_PLUGIN", "/nowhere/libtpu.so")];
    let output = pretrain_on(&machine, directory.path(), &["--slice", "v4-64"]);
    let text = err(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert_eq!(out(&output), "");
    for words in [
        "error: a run on v4-64 cannot start here yet",
        "TPU VM  this machine is none",
        "pretrain plan --slice v4-64\n",
        "--worker all --command 'pretrain --slice v4-64 --data DIR'",
        "libtpu  cannot read the plugin /nowhere/libtpu.so",
        "pretrain doctor --fetch --slice v4-64",
        "data    none is given",
        "pretrain prepare --output DIR INPUT...",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    assert!(text.lines().count() < 10, "{text}");
    let left = fs::read_dir(directory.path()).unwrap();
    assert_eq!(left.count(), 0, "nothing was begun");
}

#[test]
fn only_what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| pretrain_on(&WORKER_OF_A_V4_32, directory.path(), arguments);
    let output = run(&["--slice", "v4-32"]);
    let text = err(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert!(text.contains("data    none is given"), "{text}");
    assert!(
        !text.contains("libtpu") && !text.contains("TPU VM"),
        "{text}"
    );
    let output = run(&["--slice", "v4-32", "--data", "no-such-place"]);
    let text = err(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert!(text.contains("data    no-such-place"), "{text}");
}

#[test]
fn a_tpu_vm_of_another_slice_is_named_with_both() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--slice", "v4-64"];
    let output = pretrain_on(&WORKER_OF_A_V4_32, directory.path(), &arguments);
    let text = err(&output);
    assert_eq!(code(&output), 2, "{text}");
    assert!(
        text.contains("error: this TPU VM is part of a v4-32, not of a v4-64"),
        "{text}"
    );
    assert!(text.contains("help: give --slice v4-32"), "{text}");
}

#[test]
fn doctor_says_what_the_tpu_vm_says() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = |slice: &str, machine: &[(&str, &str)]| {
        let arguments = ["doctor", "--json", "--config", "tiny", "--slice", slice];
        let output = pretrain_on(machine, directory.path(), &arguments);
        let report: Value = serde_json::from_str(&out(&output)).unwrap();
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "TPU VM");
        (code(&output), check.unwrap().clone())
    };
    let (exit, check) = doctor("v4-32", &WORKER_OF_A_V4_32);
    assert_eq!(exit, 0, "{check}");
    assert_eq!(check["found"], "worker 2 of the 4 of a v4-32");
    let (exit, check) = doctor("v4-64", &WORKER_OF_A_V4_32);
    assert_eq!((exit, &check["status"]), (1, &"fail".into()));
    assert_eq!(
        check["found"],
        "this TPU VM is part of a v4-32, not of a v4-64"
    );
    let (exit, check) = doctor("v6e-8", &[]);
    assert_eq!((exit, &check["status"]), (1, &"fail".into()));
    assert!(
        check["advice"]
            .as_str()
            .unwrap()
            .contains("pretrain plan --slice v6e-8")
    );
}

#[test]
fn an_option_of_an_earlier_version_names_the_option_of_now() {
    let message = "error: the option --play-hosts is called --simulate-hosts now";
    refused(&["--config", "tiny", "--play-hosts", "2"], 2, &[message]);
    refused(&["--config", "tiny", "--play-hosts=2"], 2, &[message]);
}

#[test]
fn an_unknown_key_names_its_neighbor_and_its_place() {
    let set = ["--config", "tiny", "--set", "model.d_modle=3"];
    refused(
        &set,
        2,
        &[
            "error: unknown setting `model.d_modle` in --set",
            "did you mean `model.d_model`?",
            "help: ",
        ],
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.toml");
    fs::write(&file, "[trian]\nsteps = 3\n").unwrap();
    refused(
        &["--config", path(&file)],
        2,
        &[
            "`trian.steps` in ",
            "mine.toml",
            "did you mean `train.steps`?",
        ],
    );
}

#[test]
fn a_wrong_value_says_what_was_expected() {
    let arguments = ["--config", "tiny", "--set", "model.d_model=wide"];
    refused(
        &arguments,
        2,
        &["`model.d_model`", "\"wide\"", "expected a whole number"],
    );
    let arguments = ["--config", "tiny", "--set", "train.batch_size=0"];
    refused(&arguments, 2, &["train.batch_size is 0"]);
}

#[test]
fn a_misspelt_preset_names_the_right_one() {
    refused(
        &["--config", "ankh-lrage"],
        2,
        &["did you mean `ankh-large`?", "presets are"],
    );
}

#[test]
fn training_without_data_says_how_to_get_some() {
    refused(&["--config", "tiny"], 2, &["--data", "pretrain prepare"]);
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let arguments = [
        "--config",
        "tiny",
        "--data",
        path(directory.path()),
        "--run-dir",
        path(&run),
    ];
    refused(&arguments, 2, &["no manifest.json", "pretrain prepare"]);
}

#[test]
fn an_unwritable_run_directory_is_refused_before_any_work() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let file = directory.path().join("a-file");
    fs::write(&file, "").unwrap();
    let run = file.join("run");
    let arguments = ["--config", "tiny", "--data", &data, "--run-dir", path(&run)];
    refused(
        &arguments,
        2,
        &["cannot write to the run directory", path(&run), "--run-dir"],
    );
}

#[test]
fn another_models_run_is_refused_and_the_difference_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let run = directory.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
    fs::write(
        run.join("config.toml"),
        "extends = \"tiny\"\n[model]\nd_model = 32\n",
    )
    .unwrap();
    let arguments = ["--config", "tiny", "--data", &data, "--run-dir", path(&run)];
    let words = [
        "another model's run",
        "model.d_model is 32 there and 24 here",
    ];
    refused(&arguments, 2, &words);
    refused(&[&arguments[..], &["--resume"]].concat(), 2, &words);
}

#[test]
fn a_run_is_not_begun_again_without_resume() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let run = directory.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
    fs::write(run.join("config.toml"), "extends = \"tiny\"\n").unwrap();
    let arguments = ["--config", "tiny", "--data", &data, "--run-dir", path(&run)];
    refused(&arguments, 2, &["holds a run already", "--resume"]);
}

#[test]
fn prepare_reports_in_words_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let fasta = directory.path().join("two.fasta");
    fs::write(&fasta, ">one\nMKVLA\n>two\nMKV-LJ*\n").unwrap();
    let output = directory.path().join("words");
    let done = pretrain(&["prepare", "--output", path(&output), path(&fasta)]);
    assert_eq!(code(&done), 0, "{}", err(&done));
    for words in [
        "2 sequences, 10 residues",
        "1 gaps removed",
        "1 stops removed",
    ] {
        assert!(out(&done).contains(words), "{}", out(&done));
    }
    let output = directory.path().join("json");
    let done = pretrain(&["prepare", "--json", "--output", path(&output), path(&fasta)]);
    let manifest: Value = serde_json::from_str(&out(&done)).unwrap();
    assert_eq!(manifest["rows"], 2);
    let refused_twice = ["prepare", "--output", path(&output), path(&fasta)];
    refused(
        &refused_twice,
        2,
        &["already holds prepared data", "--replace"],
    );
    let replaced = pretrain(&[&refused_twice[..], &["--replace"]].concat());
    assert_eq!(code(&replaced), 0, "{}", err(&replaced));
}

#[test]
fn unusable_sequence_files_are_refused_with_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("prepared");
    let cases: [(&str, i32, &[u8]); 3] = [
        ("empty.fasta", 2, b""),
        (
            "binary.fasta",
            2,
            b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00",
        ),
        // It might be on any line.
        (
            "truncated.fasta.gz",
            1,
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xb3",
        ),
    ];
    for (name, code, bytes) in cases {
        let file = directory.path().join(name);
        fs::write(&file, bytes).unwrap();
        refused(
            &["prepare", "--output", path(&output), path(&file)],
            code,
            &["error: ", name],
        );
        assert!(!output.exists(), "{name}");
    }
    let missing = directory.path().join("missing.fasta");
    refused(
        &["prepare", "--output", path(&output), path(&missing)],
        2,
        &["missing.fasta"],
    );
}

#[test]
fn a_split_without_rows_is_explained_when_it_is_made_and_when_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let fasta = directory.path().join("two.fasta");
    fs::write(&fasta, ">one\nMKVLA\n>two\nMKVLR\n").unwrap();
    let prepare = |name: &str, share: &str, more: &[&str]| {
        let output = directory.path().join(name);
        let place = ["--output", path(&output), path(&fasta)];
        let share = ["prepare", "--validation-fraction", share];
        let done = pretrain(&[&share[..], more, &place].concat());
        assert_eq!(code(&done), 0, "{}", err(&done));
        (path(&output).to_owned(), out(&done))
    };
    let (small, said) = prepare("small", "1e-9", &[]);
    for words in ["no validation rows: none of its 2", "evaluation.every=0"] {
        assert!(said.contains(words), "{said}");
    }
    let (_, said) = prepare("none", "0", &[]);
    assert!(
        said.contains("train with --set evaluation.every=0"),
        "{said}"
    );
    let (_, said) = prepare("tested", "0.999999", &["--test-fraction", "1e-9"]);
    for words in ["no train rows: all of its 2", "no test rows: none of its 2"] {
        assert!(said.contains(words), "{said}");
    }
    let run = directory.path().join("run");
    let train = [
        "--config",
        "tiny",
        "--data",
        &small,
        "--run-dir",
        path(&run),
    ];
    let words = [
        "no validation rows",
        "--set evaluation.every=0",
        "--split-by sequence",
    ];
    refused(&train, 1, &words);
}

#[test]
fn a_tables_columns_are_named_and_can_be_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("table.csv");
    fs::write(&table, "key,peptide,taxon\na,MKVLA,1\nb,MKVLR,2\n").unwrap();
    let output = directory.path().join("prepared");
    let place = ["--output", path(&output), path(&table)];
    let with = |more: &[&'static str]| [&["prepare"], more, &place].concat();
    refused(&with(&[]), 2, &["key,peptide,taxon", "--column"]);
    let wrong = with(&["--column", "peptid"]);
    refused(
        &wrong,
        2,
        &["expected a column `peptid`, found the columns key, peptide, taxon"],
    );
    let wrong = with(&["--column", "peptide", "--id-column", "id"]);
    refused(&wrong, 2, &["expected a column `id` of ids", "--id-column"]);
    let right = [
        "--column",
        "peptide",
        "--id-column",
        "key",
        "--split-by",
        "sequence",
        "--json",
    ];
    let done = pretrain(&with(&right));
    assert_eq!(code(&done), 0, "{}", err(&done));
    let manifest: Value = serde_json::from_str(&out(&done)).unwrap();
    assert_eq!(manifest["rows"], 2);
    assert_eq!(manifest["settings"]["columns"]["sequence"], "peptide");
    assert_eq!(manifest["settings"]["columns"]["id"], "key");
    assert_eq!(manifest["settings"]["split_by"], "sequence");
}

#[test]
fn batches_are_the_same_bytes_each_time_and_on_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let print = |threads: &str| {
        let threads = format!("data.threads={threads}");
        let arguments = [
            "batches", "--json", "--config", "tiny", "--data", &data, "--steps", "20", "--set",
            &threads,
        ];
        let output = pretrain(&arguments);
        assert_eq!(code(&output), 0, "{}", err(&output));
        output.stdout
    };
    let first = print("1");
    assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), 20);
    for threads in ["1", "2", "8"] {
        assert!(print(threads) == first, "{threads} threads");
    }
}

#[test]
fn hosts_partition_the_batches() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let print = |arguments: &[&str]| -> Vec<Value> {
        let common = [
            "batches", "--json", "--config", "tiny", "--data", &data, "--steps", "3",
        ];
        let output = pretrain(&[&common[..], arguments].concat());
        assert_eq!(code(&output), 0, "{}", err(&output));
        out(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let whole = print(&[]);
    let halves = [
        print(&["--hosts", "2", "--host", "0"]),
        print(&["--hosts", "2", "--host", "1"]),
    ];
    for (step, whole) in whole.iter().enumerate() {
        let rows = |batch: &Value| batch["input_ids"].as_array().unwrap().clone();
        let parts = [rows(&halves[0][step]), rows(&halves[1][step])].concat();
        assert_eq!(rows(whole), parts, "step {step}");
    }
}

#[test]
fn batches_for_reading_show_residues_and_sentinels() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let show = |arguments: &[&str]| {
        let common = ["batches", "--config", "tiny", "--data", &data];
        let output = pretrain(&[&common[..], arguments].concat());
        assert_eq!(code(&output), 0, "{}", err(&output));
        out(&output)
    };
    let inputs = |text: &str| {
        let lines = text.lines().map(str::trim_start);
        let inputs = lines.filter(|line| line.starts_with("input"));
        inputs
            .filter(|line| line.contains("<0>") && line.ends_with("</s>"))
            .count()
    };
    let text = show(&[]);
    assert!(
        text.starts_with("step 0, epoch 0: 4 rows of 4 sequences"),
        "{text}"
    );
    assert_eq!(inputs(&text), 4, "{text}");
    // No escape sequences but where they are asked for: this is no terminal.
    assert!(!text.contains('\x1b'), "{text}");
    assert!(show(&["--color", "always"]).contains("\x1b["));

    let long = "data.input_length=96";
    let packed = [
        "--set",
        "data.packing=packed",
        "--set",
        long,
        "--set",
        "data.target_length=64",
    ];
    let text = show(&packed);
    assert!(inputs(&text) > 4, "{text}");
    let json = show(&[&packed[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let largest = |row: &Value| row.as_array().unwrap().iter().map(Value::as_i64).max();
    let rows = json["input_segments"].as_array().unwrap();
    assert!(
        rows.iter().map(largest).max() > Some(Some(Some(1))),
        "{json}"
    );
}

#[test]
fn the_doctor_finds_a_healthy_machine_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let data = prepared(directory.path());
    let run = directory.path().join("run");
    let arguments = [
        "doctor",
        "--config",
        "tiny",
        "--data",
        &data,
        "--run-dir",
        path(&run),
        "--json",
    ];
    let output = pretrain(&arguments);
    let report: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(code(&output), 0, "{report}");
    assert_eq!(report["ok"], true);
    let names: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    for name in [
        "plugin",
        "devices",
        "memory",
        "data",
        "run directory",
        "storage",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = runs::pretrain();
    command.env("ANKH_PJRT_PLUGIN", directory.path().join("none.so"));
    let arguments = [
        "doctor",
        "--config",
        "tiny",
        "--data",
        path(directory.path()),
    ];
    let output = command.args(arguments).output().unwrap();
    let text = out(&output);
    assert_eq!(code(&output), 1, "{text}");
    for line in ["fail  plugin", "fail  data"] {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "{line} in {text}"
        );
    }
    assert!(
        text.contains("what to do: make it with `pretrain prepare"),
        "{text}"
    );
}

#[test]
fn weights_that_are_not_there_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (path(directory.path()), directory.path().join("to"));
    refused(
        &["import", "--input", from, "--output", path(&to)],
        2,
        &[from],
    );
    refused(
        &["export", "--checkpoint", from, "--output", path(&to)],
        2,
        &[from],
    );
}
