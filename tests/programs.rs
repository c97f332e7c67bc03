//! What the programs of a run have to agree on: parts of a batch with the whole, evaluation with
//! the forward pass, padding with none, memory policies and number formats with each other, first
//! weights with their distributions.

use std::sync::LazyLock;

use ankh::config::{
    AdamW, Compute, Config, Initialization, Loss, Optimizer, Packing, Remat, ScheduleKind,
    TieEmbeddings,
};
use ankh::model::Weights;
use ankh::programs::{self, BatchShape, EvaluationSums, Gradients, Programs, StepMetrics};
use ankh_hlo::DType;
use ankh_pjrt::{ElementType, HostTensor};

use crate::support::{Random, compile, run, weights};

/// The preset for tests, with an optimizer whose first step is a smooth function of the gradient:
/// `g / (|g| + 1)`.
fn tiny() -> Config {
    let mut config = ankh::config::resolve(Some("tiny"), &[]).unwrap();
    config.optimizer = Optimizer::Adamw(AdamW {
        b1: 0.0,
        b2: 0.0,
        epsilon: 1.0,
        weight_decay: 0.0,
        clip_norm: None,
    });
    config.schedule.kind = ScheduleKind::Constant;
    config.schedule.warmup_steps = 0;
    config.schedule.peak_learning_rate = 1.0;
    config.train.compute = Compute::Float32;
    config.train.remat = Remat::None;
    config
}

/// Examples whose positions after the first ones are padding.
#[derive(Clone)]
struct Batch {
    inputs: Vec<Vec<i32>>,
    targets: Vec<Vec<i32>>,
}

impl Batch {
    /// Four examples of different lengths, so that no part of the batch has as many targets as
    /// another.
    fn random(config: &Config) -> Batch {
        let mut random = Random(5);
        let mut tokens = |length: &usize| {
            let token = |_| 1 + random.below(config.model.vocabulary as i64 - 1) as i32;
            (0..*length).map(token).collect()
        };
        Batch {
            inputs: [12, 7, 9, 3].iter().map(&mut tokens).collect(),
            targets: [8, 3, 6, 2].iter().map(&mut tokens).collect(),
        }
    }

    /// The arrays of a program, in their order.
    fn arrays(&self, size: BatchShape) -> Vec<HostTensor> {
        let array = |sequences: &[Vec<i32>], length: usize, filling: i32| {
            let mut values = vec![filling; size.rows * length];
            for (row, sequence) in values.chunks_mut(length).zip(sequences) {
                row[..sequence.len()].copy_from_slice(sequence);
            }
            HostTensor::new::<i32>([size.rows as i64, length as i64], &values)
        };
        let ones = self.inputs.iter().map(|i| vec![1; i.len()]);
        // The decoder reads the target one position late.
        let late = |t: &Vec<i32>| [&[0], &t[..t.len() - 1]].concat();
        let decoder = self.targets.iter().map(late);
        vec![
            array(&self.inputs, size.input, 0),
            array(&ones.collect::<Vec<_>>(), size.input, 0),
            array(&decoder.collect::<Vec<_>>(), size.target, 0),
            array(&self.targets, size.target, -100),
        ]
    }

    fn tokens(&self) -> usize {
        self.targets.iter().map(Vec::len).sum()
    }
}

/// The size of [`Batch::random`].
const SIZE: BatchShape = BatchShape {
    rows: 4,
    input: 12,
    target: 8,
    packing: Packing::Padded,
};

/// What one step gives.
struct Step {
    /// By how much each weight shrinks, one vector a parameter.
    updates: Vec<Vec<f64>>,
    metrics: StepMetrics<f64>,
}

impl Step {
    /// The first step on the random batch.
    fn of(config: &Config) -> Step {
        Step::from(config, weights(config), &Batch::random(config))
    }

    /// The first step on a batch, from these weights.
    fn from(config: &Config, before: Vec<HostTensor>, batch: &Batch) -> Step {
        let compute = programs::compute_type(config.train.compute, "cpu");
        Step::by(&Programs::new(config, SIZE, compute), before, batch)
    }

