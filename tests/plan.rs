//! `pretrain plan` through the binary: on the CPU plugin, on plugins that fail, and (ignored by
//! default) on libtpu.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn pretrain() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pretrain"));
    // Training keeps nothing among the user's compiled programs.
    command.env("ANKH_COMPILATION_CACHE", "");
    command
}

fn plan(arguments: &[&str]) -> Output {
    let output = pretrain().arg("plan").args(arguments).output();
    output.expect("the binary runs")
}

#[track_caller]
fn planned(arguments: &[&str]) -> Value {
    let output = plan(&[arguments, &["--json"]].concat());
    let messages = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {messages}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(output: &Output, exit: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{text}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(text.contains(word), "expected {word:?} in {text}");
    }
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

fn array<'v>(plan: &'v Value, name: &str) -> &'v Value {
    let arrays = plan["arrays"].as_array().unwrap();
    let found = arrays.iter().find(|array| array["name"] == name);
    found.unwrap_or_else(|| panic!("no array {name}"))
}

/// Ours and the compiler's count of a chip's arguments.
fn arguments(plan: &Value) -> (f64, f64) {
    let ours = ["parameters", "optimizer", "batch"]
        .map(|part| number(plan, &format!("/memory/{part}")))
        .iter()
        .sum();
    (ours, number(plan, "/memory/arguments"))
}

const CPU_8: [&str; 10] = [
    "--slice",
    "cpu-8",
    "--config",
    "tiny",
    "--set",
    "train.batch_size=16",
    "--set",
    "sharding.fsdp=2",
    "--set",
    "sharding.model=2",
];

#[test]
fn a_plan_says_where_every_array_lies_and_agrees_with_the_compiler() {
    let plan = planned(&CPU_8);
    assert_eq!(
        plan["mesh"],
        serde_json::json!({ "data": 2, "fsdp": 2, "model": 2 })
    );
    let q = array(&plan, "encoder.layers.attention.q");
    assert_eq!(q["split"], serde_json::json!([[], ["fsdp"], ["model"]]));
    assert_eq!(q["dims"], serde_json::json!([2, 24, 16]));
    assert_eq!(q["shard"], serde_json::json!([2, 12, 8]));
    assert_eq!(
        array(&plan, "input_ids")["shard"],
        serde_json::json!([4, 32])
    );
    let (ours, compilers) = arguments(&plan);
    assert!((ours / compilers - 1.0).abs() < 0.02, "{ours} {compilers}");
    assert!(number(&plan, "/total_flops") > number(&plan, "/model_flops"));
    let kinds: Vec<&Value> = plan["collectives"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["kind"])
        .collect();
    assert!(kinds.contains(&&Value::from("all-reduce")), "{kinds:?}");
    // Only libtpu estimates time.
    assert_eq!(plan["estimate"], Value::Null);
}

#[test]
fn a_plan_for_reading_names_the_mesh_the_memory_and_the_exchanges() {
    let local = ["--set", "checkpoint.local_minutes=5"];
    let output = plan(&[&CPU_8[..], &local].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "data 2 x fsdp 2 x model 2",
        "encoder.layers.mlp.wo ",
        "optimizer state",
        "memory of a host",
        "local saves",
        "all-reduce",
        "not known",
    ] {
        assert!(text.contains(words), "expected {words:?} in {text}");
    }
}

#[test]
fn a_plan_counts_the_sequences_of_packed_rows() {
    let packed = [
        "--slice",
        "cpu-1",
        "--config",
        "tiny",
        "--set",
        "data.packing=packed",
        "--set",
        "data.input_length=128",
        "--set",
        "data.target_length=auto",
        "--set",
        "train.batch_size=24 sequences",
    ];
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = pretrain().args(prepare(data.to_str().unwrap())).output();
    assert!(output.unwrap().status.success());
    let of_data = planned(&[&packed[..], &["--data", data.to_str().unwrap()]].concat());
    let like_uniref50 = planned(&packed);
    for (plan, lengths) in [(&of_data, "Data"), (&like_uniref50, "LikeUniRef50")] {
        let of_row = number(plan, "/step/fill/sequences");
        assert!(of_row > 1.0, "{plan}");
        let sequences = number(plan, "/step/rows") * of_row;
        assert!((sequences - 24.0).abs() <= 2.0, "{plan}");
        assert!(number(plan, "/step/fill/input") > 0.9, "{plan}");
        assert_eq!(plan["step"]["lengths"], lengths);
        // 127 residues have 25 masks, each with a run before it, and one run and </s> behind them.
        assert_eq!(number(plan, "/step/target_length"), 64.0);
    }
    let nowhere = plan(&[&packed[..], &["--data", "/nowhere"]].concat());
    refused(&nowhere, 2, &["/nowhere"]);
}

