//! Variants end to end on a tiny model: High-N, One-N, their reports, interruptions and bad input;
//! and the step of a run with a frozen encoder.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ankh::config::{Config, Packing};
use ankh::programs::{BatchShape, Gradients, Programs, StepMetrics, is_of_encoder, state};
use ankh_data::Key;
use ankh_hlo::{DType, Module};
use ankh_pjrt::HostTensor;
use serde_json::Value;

use crate::support::runs::{expect, pretrain_keeping, text, wait_for};
use crate::support::{compile, run, weights};

const SIZE: BatchShape = BatchShape {
    rows: 2,
    input: 8,
    target: 8,
    packing: Packing::Padded,
};

fn config(settings: &[&str]) -> Config {
    let always = [
        "train.compute=float32",
        "schedule.warmup_steps=0",
        "optimizer.name=adamw",
    ];
    let settings: Vec<String> = always
        .iter()
        .chain(settings)
        .map(|s| s.to_string())
        .collect();
    ankh::config::resolve(Some("tiny"), &settings).unwrap()
}

fn batch() -> Vec<HostTensor> {
    let array = |values: &dyn Fn(i32) -> i32| {
        HostTensor::new::<i32>([2, 8], &(0..16).map(values).collect::<Vec<i32>>())
    };
    let tokens = |i: i32| 3 + 5 * i % 20;
    let before = |i: i32| if i % 8 == 0 { 0 } else { tokens(i - 1) };
    vec![
        array(&tokens),
        array(&|_| 1),
        array(&before),
        array(&tokens),
    ]
}

/// A state with slots as a run on its way has them.
fn state_of(config: &Config) -> Vec<HostTensor> {
    let parameters = weights(config);
    let arrays = state(config);
    let slots = arrays[parameters.len()..arrays.len() - 1]
        .iter()
        .map(|slot| {
            let count = slot.shape.elements() as usize;
            let values: Vec<f32> = (0..count).map(|i| 1e-3 + 1e-5 * (i % 7) as f32).collect();
            HostTensor::new::<f32>(slot.shape.dims.clone(), &values)
        });
    let mut all: Vec<HostTensor> = parameters.iter().cloned().chain(slots).collect();
    all.push(HostTensor::new::<i32>([], &[3]));
    all
}

/// The training step of a configuration, and how many matrix products it has.
fn step_of(config: &Config) -> (Module, usize) {
    let module = Programs::new(config, SIZE, DType::F32).step().unwrap();
    let products = module.text().matches(" dot(").count();
    (module, products)
}

#[test]
fn the_derivative_of_a_frozen_encoder_is_not_computed() {
    for parts in ["1", "2"] {
        let parts = format!("train.gradient_accumulation={parts}");
        let [all, frozen] = ["none", "encoder"].map(|freeze| {
            let freeze = format!("train.freeze={freeze}");
            step_of(&config(&[&parts, &freeze])).1
        });
        let config = config(&[]);
        let forward = Programs::new(&config, SIZE, DType::F32);
        let forward = forward.forward(Gradients::No).unwrap().text();
        let forward = forward.matches(" dot(").count();
        assert!(forward < frozen && frozen < all, "{forward} {frozen} {all}");
    }
}

