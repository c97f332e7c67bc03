//! The head that is trained on an encoder's states: its layer against PyTorch's ConvBertLayer, and
//! what holds however a batch is padded, ordered and split over devices.

use std::path::Path;

use ankh::benchmark::{HeadBatch, HeadTrainer};
use ankh::config::Config;
use ankh::devices::open_mesh;
use ankh::mesh::Hosts;
use ankh::programs::head::{Head, HeadKind, convbert};
use ankh_hlo::{DType, Graph, Shape, Tensor};
use ankh_pjrt::HostTensor;
use serde_json::Value;

use crate::support::{Random, compile, device, expect_close, floats, run};

/// Relative to the largest reference value of each array, or to 1 where that is less.
const FORWARD: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

/// Sums over devices are in another order, at each of some steps.
const DEVICES: f64 = 1e-4;

const WIDTH: usize = 16;
const DROPOUT: f64 = 0.2;

fn head(kind: HeadKind) -> Head {
    Head {
        width: WIDTH,
        kind,
        dropout: DROPOUT,
    }
}

#[test]
fn the_layer_and_its_derivatives_are_those_of_transformers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/convbert.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let values = golden[name].as_array().unwrap_or_else(|| panic!("{name}"));
        values.iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let width = golden["width"].as_u64().unwrap() as usize;
    let lengths: Vec<usize> = serde_json::from_value(golden["lengths"].clone()).unwrap();
    let (rows, length) = (lengths.len(), *lengths.iter().max().unwrap());
    let parameters = convbert::parameters(width);

    let g = Graph::new("layer");
    let float = |name: &str, dims: &[i64]| g.parameter(name, Shape::new(DType::F32, dims));
    let dims = [rows as i64, length as i64, width as i64];
    let values: Vec<Tensor<'_>> = parameters.iter().map(|p| float(&p.name, &p.dims)).collect();
    let (states, cotangent) = (float("states", &dims), float("cotangent", &dims));
    let mask = g.parameter("mask", Shape::new(DType::S32, &dims[..2]));
    let output = convbert::layer(&values, states, mask, None);
    let is_residue = mask.convert(DType::F32).expand_dims(&[2]);
    let output = output * is_residue;
    let sum = (output * cotangent).sum_all();
    let mut results = vec![output];
    results.extend(g.gradients(sum, &[&[states], &values[..]].concat()));
    let program = compile(&g.finish(&results, &[]).unwrap());

    let mut inputs: Vec<HostTensor> = parameters
        .iter()
        .map(|p| HostTensor::new(p.dims.clone(), &numbers(&p.name)))
        .collect();
    // What stands at padding must not matter, so it is made large.
    let mut given = numbers("states");
    for (at, x) in given.iter_mut().enumerate() {
        let (row, position) = (at / (length * width), at / width % length);
        if position >= lengths[row] {
            *x = 100.0;
        }
    }
    inputs.push(HostTensor::new(dims, &given));
    inputs.push(HostTensor::new(dims, &numbers("cotangent")));
    inputs.push(mask_of(&lengths, length));
    let found = run(&program, &inputs);
    expect_close("output", &floats(&found[0]), &numbers("output"), FORWARD);
    let names = ["states"].into_iter();
    let names = names.chain(parameters.iter().map(|p| p.name.as_str()));
    for (name, found) in names.zip(&found[1..]) {
        let name = format!("gradient of {name}");
        expect_close(&name, &floats(found), &numbers(&name), GRADIENT);
    }
}

/// s32 `[rows, length]`.
fn mask_of(lengths: &[usize], length: usize) -> HostTensor {
    let row = |&n: &usize| (0..length).map(move |i| i32::from(i < n));
    let mask: Vec<i32> = lengths.iter().flat_map(row).collect();
    HostTensor::new([lengths.len() as i64, length as i64], &mask)
}

/// A sequence: its number, its states `[length, WIDTH]`, and what can be learned of them.
struct Sequence {
    example: i32,
    states: Vec<f32>,
}