#[test]
fn a_batch_that_does_not_divide_is_refused_before_any_work() {
    let output = plan(&["--slice", "cpu-8", "--config", "tiny"]);
    refused(
        &output,
        2,
        &[
            "input_ids",
            "batch",
            "of size 4",
            "help: set train.batch_size",
        ],
    );
    let output = plan(&[
        "--slice",
        "cpu-8",
        "--config",
        "tiny",
        "--set",
        "sharding.model=3",
    ]);
    refused(&output, 2, &["3", "8 devices"]);
}

#[test]
fn a_compiler_that_is_not_there_is_told_with_how_to_get_it() {
    let directory = tempfile::tempdir().unwrap();
    let output = pretrain()
        .args(["plan", "--slice", "cuda-1", "--config", "tiny"])
        .current_dir(directory.path())
        .env_remove("ANKH_PJRT_PLUGIN")
        .output()
        .unwrap();
    refused(&output, 1, &["no PJRT plugin for cuda", "help:"]);
}

/// A plugin whose loading runs this C code.
fn plugin(directory: &Path, code: &str) -> PathBuf {
    let (source, library) = (directory.join("plugin.c"), directory.join("plugin.so"));
    let text = format!(
        "#include <stdio.h>\n#include <stdlib.h>\nconst void *GetPjrtApi(void) {{ {code} return 0; }}\n"
    );
    fs::write(&source, text).unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(made.unwrap().success());
    library
}

#[track_caller]
fn fails(code: &str, words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let output = pretrain()
        .args([
            "plan",
            "--slice",
            "v4-64",
            "--config",
            "tiny",
            "--set",
            "train.batch_size=64",
        ])
        .env("ANKH_PJRT_PLUGIN", plugin(directory.path(), code))
        .output()
        .unwrap();
    refused(&output, 1, words);
}

#[test]
fn a_compiler_that_aborts_is_reported_with_what_it_said_last() {
    let code = r#"fprintf(stderr, "noise\nCheck failed: shape is odd\n"); abort();"#;
    fails(code, &["ended with signal 6", "Check failed: shape is odd"]);
}

#[test]
fn a_compiler_that_exits_is_reported() {
    fails("exit(7);", &["ended with exit code 7", "printed nothing"]);
}

#[test]
fn a_plugin_that_gives_nothing_is_reported() {
    fails("", &["plugin.so"]);
}

#[test]
fn the_executable_of_a_plan_is_for_one_virtual_device_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("step");
    let output = plan(&[&CPU_8[..], &["--output", file.to_str().unwrap()]].concat());
    refused(&output, 2, &["order of a program's collectives"]);
    assert!(!file.exists());
}

/// The arguments that prepare the bundled sequences.
fn prepare(data: &str) -> [&str; 6] {
    let sample = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/data/sample/uniprot_sample.fasta.gz"
    );
    let share = "0.05";
    [
        "prepare",
        "--validation-fraction",
        share,
        "--output",
        data,
        sample,
    ]
}

#[test]
fn training_loads_the_executable_of_a_plan() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (data, step, run) = (path("data"), path("step"), path("run"));
    let prepare = prepare(&data);
    let plan = [
        "plan", "--slice", "cpu-1", "--config", "tiny", "--output", &step,
    ];
    let train = [
        "--config",
        "tiny",
        "--data",
        &data,
        "--run-dir",
        &run,
        "--executable",
        &step,
    ];
    for arguments in [&prepare[..], &plan[..], &train[..]] {
        let output = pretrain().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
    }
    let other = [
        "--set",
        "compiler.flags=[\"xla_embed_ir_in_executable=true\"]",
    ];
    let run = path("other");
    let arguments = [
        "--config",
        "tiny",
        "--data",
        &data,
        "--run-dir",
        &run,
        "--executable",
        &step,
    ];
    let output = pretrain().args(arguments).args(other).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("xla_embed_ir_in_executable"), "{text}");
}

#[test]
fn a_plan_writes_the_step_as_built_and_as_compiled() {
    let directory = tempfile::tempdir().unwrap();
    planned(
        &[
            &CPU_8[..],
            &["--dump-hlo", directory.path().to_str().unwrap()],
        ]
        .concat(),
    );
    for name in [
        "train_step.txt",
        "train_step.pb",
        "train_step.optimized.txt",
        "train_step.optimized.pb",
    ] {
        assert!(
            fs::metadata(directory.path().join(name)).unwrap().len() > 0,
            "{name}"
        );
    }
}

