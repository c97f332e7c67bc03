//! Packed rows compute what their sequences compute alone: logits, loss, gradients, whatever is
//! kept for the derivative and however the devices share the work.

use std::sync::LazyLock;

use ankh::config::{Compute, Config, Packing, Remat, resolve};
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{DeviceMesh, Hosts};
use ankh::model::Weights;
use ankh::programs::{BatchShape, Gradients, Programs, StepMetrics};
use ankh::train::forward::{ForwardOutputs, forward};
use ankh_hlo::{ArraySpec, DType};
use ankh_pjrt::{ElementType, HostTensor};

use crate::support;
use crate::support::{Random, device, weights};

/// float32 holds 7 digits, and sums over another number of keys are taken in another order.
const FORWARD: f64 = 1e-5;

/// A gradient sums over all positions of the batch, which are in other rows here, and its terms
/// cancel; relative to the largest of its array.
const GRADIENT: f64 = 2e-5;

/// Positions of an input and of a target, in packed rows.
const LENGTHS: [usize; 2] = [24, 16];

/// The longest input and target of a sequence.
const LONGEST: [usize; 2] = [12, 8];

/// A model with two layers in each stack, in float32.
fn config(settings: &[&str]) -> Config {
    let set = settings.iter().map(|s| (*s).to_owned());
    let mut config = resolve(Some("tiny"), &set.collect::<Vec<_>>()).unwrap();
    config.train.compute = Compute::Float32;
    config
}

#[derive(Clone, Debug)]
struct Sequence {
    input: Vec<i32>,
    target: Vec<i32>,
}

/// Sequences of different lengths, the first as long as they get.
fn sequences(config: &Config, random: &mut Random, count: usize) -> Vec<Sequence> {
    let below = config.model.vocabulary as i64 - 1;
    let mut tokens = |i: usize, longest: usize| -> Vec<i32> {
        let spread = 1 + random.below(longest as i64) as usize;
        let length = if i == 0 { longest } else { spread };
        (0..length)
            .map(|_| 1 + random.below(below) as i32)
            .collect()
    };
    let sequence = |i| Sequence {
        input: tokens(i, LONGEST[0]),
        target: tokens(i, LONGEST[1]),
    };
    (0..count).map(sequence).collect()
}

/// Which sequences each row holds, in the order of their segments.
type RowsOfSequences = Vec<Vec<usize>>;

/// Each sequence, in a random order, in a random one of `rows` rows that has room for it. The last
/// row stays empty.
fn pack(sequences: &[Sequence], random: &mut Random, rows: usize) -> RowsOfSequences {
    let mut packing: RowsOfSequences = vec![vec![]; rows];
    let mut left: Vec<usize> = (0..sequences.len()).collect();
    while !left.is_empty() {
        let next = left.swap_remove(random.below(left.len() as i64) as usize);
        let fits = |row: &Vec<usize>| {
            let of = |side: fn(&Sequence) -> usize| -> usize {
                row.iter()
                    .chain([&next])
                    .map(|&i| side(&sequences[i]))
                    .sum()
            };
            of(|s| s.input.len()) <= LENGTHS[0] && of(|s| s.target.len()) <= LENGTHS[1]
        };
        let open: Vec<usize> = (0..rows - 1).filter(|&row| fits(&packing[row])).collect();
        packing[open[random.below(open.len() as i64) as usize]].push(next);
    }
    packing
}

fn array(name: &str, length: usize, rows: &[Vec<i32>], filling: i32) -> (String, HostTensor) {
    let mut values = vec![filling; rows.len() * length];
    for (place, row) in values.chunks_mut(length).zip(rows) {
        place[..row.len()].copy_from_slice(row);
    }
    let tensor = HostTensor::new::<i32>([rows.len() as i64, length as i64], &values);
    (name.into(), tensor)
}

/// The decoder reads the target one position late.
fn late(target: &[i32]) -> Vec<i32> {
    [&[0], &target[..target.len() - 1]].concat()
}

/// A sequence a row.
fn padded(sequences: &[Sequence]) -> Vec<(String, HostTensor)> {
    let rows = |of: &dyn Fn(&Sequence) -> Vec<i32>| sequences.iter().map(of).collect::<Vec<_>>();
    vec![
        array("input_ids", LONGEST[0], &rows(&|s| s.input.clone()), 0),
        array(
            "attention_mask",
            LONGEST[0],
            &rows(&|s| vec![1; s.input.len()]),
            0,
        ),
        array(
            "decoder_input_ids",
            LONGEST[1],
            &rows(&|s| late(&s.target)),
            0,
        ),
        array("labels", LONGEST[1], &rows(&|s| s.target.clone()), -100),
    ]
}

