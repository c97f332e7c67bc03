//! Update rules, clipping and the learning rate against the formulas of optax, computed here one
//! number at a time in float64.

use ankh::config::{Adafactor, AdamW, LogicalAxis, Optimizer, Schedule, ScheduleKind};
use ankh::model::{Initializer, Parameter};
use ankh::optim::{self, StepContext};
use ankh_hlo::{DType, Graph, Shape, Tensor};
use ankh_pjrt::HostTensor;

use crate::support::{Random, compile, run};

/// float64 leaves this much of sums over a few thousand numbers.
const TOLERANCE: f64 = 1e-12;

const STEPS: usize = 4;

fn parameter(dims: &[i64], stacked: bool) -> Parameter {
    let mut logical_axes = vec![LogicalAxis::Embed; dims.len()];
    if stacked {
        logical_axes[0] = LogicalAxis::Layers;
    }
    Parameter {
        name: "weight".into(),
        dims: dims.to_vec(),
        logical_axes,
        initializer: Initializer::Constant(1.0),
    }
}

/// The parameter after each of a few steps, each with its own gradient and learning rate, and last
/// its slots.
fn updates(
    optimizer: &Optimizer,
    parameter: &Parameter,
    value: &[f64],
    gradients: &[Vec<f64>],
    rates: &[f64],
) -> Vec<Vec<f64>> {
    let g = Graph::new("updates");
    let array = |name: &str, dims: &[i64]| g.parameter(name, Shape::new(DType::F64, dims));
    let mut x = array("value", &parameter.dims);
    let mut slots: Vec<Tensor<'_>> = optimizer
        .slots(parameter)
        .iter()
        .map(|s| g.zeros(&Shape::new(DType::F64, s.dims.clone())))
        .collect();
    let mut outputs = vec![];
    for (step, rate) in rates.iter().enumerate() {
        let context = StepContext {
            step: g.scalar(DType::F64, step as f64),
            learning_rate: g.scalar(DType::F64, *rate),
        };
        let gradient = array(&format!("gradient{step}"), &parameter.dims);
        let updated = optimizer.update(parameter, x, gradient, &slots, context);
        (x, slots) = (updated.value, updated.slots);
        outputs.push(x);
    }
    outputs.extend(slots);
    let program = compile(&g.finish(&outputs, &[]).unwrap());
    let inputs = [value].into_iter().chain(gradients.iter().map(|g| &g[..]));
    let inputs: Vec<HostTensor> = inputs
        .map(|v| HostTensor::new::<f64>(parameter.dims.clone(), v))
        .collect();
    let outputs = run(&program, &inputs);
    outputs.iter().map(|t| t.to_vec::<f64>().unwrap()).collect()
}

fn assert_equal(case: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{case}");
    let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= TOLERANCE * largest,
            "{case}: element {i} is {found:.15} and should be {expected:.15}, largest {largest}"
        );
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// What Adafactor remembers of one tensor.
enum Second {
    /// A mean for each of the tensor's numbers.
    Whole(Vec<f64>),
    /// Of a matrix `[rows, columns]`: the mean of each row, and of each column.
    Factored(Vec<f64>, Vec<f64>),
}

/// `optax.adafactor` for one tensor: scale_by_factored_rms, clip_by_block_rms, the learning rate,
/// scale_by_param_block_rms, then weight decay.
fn adafactor(rule: &Adafactor, t: usize, rate: f64, x: &mut [f64], g: &[f64], second: &mut Second) {
    let decay = 1.0 - ((t + 1) as f64).powf(-rule.decay_rate);
    let squared: Vec<f64> = g.iter().map(|g| g * g + rule.epsilon).collect();
    let average = |old: &mut f64, new: f64| *old = decay * *old + (1.0 - decay) * new;
    let mut update: Vec<f64> = match second {
        Second::Whole(v) => {
            v.iter_mut().zip(&squared).for_each(|(v, s)| average(v, *s));
            g.iter().zip(v).map(|(g, v)| g / v.sqrt()).collect()
        }
        Second::Factored(rows, columns) => {
            let (n, m) = (rows.len(), columns.len());
            for (i, row) in rows.iter_mut().enumerate() {
                average(
                    row,
                    (0..m).map(|j| squared[i * m + j]).sum::<f64>() / m as f64,
                );
            }
            for (j, column) in columns.iter_mut().enumerate() {
                average(
                    column,
                    (0..n).map(|i| squared[i * m + j]).sum::<f64>() / n as f64,
                );
            }
            let mean = rows.iter().sum::<f64>() / n as f64;
            (0..n * m)
                .map(|e| g[e] / (rows[e / m] / mean * columns[e % m]).sqrt())
                .collect()
        }
    };
    let clip = (root_mean_square(&update) / rule.clipping_threshold).max(1.0);
    let scale = if rule.multiply_by_parameter_scale {
        root_mean_square(x).max(1e-3)
    } else {
        1.0
    };
    for (u, x) in update.iter_mut().zip(&mut *x) {
        *u = *u / clip * rate * scale + rule.weight_decay * *x;
        *x -= *u;
    }
}