#[test]
fn a_search_ranks_what_it_tried_and_its_best_trains() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (data, best, run, cache) = (path("data"), path("best.toml"), path("run"), path("cache"));
    let searched = |limit: &str| {
        planned(&[
            "--search",
            "--slice",
            "cpu-2",
            "--config",
            "tiny",
            "--set",
            "sharding.model=2",
            "--limit",
            limit,
            "--cache",
            &cache,
            "--output-config",
            &best,
        ])
    };
    let found = searched("2");
    let tried = |found: &Value| found["ranking"]["tried"].as_array().unwrap().clone();
    let seconds = |tried: &Value| number(tried, "/outcome/compiled/seconds");
    assert_eq!(tried(&found).len(), 2);
    assert!(tried(&found).is_sorted_by_key(seconds));
    let own = &found["ranking"]["own"];
    assert!(tried(&found).iter().any(|tried| &tried["choice"] == own));
    // The answers of the first search are kept, and the limit counts compilations.
    let again = searched("1");
    assert_eq!(tried(&again).len(), 3);
    for before in tried(&found) {
        let kept = |after: &Value| {
            after["choice"] == before["choice"] && after["outcome"] == before["outcome"]
        };
        assert!(tried(&again).iter().any(kept), "{before}");
    }

    let prepare = prepare(&data);
    let train = [
        "--slice",
        "cpu-2",
        "--config",
        &best,
        "--data",
        &data,
        "--run-dir",
        &run,
        "--steps",
        "2",
    ];
    for arguments in [&prepare[..], &train[..]] {
        let output = pretrain().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
    }
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn a_batch_that_cannot_fit_exits_with_3_and_says_what_to_change() {
    let output = plan(&[
        "--slice",
        "v4-64",
        "--config",
        "ankh-large",
        "--set",
        "train.batch_size=16384",
    ]);
    refused(
        &output,
        3,
        &[
            "of 30.8 GiB on each chip",
            "parameters 7.0 GiB",
            "train.gradient_accumulation=2",
        ],
    );
}

/// ankh-large on a v4-64, with `more`.
#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn the_step_of_ankh_large_takes_a_billion_cycles() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("step");
    let path = file.to_str().unwrap();
    let plan = planned(&[
        "--slice",
        "v4-64",
        "--config",
        "ankh-large",
        "--output",
        path,
    ]);
    // JAX with kernels of the same kind takes 1.3 G, without them 1.6 G.
    assert!(number(&plan, "/estimate/cycles") <= 1.00e9);
    let sent = number(&plan, "/estimate/communication_seconds");
    assert!(sent <= 0.15 * number(&plan, "/estimate/step_seconds"));
    // Forward and backward, of the encoder, the decoder, and from one to the other.
    let kernels = plan.pointer("/profile/kernels").unwrap();
    assert_eq!(kernels.as_array().unwrap().len(), 6);
    let (ours, compilers) = arguments(&plan);
    assert!((ours / compilers - 1.0).abs() < 0.02, "{ours} {compilers}");
    let peak = number(&plan, "/memory/peak");
    assert!(peak < (30u64 << 30) as f64);
    let held = compilers + number(&plan, "/memory/temporary");
    assert!((0.9..1.02).contains(&(peak / held)), "{peak} {held}");
    let (identity, payload) = ankh::mesh::executable_file::read(&file).unwrap();
    assert_eq!(identity.slice, "v4-64");
    assert_eq!(identity.devices.len(), 32);
    assert!(!payload.is_empty());
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn packed_rows_halve_the_chip_hours_of_ankh_large() {
    let plan = planned(&["--slice", "v4-64", "--config", "ankh-large-packed"]);
    // 68 epochs of 45 million sequences, within 2 %.
    let sequences = number(&plan, "/estimate/steps") * number(&plan, "/estimate/examples");
    assert!(
        (sequences / (68.0 * 45e6) - 1.0).abs() < 0.02,
        "{sequences}"
    );
    assert!(number(&plan, "/estimate/chip_hours") <= 12_000.0);
    // Targets keep the room that they take, for which inputs leave a little more.
    assert!(number(&plan, "/step/fill/input") > 0.98);
    assert!(number(&plan, "/step/fill/target") > 0.95);
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn slices_of_every_size_are_planned() {
    for slice in ["v4-8", "v4-128", "v4-1024"] {
        let chips = slice[3..].parse::<usize>().unwrap() / 2;
        let batch = format!("train.batch_size={}", 8 * chips);
        let plan = planned(&["--slice", slice, "--config", "ankh-base", "--set", &batch]);
        assert!(number(&plan, "/estimate/mfu") > 0.1, "{slice}");
    }
}
