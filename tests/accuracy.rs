//! What counts as a right prediction: one token, the first of those with the largest logit, on one
//! device as on a mesh that splits the vocabulary.

use ankh::config::{Config, LogicalAxis, Loss, resolve};
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{DeviceMesh, Hosts, Input};
use ankh::model::{Targets, token_loss};
use ankh_hlo::{DType, Graph, LogicalAxisRules, Module, Shape};
use ankh_pjrt::HostTensor;

use crate::support;
use crate::support::Random;

const ROWS: usize = 4;
const LENGTH: usize = 6;
const VOCABULARY: usize = 16;

/// Logits and labels to how many are right.
fn counting(rules: Option<&LogicalAxisRules>) -> Module {
    let g = Graph::new("accuracy");
    if let Some(rules) = rules {
        g.set_logical_axis_rules(rules.clone());
    }
    let dims = [ROWS, LENGTH, VOCABULARY].map(|d| d as i64);
    let logits = Shape::new(DType::F32, dims);
    let logits = g.parameter_with_logical_axes(
        "logits",
        logits,
        &[LogicalAxis::Batch, LogicalAxis::Length, LogicalAxis::Vocab],
    );
    let labels = Shape::new(DType::S32, &dims[..2]);
    let labels =
        g.parameter_with_logical_axes("labels", labels, &[LogicalAxis::Batch, LogicalAxis::Length]);
    let sums = token_loss(logits, Targets(labels), &Loss::default());
    g.finish(&[sums.correct], &[]).unwrap()
}

fn count(mesh: &DeviceMesh, module: &Module, logits: &[f32], labels: &[i32]) -> f32 {
    let dims = [ROWS, LENGTH, VOCABULARY].map(|d| d as i64);
    let arrays = [
        HostTensor::new::<f32>(dims, logits),
        HostTensor::new::<i32>(&dims[..2], labels),
    ];
    let program = mesh.compile(module).unwrap();
    let specs = program.parameters().iter().zip(&arrays);
    let inputs = specs.map(|(spec, array)| Input::Donate(mesh.upload(spec, array).unwrap()));
    let outputs = program.execute(inputs.collect()).unwrap();
    mesh.to_host(&outputs[0]).unwrap().to_vec::<f32>().unwrap()[0]
}

/// By definition.
fn expected(logits: &[f32], labels: &[i32]) -> f32 {
    let right = |(logits, label): (&[f32], &i32)| {
        let mut best = 0;
        for (token, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = token;
            }
        }
        i32::try_from(best) == Ok(*label)
    };
    let rows = logits.chunks(VOCABULARY).zip(labels);
    rows.filter(|row| right(*row)).count() as f32
}

/// Few different logits, so that many are the largest; labels on and beside them, and none.
fn tied(seed: u64) -> (Vec<f32>, Vec<i32>) {
    let random = &mut Random(seed);
    let values = 1 + random.below(4);
    let mut logits = Vec::new();
    let mut labels = Vec::new();
    for _ in 0..ROWS * LENGTH {
        let row: Vec<f32> = (0..VOCABULARY)
            .map(|_| random.below(values) as f32 - 2.0)
            .collect();
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let tied: Vec<usize> = (0..VOCABULARY).filter(|t| row[*t] == largest).collect();
        labels.push(match random.below(4) {
            0 => tied[0] as i32,
            1 => tied[random.below(tied.len() as i64) as usize] as i32,
            2 => random.below(VOCABULARY as i64) as i32,
            _ => -100,
        });
        logits.extend(row);
    }
    (logits, labels)
}

#[test]
fn of_tied_logits_the_first_is_the_prediction() {
    let mesh = support::device();
    let module = counting(None);
    let all: Vec<i32> = (0..(ROWS * LENGTH) as i32).collect();
    let equal = vec![0.0; ROWS * LENGTH * VOCABULARY];
    // Token 0 is asked for once; labels beyond the vocabulary are never right.
    assert_eq!(count(mesh, &module, &equal, &all), 1.0);
    assert_eq!(count(mesh, &module, &equal, &[0; ROWS * LENGTH]), 24.0);
    assert_eq!(count(mesh, &module, &equal, &[-100; ROWS * LENGTH]), 0.0);
    for seed in 0..8 {
        let (logits, labels) = tied(seed);
        let found = count(mesh, &module, &logits, &labels);
        assert_eq!(found, expected(&logits, &labels), "seed {seed}");
    }
}

#[test]
fn a_split_vocabulary_has_one_prediction_too() {
    let set = ["sharding.model=2", "sharding.rules.vocab=[\"model\"]"].map(str::to_owned);
    let config: Config = resolve(Some("tiny"), &set).unwrap();
    let slice: Slice = "cpu-8".parse().unwrap();
    let mesh = open_mesh(&config, slice, Hosts::Real).unwrap();
    let module = counting(mesh.rules());
    let sharding = module.parameters()[0].sharding.as_ref().unwrap();
    assert_eq!(sharding.shards(2), 2);
    for seed in 0..3 {
        let (logits, labels) = tied(seed);
        let found = count(&mesh, &module, &logits, &labels);
        assert_eq!(found, expected(&logits, &labels), "seed {seed}");
    }
}
