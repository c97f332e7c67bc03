//! What becomes of a run whose numbers are not finite any more, through the binary on the CPU
//! plugin: nothing bad is saved, and the run goes back to what was good.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::SystemTime;

use ankh::checkpoint::{Checkpoint, Store};
use ankh_pjrt::HostTensor;

use crate::support::runs::{Bench, expect, pretrain};

/// A run of four good steps, each saved.
struct Run(Bench);

impl Run {
    fn new() -> Run {
        let run = Run(Bench::in_memory());
        expect(run.train(4, &[]), 0, &["done: step 4"]);
        run
    }

    /// Begins it, or goes on with it, up to a step.
    fn train(&self, steps: u64, settings: &[&str]) -> Output {
        let steps = steps.to_string();
        let mut command = self.0.train("run", &["--resume", "--steps", &steps]);
        let always = [
            "checkpoint.every=1",
            "checkpoint.keep=0",
            "evaluation.every=0",
            "train.log_every=1",
            "schedule.warmup_steps=0",
            "recovery.skipped_updates=2",
            // The programs are run for a few steps only.
            "compiler.flags=[\"xla_backend_optimization_level=0\"]",
        ];
        let settings = always.iter().chain(settings);
        command.args(settings.flat_map(|setting| ["--set", setting]));
        command.output().unwrap()
    }

    fn store(&self) -> Store {
        Store::open(self.0.path("run/checkpoints"))
    }

    /// Every saved state is finite.
    fn assert_good(&self, steps: &[u64]) {
        assert_eq!(self.store().list().unwrap(), steps);
        for &step in steps {
            for (name, tensor) in self.store().load(step).unwrap().tensors {
                // All but the counter are float32.
                let values = tensor.to_vec::<f32>().unwrap_or_default();
                let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                let finite = values.iter().all(|v| v.is_finite());
                assert!(finite && largest < 1e6, "{name} of step {step}: {largest}");
            }
        }
    }

    /// Changes a number of a saved state, as a fault of the memory would.
    fn flip(&self, step: u64, change: impl Fn(f32) -> f32) {
        let Checkpoint {
            metadata,
            mut tensors,
            ..
        } = self.store().load(step).unwrap();
        let scale = tensors.iter_mut().find(|t| t.0 == "decoder.final_norm");
        let (_, tensor) = scale.unwrap();
        let mut values = tensor.to_vec::<f32>().unwrap();
        values[0] = change(values[0]);
        *tensor = HostTensor::new::<f32>(tensor.dims.clone(), &values);
        self.store().save(step, &metadata, tensors).unwrap();
    }
}