    /// The first step of these programs.
    fn by(programs: &Programs, before: Vec<HostTensor>, batch: &Batch) -> Step {
        let program = compile(&programs.step().unwrap());
        let state = programs::state(programs.config);
        let zeros = state[before.len()..].iter().map(|array| {
            let count = array.name == "step";
            let element_type = if count {
                ElementType::S32
            } else {
                ElementType::F32
            };
            HostTensor::zeros(element_type, array.shape.dims.clone())
        });
        let mut inputs = before.clone();
        inputs.extend(zeros);
        inputs.extend(batch.arrays(SIZE));
        let outputs = run(&program, &inputs);
        let update = |(before, after): (&HostTensor, &HostTensor)| {
            let (before, after) = (numbers(before), numbers(after));
            before.iter().zip(after).map(|(b, a)| b - a).collect()
        };
        Step {
            updates: before.iter().zip(&outputs).map(update).collect(),
            metrics: StepMetrics::from_slice(&numbers(outputs.last().unwrap())).unwrap(),
        }
    }

    /// Loss, norm and updates are those of `expected`, up to float32 rounding.
    fn assert_equals(&self, case: &str, expected: &Step) {
        let numbers = [self, expected].map(|step| step.metrics.to_array());
        for (found, expected) in numbers[0].iter().zip(numbers[1]) {
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs(),
                "{case}: {:?} should be {:?}",
                numbers[0],
                numbers[1]
            );
        }
        assert_updates(case, &self.updates, &expected.updates);
    }
}

/// Rounding is relative to the largest update, and to the weights, of size 1, that it is the
/// difference of.
fn assert_updates(case: &str, found: &[Vec<f64>], expected: &[Vec<f64>]) {
    let names = Weights::of(&tiny().model).leaves();
    for ((p, found), expected) in names.iter().zip(found).zip(expected) {
        let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        assert!(largest > 1e-4, "{case}: {} hardly changes", p.name);
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= 2e-5 * largest + 5e-7,
                "{case}: the update of {} element {i} is {found:e} and should be {expected:e}, largest {largest:e}",
                p.name
            );
        }
    }
}

fn numbers(tensor: &HostTensor) -> Vec<f64> {
    let values = tensor.to_vec::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

/// The step that others are compared with: the whole batch at once, everything kept, float32.
static WHOLE: LazyLock<Step> = LazyLock::new(|| Step::of(&tiny()));

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    for parts in [2, 4] {
        let mut config = tiny();
        config.train.gradient_accumulation = parts;
        Step::of(&config).assert_equals(&format!("{parts} parts"), &WHOLE);
    }
}

#[test]
fn what_is_kept_for_the_derivative_changes_nothing() {
    for remat in [
        Remat::Full,
        Remat::Attention,
        Remat::Projections,
        Remat::Named,
    ] {
        let mut config = tiny();
        config.train.remat = remat;
        Step::of(&config).assert_equals(&format!("{remat:?}"), &WHOLE);
    }
}

#[test]
fn layers_one_after_the_other_compute_what_a_loop_does() {
    let config = tiny();
    let programs = Programs::of_size(&config, SIZE, "cpu", None);
    assert!(
        programs.unroll,
        "everything is kept, and stacks are shallow"
    );
    assert_eq!(count_loops(&programs), 0);
    let step = Step::by(&programs, weights(&config), &Batch::random(&config));
    step.assert_equals("unrolled", &WHOLE);
    // WHOLE has its loops: two stacks, forward and backward.
    assert_eq!(count_loops(&Programs::new(&config, SIZE, DType::F32)), 4);

    let mut full = tiny();
    full.train.remat = Remat::Full;
    let mut deep = tiny();
    deep.model.encoder_layers = 13;
    assert!(!Programs::of_size(&full, SIZE, "cpu", None).unroll);
    assert!(!Programs::of_size(&deep, SIZE, "cpu", None).unroll);
    assert!(!Programs::of_size(&config, SIZE, "tpu", None).unroll);
}

