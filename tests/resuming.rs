//! What may change when a run goes on, through the binary on the CPU plugin: batch size, optimizer,
//! length, and from where it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use ankh::checkpoint::{Checkpoint, Store};
use serde_json::{Map, Value};

use crate::support::runs::{Bench, expect, fasta, pretrain};

/// A run of four steps and its data, made once for all tests.
struct Finished {
    bench: Bench,
}

impl Finished {
    fn run() -> &'static Finished {
        static RUN: OnceLock<Finished> = OnceLock::new();
        RUN.get_or_init(|| {
            let bench = Bench::empty();
            let proteins = fasta((0..32).map(|i| 10 + i % 20));
            fs::write(bench.path("proteins.fasta"), proteins).unwrap();
            let prepare = ["prepare", "--output", "data", "proteins.fasta"];
            expect(pretrain_in(&bench.path(""), &prepare), 0, &[]);
            // All paths are relative.
            let first = [
                "--config",
                "tiny",
                "--data",
                "data",
                "--run-dir",
                "run",
                "--steps",
                "4",
                "--set",
                "evaluation.every=0",
                "--set",
                "schedule.warmup_steps=1",
                "--set",
                "checkpoint.every=1",
                "--set",
                "data.cache=cache",
                // The programs are run for a few steps only.
                "--set",
                "compiler.flags=[\"xla_backend_optimization_level=0\"]",
            ];
            expect(pretrain_in(&bench.path(""), &first), 0, &["done: step 4"]);
            Finished { bench }
        })
    }

    /// A copy of the run, to be gone on with.
    fn copy(&self) -> Copied {
        let bench = Bench::empty();
        copy(&self.bench.path("run"), &bench.path("run"));
        Copied { bench }
    }
}

struct Copied {
    bench: Bench,
}

impl Copied {
    fn path(&self) -> PathBuf {
        self.bench.path("run")
    }

    /// Goes on with it, from a directory where nothing is.
    fn resume(&self, arguments: &[&str]) -> Output {
        let run = self.path();
        let resume = ["--resume", "--run-dir", run.to_str().unwrap()];
        let elsewhere = tempfile::tempdir().unwrap();
        pretrain_in(elsewhere.path(), &[&resume, arguments].concat())
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        Store::open(self.path().join("checkpoints"))
            .load(step)
            .unwrap()
    }

    fn metrics(&self) -> Vec<Map<String, Value>> {
        self.bench.metrics("run")
    }
}

fn pretrain_in(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = pretrain();
    command.current_dir(directory).args(arguments);
    command.output().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let found = checkpoint.tensors.iter().find(|(found, _)| found == name);
    found.unwrap().1.to_vec::<f32>().unwrap()
}

#[test]
fn where_data_is_does_not_depend_on_where_the_run_was_started() {
    let run = Finished::run().copy();
    let config = fs::read_to_string(run.path().join("config.toml")).unwrap();
    let root = Finished::run().bench.path("").canonicalize().unwrap();
    for (key, name) in [("dir", "data"), ("cache", "cache")] {
        let line = format!("{key} = {:?}\n", root.join(name));
        assert!(config.contains(&line), "{line} in {config}");
    }
}

