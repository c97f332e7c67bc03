//! What a run tells on request: histograms of its gradients and predictions, metrics for
//! Prometheus, JSON on standard error, and a profile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ankh::config::{Config, Packing};
use ankh::programs::{self, BatchShape, Gradients, Histogram, Programs, StepMetrics};
use ankh_hlo::DType;
use ankh_pjrt::{ElementType, HostTensor};
use ankh_proto::profiler::XSpace;
use ankh_proto::tensorboard::event::What;
use ankh_proto::tensorboard::summary::value::Value as Shown;
use prost::Message;
use serde_json::Value;

use crate::support::runs::{Bench, events, expect, text, wait_for};
use crate::support::{compile, run, weights};

const SIZE: BatchShape = BatchShape {
    rows: 4,
    input: 8,
    target: 8,
    packing: Packing::Padded,
};

fn config(settings: &[&str]) -> Config {
    let settings = ["train.compute=float32"].iter().chain(settings);
    let settings: Vec<String> = settings.map(|setting| setting.to_string()).collect();
    ankh::config::resolve(Some("tiny"), &settings).unwrap()
}

/// Four rows of tokens, of which some predict nothing.
fn batch() -> Vec<HostTensor> {
    let array = |values: &dyn Fn(i32) -> i32| {
        let values: Vec<i32> = (0..32).map(values).collect();
        HostTensor::new::<i32>([4, 8], &values)
    };
    let tokens = |i: i32| 3 + 5 * i % 20;
    vec![
        array(&tokens),
        array(&|_| 1),
        array(&|i| if i % 8 == 0 { 0 } else { tokens(i - 1) }),
        array(&|i| if i % 8 > 5 { -100 } else { tokens(i) }),
    ]
}