fn count_loops(programs: &Programs) -> usize {
    let step = programs.step().unwrap();
    let computations = step.proto().computations.iter();
    let instructions = computations.flat_map(|c| &c.instructions);
    instructions.filter(|i| i.opcode == "while").count()
}

#[test]
fn clipping_bounds_the_norm_of_what_the_optimizer_sees() {
    let mut config = tiny();
    let norm = WHOLE.metrics.grad_norm;
    if let Optimizer::Adamw(rule) = &mut config.optimizer {
        rule.clip_norm = Some(norm / 2.0);
    }
    let clipped = Step::of(&config);
    // The update u of g is g / (|g| + 1), so g is u / (1 - |u|).
    let halved = |u: &f64| {
        let g = u / (1.0 - u.abs()) / 2.0;
        g / (g.abs() + 1.0)
    };
    let halved = |update: &Vec<f64>| update.iter().map(halved).collect();
    let expected: Vec<Vec<f64>> = WHOLE.updates.iter().map(halved).collect();
    assert_updates("clipped", &clipped.updates, &expected);
    // What is reported is the norm before.
    let reported = clipped.metrics.grad_norm;
    assert!((reported / norm - 1.0).abs() < 1e-5, "{reported}, {norm}");
}

#[test]
fn a_step_whose_loss_is_not_finite_changes_nothing() {
    let config = tiny();
    let good = Batch::random(&config);
    // Without a target the mean loss is 0 / 0.
    let poisoned = Batch {
        targets: vec![],
        ..good.clone()
    };
    let before = weights(&config);
    let step = Step::from(&config, before.clone(), &poisoned);
    assert!(step.metrics.loss.is_nan(), "{}", step.metrics.loss);
    assert_eq!((step.metrics.skipped, step.metrics.non_finite), (1.0, 0.0));
    assert!(step.updates.iter().flatten().all(|update| *update == 0.0));
    // Nor does it change what the optimizer keeps, once there is something, and the next step goes
    // on from there.
    for (optimizer, parts) in [("adafactor", 1), ("adamw", 2)] {
        let settings = [
            format!("optimizer.name={optimizer}"),
            format!("train.gradient_accumulation={parts}"),
            "train.compute=float32".into(),
        ];
        let config = ankh::config::resolve(Some("tiny"), &settings).unwrap();
        assert_skipped_between(&config, &good, &poisoned);
    }
    // It is the batch that is to blame.
    let step = Step::from(&config, before.clone(), &good);
    assert_eq!((step.metrics.skipped, step.metrics.non_finite), (0.0, 0.0));
    // And here the state, which is counted before and after.
    let mut bad = before;
    let mut values = bad[0].to_vec::<f32>().unwrap();
    values[..3].fill(f32::NAN);
    bad[0] = HostTensor::new::<f32>(bad[0].dims.clone(), &values);
    let step = Step::from(&config, bad, &good);
    assert_eq!(step.metrics.non_finite, 3.0);
}

/// A step on the poisoned batch, between two on the good one, changes nothing but the count.
fn assert_skipped_between(config: &Config, good: &Batch, poisoned: &Batch) {
    let programs = Programs::new(config, SIZE, DType::F32);
    let program = compile(&programs.step().unwrap());
    let mut state = weights(config);
    let zeros = programs::state(config).split_off(state.len());
    state.extend(zeros.iter().map(|array| {
        let element_type = match array.shape.dtype {
            DType::S32 => ElementType::S32,
            _ => ElementType::F32,
        };
        HostTensor::zeros(element_type, array.shape.dims.clone())
    }));
    for (batch, skipped) in [(good, 0.0), (poisoned, 1.0), (good, 0.0)] {
        let inputs = [&state[..], &batch.arrays(SIZE)].concat();
        let mut outputs = run(&program, &inputs);
        let metrics = StepMetrics::from_slice(&numbers(&outputs.pop().unwrap())).unwrap();
        assert_eq!((metrics.skipped, metrics.non_finite), (skipped, 0.0));
        let count = |state: &[HostTensor]| state.last().unwrap().to_vec::<i32>().unwrap()[0];
        assert_eq!(count(&outputs), count(&state) + 1);
        let last = state.len() - 1;
        let changed = (0..last).filter(|&i| outputs[i] != state[i]).count();
        match skipped {
            0.0 => assert!(changed > 0),
            _ => assert_eq!(changed, 0),
        }
        state = outputs;
    }
}