#[test]
fn another_batch_size_and_optimizer_go_on_when_asked_for() {
    let run = Finished::run().copy();
    let before = run.checkpoint(4);
    let changed = [
        "--set",
        "train.batch_size=8",
        "--set",
        "optimizer.name=adamw",
        "--set",
        "optimizer.weight_decay=0",
        "--set",
        "schedule.kind=constant",
        "--set",
        "schedule.peak_learning_rate=1e-3",
    ];
    let steps = |steps| [&changed[..], &["--steps", steps]].concat();
    let words = [
        "train.batch_size is 4 there and 8 here",
        "optimizer.name is \"adafactor\" there and \"adamw\" here",
        "--accept-changes",
    ];
    expect(run.resume(&steps("7")), 2, &words);
    let accept = |run: &Copied, end| run.resume(&[&steps(end)[..], &["--accept-changes"]].concat());
    let words = ["behind the 16 rows seen", "begins afresh", "done: step 7"];
    expect(accept(&run, "7"), 0, &words);

    // The data goes on: what was shown by now are the first 16 + 3 * 8 rows.
    let data = Finished::run().bench.path("data");
    let show = |arguments: &[&str]| {
        let begin = [
            "batches",
            "--config",
            "tiny",
            "--json",
            "--data",
            data.to_str().unwrap(),
        ];
        expect(
            pretrain_in(Path::new("/"), &[&begin, arguments].concat()),
            0,
            &[],
        )
    };
    let residues = |text: &str| -> u64 {
        let batch = |line| serde_json::from_str::<Value>(line).unwrap();
        let residues = text
            .lines()
            .map(|line| batch(line)["residues"].as_u64().unwrap());
        residues.sum()
    };
    let all = residues(&show(&["--set", "train.batch_size=1", "--steps", "40"]));
    let after = [
        "--set",
        "train.batch_size=8",
        "--from",
        "4",
        "--rows-before",
        "16",
    ];
    let after = residues(&show(&[&after[..], &["--steps", "3"]].concat()));
    let metrics = run.metrics();
    let shown = |step: usize| metrics[step - 1]["residues"].as_u64().unwrap();
    assert_eq!((shown(7), shown(7) - shown(4)), (all, after));
    // 32 sequences of which some are held out, so that 40 rows begin a second epoch and 28 do not.
    assert_eq!(
        (&metrics[5]["epoch"], &metrics[6]["epoch"]),
        (&0.into(), &1.into())
    );

    // AdamW's first step moves each weight by the rate or by nothing: it has begun to count anew.
    let first = run.checkpoint(5);
    let weights = "encoder.layers.mlp.wo";
    let moved: Vec<f32> = values(&before, weights)
        .iter()
        .zip(values(&first, weights))
        .map(|(a, b)| (a - b).abs() / 1e-3)
        .collect();
    let by_the_rate = moved.iter().filter(|moved| (0.98..1.02).contains(*moved));
    assert!(by_the_rate.count() > moved.len() * 9 / 10, "{moved:?}");

    // Stopped once more, and gone on with as it is; the first state from before rows were recorded,
    // and no configuration beside it.
    let other = Finished::run().copy();
    let Checkpoint {
        mut metadata,
        tensors,
        ..
    } = other.checkpoint(4);
    for name in ["rows", "optimizer_start"] {
        metadata.as_object_mut().unwrap().remove(name).unwrap();
    }
    let store = Store::open(other.path().join("checkpoints"));
    store.save(4, &metadata, tensors).unwrap();
    fs::write(other.path().join("config.toml"), "").unwrap();
    let words = [
        "config.toml cannot be used",
        "step_00000004 carries",
        "done: step 5",
    ];
    expect(accept(&other, "5"), 0, &words);
    expect(other.resume(&["--steps", "7"]), 0, &["done: step 7"]);
    let (whole, stopped) = (run.checkpoint(7), other.checkpoint(7));
    assert_eq!(whole.metadata["rows"], 40);
    assert_eq!(whole.metadata["optimizer_start"], 4);
    assert!(whole.tensors == stopped.tensors);
    for name in ["rows", "residues", "optimizer_start"] {
        assert_eq!(whole.metadata[name], stopped.metadata[name], "{name}");
    }
}

#[test]
fn more_steps_do_not_throw_a_finished_run_back_up() {
    let run = Finished::run().copy();
    let before = fs::read(run.path().join("config.toml")).unwrap();
    // On a line from the peak at step 1 to 0 at step 4, and then at step 12.
    let refused = expect(
        run.resume(&["--steps", "12"]),
        2,
        &["the learning rate would jump"],
    );
    for words in [
        "learning rate of step 5 is 7.27e-3: that of step 4 was 3.33e-3, and would now be 0.00e0",
        "\n  --set schedule.start_step=4 ",
        "\n  --set schedule.kind=constant --set schedule.peak_learning_rate=3.33e-3 ",
        "\n  --set schedule.steps=12 ",
    ] {
        assert!(refused.contains(words), "{words:?} in {refused}");
    }
    assert_eq!(fs::read(run.path().join("config.toml")).unwrap(), before);
    let warm = ["--steps", "7", "--set", "schedule.start_step=4"];
    expect(run.resume(&warm), 0, &["done: step 7"]);
    let rates: Vec<f64> = run.metrics()[4..]
        .iter()
        .map(|line| line["learning_rate"].as_f64().unwrap())
        .collect();
    for (rate, expected) in rates.iter().zip([0.0, 1e-2, 5e-3]) {
        assert!((rate - expected).abs() < 1e-8, "{rates:?}");
    }
    // What is done is done, and fewer steps do not undo it.
    let less = run.resume(&["--steps", "6"]);
    expect(
        less,
        0,
        &["has done 7 steps, and train.steps is 6", "done: step 7"],
    );
}