#[test]
fn a_learning_rate_far_too_large_ends_with_the_step_to_go_back_to() {
    let run = Run::new();
    let before = run.store().load(4).unwrap();
    for rate in ["1e30", "3e38"] {
        let rate = format!("schedule.peak_learning_rate={rate}");
        let words = [
            "the run goes back to step 4",
            "the last saved step is 4, and the run has gone back there 3 times",
            "help: ",
        ];
        expect(run.train(40, &[&rate]), 1, &words);
        run.assert_good(&[1, 2, 3, 4]);
        assert_eq!(run.store().load(4).unwrap(), before);
    }
    // And it does go on from there.
    expect(run.train(6, &[]), 0, &["done: step 6"]);
    run.assert_good(&[1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_run_that_nothing_was_saved_of_begins_again_and_then_ends() {
    let run = Run(Bench::in_memory());
    let words = ["the run goes back to step 0", "no step is saved"];
    let settings = ["schedule.peak_learning_rate=1e30", "recovery.rollbacks=1"];
    expect(run.train(40, &settings), 1, &words);
    run.assert_good(&[]);
}

#[test]
fn a_saved_state_that_is_not_finite_is_set_aside() {
    let run = Run::new();
    run.flip(4, |_| f32::NAN);
    let words = [
        "1 numbers of the state were not finite before step 5",
        "the run goes back to step 3",
        "done: step 6",
    ];
    expect(run.train(6, &[]), 0, &words);
    run.assert_good(&[1, 2, 3, 4, 5, 6]);
    assert!(run.0.path("run/checkpoints/rejected_00000004").is_dir());
    let steps: Vec<u64> = run
        .0
        .metrics("run")
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_saved_state_that_no_batch_suits_is_set_aside() {
    let run = Run::new();
    // All of the exponent but its lowest bit: finite, and its square is not.
    run.flip(4, |scale| f32::from_bits(scale.to_bits() | 0xfe << 23));
    let words = [
        "the update of step 5 is skipped",
        "the run goes back to step 4",
        "the run goes back to step 3",
        "done: step 6",
    ];
    expect(run.train(6, &[]), 0, &words);
    run.assert_good(&[1, 2, 3, 4, 5, 6]);
    assert!(run.0.path("run/checkpoints/rejected_00000004").is_dir());
}

#[test]
fn the_only_saved_state_is_not_given_up_for_a_random_one() {
    let run = Run::new();
    for step in 1..4 {
        fs::remove_dir_all(run.0.checkpoint("run", step)).unwrap();
    }
    run.flip(4, |_| f32::INFINITY);
    let words = ["not finite before step 5", "the last saved step is 4"];
    expect(run.train(6, &[]), 1, &words);
    assert_eq!(run.store().list().unwrap(), [4]);
}

#[test]
fn a_damaged_state_is_set_aside_for_the_newest_whole_one() {
    let run = Run::new();
    let damage = [
        ("commit.json", "file commit.json: it is cut short"),
        (
            "shared/c/0/0",
            "array `shared`, file shared/c/0/0: it is missing",
        ),
    ];
    for (number, (file, finding)) in damage.into_iter().enumerate() {
        let step = 4 - number as u64;
        let path = run.0.checkpoint("run", step).join(file);
        match number {
            0 => fs::write(&path, "{}").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        let resumes = format!("resuming step={}", step - 1);
        let done = format!("done: step {step}");
        // It trains that step again.
        expect(
            run.train(step, &[]),
            0,
            &[finding, "set aside as", &resumes, &done],
        );
        let rejected = format!("run/checkpoints/rejected_{step:08}");
        assert!(run.0.path(&rejected).is_dir());
        fs::remove_dir_all(run.0.checkpoint("run", step)).unwrap();
    }
    run.assert_good(&[1, 2]);
}

#[test]
fn saves_go_by_minutes_too_and_the_best_are_kept() {
    let bench = Bench::new();
    let settings = [
        "checkpoint.every=0",
        "checkpoint.minutes=0.000001",
        "checkpoint.keep=1",
        "checkpoint.keep_every=3",
        "checkpoint.keep_best=1",
        "evaluation.every=1",
        "train.log_every=1",
        "compiler.flags=[\"xla_backend_optimization_level=0\"]",
    ];
    let mut command = bench.train("run", &["--steps", "8"]);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    expect(command.output().unwrap(), 0, &["done: step 8"]);
    let loss = |line: &serde_json::Map<String, serde_json::Value>| {
        (
            line["validation_loss"].as_f64().unwrap(),
            line["step"].as_u64().unwrap(),
        )
    };
    let lines = bench.metrics("run");
    let best = lines.iter().map(loss).min_by(|a, b| a.0.total_cmp(&b.0));
    let (_, best) = best.unwrap();
    let mut kept = vec![3, 6, 8, best];
    kept.sort_unstable();
    kept.dedup();
    let store = Store::open(bench.path("run/checkpoints"));
    assert_eq!(store.list().unwrap(), kept);
}

#[test]
fn a_run_goes_back_where_its_loss_stays_far_above_what_it_was_and_then_ends() {
    let run = Run::new();
    // Any loss is a spike, once 20 steps have shown what is usual. The steps before had no limit.
    let settings = [
        "recovery.loss_spike=0.1",
        "schedule.kind=constant",
        "schedule.peak_learning_rate=0.0025",
    ];
    let words = [
        "the update of step 25 is skipped",
        "; the loss spikes",
        "the loss of steps 25 to 26 spikes: the last is",
        // The state after step 24 is not saved, since the step from it was not good.
        "the run goes back to step 23",
        "the last saved step is 23, and the run has gone back there 3 times",
    ];
    expect(run.train(30, &settings), 1, &words);
    let steps: Vec<u64> = (1..24).collect();
    run.assert_good(&steps);
    // Without the limit it goes on, and with it too where it is not passed.
    expect(run.train(26, &settings[1..]), 0, &["done: step 26"]);
    let high = ["recovery.loss_spike=10", settings[1], settings[2]];
    expect(run.train(28, &high), 0, &["done: step 28"]);
}

/// All files below a directory: their contents, and when they were written.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                let written = fs::metadata(&path).unwrap().modified().unwrap();
                found.insert(path.clone(), (fs::read(&path).unwrap(), written));
            }
        }
    }
    found
}

#[test]
fn a_run_replays_bit_by_bit_and_is_left_as_it_was() {
    let run = Run::new();
    let directory = run.0.path("run");
    let before = files(&directory);
    let replay = |arguments: &[&str]| {
        let mut command = pretrain();
        command.arg("replay").arg("--run-dir").arg(&directory);
        command.args(arguments).output().unwrap()
    };
    // On several devices, most of the state is on all of them.
    let arguments = ["--slice", "cpu-2", "--steps", "2", "--json"];
    let text = expect(replay(&arguments), 0, &["\"steps\":2", "\"step\":4"]);
    assert!(text.contains("\"equal\":true"), "{text}");
    assert_eq!(files(&directory), before);

    // A damaged state is passed over, and left where it is.
    fs::remove_file(run.0.checkpoint("run", 4).join("shared/c/0/0")).unwrap();
    let first = replay(&[]);
    let second = replay(&[]);
    assert_eq!(first.stdout, second.stdout, "the fingerprint is another");
    let words = [
        "is damaged",
        "bitwise equal: 1 steps, ",
        "from step 3 to 4; fingerprint ",
    ];
    expect(first, 0, &words);
    assert!(run.0.checkpoint("run", 4).is_dir());

    let mut nothing = pretrain();
    nothing
        .args(["replay", "--run-dir"])
        .arg(run.0.path("data"));
    expect(nothing.output().unwrap(), 2, &["there is no run in"]);
}