#[test]
fn bfloat16_stays_near_float32() {
    let mut config = tiny();
    config.train.compute = Compute::Bfloat16;
    let found = Step::of(&config);
    let of = |step: &Step| [step.metrics.loss, step.metrics.grad_norm];
    for (i, (metric, tolerance)) in [("loss", 0.02), ("grad_norm", 0.05)].iter().enumerate() {
        let (found, expected) = (of(&found)[i], of(&WHOLE)[i]);
        assert!(
            (found / expected - 1.0).abs() < *tolerance && found != expected,
            "{metric} is {found} in bfloat16 and {expected} in float32"
        );
    }
    assert!(found.updates.iter().flatten().all(|u| u.is_finite()));
}

/// Logits and loss of the random batch.
fn forward(config: &Config) -> (Vec<f64>, f64) {
    let compute = programs::compute_type(config.train.compute, "cpu");
    let programs = Programs::new(config, SIZE, compute);
    let program = programs.forward(Gradients::No).unwrap();
    let inputs = [weights(config), Batch::random(config).arrays(SIZE)].concat();
    let outputs = run(&compile(&program), &inputs);
    (numbers(&outputs[0]), numbers(&outputs[2])[0])
}

/// An evaluation of the random batch, padded to a size.
fn evaluate(config: &Config, size: BatchShape) -> EvaluationSums<f64> {
    evaluate_from(config, weights(config), &Batch::random(config), size)
}

/// An evaluation of a batch, padded to a size, with these weights.
fn evaluate_from(
    config: &Config,
    weights: Vec<HostTensor>,
    batch: &Batch,
    size: BatchShape,
) -> EvaluationSums<f64> {
    let compute = programs::compute_type(config.train.compute, "cpu");
    let program = Programs::new(config, size, compute).evaluation().unwrap();
    let inputs = [weights, batch.arrays(size)].concat();
    EvaluationSums::from_slice(&numbers(&run(&compile(&program), &inputs)[0])).unwrap()
}

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found / expected - 1.0).abs() <= tolerance,
        "{what} is {found} and should be {expected}"
    );
}

/// The sums over tokens that a loss is made of.
#[derive(Default)]
struct Sums {
    cross_entropy: f64,
    /// Minus the mean log-probability of all tokens.
    uniform: f64,
    z_squared: f64,
    correct: f64,
}

/// By definition, from the logits.
fn sums(config: &Config, logits: &[f64]) -> Sums {
    let vocabulary = config.model.vocabulary;
    let batch = Batch::random(config);
    let mut sums = Sums::default();
    for (row, target) in batch.targets.iter().enumerate() {
        for (position, &label) in target.iter().enumerate() {
            let start = (row * SIZE.target + position) * vocabulary;
            let logits = &logits[start..start + vocabulary];
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let predicted = logits.iter().position(|l| *l == largest);
            sums.correct += f64::from(predicted == Some(label as usize));
            let label = logits[label as usize];
            let z = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
            sums.cross_entropy += z - label;
            sums.uniform += z - logits.iter().sum::<f64>() / vocabulary as f64;
            sums.z_squared += z * z;
        }
    }
    sums
}

#[test]
fn the_objective_is_its_formula() {
    for (z_loss, label_smoothing) in [(0.0, 0.0), (1e-2, 0.0), (0.0, 0.1), (1e-2, 0.1)] {
        let loss = Loss {
            z_loss,
            label_smoothing,
        };
        let case = format!("the loss with {loss:?}");
        let config = Config { loss, ..tiny() };
        let (logits, found) = forward(&config);
        let sums = sums(&config, &logits);
        let objective = (1.0 - label_smoothing) * sums.cross_entropy
            + label_smoothing * sums.uniform
            + z_loss * sums.z_squared;
        let tokens = Batch::random(&config).tokens() as f64;
        assert_near(&case, found, objective / tokens, 1e-5);
    }
}