/// Compares a few steps on `layers` tensors, stacked if there are several, with as many lonely
/// ones.
fn check_adafactor(case: &str, rule: Adafactor, layers: usize, dims: &[i64], factored: bool) {
    let stacked = layers > 1;
    let all: Vec<i64> = (stacked.then_some(layers as i64).into_iter())
        .chain(dims.iter().copied())
        .collect();
    let parameter = parameter(&all, stacked);
    let size = dims.iter().product::<i64>() as usize;
    let random = &mut Random(size as u64);
    // The layers differ in size, one is too small for its parameter scale, and the gradients grow,
    // so that later updates are clipped.
    let layer = |i: usize, scale: f64| scale * 10f64.powi(-2 * (i % layers) as i32);
    let mut value = random.signed((layers * size) as i64);
    for (e, v) in value.iter_mut().enumerate() {
        *v *= layer(e / size, 0.1);
    }
    let gradients: Vec<Vec<f64>> = (0..STEPS)
        .map(|t| {
            let mut g = random.signed((layers * size) as i64);
            g.iter_mut().for_each(|g| *g *= 3f64.powi(t as i32));
            g
        })
        .collect();
    let rates = [0.3, 0.2, 0.1, 0.05];
    let optimizer = Optimizer::Adafactor(rule.clone());
    let slots = optimizer.slots(&parameter);
    assert_eq!(slots.len(), if factored { 2 } else { 1 }, "{case}");
    let found = updates(&optimizer, &parameter, &value, &gradients, &rates);

    let mut seconds: Vec<Second> = (0..layers)
        .map(|_| match factored {
            true => Second::Factored(vec![0.0; dims[0] as usize], vec![0.0; dims[1] as usize]),
            false => Second::Whole(vec![0.0; size]),
        })
        .collect();
    for t in 0..STEPS {
        for (i, second) in seconds.iter_mut().enumerate() {
            let own = i * size..(i + 1) * size;
            let g = &gradients[t][own.clone()];
            adafactor(&rule, t, rates[t], &mut value[own.clone()], g, second);
            assert_equal(
                &format!("{case}, step {t}, layer {i}"),
                &found[t][own.clone()],
                &value[own],
            );
        }
    }
    let concatenated = |part: fn(&Second) -> &Vec<f64>| -> Vec<f64> {
        seconds.iter().flat_map(part).copied().collect()
    };
    let rows = concatenated(|s| match s {
        Second::Whole(v) | Second::Factored(v, _) => v,
    });
    if !factored {
        return assert_equal(case, &found[STEPS], &rows);
    }
    let columns = concatenated(|s| match s {
        Second::Factored(_, columns) => columns,
        Second::Whole(_) => unreachable!("factored"),
    });
    // `v_row` has lost the larger dimension, `v_col` the smaller one; of equal ones the later
    // counts as larger.
    let (mut row_dims, mut column_dims) = (all.clone(), all);
    row_dims.pop();
    column_dims.remove(usize::from(stacked));
    let (larger_first, rank) = (dims[0] > dims[1], row_dims.len());
    let (v_row, v_col) = match larger_first {
        true => ((columns, column_dims), (rows, row_dims)),
        false => ((rows, row_dims), (columns, column_dims)),
    };
    for ((slot, found), (expected, dims)) in slots.iter().zip(&found[STEPS..]).zip([v_row, v_col]) {
        assert_eq!(slot.dims, dims, "{case}, {} of rank {rank}", slot.name);
        assert_equal(&format!("{case}, {}", slot.name), found, &expected);
    }
}

