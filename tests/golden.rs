//! The model, its derivative and Adafactor against Hugging Face's Flax T5 and optax, number by
//! number, in float32.
//!
//! The files under tests/golden are made by `make goldens` from those libraries; here they are only
//! read. Those under tests/golden/directories are what PyTorch's T5 of transformers 4 and 5 saves
//! and computes. Differences are taken relative to the largest reference value of each tensor.

use std::path::{Path, PathBuf};

use ankh::config::{self, Adafactor, Compute, Config, Optimizer, ScheduleKind};
use ankh::devices::open_mesh;
use ankh::hugging_face;
use ankh::mesh::Hosts;
use ankh::mesh::slice::Slice;
use ankh::programs::Gradients;
use ankh::train::forward::{ForwardOutputs, forward};
use ankh_pjrt::{ElementType, HostTensor};
use safetensors::SafeTensors;

const CASES: [&str; 5] = [
    "defaults",
    "inner-width",
    "gated-silu",
    "factored",
    "relu-tied",
];

/// Adafactor steps in the reference, and their learning rate.
const STEPS: u64 = 5;
const LEARNING_RATE: f64 = 4e-3;

/// float32 holds 7 digits; sums over a few thousand terms in another order lose up to two of them.
const FORWARD: f64 = 1e-5;
/// A gradient is a longer sum of terms that cancel.
const GRADIENT: f64 = 1e-4;
/// As for gradients, for all but one weight in 10,000: where a gradient is at rounding level its
/// sign decides the first step's direction.
const WEIGHT: f64 = 1e-4;
const WEIGHT_SHARE: f64 = 0.9999;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn read(path: &Path) -> Vec<(String, HostTensor)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let element_type = match view.dtype() {
            safetensors::Dtype::F32 => ElementType::F32,
            safetensors::Dtype::I32 => ElementType::S32,
            other => panic!("{name} is {other:?}"),
        };
        let dims = view.shape().iter().map(|&d| d as i64).collect();
        (
            name,
            HostTensor {
                element_type,
                dims,
                bytes: view.data().to_vec(),
            },
        )
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// How the model is computed. It changes no result.
#[derive(Clone, Copy)]
struct How {
    remat: config::Remat,
    attention: config::Attention,
}

impl How {
    fn formula(remat: config::Remat) -> How {
        How {
            remat,
            attention: config::Attention::Formula,
        }
    }

    fn kernel(remat: config::Remat) -> How {
        How {
            remat,
            attention: config::Attention::Kernel,
        }
    }
}

fn run(name: &str, how: How) -> (Config, ForwardOutputs) {
    let batch = case(name).join("batch.safetensors");
    run_directory(&case(name).join("hf"), &batch, how, Gradients::Yes, STEPS)
}

fn run_directory(
    directory: &Path,
    batch: &Path,
    how: How,
    gradients: Gradients,
    steps: u64,
) -> (Config, ForwardOutputs) {
    let loaded = hugging_face::load(directory).unwrap();
    let mut config = Config {
        model: loaded.model,
        ..Config::default()
    };
    config.optimizer = Optimizer::Adafactor(Adafactor::default());
    config.schedule.kind = ScheduleKind::Constant;
    config.schedule.warmup_steps = 0;
    config.schedule.peak_learning_rate = LEARNING_RATE;
    config.train.compute = Compute::Float32;
    config.train.remat = how.remat;
    config.train.attention = how.attention;
    let device = open_mesh(&config, Slice::default(), Hosts::Real).unwrap();
    let out = forward(
        &config,
        &device,
        &loaded.tensors,
        &read(batch),
        gradients,
        steps,
    )
    .unwrap();
    (config, out)
}

/// The relative differences, ascending, and a description of the worst.
fn differences(name: &str, found: &HostTensor, expected: &HostTensor) -> (Vec<f64>, String) {
    assert_eq!(found.dims, expected.dims, "{name}");
    let (found, expected) = (
        found.to_vec::<f32>().unwrap(),
        expected.to_vec::<f32>().unwrap(),
    );
    let largest = expected
        .iter()
        .fold(0f64, |m, v| m.max(f64::from(v.abs())))
        .max(f64::MIN_POSITIVE);
    let mut all: Vec<(f64, usize)> = found
        .iter()
        .zip(&expected)
        .enumerate()
        .map(|(i, (f, e))| ((f64::from(*f) - f64::from(*e)).abs() / largest, i))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].0;
    let (worst, place) = *all.last().unwrap();
    let message = format!(
        "{name}: worst {worst:.2e} at element {place} of {} (expected {}, found {}), median {:.2e}, 99 % {:.2e}, 99.99 % {:.2e}",
        all.len(),
        expected[place],
        found[place],
        at(0.5),
        at(0.99),
        at(0.9999)
    );
    (all.into_iter().map(|a| a.0).collect(), message)
}

fn assert_close(name: &str, found: &HostTensor, expected: &HostTensor, tolerance: f64, share: f64) {
    let (all, message) = differences(name, found, expected);
    let within = all.iter().filter(|d| **d <= tolerance).count() as f64 / all.len() as f64;
    assert!(
        within >= share,
        "{message}; {:.4} % within {tolerance:.0e}",
        100.0 * within
    );
}