#[test]
fn a_frozen_encoder_stays_and_the_rest_moves_as_in_a_step_that_trains_all() {
    let all = config(&[]);
    let frozen = config(&["train.freeze=encoder", "telemetry.histograms_every=1"]);
    let before = state_of(&all);
    let step = |config: &Config| {
        let (module, _) = step_of(config);
        let mut after = run(&compile(&module), &[&before[..], &batch()].concat());
        let metrics = after.pop().unwrap().to_vec::<f32>().unwrap();
        (after, StepMetrics::from_slice(&metrics[..8]).unwrap())
    };
    let (trained, _) = step(&all);
    let (kept, metrics) = step(&frozen);
    let mut stayed = 0;
    for (i, array) in state(&all).iter().enumerate() {
        let name = &array.name[..];
        let parameter = name
            .split_once('/')
            .map_or(name, |(_, parameter)| parameter);
        let bytes = [&before, &kept, &trained].map(|arrays| &arrays[i].bytes);
        if is_of_encoder(parameter) {
            stayed += 1;
            assert!(bytes[1] == bytes[0], "{name} stays");
            assert!(bytes[2] != bytes[0], "{name} moves where it is trained");
        } else if name != "step" {
            assert!(bytes[1] != bytes[0], "{name} moves");
            let [found, expected] = [&kept, &trained].map(|a| a[i].to_vec::<f32>().unwrap());
            for (found, expected) in found.iter().zip(expected) {
                // The same sums, which a compiler may put in another order.
                let error = (found - expected).abs();
                assert!(error <= 1e-5 * expected.abs().max(1e-2), "{name}");
            }
        }
    }
    assert!(stayed > 10);
    // The norm is that of the gradients that there are.
    let module = Programs::new(&all, SIZE, DType::F32);
    let module = module.forward(Gradients::Yes).unwrap();
    let parameters = weights(&all);
    let outputs = run(&compile(&module), &[&parameters[..], &batch()].concat());
    let gradients = outputs[3..].iter().zip(state(&all));
    let gradients = gradients.filter(|(_, array)| !is_of_encoder(&array.name));
    let numbers = gradients.flat_map(|(gradient, _)| gradient.to_vec::<f32>().unwrap());
    let norm = numbers
        .map(|x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt();
    let found = f64::from(metrics.grad_norm);
    assert!((found - norm).abs() < 1e-4 * norm, "{found} {norm}");
}

/// A place with a family, one of its sequences, and commands on it.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// Twenty sequences of 24 columns, each a neighbour of one sequence; some have gaps.
    fn new() -> Bench {
        let bench = Bench {
            directory: tempfile::tempdir().unwrap(),
        };
        let mut random = Key::new(11).stream();
        let amino_acids = b"ACDEFGHIKLMNPQRSTVWY";
        let first: Vec<u8> = (0..24).map(|_| amino_acids[random.below(20)]).collect();
        let mut family = format!(">first\n{}\n", String::from_utf8_lossy(&first));
        for number in 1..20 {
            let mut row = first.clone();
            for _ in 0..6 {
                row[random.below(24)] = amino_acids[random.below(20)];
            }
            if number % 3 == 0 {
                row[10 + number % 5] = b'-';
            }
            family += &format!(">s{number}\n{}\n", String::from_utf8_lossy(&row));
        }
        fs::write(bench.path("family.fasta"), family).unwrap();
        let one = format!(">first\n{}\n", String::from_utf8_lossy(&first));
        fs::write(bench.path("one.fasta"), one).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, how: &str, output: &str, arguments: &[&str]) -> Command {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/generation");
        let mut command = pretrain_keeping(&self.path("programs"));
        command
            .args(["variants", how, "--weights"])
            .arg(golden.join("untied/hf"));
        command
            .args(["--output", output, "--samples", "5", "--beams", "2"])
            .args(arguments);
        command.current_dir(self.directory.path());
        command
    }

    fn high_n(&self, output: &str, arguments: &[&str]) -> Command {
        let always = [
            "--family",
            "family.fasta",
            "--prompt",
            "6",
            "--temperatures",
            "1.0,2.0",
        ];
        self.command("high-n", output, &[&always, arguments].concat())
    }

    fn one_n(&self, output: &str, arguments: &[&str]) -> Command {
        self.command(
            "one-n",
            output,
            &[&["--sequence", "one.fasta"], arguments].concat(),
        )
    }

    /// What a command leaves, without what is no result.
    fn results(&self, output: &str) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.path(output))
            .unwrap()
            .map(|entry| entry.unwrap());
        // What a killed process was writing has a name that begins with a point.
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes()[0] == b'.';
        let files = entries.filter(|entry| entry.path().is_file() && !is_hidden(entry));
        let mut results: Vec<(String, String)> = files
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        results.sort();
        results
    }

    /// The journals that are there.
    fn unfinished(&self, output: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(output)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".unfinished")).collect()
    }

    fn report(&self, output: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(output).join("report.json")).unwrap()).unwrap()
    }

    /// The sequences of a FASTA file.
    fn sequences(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap();
        let records = text.split('>').skip(1);
        let sequence = |record: &str| record.lines().skip(1).collect::<String>();
        records.map(sequence).collect()
    }

    /// Kills a command as soon as a file is there, if it does not end before.
    fn kill_at(&self, mut command: Command, file: &str) {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        while process.try_wait().unwrap().is_none() {
            if self.path(file).exists() {
                process.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What is asked to stop ends with the code for that, goes on where it was to the same bytes, and
/// leaves nothing hidden; nor does what was killed at the worst of moments.
#[test]
fn what_is_stopped_goes_on_and_leaves_nothing_hidden() {
    let bench = Bench::new();
    type Begin<'a> = &'a dyn Fn(&str) -> Command;
    let commands: [(&str, Begin<'_>, &[&str]); 2] = [
        (
            "high-n",
            &|output| bench.high_n(output, &[]),
            &[
                "run/.lease/00000001.json",
                "run/checkpoints/step_00000003",
                ".generated-1.0.fasta.unfinished",
            ],
        ),
        (
            "one-n",
            &|output| bench.one_n(output, &["--family", "family.fasta"]),
            &[".generated-0.5-1.0.fasta.unfinished"],
        ),
    ];
    for (how, command, moments) in commands {
        let (whole, stopped) = (format!("{how}-whole"), format!("{how}-stopped"));
        expect(command(&whole).output().unwrap(), 0, &[]);
        for moment in moments {
            let mut command = command(&stopped);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let file = bench.path(&stopped).join(moment);
            wait_for(&mut process, moment, || file.exists());
            let id = process.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status();
            assert!(sent.unwrap().success());
            expect(process.wait_with_output().unwrap(), 75, &[]);
        }
        expect(command(&stopped).output().unwrap(), 0, &[]);
        assert_eq!(bench.results(&stopped), bench.results(&whole), "{how}");
        assert_eq!(bench.unfinished(&stopped), [""; 0], "{how}");
        // Killed when the sequences were written, and before the journal was removed.
        let names: Vec<String> = bench
            .results(&whole)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let generated = names.iter().filter(|name| name.starts_with("generated"));
        for name in generated {
            let journal = format!("{stopped}/.{name}.unfinished");
            fs::write(bench.path(&journal), "{\"task\":\"Complete\"}\n").unwrap();
        }
        assert_eq!(bench.unfinished(&stopped).len(), 2);
        expect(command(&stopped).output().unwrap(), 0, &[]);
        assert_eq!(bench.results(&stopped), bench.results(&whole), "{how}");
        assert_eq!(bench.unfinished(&stopped), [""; 0], "{how}");
    }
}

#[test]
fn high_n_learns_a_family_and_goes_on_where_it_was_killed() {
    let bench = Bench::new();
    let done = expect(
        bench.high_n("whole", &["--json"]).output().unwrap(),
        0,
        &["\"kind\":\"high-n\"", "step 10/10"],
    );
    assert!(done.contains("generating at temperature 2.0"), "{done}");
    let report = bench.report("whole");
    assert_eq!(report["columns"].as_array().unwrap().len(), 24);
    assert_eq!(report["family"]["sequences"], 20);
    let first = &bench.sequences("one.fasta")[0];
    for (setting, temperature) in report["settings"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["1.0", "2.0"])
    {
        let found = bench.sequences(&format!("whole/generated-{temperature}.fasta"));
        assert_eq!(found.len(), 5);
        // The beginning is that of the first sequence, and what follows is no longer than the rest
        // of the longest.
        assert!(
            found
                .iter()
                .all(|s| s.starts_with(&first[..6]) && s.len() <= 25),
            "{found:?}"
        );
        let distinct: HashSet<&String> = found.iter().collect();
        assert_eq!(setting["unique_share"], distinct.len() as f64 / 5.0);
        let given: Vec<bool> = serde_json::from_value(setting["given"].clone()).unwrap();
        assert_eq!(
            given,
            (0..24).map(|column| column < 6).collect::<Vec<bool>>()
        );
        let entropies = setting["entropies"].as_array().unwrap();
        assert!(entropies[..6].iter().all(|entropy| *entropy == 0.0));
        assert!(setting["entropy_error"]["columns"].as_u64().unwrap() <= 18);
    }
    let page = fs::read_to_string(bench.path("whole/report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(!page.contains("http"), "it needs nothing from elsewhere");

    // Killed while it learns and while it generates.
    bench.kill_at(
        bench.high_n("killed", &[]),
        "killed/run/checkpoints/step_00000003",
    );
    bench.kill_at(bench.high_n("killed", &[]), "killed/generated-1.0.fasta");
    expect(
        bench.high_n("killed", &[]).output().unwrap(),
        0,
        &["temperature 2.0"],
    );
    assert_eq!(bench.results("killed"), bench.results("whole"));
    // It is another command's directory.
    expect(
        bench.high_n("killed", &["--seed", "1"]).output().unwrap(),
        2,
        &[
            "killed holds the work of another command: it differs in seed",
            "--restart",
        ],
    );
}

#[test]
fn one_n_fills_what_it_hides() {
    let bench = Bench::new();
    let done = bench
        .one_n("whole", &["--family", "family.fasta"])
        .output()
        .unwrap();
    expect(
        done,
        0,
        &["mask 0.5, temperature 1.0", "mask 0.4, temperature 1.5"],
    );
    let report = bench.report("whole");
    let wild_type = bench.sequences("one.fasta").remove(0);
    for setting in report["settings"].as_array().unwrap() {
        let given: Vec<bool> = serde_json::from_value(setting["given"].clone()).unwrap();
        let mask = setting["mask"].as_f64().unwrap();
        let hidden = given.iter().filter(|given| !**given).count();
        assert_eq!(hidden, (24.0 * mask).round() as usize);
        let file = setting["file"].as_str().unwrap();
        let mut equal = 0;
        let found = bench.sequences(&format!("whole/{file}"));
        for sequence in &found {
            for ((one, other), given) in sequence.chars().zip(wild_type.chars()).zip(&given) {
                assert!(!given || one == other, "{sequence} {wild_type}");
                equal += usize::from(!given && one == other);
            }
        }
        let expected = equal as f64 / (hidden * found.len()) as f64;
        let identity = setting["identity_where_generated"]["mean"]
            .as_f64()
            .unwrap();
        assert!((identity - expected).abs() < 1e-12, "{identity} {expected}");
    }
    let with_family = || bench.one_n("killed", &["--family", "family.fasta"]);
    bench.kill_at(with_family(), "killed/generated-0.5-1.0.fasta");
    expect(with_family().output().unwrap(), 0, &[]);
    assert_eq!(bench.results("killed"), bench.results("whole"));
    // The report is complete without a family, and another seed hides and draws others.
    let alone = bench.one_n("alone", &["--seed", "1"]).output().unwrap();
    expect(alone, 0, &[]);
    let report = bench.report("alone");
    assert_eq!(report["family"], Value::Null);
    assert_eq!(report["columns"][3]["entropy"], Value::Null);
    let other = |output: &str| fs::read(bench.path(output).join("prompt-0.5-1.0.fasta")).unwrap();
    assert_ne!(other("alone"), other("whole"));
}

#[test]
fn bad_input_is_one_error_before_anything_is_written() {
    let bench = Bench::new();
    let write = |name: &str, text: &str| fs::write(bench.path(name), text).unwrap();
    write("empty.fasta", "");
    write("columns.fasta", ">a\nMKVAYTLLG\n>b\nMKV\n");
    write("residue.fasta", ">a\nMKVAYTLLG\n>b\nMK1AYTLLG\n");
    write("table.csv", "id,sequence\n");
    let refused = |family: &str, arguments: &[&str], words: &[&str]| {
        let mut command = bench.command("high-n", "bad", &["--family", family]);
        let all = expect(command.args(arguments).output().unwrap(), 2, words);
        assert_eq!(all.matches("error: ").count(), 1, "{all}");
        assert!(!bench.path("bad").exists(), "{all}");
    };
    refused("empty.fasta", &[], &["empty.fasta has no sequences"]);
    refused("none.fasta", &[], &["cannot read none.fasta"]);
    refused(
        "table.csv",
        &[],
        &["table.csv, line 1: expected FASTA, A2M or Stockholm"],
    );
    refused(
        "columns.fasta",
        &[],
        &["columns.fasta, line 3: `b` has 3 columns, and the first sequence has 9"],
    );
    refused(
        "residue.fasta",
        &[],
        &["residue.fasta, line 3: `b` has `1` at column 3, which is no residue"],
    );
    refused(
        "family.fasta",
        &["--prompt", "24"],
        &["family.fasta, line 1: `first` has 24 residues, and the prompt would be 24"],
    );
    refused(
        "family.fasta",
        &["--wild-type", "x"],
        &["family.fasta has no sequence `x`"],
    );
    refused(
        "family.fasta",
        &["--temperatures", "0"],
        &["--temperatures"],
    );
    // Whether HMMER is installed here or not, there is none in an empty directory.
    let mut command = bench.high_n("bad", &["--aligner", "hmmalign"]);
    let output = command.env("PATH", bench.path("none")).output().unwrap();
    expect(
        output,
        2,
        &["`hmmbuild` cannot be found", "apt install hmmer"],
    );
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = bench.one_n("bad", arguments).output().unwrap();
        let all = text(&output.stderr);
        expect(output, 2, words);
        assert!(!bench.path("bad").exists(), "{all}");
    };
    refused(
        &["--settings", "0.5"],
        &["expected a share between 0 and 1 and a temperature"],
    );
    refused(
        &["--settings", "0.01:1"],
        &["a mask of 0.01 hides 0 of the 24 residues of `first`"],
    );
    let mut command = bench.command("one-n", "bad", &["--sequence", "family.fasta"]);
    let output = command.output().unwrap();
    expect(output, 2, &["family.fasta has 20 sequences: expected one"]);
    // Somebody's directory is not touched.
    fs::create_dir(bench.path("mine")).unwrap();
    write("mine/notes", "");
    let output = bench.one_n("mine", &["--restart"]).output().unwrap();
    expect(output, 2, &["mine holds something else"]);
    assert!(bench.path("mine/notes").exists());
}
