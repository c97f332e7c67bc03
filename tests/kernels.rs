//! Attention by kernels against attention by the formula, on the CPU plugin, where kernels run as
//! loops of the very operations that a TPU gets: results and gradients, whole training steps on
//! meshes, and, with libtpu, the kernels of every preset and length compiled for every chip.

use std::collections::BTreeSet;

use ankh::config::resolve;
use ankh::mesh::slice::Slice;
use ankh::model::attention::{
    AttentionMask, Bias, Segments, kernel_weighted_sum, relative_for_kernel, weighted_sum,
};
use ankh::model::position::Direction;
use ankh_hlo::{DType, Graph, Literal, Module, Shape, Tensor};
use ankh_mosaic::Lowering;
use ankh_pjrt::{CompileOptions, HostTensor, Platform, Plugin, Program};

use crate::support::{Random, compile, run};

/// What an attention computes on.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: i64,
    heads: i64,
    queries: i64,
    keys: i64,
    kv: i64,
    relative: bool,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Formula,
    Kernels,
}

impl Case {
    fn random(random: &mut Random) -> Case {
        let [batch, heads, queries, keys, kv] = [3, 3, 40, 40, 9].map(|n| 1 + random.below(n));
        let causal = random.uniform() < 0.4;
        Case {
            batch,
            heads,
            queries: if causal { keys } else { queries },
            keys,
            kv,
            relative: random.uniform() < 0.6,
            direction: match causal {
                true => Direction::Causal,
                false => Direction::Bidirectional,
            },
        }
    }

    fn shapes(&self) -> Vec<Vec<i64>> {
        let of = |length| vec![self.batch, self.heads, length, self.kv];
        let mut shapes = vec![of(self.queries), of(self.keys), of(self.keys)];
        if self.relative {
            shapes.push(vec![self.heads, self.queries, self.keys]);
        }
        shapes
    }

    /// Consecutive segments from 1, some of them without keys, then padding. A row as long as
    /// another is cut alike.
    fn segments(&self, random: &mut Random) -> [Vec<i32>; 2] {
        let mut all = [vec![], vec![]];
        for _ in 0..self.batch {
            let cuts: Vec<f64> = (0..3).map(|_| random.uniform()).collect();
            for (numbers, length) in all.iter_mut().zip([self.queries, self.keys]) {
                numbers.extend((0..length).map(|i| {
                    let at = i as f64 / length as f64;
                    let segment = 1 + cuts[..2].iter().filter(|cut| at >= **cut).count() as i32;
                    if at >= 0.5 + cuts[2] { 0 } else { segment }
                }));
            }
        }
        all
    }

    /// The result and the gradients, in the given type, of inputs drawn from `seed`.
    fn compute(&self, way: Way, dtype: DType, seed: u64) -> Vec<Vec<f64>> {
        let random = &mut Random(seed);
        let [queries, keys] = self.segments(random);
        let shapes = self.shapes();
        let g = Graph::new("attention");
        let inputs = shapes
            .iter()
            .map(|dims| g.parameter("x", Shape::new(DType::F64, dims.clone())));
        let inputs: Vec<Tensor<'_>> = inputs.collect();
        let x: Vec<Tensor<'_>> = inputs[..3].iter().map(|t| t.convert(dtype)).collect();
        let wide = if dtype == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        let relative = inputs.get(3).map(|t| t.convert(wide));
        let array = |numbers: &[i32]| {
            let length = numbers.len() as i64 / self.batch;
            g.literal(Literal::s32(&[self.batch, length], numbers).unwrap())
        };
        let segments = Segments {
            queries: array(&queries),
            keys: array(&keys),
            direction: self.direction,
        };
        let y = match way {
            Way::Formula => {
                let mask = AttentionMask::Segments(segments);
                weighted_sum(x[0], x[1], x[2], Bias { relative, mask })
            }
            Way::Kernels => {
                let turned = [0, 1, 2].map(|i: usize| x[i].transpose(&[0, 1, 3, 2]));
                let relative = relative.map(relative_for_kernel);
                let y = kernel_weighted_sum(Lowering::Loops, turned, relative, segments);
                y.transpose(&[0, 1, 3, 2])
            }
        };
        let y = y.convert(DType::F64);
        // Each element has a weight of its own.
        let weights = g.iota(y.shape(), 3) * 0.3 + g.iota(y.shape(), 2) * 0.7;
        let loss = (y * weights.sin()).sum_all();
        let mut outputs = vec![y];
        outputs.extend(g.gradients(loss, &inputs));
        let program = compile(&g.finish(&outputs, &[]).unwrap());
        let tensors = shapes.iter().map(|dims| {
            let values = random.signed(dims.iter().product());
            let values: Vec<f64> = values.into_iter().map(bfloat16).collect();
            HostTensor::new::<f64>(dims.clone(), &values)
        });
        let outputs = run(&program, &tensors.collect::<Vec<_>>());
        outputs.iter().map(|t| t.to_vec::<f64>().unwrap()).collect()
    }
}

/// A number that bfloat16 has, so that every type starts from the same ones.
fn bfloat16(x: f64) -> f64 {
    f32::from_bits((x as f32).to_bits() & 0xffff_0000).into()
}

/// The largest difference, relative to the largest number.
fn largest(found: &[f64], expected: &[f64]) -> f64 {
    let scale = expected
        .iter()
        .fold(1e-30, |most: f64, x| most.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(x, y)| (x - y).abs());
    differences.fold(0.0, f64::max) / scale
}