#[test]
fn an_evaluation_sums_the_cross_entropy_alone() {
    let plain = tiny();
    let (logits, loss) = forward(&plain);
    assert_near("the step's loss", WHOLE.metrics.loss, loss, 1e-6);
    let mut config = plain;
    config.loss.z_loss = 1e-2;
    config.loss.label_smoothing = 0.1;
    let found = evaluate(&config, SIZE);
    let sums = sums(&config, &logits);
    let tokens = Batch::random(&config).tokens() as f64;
    assert_near(
        "cross-entropy",
        found.cross_entropy,
        sums.cross_entropy,
        1e-5,
    );
    assert_near(
        "the forward pass's loss",
        loss,
        found.cross_entropy / tokens,
        1e-6,
    );
    assert_eq!([found.correct, found.tokens], [sums.correct, tokens]);
}

#[test]
fn a_collapsed_model_is_right_where_the_first_token_is_asked_for() {
    let config = tiny();
    // All weights are zero, and so are all logits.
    let zeros = || -> Vec<HostTensor> {
        let zeros = |w: HostTensor| HostTensor::zeros(w.element_type, w.dims);
        weights(&config).into_iter().map(zeros).collect()
    };
    let mut batch = Batch::random(&config);
    batch.targets[0][2] = 0;
    batch.targets[2][0] = 0;
    batch.targets[2][5] = 0;
    let tokens = batch.tokens() as f64;
    let found = evaluate_from(&config, zeros(), &batch, SIZE);
    let uniform = tokens * (config.model.vocabulary as f64).ln();
    assert_near("cross-entropy", found.cross_entropy, uniform, 1e-6);
    assert_eq!([found.correct, found.tokens], [3.0, tokens]);
    let step = Step::from(&config, zeros(), &batch);
    assert_near("accuracy", step.metrics.accuracy, 3.0 / tokens, 1e-6);
}

#[test]
fn padding_changes_no_sum() {
    let config = tiny();
    let expected = evaluate(&config, SIZE);
    let padded = BatchShape {
        rows: SIZE.rows + 1,
        input: SIZE.input + 5,
        target: SIZE.target + 3,
        ..SIZE
    };
    let found = evaluate(&config, padded);
    assert_near(
        "cross-entropy",
        found.cross_entropy,
        expected.cross_entropy,
        1e-6,
    );
    assert_eq!(found.correct, expected.correct);
    assert_eq!(found.tokens, expected.tokens);
}

/// A model whose inner width is not `d_model`, with enough numbers a parameter to measure their
/// spread.
fn spread() -> Config {
    let mut config = tiny();
    config.model.d_model = 64;
    config.model.d_ff = 96;
    config.model.heads = 2;
    config.model.d_kv = 16;
    config.model.encoder_layers = 3;
    config.model.relative_buckets = 64;
    config
}

/// The first state for each seed.
fn draw(config: &Config, seeds: &[u64]) -> Vec<Vec<HostTensor>> {
    let program = compile(&Programs::new(config, SIZE, DType::F32).initial().unwrap());
    let draw = |seed: &u64| run(&program, &[HostTensor::new::<u64>([], &[*seed])]);
    seeds.iter().map(draw).collect()
}

/// The standard deviation that Hugging Face's Flax T5 draws a parameter with; `None` for ones.
fn deviation(config: &Config, name: &str) -> Option<f64> {
    let model = &config.model;
    let (d, inner) = (model.d_model as f64, (model.heads * model.d_kv) as f64);
    let variance = match name.rsplit('.').next().unwrap() {
        "shared" | "lm_head" => 1.0,
        "q" => 1.0 / (inner * model.d_kv as f64),
        "k" | "v" | "o" | "relative_bias" => 1.0 / inner,
        "wi_0" | "wi_1" => 1.0 / d,
        "wo" => 1.0 / model.d_ff as f64,
        _ => return None,
    };
    Some(f64::sqrt(variance))
}

