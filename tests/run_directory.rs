//! Whose a run directory is, and what may be in it: through the binary, on the CPU plugin.
//!
//! `make check-trainers` tries two trainers 50 times.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ankh::checkpoint::Store;

use crate::support::Random;
use crate::support::runs::{Bench, expect, files, pretrain, text};

/// The steps of a run that saves at each, so that there is always something to hit.
const STEPS: &str = "12";

/// A trainer under way.
struct Trainer {
    process: u32,
    end: JoinHandle<End>,
}

/// How a trainer ended, what it said, and after how long.
struct End {
    exit: Option<i32>,
    said: String,
    process: u32,
    after: Duration,
}

/// Starts a trainer that saves at every step and keeps all.
fn start(bench: &Bench, run: &str, arguments: &[&str]) -> Trainer {
    let saves = ["--steps", STEPS, "--set", "checkpoint.every=1"];
    // Of a setting that is given twice, the last counts.
    let keeps = ["--set", "checkpoint.keep=0", "--set", "evaluation.every=0"];
    // Most of what these runs do is compile.
    let quickly = [
        "--set",
        r#"compiler.flags=["xla_backend_optimization_level=0"]"#,
    ];
    let arguments = [&saves[..], &keeps, &quickly, arguments].concat();
    let mut command = bench.train(run, &arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (child, began) = (command.spawn().unwrap(), Instant::now());
    let process = child.id();
    // Of each its own, so that how long one took does not depend on when another is waited for.
    let wait = move || {
        let output = child.wait_with_output().unwrap();
        End {
            exit: output.status.code(),
            said: text(&output.stdout) + &text(&output.stderr),
            process,
            after: began.elapsed(),
        }
    };
    let end = std::thread::spawn(wait);
    Trainer { process, end }
}

impl Trainer {
    fn is_running(&self) -> bool {
        !self.end.is_finished()
    }

    /// Ends it without a warning, unless it has ended.
    fn kill(&self) {
        let mut kill = Command::new("kill");
        let kill = kill.args(["-KILL", &self.process.to_string()]);
        let _ = kill.stderr(Stdio::null()).status();
    }
}

fn end(trainer: Trainer) -> End {
    trainer.end.join().unwrap()
}

impl End {
    /// Whether another trainer's presence ended it.
    fn was_refused(&self) -> bool {
        self.exit == Some(1) && self.said.contains("is in use: it belongs to")
    }
}

/// The chunks of a checkpoint, which hold the numbers of its arrays.
fn chunks(checkpoint: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = files(checkpoint);
    all.retain(|(name, _)| name.components().any(|part| part.as_os_str() == "c"));
    all
}

/// Every step from 1 to the last is there, undamaged, and what the uninterrupted run saved.
fn assert_whole(bench: &Bench, run: &str, reference: &str) {
    let store = Store::open(bench.path(run).join("checkpoints"));
    let steps = store.list().unwrap();
    let last: u64 = STEPS.parse().unwrap();
    assert_eq!(steps, (1..=last).collect::<Vec<u64>>(), "{run}");
    for step in steps {
        let reader = store.reader(step).unwrap_or_else(|e| panic!("{run}: {e}"));
        reader.verify().unwrap_or_else(|e| panic!("{run}: {e}"));
    }
    let arrays = |run: &str| chunks(&bench.checkpoint(run, last));
    assert!(arrays(run) == arrays(reference), "{run} ended otherwise");
    let losses = |run: &str| -> Vec<_> {
        let lines = bench.metrics(run).into_iter();
        lines
            .map(|line| (line["step"].clone(), line["loss"].clone()))
            .collect()
    };
    assert_eq!(losses(run), losses(reference), "{run}");
}

#[test]
fn of_two_trainers_one_is_refused_and_no_step_is_damaged_or_lost() {
    let rounds: u64 = std::env::var("ROUNDS").map_or(5, |text| text.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |text| text.parse().unwrap(),
    );
    println!("SEED={seed} ROUNDS={rounds}");
    let random = &mut Random(seed);
    let bench = Bench::new();
    let reference = end(start(&bench, "reference", &[]));
    assert_eq!(reference.exit, Some(0), "{}", reference.said);

    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for round in 0..rounds {
        let run = format!("run{round}");
        // Requeued jobs resume; some are begun twice by hand.
        let second_starts: &[&str] = if random.below(3) == 0 {
            &[]
        } else {
            &["--resume"]
        };
        let first = start(&bench, &run, &["--resume"]);
        // Up to some time after the first ends: compiling, stepping, saving and ending are all hit.
        let delay = reference.after.mul_f64(1.1 * random.uniform());
        std::thread::sleep(delay);
        let second = start(&bench, &run, second_starts);
        let killed = random.below(3) == 0;
        let ends = if killed {
            // The first dies, unsaved; a third goes on.
            std::thread::sleep(reference.after.mul_f64(0.3 * random.uniform()));
            first.kill();
            let first = end(first);
            if second.is_running() {
                // It came late enough to be the only one.
                second.kill();
            }
            [first, end(second)]
        } else {
            [end(first), end(second)]
        };
        let [first, second] = &ends;
        for (one, other) in [(first, second), (second, first)] {
            if one.was_refused() {
                refused += 1;
                slowest = slowest.max(one.after);
                let named = format!("process {} on ", other.process);
                assert!(one.said.contains(&named), "{named} in {}", one.said);
            } else {
                let finished = one.exit == Some(0);
                // Begun anew where the first had ended.
                let late = one.exit == Some(2) && one.said.contains("holds a run already");
                let died = one.exit.is_none() && killed;
                assert!(finished || late || died, "round {round}: {}", one.said);
            }
        }
        assert!(
            !first.was_refused() || !second.was_refused(),
            "round {round}"
        );
        if killed {
            let third = end(start(&bench, &run, &["--resume"]));
            assert_eq!(third.exit, Some(0), "round {round}: {}", third.said);
        }
        assert_whole(&bench, &run, "reference");
        fs::remove_dir_all(bench.path(&run)).unwrap();
    }
    println!("{refused} of {rounds} refused, the slowest after {slowest:.2?}");
    // A second on an idle machine; tests share theirs with each other.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn a_new_run_beside_one_that_compiles_is_refused_and_its_holder_named() {
    let bench = Bench::new();
    let first = start(&bench, "run", &[]);
    let lease = bench.path("run/.lease");
    let patience = Instant::now() + Duration::from_secs(60);
    while !fs::read_dir(&lease).is_ok_and(|files| files.count() > 1) {
        assert!(Instant::now() < patience, "no lease in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = end(start(&bench, "run", &[]));
    assert!(second.was_refused(), "{}", second.said);
    let named = format!("process {} on ", first.process);
    assert!(second.said.contains(&named), "{}", second.said);
    assert_eq!(end(first).exit, Some(0));
}

#[test]
fn a_start_that_fails_leaves_the_run_as_it_was() {
    let bench = Bench::new();
    expect(bench.train("run", &[]).output().unwrap(), 0, &[]);
    let contents = || {
        let mut all = files(&bench.path("run"));
        all.retain(|(name, _)| !name.starts_with(".lease"));
        all
    };
    let before = contents();
    let broken = bench.path("broken");
    fs::write(&broken, "not an executable").unwrap();
    let run = bench.path("run");
    let run = run.to_str().unwrap();
    for failing in [
        &["--executable", broken.to_str().unwrap()][..],
        &["--set", "train.gradient_accumulation=3"],
        &["--data", "nowhere"],
    ] {
        let arguments = [
            "--resume",
            "--run-dir",
            run,
            "--steps",
            "30",
            "--set",
            "train.log_every=7",
        ];
        let mut command = pretrain();
        let output = command.args(arguments).args(failing).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{failing:?}");
        let after = contents();
        for (one, other) in before.iter().zip(&after) {
            assert_eq!(one.0, other.0, "{failing:?}");
            assert!(one.1 == other.1, "{failing:?} changed {}", one.0.display());
        }
        assert_eq!(before.len(), after.len(), "{failing:?}");
    }
    let config = fs::read_to_string(bench.path("run/config.toml")).unwrap();
    assert!(config.contains("log_every = 1"), "{config}");
}

#[test]
fn what_is_no_run_is_neither_resumed_nor_begun_in() {
    let bench = Bench::new();
    let hugging_face = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/defaults/hf");
    let import = |to: &Path| {
        let mut command = pretrain();
        command.arg("import").arg("--input").arg(&hugging_face);
        expect(command.arg("--output").arg(to).output().unwrap(), 0, &[]);
    };
    import(&bench.path("imported"));
    import(&bench.path("steps/step_00000000"));
    import(&bench.path("weights/checkpoints/step_00000000"));
    let copy = bench.path("hf");
    fs::create_dir(&copy).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(hugging_face.join(file), copy.join(file)).unwrap();
    }
    for (name, words) in [
        ("imported", "it is one checkpoint"),
        ("steps", "it is a directory of checkpoints"),
        (
            "weights",
            "holds weights alone, in checkpoints/step_00000000",
        ),
        ("hf", "it is a Hugging Face model directory"),
        ("data", "it is prepared data"),
    ] {
        let before = files(&bench.path(name));
        for arguments in [&["--resume"][..], &[]] {
            let output = bench.train(name, arguments).output().unwrap();
            let words = [words, "is no run directory", "another --run-dir"];
            expect(output, 2, &words);
        }
        assert!(before == files(&bench.path(name)), "{name} changed");
    }
}

#[test]
fn a_run_directory_whose_name_is_no_path_in_utf_8_is_refused_at_the_start() {
    let bench = Bench::new();
    let mut command = pretrain();
    command.args(["--config", "tiny", "--run-dir", "gs://bucket/run", "--data"]);
    command.arg(bench.path("data"));
    command.current_dir(bench.path("data"));
    expect(command.output().unwrap(), 2, &["is a URL", "mounted"]);
    assert!(!bench.path("data/gs:").exists());
    let name = bench
        .path("x")
        .with_file_name(OsStr::from_bytes(b"run\xff"));
    let mut command = pretrain();
    command.args(["--config", "tiny", "--data"]);
    command.arg(bench.path("data")).arg("--run-dir").arg(&name);
    expect(command.output().unwrap(), 2, &["is not UTF-8"]);
    assert!(!name.exists());
}

#[test]
fn exports_beside_a_run_that_removes_old_steps_find_the_newest() {
    let bench = Bench::new();
    let run = start(&bench, "run", &["--set", "checkpoint.keep=1"]);
    let (mut exports, mut number) = (0, 0);
    while run.is_running() {
        let store = Store::open(bench.path("run/checkpoints"));
        if store.latest().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        number += 1;
        let output = bench.path(&format!("hf{number}"));
        let exported = ankh::hugging_face::export_checkpoint(bench.path("run"), &output);
        exported.unwrap_or_else(|error| panic!("export {number}: {error}"));
        exports += 1;
        // Leave the run some of the machine.
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = end(run);
    assert_eq!(run.exit, Some(0), "{}", run.said);
    println!("{exports} exports");
    assert!(exports > 10, "the run was too quick: {exports} exports");
}