/// Sequences of random lengths from 8 to 20.
fn sequences(count: usize, random: &mut Random) -> Vec<Sequence> {
    let one = |example: usize| {
        let length = 8 + random.below(13);
        let states = random.signed(length * WIDTH as i64);
        Sequence {
            example: example as i32,
            states: states.iter().map(|&x| 1.7 * x as f32).collect(),
        }
    };
    (0..count).map(one).collect()
}

impl Sequence {
    fn length(&self) -> usize {
        self.states.len() / WIDTH
    }

    /// Unit `unit` of residue `i`.
    fn at(&self, i: usize, unit: usize) -> f32 {
        self.states[i * WIDTH + unit]
    }

    /// The mean of a unit.
    fn mean(&self, unit: usize) -> f32 {
        (0..self.length()).map(|i| self.at(i, unit)).sum::<f32>() / self.length() as f32
    }
}

/// A batch with simple labels: the sign of a unit and, for classes, of another; its mean for a
/// whole sequence; whether two residues have the same sign.
fn batch(kind: HeadKind, sequences: &[Sequence], length: usize, filling: f32) -> HeadBatch {
    let rows = sequences.len() as i64;
    let class = |x: f32, y: f32| match (x > 0.0, y > 0.0) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    };
    let mut states = Vec::new();
    for s in sequences {
        states.extend(&s.states);
        states.resize(states.len() + (length - s.length()) * WIDTH, filling);
    }
    let labels = match kind {
        HeadKind::Residues { .. } => {
            let label = |s: &Sequence, i: usize| match i < s.length() && i != 2 {
                true => class(s.at(i, 0), s.at(i, 1)),
                false => -1,
            };
            let row = |s| (0..length).map(move |i| label(s, i));
            let labels: Vec<i32> = sequences.iter().flat_map(row).collect();
            HostTensor::new([rows, length as i64], &labels)
        }
        HeadKind::Sequence { .. } => {
            let label = |s: &Sequence| class(s.mean(0), s.mean(1));
            HostTensor::new([rows], &sequences.iter().map(label).collect::<Vec<i32>>())
        }
        HeadKind::Value { mean } => {
            let label = |s: &Sequence| mean as f32 + s.mean(0);
            HostTensor::new([rows], &sequences.iter().map(label).collect::<Vec<f32>>())
        }
        HeadKind::Pairs => {
            let label = |s: &Sequence, i: usize, j: usize| match i.max(j) < s.length() {
                true => i32::from((s.at(i, 0) > 0.0) == (s.at(j, 0) > 0.0)),
                false => -1,
            };
            let row = |s| (0..length * length).map(move |at| label(s, at / length, at % length));
            let labels: Vec<i32> = sequences.iter().flat_map(row).collect();
            HostTensor::new([rows, length as i64, length as i64], &labels)
        }
    };
    let lengths: Vec<usize> = sequences.iter().map(Sequence::length).collect();
    let examples: Vec<i32> = sequences.iter().map(|s| s.example).collect();
    HeadBatch {
        examples: HostTensor::new([rows], &examples),
        features: HostTensor::new([rows, length as i64, WIDTH as i64], &states),
        mask: mask_of(&lengths, length),
        labels,
    }
}

/// Rows of a batch, so that eight devices have one each.
const ROWS: usize = 8;

/// Positions of a row.
const LENGTH: usize = 20;

fn batches(kind: HeadKind, count: usize, seed: u64) -> Vec<HeadBatch> {
    let random = &mut Random(seed);
    let one = |_| batch(kind, &sequences(ROWS, random), LENGTH, 0.0);
    (0..count).map(one).collect()
}

/// Some steps on these batches, and the losses.
fn train(trainer: &mut HeadTrainer<'_>, batches: &[HeadBatch], steps: usize) -> Vec<f32> {
    let batches = batches.iter().cycle().take(steps);
    batches.map(|b| trainer.step(b, 3e-3).unwrap()).collect()
}