fn f32s(tensor: &HostTensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

/// How often values fall between these bounds.
fn counted(values: &[f32], buckets: &[[f64; 3]]) -> Vec<f64> {
    // Below the lowest bound are zeros too.
    let inside = |value: f32, [from, to, _]: [f64; 3]| {
        let size = f64::from(value.abs()).log10();
        (from <= size || from < -12.0) && size < to
    };
    let count = |bucket: &[f64; 3]| values.iter().filter(|v| inside(**v, *bucket)).count() as f64;
    buckets.iter().map(count).collect()
}

#[test]
fn histograms_count_the_gradients_and_predictions_of_their_step() {
    let (weights, batch) = (weights(&config(&[])), batch());
    // A forward pass says what is to be counted.
    let plain = config(&[]);
    let forward = Programs::new(&plain, SIZE, DType::F32);
    let forward = compile(&forward.forward(Gradients::Yes).unwrap());
    let outputs = run(&forward, &[&weights[..], &batch].concat());
    let (logits, gradients) = (f32s(&outputs[0]), &outputs[3..]);
    let vocabulary = plain.model.vocabulary;
    let labels = batch[3].to_vec::<i32>().unwrap();
    let mut predicted = vec![0.0; vocabulary];
    let mut expected = vec![0.0; vocabulary];
    for (logits, label) in logits
        .chunks(vocabulary)
        .zip(labels)
        .filter(|(_, l)| *l >= 0)
    {
        let first =
            (0..vocabulary).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        predicted[first] += 1.0;
        expected[label as usize] += 1.0;
    }

    for parts in [1, 2] {
        let parts = format!("train.gradient_accumulation={parts}");
        let config = config(&["telemetry.histograms_every=5", &parts]);
        let program = compile(&Programs::new(&config, SIZE, DType::F32).step().unwrap());
        for (done, is_due) in [(4, true), (5, false)] {
            let state = programs::state(&config);
            let rest = state[weights.len()..]
                .iter()
                .map(|array| match array.name.as_str() {
                    "step" => HostTensor::new::<i32>([], &[done]),
                    _ => HostTensor::zeros(ElementType::F32, array.shape.dims.clone()),
                });
            let inputs = weights.iter().cloned().chain(rest).chain(batch.clone());
            let outputs = run(&program, &inputs.collect::<Vec<_>>());
            let numbers = f32s(outputs.last().unwrap());
            let (metrics, numbers) = StepMetrics::split(&numbers).unwrap();
            assert_eq!(metrics.target_tokens, 24.0);
            let histograms = Histogram::of_step(&config, numbers);
            assert_eq!(histograms.len(), weights.len() + 2);
            let (of_gradients, of_tokens) = histograms.split_at(weights.len());
            for (histogram, gradient) in of_gradients.iter().zip(gradients) {
                let (name, buckets) = (&histogram.name, &histogram.buckets);
                let values = f32s(gradient);
                let found: Vec<f64> = buckets.iter().map(|bucket| bucket[2]).collect();
                if !is_due {
                    // Nothing was counted: all would be below the lowest bound.
                    assert_eq!(buckets[..], [[-12.5, -12.0, values.len() as f64]], "{name}");
                    continue;
                }
                assert_eq!(found.iter().sum::<f64>(), values.len() as f64, "{name}");
                // A value at a bound may be rounded to either side.
                let other: f64 = counted(&values, buckets)
                    .iter()
                    .zip(&found)
                    .map(|(a, b)| (a - b).abs())
                    .sum();
                assert!(
                    other <= 4.0 + 0.01 * values.len() as f64,
                    "{name}: {buckets:?}"
                );
                assert!(buckets.len() > 1, "{name}: {buckets:?}");
            }
            for (histogram, counts) in of_tokens.iter().zip([&predicted, &expected]) {
                let mut all = vec![0.0; vocabulary];
                for [from, to, count] in &histogram.buckets {
                    all[((from + to) / 2.0) as usize] = *count;
                }
                assert_eq!(&all, counts, "{}", histogram.name);
            }
        }
    }
}

#[test]
fn where_nothing_is_asked_for_the_program_knows_nothing_of_it() {
    let module = |settings: &[&str]| {
        let config = config(settings);
        Programs::new(&config, SIZE, DType::F32).step().unwrap()
    };
    let off = module(&[]);
    assert!(!off.text().contains("histograms"));
    let other = [
        "telemetry.prometheus_listen=9464",
        "telemetry.profile_steps=1..3",
    ];
    assert_eq!(module(&other).to_bytes(), off.to_bytes());
    let on = module(&["telemetry.histograms_every=5"]);
    assert!(on.text().contains("histograms") && on.text().contains("conditional"));
}

/// Of every second step.
const HISTOGRAMS: &str = "telemetry.histograms_every=2";

/// Histograms by name and step.
fn histograms(run: &Path) -> BTreeMap<(String, i64), Vec<f64>> {
    let mut found = BTreeMap::new();
    for event in events(run) {
        let Some(What::Summary(summary)) = event.what else {
            continue;
        };
        for value in summary.value {
            let plugin = value.metadata.and_then(|metadata| metadata.plugin_data);
            if plugin.is_none_or(|plugin| plugin.plugin_name != "histograms") {
                continue;
            }
            if let Some(Shown::Tensor(tensor)) = value.value {
                let twice = found.insert((value.tag, event.step), tensor.double_val);
                assert_eq!(twice, None);
            }
        }
    }
    found
}

/// Compares the histograms of a run with those that two devices count.
fn assert_devices_count_the_same(bench: &Bench, run: &str) {
    let mut command = bench.train("two", &["--slice", "cpu-2", "--steps", "4"]);
    for setting in ["sharding.fsdp=2", "evaluation.every=0", HISTOGRAMS] {
        command.args(["--set", setting]);
    }
    expect(command.output().unwrap(), 0, &["done: step 4"]);
    let [mut one, two] = [run, "two"].map(|run| histograms(&bench.path(run)));
    one.retain(|key, _| key.1 <= 4);
    let of_tokens = one.keys().filter(|key| key.0 == "residues/expected");
    let steps: Vec<i64> = of_tokens.map(|key| key.1).collect();
    assert_eq!(steps, [2, 4]);
    assert!(one.keys().eq(two.keys()));
    for (key, first) in &one {
        let second = &two[key];
        if key.0 == "residues/expected" {
            assert_eq!(first, second);
        }
        // Rounding moves few values over a bound.
        let counts = |buckets: &[f64]| -> BTreeMap<i64, f64> {
            buckets
                .chunks(3)
                .map(|b| ((10.0 * b[0]) as i64, b[2]))
                .collect()
        };
        let (first, second) = (counts(first), counts(second));
        let all: f64 = first.values().sum();
        assert_eq!(all, second.values().sum::<f64>(), "{key:?}");
        let at = |counts: &BTreeMap<i64, f64>, bound| counts.get(bound).copied().unwrap_or(0.0);
        let moved: f64 = first
            .keys()
            .chain(second.keys())
            .map(|bound| (at(&first, bound) - at(&second, bound)).abs())
            .sum();
        assert!(
            moved <= 8.0 + 0.05 * all,
            "{key:?}: {first:?} and {second:?}"
        );
    }
}

/// What is served at `/metrics` of an address.
fn served(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_run_serves_its_metrics_logs_in_json_takes_a_profile_and_counts() {
    let bench = Bench::new();
    let log = bench.path("log");
    let mut process = bench
        .train(
            "run",
            &["--metrics-listen", "127.0.0.1:0", "--log-format", "json"],
        )
        .args(["--profile-steps", "5..7", "--steps", "1000000"])
        .args(["--set", HISTOGRAMS])
        .args([
            "--set",
            "evaluation.every=0",
            "--set",
            "checkpoint.every=10",
        ])
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    wait_for(&mut process, "a save", || {
        bench.checkpoint("run", 10).join("commit.json").exists()
    });
    let lines = fs::read_to_string(&log).unwrap();
    let address = lines
        .split_once("http://")
        .unwrap()
        .1
        .split_once("/metrics")
        .unwrap()
        .0;
    let answer = served(address);
    let asked = Command::new("kill")
        .arg(process.id().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    assert_eq!(process.wait().unwrap().code(), Some(75));

    let value = |name: &str| -> f64 {
        let line = answer
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("{name} in {answer}"));
        assert!(line.contains("{run=\"run\",host=\"0\"}"), "{line}");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(
        value("ankh_step") >= 10.0 && value("ankh_steps_total") >= 10.0,
        "{answer}"
    );
    assert_eq!(value("ankh_planned_steps"), 1e6);
    assert!((0.0..10.0).contains(&value("ankh_loss_nats")), "{answer}");

    // Every line is an object, and those of progress have the numbers.
    let lines = fs::read_to_string(&log).unwrap();
    let mut steps = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let severity = line["severity"].as_str().unwrap();
        assert!(["INFO", "WARNING"].contains(&severity), "{line}");
        assert!(
            line["message"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
        steps += i32::from(line["loss"].is_number() && line["step"].is_number());
    }
    assert!(steps >= 10, "{lines}");
    assert!(lines.contains("has no profiler"), "{lines}");

    let profile = bench.path("run/plugins/profile/step_00000005/host_0_loop.xplane.pb");
    let space = XSpace::decode(fs::read(profile).unwrap().as_slice()).unwrap();
    let [plane] = &space.planes[..] else {
        panic!("{space:?}")
    };
    assert_eq!(plane.name, "/host:CPU");
    let names: Vec<&str> = plane.lines[0]
        .events
        .iter()
        .map(|event| plane.event_metadata[&event.metadata_id].name.as_str())
        .collect();
    let started: Vec<&&str> = names
        .iter()
        .filter(|name| name.starts_with("start"))
        .collect();
    assert_eq!(started, [&"start step 5", &"start step 6", &"start step 7"]);
    assert!(
        names.contains(&"wait for a batch") && names.contains(&"report step 5"),
        "{names:?}"
    );

    // What cannot be asked for is refused before any work, in JSON too.
    let output = bench
        .train("other", &["--log-format", "json", "--set", "data.seed=-1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    for line in text(&output.stderr).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["severity"], "ERROR", "{line}");
    }
    for arguments in [["--metrics-listen", "nowhere"], ["--profile-steps", "7..5"]] {
        let output = bench.train("other", &arguments).output().unwrap();
        expect(output, 2, &["invalid", "expected"]);
    }

    assert_devices_count_the_same(&bench, "run");
}