#[test]
fn adafactor_equals_its_formula_factored_and_not() {
    let rule = || Adafactor {
        min_dim_size_to_factor: 4,
        ..Adafactor::default()
    };
    check_adafactor("wide matrix", rule(), 1, &[4, 7], true);
    check_adafactor("tall matrix", rule(), 1, &[9, 5], true);
    check_adafactor("square matrix", rule(), 1, &[6, 6], true);
    check_adafactor("narrow matrix", rule(), 1, &[3, 50], false);
    check_adafactor("vector", rule(), 1, &[40], false);
    let with_switches = Adafactor {
        multiply_by_parameter_scale: false,
        clipping_threshold: 0.5,
        decay_rate: 0.5,
        epsilon: 1e-3,
        weight_decay: 0.01,
        ..rule()
    };
    check_adafactor("other settings", with_switches, 1, &[5, 4], true);
}

#[test]
fn adafactor_treats_each_stacked_layer_as_a_tensor_of_its_own() {
    let rule = || Adafactor {
        min_dim_size_to_factor: 4,
        ..Adafactor::default()
    };
    check_adafactor("stacked wide matrices", rule(), 3, &[4, 6], true);
    check_adafactor("stacked tall matrices", rule(), 3, &[6, 4], true);
    // As many layers as would make a dimension worth factoring, were they one.
    check_adafactor("stacked vectors", rule(), 5, &[8], false);
    check_adafactor("stacked narrow matrices", rule(), 5, &[2, 8], false);
}

#[test]
fn adamw_equals_its_formula() {
    let rule = AdamW {
        b1: 0.8,
        b2: 0.95,
        epsilon: 1e-3,
        weight_decay: 0.1,
        clip_norm: None,
    };
    let random = &mut Random(11);
    let parameter = parameter(&[3, 4], false);
    let mut value = random.signed(12);
    let gradients: Vec<Vec<f64>> = (0..STEPS).map(|_| random.signed(12)).collect();
    let rates = [0.3, 0.2, 0.1, 0.05];
    let optimizer = Optimizer::Adamw(rule.clone());
    let found = updates(&optimizer, &parameter, &value, &gradients, &rates);
    let (mut first, mut second) = (vec![0.0; 12], vec![0.0; 12]);
    for t in 0..STEPS {
        let seen = |decay: f64| 1.0 - decay.powi(t as i32 + 1);
        for (e, g) in gradients[t].iter().enumerate() {
            first[e] = rule.b1 * first[e] + (1.0 - rule.b1) * g;
            second[e] = rule.b2 * second[e] + (1.0 - rule.b2) * g * g;
            let root = (second[e] / seen(rule.b2)).sqrt();
            let direction = first[e] / seen(rule.b1) / (root + rule.epsilon);
            value[e] -= rates[t] * (direction + rule.weight_decay * value[e]);
        }
        assert_equal(&format!("step {t}"), &found[t], &value);
    }
    assert_equal("first moment", &found[STEPS], &first);
    assert_equal("second moment", &found[STEPS + 1], &second);
}

#[test]
fn clipping_scales_all_gradients_alike_and_only_long_ones() {
    // The norm of 2, 3 and 6 is 7.
    let inputs = [vec![2.0, 0.0], vec![3.0], vec![0.0, 0.0, 6.0]];
    let bounds = [3.5, 6.99, 7.01, 100.0];
    let g = Graph::new("clip");
    let gradients: Vec<Tensor<'_>> = (inputs.iter().enumerate())
        .map(|(i, v)| {
            let shape = Shape::new(DType::F64, [v.len() as i64]);
            g.parameter(&format!("g{i}"), shape)
        })
        .collect();
    let norm = optim::global_norm(&gradients).unwrap();
    let mut outputs = vec![norm];
    for bound in bounds {
        outputs.extend(optim::clip(&gradients, norm, bound));
    }
    let program = compile(&g.finish(&outputs, &[]).unwrap());
    let tensors = (inputs.iter()).map(|v| HostTensor::new::<f64>([v.len() as i64], v));
    let outputs = run(&program, &tensors.collect::<Vec<_>>());
    let found: Vec<Vec<f64>> = outputs.iter().map(|t| t.to_vec::<f64>().unwrap()).collect();
    assert_equal("norm", &found[0], &[7.0]);
    for (bound, found) in bounds.iter().zip(found[1..].chunks(inputs.len())) {
        let scale = (bound / 7.0).min(1.0);
        for (input, found) in inputs.iter().zip(found) {
            let expected: Vec<f64> = input.iter().map(|v| v * scale).collect();
            assert_equal(&format!("bound {bound}"), found, &expected);
        }
    }
}