/// The mean square of the differences.
fn mean_square(found: &[f64], expected: &[f64]) -> f64 {
    let squares = found.iter().zip(expected).map(|(x, y)| (x - y).powi(2));
    squares.sum::<f64>() / expected.len() as f64
}

#[test]
fn kernels_and_formula_agree_in_float32_on_random_shapes_and_segments() {
    for seed in 0..12 {
        let case = Case::random(&mut Random(seed));
        let [formula, kernels] =
            [Way::Formula, Way::Kernels].map(|way| case.compute(way, DType::F32, seed));
        for (i, (found, expected)) in kernels.iter().zip(&formula).enumerate() {
            let difference = largest(found, expected);
            assert!(
                difference <= 1e-5,
                "seed {seed}, {case:?}, output {i}: {difference}"
            );
        }
    }
}

#[test]
fn kernels_are_no_farther_from_float64_in_bfloat16_than_the_formula() {
    // Over all cases together: in a single small one chance decides.
    let mut sums = vec![[0.0; 2]; 5];
    for seed in 0..10 {
        let case = Case::random(&mut Random(seed));
        let exact = case.compute(Way::Formula, DType::F64, seed);
        for (w, way) in [Way::Formula, Way::Kernels].into_iter().enumerate() {
            let found = case.compute(way, DType::Bf16, seed);
            for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
                let scale = mean_square(exact, &vec![0.0; exact.len()]).max(1e-30);
                sums[i][w] += mean_square(found, exact) / scale;
            }
        }
    }
    for (i, [formula, kernels]) in sums.into_iter().enumerate() {
        assert!(
            kernels <= formula * 1.05,
            "output {i}: {kernels} and by the formula {formula}"
        );
    }
}

#[test]
fn queries_whose_scores_do_not_fit_are_computed_in_blocks() {
    for (relative, direction, queries, keys) in [
        (true, Direction::Bidirectional, 256, 1536),
        (true, Direction::Causal, 768, 768),
        (false, Direction::Bidirectional, 384, 1024),
    ] {
        let case = Case {
            batch: 2,
            heads: 1,
            queries,
            keys,
            kv: 4,
            relative,
            direction,
        };
        let [formula, kernels] =
            [Way::Formula, Way::Kernels].map(|way| case.compute(way, DType::F64, 5));
        for (i, (found, expected)) in kernels.iter().zip(&formula).enumerate() {
            let difference = largest(found, expected);
            assert!(difference <= 1e-12, "{case:?}, output {i}: {difference}");
        }
    }
}

/// The program of one layer's attention and its derivative, by kernels for a TPU.
fn for_tpu(case: &Case) -> Module {
    let g = Graph::new("attention");
    let bf16 = |dims: &[i64]| Shape::new(DType::Bf16, dims);
    let of = |length| bf16(&[case.batch, case.heads, case.kv, length]);
    let mut inputs = vec![
        g.parameter("q", of(case.queries)),
        g.parameter("k", of(case.keys)),
        g.parameter("v", of(case.keys)),
    ];
    if case.relative {
        let dims = [1, case.heads, case.keys, case.queries];
        inputs.push(g.parameter("relative", Shape::new(DType::F32, dims)));
    }
    let s32 = |length| Shape::new(DType::S32, [case.batch, length]);
    let segments = Segments {
        queries: g.parameter("queries", s32(case.queries)),
        keys: g.parameter("keys", s32(case.keys)),
        direction: case.direction,
    };
    let relative = inputs.get(3).copied();
    let qkv = [inputs[0], inputs[1], inputs[2]];
    let y = kernel_weighted_sum(Lowering::Mosaic, qkv, relative, segments);
    let gradients = g.gradients(y.convert(DType::F32).sum_all(), &inputs);
    g.finish(&[vec![y], gradients].concat(), &[]).unwrap()
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn the_kernels_of_every_preset_and_length_compile_for_every_chip() {
    let plugin = Plugin::find(Platform::Tpu, None).expect("`make libtpu` puts libtpu in place");
    let mut shapes = BTreeSet::new();
    for preset in [
        "ankh-base",
        "ankh-large",
        "ankh2-large",
        "ankh3-large",
        "ankh3-xl",
        "ankh-base-packed",
        "ankh-large-packed",
    ] {
        let config = resolve(Some(preset), &[]).unwrap();
        let (model, data) = (&config.model, &config.data);
        for (input, target) in [
            (data.input_length, config.target_length()),
            // Of whole tiles in one direction alone.
            (400, 176),
            (1024, 512),
            (2048, 1024),
        ] {
            shapes.insert((model.d_kv as i64, input as i64, target as i64));
        }
    }
    for (kv, input, target) in shapes {
        let case = |queries, keys, relative, direction| Case {
            batch: 2,
            heads: 2,
            queries,
            keys,
            kv,
            relative,
            direction,
        };
        for case in [
            case(input, input, true, Direction::Bidirectional),
            case(target, target, true, Direction::Causal),
            case(target, input, false, Direction::Bidirectional),
        ] {
            let program = Program::hlo(for_tpu(&case).to_bytes());
            for slice in ["v4-8", "v5e-4", "v5p-8", "v6e-4"] {
                let slice: Slice = slice.parse().unwrap();
                let wanted = slice.topology().unwrap();
                let topology = plugin.topology(&wanted.name, &wanted.options).unwrap();
                let chip = topology.devices().unwrap()[0].id;
                let options = CompileOptions::new().device(chip.into());
                if let Err(error) = topology.compile(&program, &options) {
                    panic!("{slice}, {case:?}: {error}");
                }
            }
        }
    }
}