#[test]
fn first_weights_are_drawn_from_their_distributions_independently() {
    let config = spread();
    let [first, again, other] = &draw(&config, &[3, 3, 4])[..] else {
        unreachable!("three seeds")
    };
    assert!(first == again, "a seed gives the same weights each time");
    let leaves = Weights::of(&config.model).leaves();
    let mut samples = vec![];
    for (seed, state) in [(3, first), (4, other)] {
        for (p, tensor) in leaves.iter().zip(state) {
            let values = numbers(tensor);
            let Some(deviation) = deviation(&config, &p.name) else {
                assert!(p.name.ends_with("norm"), "{}", p.name);
                assert!(values.iter().all(|v| *v == 1.0), "{}", p.name);
                continue;
            };
            let n = values.len() as f64;
            let unit: Vec<f64> = values.iter().map(|v| v / deviation).collect();
            let mean = unit.iter().sum::<f64>() / n;
            let spread = (unit.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
            let within = unit.iter().filter(|v| v.abs() < 1.0).count() as f64 / n;
            // Five standard errors of each.
            let near = mean.abs() < 5.0 / n.sqrt()
                && (spread - 1.0).abs() < 5.0 / (2.0 * n).sqrt()
                && (within - 0.6827).abs() < 5.0 * (0.6827 * 0.3173 / n).sqrt();
            assert!(
                near,
                "{}, seed {seed}, {n} numbers: mean {mean}, deviation {spread}, {within} within one, in units of {deviation}",
                p.name
            );
            let layers = if p.is_stacked() {
                p.dims[0] as usize
            } else {
                1
            };
            for (layer, part) in unit.chunks(unit.len() / layers).enumerate() {
                let name = format!("{}, layer {layer}, seed {seed}", p.name);
                samples.push((name, part.to_vec()));
            }
        }
        for (array, tensor) in programs::state(&config)
            .iter()
            .zip(state)
            .skip(leaves.len())
        {
            assert!(tensor.bytes.iter().all(|b| *b == 0), "{}", array.name);
        }
    }
    for (i, (a, x)) in samples.iter().enumerate() {
        for (b, y) in &samples[..i] {
            let n = x.len().min(y.len());
            let product: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
            let correlation = product / n as f64;
            assert!(
                correlation.abs() < 6.0 / (n as f64).sqrt(),
                "{a} and {b} correlate: {correlation} over {n} numbers"
            );
        }
    }
}

#[test]
fn the_two_initializations_differ_by_width_alone() {
    let flax = spread();
    let mut pytorch = spread();
    pytorch.model.initialization = Initialization::Pytorch;
    let [a, b] = [&flax, &pytorch].map(|config| draw(config, &[3]).swap_remove(0));
    let ratio = f64::sqrt(64.0 / 32.0);
    for ((p, a), b) in Weights::of(&flax.model).leaves().iter().zip(&a).zip(&b) {
        let scaled = [".q", ".k", ".v", "relative_bias"]
            .iter()
            .any(|end| p.name.ends_with(end));
        let ratio = if scaled { ratio } else { 1.0 };
        for (a, b) in numbers(a).iter().zip(numbers(b)) {
            assert!((a - ratio * b).abs() <= 1e-6 * a.abs(), "{}", p.name);
        }
    }
    for config in [&flax, &pytorch] {
        let mut model = config.model.clone();
        model.d_kv = 32;
        let other = ankh::config::Model {
            initialization: Initialization::Flax,
            ..model.clone()
        };
        assert_eq!(Weights::of(&model).leaves(), Weights::of(&other).leaves());
    }
}

#[test]
fn a_parameters_first_weights_do_not_depend_on_what_others_there_are() {
    let untied = spread();
    let mut tied = spread();
    tied.model.tie_embeddings = TieEmbeddings::Scaled;
    let named = |config: &Config| -> Vec<(String, HostTensor)> {
        let names = Weights::of(&config.model).leaves().into_iter();
        let tensors = draw(config, &[3]).swap_remove(0);
        names.map(|p| p.name).zip(tensors).collect()
    };
    let mut expected = named(&untied);
    expected.retain(|(name, _)| name != "lm_head");
    assert!(named(&tied) == expected);
}