/// `optax.join_schedules([warm-up, rest], [warm-up steps])`: the rest counts from the end of the
/// warm-up.
fn rate(schedule: &Schedule, steps: u64, step: u64) -> f64 {
    let (peak, warmup) = (schedule.peak_learning_rate, schedule.warmup_steps);
    if step < warmup {
        return peak * step as f64 / warmup as f64;
    }
    let done = ((step - warmup) as f64 / (steps - warmup) as f64).min(1.0);
    match schedule.kind {
        ScheduleKind::Linear => peak * (1.0 - done),
        ScheduleKind::Constant => peak,
        ScheduleKind::Cosine => peak * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
    }
}

#[test]
fn the_learning_rate_follows_its_schedule() {
    // The last one is Ankh's.
    for (warmup_steps, steps) in [(0, 20), (1, 20), (8, 20), (10_000, 1_992_000)] {
        let at = |share: f64| warmup_steps + ((steps - warmup_steps) as f64 * share) as u64;
        let warmup = [0, 1, warmup_steps / 2, warmup_steps.saturating_sub(1)];
        let rest = [at(0.0), at(0.0) + 1, at(0.5), steps - 1, steps, steps + 3];
        let places: Vec<u64> = [&warmup[..], &rest].concat();
        for kind in [
            ScheduleKind::Linear,
            ScheduleKind::Constant,
            ScheduleKind::Cosine,
        ] {
            let schedule = Schedule {
                peak_learning_rate: 4e-3,
                warmup_steps,
                kind,
                ..Schedule::default()
            };
            let g = Graph::new("rate");
            let step = g.parameter("step", Shape::new(DType::F32, []));
            let rates = optim::learning_rate(&schedule, steps, step);
            let program = compile(&g.finish(&[rates], &[]).unwrap());
            for &place in &places {
                let found = run(&program, &[HostTensor::new::<f32>([], &[place as f32])]);
                let found = f64::from(found[0].to_vec::<f32>().unwrap()[0]);
                let expected = rate(&schedule, steps, place);
                // float32 places a step in the run to 6e-8 of it.
                assert!(
                    (found - expected).abs() <= 2e-7 * 4e-3,
                    "{kind:?}, warm-up {warmup_steps} of {steps}, step {place}: {found:e}, not {expected:e}"
                );
            }
        }
    }
    let linear = |warmup_steps| Schedule {
        peak_learning_rate: 4e-3,
        warmup_steps,
        kind: ScheduleKind::Linear,
        ..Schedule::default()
    };
    assert_eq!(rate(&linear(8), 20, 0), 0.0);
    assert_eq!(rate(&linear(8), 20, 8), 4e-3);
    assert_eq!(rate(&linear(0), 20, 0), 4e-3);
    assert_eq!(rate(&linear(8), 20, 20), 0.0);
}

#[test]
fn a_schedule_with_a_start_and_an_end_of_its_own_is_the_plain_one_moved() {
    let kinds = [
        ScheduleKind::Linear,
        ScheduleKind::Constant,
        ScheduleKind::Cosine,
    ];
    let cases = kinds.iter().flat_map(|&kind| {
        [
            (0, 8, Some(20)),
            (300, 0, None),
            (300, 8, None),
            (300, 8, Some(350)),
        ]
        .map(|(start, warmup, end)| (kind, start, warmup, end))
    });
    for (kind, start_step, warmup_steps, steps) in cases {
        let schedule = Schedule {
            peak_learning_rate: 4e-3,
            warmup_steps,
            kind,
            start_step,
            steps,
        };
        let plain = Schedule {
            start_step: 0,
            steps: None,
            ..schedule.clone()
        };
        let horizon = steps.unwrap_or(400);
        assert_eq!(schedule.horizon(400), horizon);
        let g = Graph::new("rate");
        let step = g.parameter("step", Shape::new(DType::F32, []));
        let rates = optim::learning_rate(&schedule, 400, step);
        let program = compile(&g.finish(&[rates], &[]).unwrap());
        let places = [0, 1, 8, 9, 10, 299, 300, 301, 308, 333, 349, 350, 399, 400];
        for place in places {
            let moved = u64::saturating_sub(place, start_step);
            let expected = rate(&plain, horizon - start_step, moved);
            let found = run(&program, &[HostTensor::new::<f32>([], &[place as f32])]);
            let found = f64::from(found[0].to_vec::<f32>().unwrap()[0]);
            let number = optim::learning_rate_at(&schedule, 400, place);
            for found in [found, number] {
                assert!(
                    (found - expected).abs() <= 2e-7 * 4e-3,
                    "{schedule:?}, step {place}: {found:e}, not {expected:e}"
                );
            }
            assert!((number - expected).abs() <= 1e-15);
        }
    }
}