/// Several.
fn packed(sequences: &[Sequence], packing: &RowsOfSequences) -> Vec<(String, HostTensor)> {
    let rows = |of: &dyn Fn(i32, &Sequence) -> Vec<i32>| {
        let row = |row: &Vec<usize>| {
            let numbered = (1..).zip(row);
            let parts = numbered.map(|(segment, &i)| of(segment, &sequences[i]));
            parts.collect::<Vec<_>>().concat()
        };
        packing.iter().map(row).collect::<Vec<_>>()
    };
    let [input, target] = LENGTHS;
    vec![
        array("input_ids", input, &rows(&|_, s| s.input.clone()), 0),
        array(
            "input_segments",
            input,
            &rows(&|n, s| vec![n; s.input.len()]),
            0,
        ),
        array(
            "decoder_input_ids",
            target,
            &rows(&|_, s| late(&s.target)),
            0,
        ),
        array(
            "target_segments",
            target,
            &rows(&|n, s| vec![n; s.target.len()]),
            0,
        ),
        array("labels", target, &rows(&|_, s| s.target.clone()), -100),
    ]
}

fn run(config: &Config, mesh: &DeviceMesh, batch: &[(String, HostTensor)]) -> ForwardOutputs {
    let names = Weights::of(&config.model).leaves().into_iter();
    let parameters: Vec<_> = names.map(|p| p.name).zip(weights(config)).collect();
    forward(config, mesh, &parameters, batch, Gradients::Yes, 0).unwrap()
}

fn numbers(tensor: &HostTensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

/// The logits of each sequence's target, one after the other.
fn logits(
    out: &ForwardOutputs,
    sequences: &[Sequence],
    packing: &RowsOfSequences,
) -> Vec<Vec<f32>> {
    let all = numbers(&out.logits);
    let (length, vocabulary) = (out.logits.dims[1] as usize, out.logits.dims[2] as usize);
    let mut found = vec![vec![]; sequences.len()];
    for (row, members) in packing.iter().enumerate() {
        let mut start = row * length * vocabulary;
        for &i in members {
            let end = start + sequences[i].target.len() * vocabulary;
            found[i] = all[start..end].to_vec();
            start = end;
        }
    }
    found
}

/// The largest difference relative to the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(f, e)| f64::from((f - e).abs()));
    worst.fold(0f64, |m, d| {
        if d.is_finite() {
            m.max(d)
        } else {
            f64::INFINITY
        }
    }) / f64::from(largest)
}

/// Logits, mean loss (over as many tokens: the sum too) and gradients are the same.
fn assert_equal(
    case: &str,
    sequences: &[Sequence],
    [found, expected]: [(&ForwardOutputs, &RowsOfSequences); 2],
) {
    let [ours, theirs] = [found, expected].map(|(out, packing)| logits(out, sequences, packing));
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let difference = difference(ours, theirs);
        assert!(
            difference <= FORWARD,
            "{case}: logits of sequence {i} differ by {difference:.1e}"
        );
    }
    let loss = difference(&numbers(&found.0.loss), &numbers(&expected.0.loss));
    assert!(loss <= FORWARD, "{case}: the loss differs by {loss:.1e}");
    for ((name, ours), (_, theirs)) in found.0.gradients.iter().zip(&expected.0.gradients) {
        let difference = difference(&numbers(ours), &numbers(theirs));
        assert!(
            difference <= GRADIENT,
            "{case}: the gradient of {name} differs by {difference:.1e}"
        );
    }
}

/// Sequences, and what they compute alone.
static ALONE: LazyLock<(Vec<Sequence>, ForwardOutputs)> = LazyLock::new(|| {
    let config = config(&[]);
    let sequences = sequences(&config, &mut Random(1), 9);
    let out = run(&config, device(), &padded(&sequences));
    (sequences, out)
});