fn predict(trainer: &HeadTrainer<'_>, batch: &HeadBatch) -> Vec<f32> {
    floats(&trainer.predict(&batch.features, &batch.mask).unwrap())
}

#[test]
fn a_head_for_classes_of_residues() {
    check(HeadKind::Residues { classes: 3 });
}

#[test]
fn a_head_for_classes_of_sequences() {
    check(HeadKind::Sequence { classes: 3 });
}

#[test]
fn a_head_for_a_number() {
    check(HeadKind::Value { mean: 0.7 });
}

#[test]
fn a_head_for_contacts() {
    check(HeadKind::Pairs);
}

/// What holds for every kind of head, with one that compiles its programs once.
fn check(kind: HeadKind) {
    let trainer = &mut HeadTrainer::new(device(), head(kind), 1).unwrap();
    the_first_values_are_those_of_transformers_and_the_authors(trainer);
    a_restored_head_takes_the_same_steps(trainer);
    dropout_follows_seed_step_and_example(trainer);
    it_learns(trainer);
    // Compiling for eight devices takes long, and a head for a number pools in the same way.
    if !matches!(kind, HeadKind::Sequence { .. }) {
        devices_padding_and_the_order_of_rows_do_not_matter(trainer);
    }
}

fn the_first_values_are_those_of_transformers_and_the_authors(trainer: &HeadTrainer<'_>) {
    let state = trainer.state().unwrap();
    let kind = trainer.head().kind;
    for (name, array) in trainer.names().iter().zip(&state) {
        if name == "step" {
            assert!(*array == HostTensor::scalar(0i32));
            continue;
        }
        let values = floats(array);
        let constant = match (name.as_str(), kind) {
            ("classifier.bias", HeadKind::Value { mean }) => Some(mean as f32),
            ("norm.weight" | "attention.norm.weight", _) => Some(1.0),
            _ if name.contains('/') || name.ends_with("bias") => Some(0.0),
            _ => None,
        };
        if let Some(constant) = constant {
            assert!(values.iter().all(|x| *x == constant), "{name}");
            continue;
        }
        let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        let (deviation, bound) = match name.as_str() {
            "classifier.weight" => (0.1 / 3f32.sqrt(), 0.1),
            _ => (0.02, 0.12),
        };
        let ratio = square.sqrt() / deviation;
        assert!((0.6..1.5).contains(&ratio), "{name}: {ratio}");
        assert!(values.iter().all(|x| x.abs() <= bound), "{name}");
        assert!(values.iter().any(|x| *x < 0.0) && values.iter().any(|x| *x > 0.0));
    }
}

fn a_restored_head_takes_the_same_steps(trainer: &mut HeadTrainer<'_>) {
    let batches = batches(trainer.head().kind, 2, 2);
    trainer.restart(8).unwrap();
    train(trainer, &batches, 3);
    let state = trainer.state().unwrap();
    let expected = (train(trainer, &batches, 3), trainer.state().unwrap());
    assert!(state != expected.1);

    trainer.restart(8).unwrap();
    assert!(trainer.state().unwrap() != state);
    trainer.restore(&state).unwrap();
    assert!(trainer.state().unwrap() == state);
    let found = (train(trainer, &batches, 3), trainer.state().unwrap());
    assert!(found == expected, "{:?} and {:?}", found.0, expected.0);
}

fn dropout_follows_seed_step_and_example(trainer: &mut HeadTrainer<'_>) {
    let batch = &batches(trainer.head().kind, 1, 4)[0];
    trainer.restart(8).unwrap();
    let state = &trainer.state().unwrap();
    let mut loss = |seed, batch: &HeadBatch, state: &[HostTensor]| {
        trainer.restart(seed).unwrap();
        trainer.restore(state).unwrap();
        trainer.step(batch, 0.0).unwrap()
    };
    let first = loss(8, batch, state);
    assert_ne!(first, loss(9, batch, state));
    let mut later = state.clone();
    *later.last_mut().unwrap() = HostTensor::scalar(1i32);
    assert_ne!(first, loss(8, batch, &later));
    let mut renumbered = batch.clone();
    renumbered.examples = HostTensor::new([ROWS as i64], &[ROWS as i32; ROWS]);
    assert_ne!(first, loss(8, &renumbered, state));
    assert_eq!(first, loss(8, batch, state));
}