fn check(name: &str, how: How) {
    let (config, out) = run(name, how);
    let expected = read(&case(name).join("expected.safetensors"));
    let reference = |key: &str| {
        &expected
            .iter()
            .find(|t| t.0 == key)
            .unwrap_or_else(|| panic!("no {key}"))
            .1
    };
    assert_close("logits", &out.logits, reference("logits"), FORWARD, 1.0);
    assert_close("encoder", &out.encoder, reference("encoder"), FORWARD, 1.0);
    assert_close("loss", &out.loss, reference("loss"), FORWARD, 1.0);
    let losses = HostTensor::new::<f32>([STEPS as i64], &out.losses);
    assert_close("losses", &losses, reference("losses"), FORWARD, 1.0);
    for (key, gradient) in hugging_face::to_hugging_face(&config.model, &out.gradients).unwrap() {
        let key = format!("grad.{key}");
        assert_close(&key, &gradient, reference(&key), GRADIENT, 1.0);
    }
    let after = hugging_face::to_hugging_face(&config.model, &out.after).unwrap();
    assert!(!after.is_empty());
    let (mut found, mut wanted) = (0, 0);
    for (key, weight) in after {
        let key = format!("after{STEPS}.{key}");
        let (all, message) = differences(&key, &weight, reference(&key));
        let within = all.iter().filter(|d| **d <= WEIGHT).count();
        println!("{message}");
        found += within;
        wanted += all.len();
    }
    let share = found as f64 / wanted as f64;
    assert!(
        share >= WEIGHT_SHARE,
        "{name}: {:.4} % of {wanted} weights within {WEIGHT:.0e}",
        100.0 * share
    );
}

#[test]
fn the_model_and_the_optimizer_equal_hugging_faces() {
    for name in CASES {
        check(name, How::formula(config::Remat::Full));
    }
}

#[test]
fn remat_changes_nothing() {
    check("defaults", How::formula(config::Remat::None));
    check("gated-silu", How::formula(config::Remat::Named));
}

#[test]
fn with_attention_by_kernels_they_equal_hugging_faces_too() {
    for (name, remat) in [
        ("defaults", config::Remat::Named),
        ("inner-width", config::Remat::Full),
        ("relu-tied", config::Remat::None),
    ] {
        check(name, How::kernel(remat));
    }
}

/// What `save_pretrained` of both versions of transformers wrote, tied and untied, and the logits
/// each has for it: safetensors and PyTorch's files, one or several of them, in full and half
/// precision, with copies of the embeddings, with padding.
#[test]
fn directories_of_transformers_4_and_5_have_its_logits_and_loss() {
    let directories = case("directories");
    let batch = directories.join("batch.safetensors");
    let mut names: Vec<String> = std::fs::read_dir(&directories)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "4-tied",
            "4-tied-bin",
            "4-untied",
            "4-untied-bin",
            "4-untied-bin-parts",
            "4-untied-copies",
            "4-untied-padded",
            "4-untied-parts",
            "5-tied",
            "5-tied-unscaled",
            "5-untied",
            "5-untied-parts",
            "5-untied-scaled"
        ]
    );
    // Both versions wrote the same models, which need running once.
    let mut known: Vec<(hugging_face::Weights, [HostTensor; 2])> = Vec::new();
    for name in names {
        let directory = directories.join(&name);
        let expected = read(&directory.join("expected.safetensors"));
        let root = tempfile::tempdir().unwrap();
        let [checkpoint, exported] = ["checkpoint", "exported"].map(|name| root.path().join(name));
        hugging_face::import_to_checkpoint(&directory.join("hf"), &checkpoint).unwrap();
        hugging_face::export_checkpoint(&checkpoint, &exported).unwrap();
        let loaded = hugging_face::load(&checkpoint).unwrap();
        // What is written of it is the same model.
        assert!(hugging_face::load(&exported).unwrap() == loaded, "{name}");
        let found = match known.iter().find(|(other, _)| *other == loaded) {
            Some((_, found)) => found.clone(),
            None => {
                let how = How::formula(config::Remat::None);
                let (_, out) = run_directory(&checkpoint, &batch, how, Gradients::No, 0);
                let found = [out.logits, out.loss];
                known.push((loaded, found.clone()));
                found
            }
        };
        for (key, found) in ["logits", "loss"].iter().zip(&found) {
            let expected = expected.iter().find(|(name, _)| name == key);
            let name = format!("{name}: {key}");
            assert_close(&name, found, &expected.unwrap().1, FORWARD, 1.0);
        }
    }
    assert_eq!(
        known.len(),
        7,
        "two untied models, two tied ones, two in half precision, one padded"
    );
}

#[test]
fn relative_position_buckets_equal_hugging_faces() {
    use ankh::model::position::{Direction, bucket};
    let text = std::fs::read_to_string(case("relative_buckets.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let first = golden["first_distance"].as_i64().unwrap();
    for table in golden["tables"].as_array().unwrap() {
        let number = |key: &str| table[key].as_u64().unwrap() as usize;
        let (buckets, max_distance) = (number("buckets"), number("max_distance"));
        for (key, direction) in [
            ("encoder", Direction::Bidirectional),
            ("decoder", Direction::Causal),
        ] {
            let expected = table[key].as_array().unwrap();
            assert!(expected.len() > 1000);
            for (i, expected) in expected.iter().enumerate() {
                let distance = first + i as i64;
                let found = bucket(distance, direction, buckets, max_distance);
                assert_eq!(
                    found as u64,
                    expected.as_u64().unwrap(),
                    "{key}, {buckets} buckets, distance {distance}"
                );
            }
        }
    }
}