/// They compute the same packed in this way.
fn assert_same_as_alone(case: &str, config: &Config, mesh: &DeviceMesh, packing: &RowsOfSequences) {
    let (sequences, expected) = &*ALONE;
    let found = run(config, mesh, &packed(sequences, packing));
    let alone: RowsOfSequences = (0..sequences.len()).map(|i| vec![i]).collect();
    let case = format!("{case}, {packing:?}");
    assert_equal(&case, sequences, [(&found, packing), (expected, &alone)]);
}

#[test]
fn packed_sequences_compute_what_they_compute_alone() {
    for (seed, rows, remat) in [
        (2, 6, Remat::None),
        (3, 7, Remat::Full),
        (4, 8, Remat::Named),
    ] {
        let mut config = config(&[]);
        config.train.remat = remat;
        let packing = pack(&ALONE.0, &mut Random(seed), rows);
        assert_same_as_alone(&format!("{remat:?}"), &config, device(), &packing);
    }
}

#[test]
fn a_mesh_computes_packed_rows_as_one_device_does() {
    let cases: [&[&str]; 2] = [
        &["sharding.model=2"],
        // Positions are split where heads are not.
        &["sharding.model=2", "sharding.rules.length=[\"model\"]"],
    ];
    for (seed, settings) in (7..).zip(cases) {
        let config = config(&[settings, &["train.batch_size=8"][..]].concat());
        let slice: Slice = "cpu-4".parse().unwrap();
        let mesh = open_mesh(&config, slice, Hosts::Real).unwrap();
        let packing = pack(&ALONE.0, &mut Random(seed), 8);
        assert_same_as_alone(&format!("{settings:?}"), &config, &mesh, &packing);
    }
}

#[test]
fn a_sequence_does_not_see_its_neighbors() {
    let config = config(&[]);
    let sequences = &ALONE.0;
    let packing = pack(sequences, &mut Random(10), 5);
    let logits = |sequences: &[Sequence]| {
        let out = run(&config, device(), &packed(sequences, &packing));
        logits(&out, sequences, &packing)
    };
    // One between two others.
    let crowded = packing.iter().max_by_key(|row| row.len()).unwrap();
    assert!(crowded.len() > 2, "{packing:?}");
    let changed = crowded[1];
    let mut others = sequences.clone();
    let Sequence { input, target } = &mut others[changed];
    for token in input.iter_mut().chain(target) {
        *token = 1 + *token % 20;
    }
    let (before, after) = (logits(sequences), logits(&others));
    for (i, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(before == after, i != changed, "{changed} changed, {i}");
    }
}

#[test]
fn rows_of_padding_alone_stay_finite_in_bfloat16() {
    let mut config = config(&[]);
    config.train.compute = Compute::Bfloat16;
    let (sequences, wide) = &*ALONE;
    // Two rows more than are needed, of which the last stays empty.
    let batch = packed(sequences, &pack(sequences, &mut Random(11), 8));
    let narrow = run(&config, device(), &batch);
    let loss = difference(&numbers(&narrow.loss), &numbers(&wide.loss));
    assert!(loss < 0.02, "the loss differs by {loss}");
    for (name, gradient) in &narrow.gradients {
        assert!(numbers(gradient).iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn a_step_counts_tokens_and_not_positions() {
    let config = config(&[]);
    let sequences = &ALONE.0;
    let packing = pack(sequences, &mut Random(12), 6);
    let size = BatchShape {
        rows: packing.len(),
        input: LENGTHS[0],
        target: LENGTHS[1],
        packing: Packing::Packed,
    };
    let programs = Programs::new(&config, size, DType::F32);
    let zeros = |spec: &ArraySpec| {
        let element_type = match spec.shape.dtype {
            DType::S32 => ElementType::S32,
            _ => ElementType::F32,
        };
        HostTensor::zeros(element_type, spec.shape.dims.clone())
    };
    let mut inputs: Vec<HostTensor> = programs.state_specs().iter().map(zeros).collect();
    let batch = packed(sequences, &packing).into_iter();
    inputs.extend(batch.map(|(_, tensor)| tensor));
    let outputs = support::run(&support::compile(&programs.step().unwrap()), &inputs);
    let metrics = StepMetrics::from_slice(&numbers(outputs.last().unwrap())).unwrap();
    let count = |of: fn(&Sequence) -> usize| sequences.iter().map(of).sum::<usize>() as f32;
    assert_eq!(metrics.input_tokens, count(|s| s.input.len()));
    assert_eq!(metrics.target_tokens, count(|s| s.target.len()));
}