/// Training on eight devices, with the rows in another order and longer padding, is training on
/// one.
fn devices_padding_and_the_order_of_rows_do_not_matter(one: &mut HeadTrainer<'_>) {
    let slice = "cpu-8".parse().unwrap();
    let mesh = open_mesh(&Config::default(), slice, Hosts::Real).unwrap();
    let mut eight = HeadTrainer::new(&mesh, *one.head(), 5).unwrap();
    one.restart(5).unwrap();
    let (kind, random) = (one.head().kind, &mut Random(5));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut given = sequences(ROWS, random);
        here.push(batch(kind, &given, LENGTH, 0.0));
        given.reverse();
        there.push(batch(kind, &given, LENGTH + 7, 9.0));
    }
    let expected = train(one, &here, 6);
    let found = train(&mut eight, &there, 6);
    expect_close("losses", &found, &expected, DEVICES);
    let states = eight.state().unwrap().into_iter().zip(one.state().unwrap());
    for (name, (found, expected)) in one.names().iter().zip(states) {
        match name.as_str() {
            "step" => assert!(found == expected && found == HostTensor::scalar(6i32)),
            name => expect_close(name, &floats(&found), &floats(&expected), DEVICES),
        }
    }
    let (found, expected) = (predict(&eight, &here[0]), predict(one, &here[0]));
    expect_close("predictions", &found, &expected, DEVICES);
}

fn it_learns(trainer: &mut HeadTrainer<'_>) {
    let kind = trainer.head().kind;
    let (seen, unseen) = (batches(kind, 24, 6), batches(kind, 8, 7));
    trainer.restart(1).unwrap();
    let before = mistakes(trainer, &unseen);
    train(trainer, &seen, 300);
    let after = mistakes(trainer, &unseen);
    println!("{kind:?}: {before:.3} -> {after:.3}");
    assert!(after < 0.5 * before, "{kind:?}: {before} -> {after}");
}

/// The mean of [`costs`].
fn mistakes(trainer: &HeadTrainer<'_>, batches: &[HeadBatch]) -> f64 {
    let costs: Vec<f64> = batches.iter().flat_map(|b| costs(trainer, b)).collect();
    costs.iter().sum::<f64>() / costs.len() as f64
}

/// 1 for each wrong prediction and 0 for others, or squared errors.
fn costs(trainer: &HeadTrainer<'_>, batch: &HeadBatch) -> Vec<f64> {
    let outputs = predict(trainer, batch);
    match trainer.head().kind {
        HeadKind::Value { .. } => {
            let pairs = outputs.iter().zip(floats(&batch.labels));
            pairs.map(|(x, y)| f64::from((x - y).powi(2))).collect()
        }
        HeadKind::Pairs => {
            let labels: Vec<i32> = batch.labels.to_vec().unwrap();
            let length = batch.labels.dims[1] as usize;
            let apart = |at: usize| (at / length % length).abs_diff(at % length);
            let labelled = labels.iter().zip(&outputs).enumerate();
            let labelled = labelled.filter(|(at, (label, _))| **label >= 0 && apart(*at) >= 6);
            let cost = |(_, (&label, &x)): (_, (&i32, &f32))| f64::from((label > 0) != (x > 0.0));
            labelled.map(cost).collect()
        }
        HeadKind::Residues { classes } | HeadKind::Sequence { classes } => {
            let labels: Vec<i32> = batch.labels.to_vec().unwrap();
            let rows = outputs.chunks(classes).zip(labels);
            let best = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let labelled = rows.filter(|(_, label)| *label >= 0);
            let cost = |(row, label): (&[f32], i32)| f64::from(best(row) != Some(label as usize));
            labelled.map(cost).collect()
        }
    }
}
