//! Every operation computes what it says: programs run on the CPU plugin against plain arithmetic on the host.

mod support;

use ankh_hlo::{
    DType, DotDims, Graph, Literal, PadDim, Precision, RngAlgorithm, ScanOptions, Shape, Tensor,
};
use ankh_pjrt::{Element, HostTensor};
use half::{bf16, f16};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Runs what `build` makes of the inputs, which become parameters in order.
fn run(
    inputs: &[HostTensor],
    build: impl for<'g> FnOnce(&'g Graph, &[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Vec<HostTensor> {
    let g = Graph::new("operations");
    let parameters: Vec<Tensor<'_>> = inputs
        .iter()
        .map(|t| g.parameter("x", Shape::new(dtype(t), t.dims.clone())))
        .collect();
    let outputs = build(&g, &parameters);
    let module = g.finish(&outputs, &[]).unwrap_or_else(|e| panic!("{e}"));
    let results = support::compile(&module).run(inputs);
    for (result, output) in results.iter().zip(&outputs) {
        assert_eq!(
            Shape::new(dtype(result), result.dims.clone()),
            output.shape(),
            "the shape inferred and the one computed"
        );
    }
    results
}

fn dtype(t: &HostTensor) -> DType {
    const ALL: [DType; 10] = [
        DType::Pred,
        DType::S32,
        DType::S64,
        DType::U8,
        DType::U32,
        DType::U64,
        DType::Bf16,
        DType::F16,
        DType::F32,
        DType::F64,
    ];
    ALL.into_iter()
        .find(|d| d.name() == t.element_type.name())
        .expect("one of the types the crate knows")
}

fn values<T: Element>(t: &HostTensor) -> Vec<T> {
    t.to_vec().unwrap()
}

/// Numbers that differ and are exact in every floating-point type used.
fn counted(dims: &[i64]) -> HostTensor {
    let count: i64 = dims.iter().product();
    let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
    HostTensor::from_f32(dims.to_vec(), &numbers)
}

fn close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * e.abs().max(1.0),
            "{name}, element {i}: found {f}, expected {e}"
        );
    }
}

/// The sum that an equation describes, one product at a time.
fn naive_einsum(equation: &str, x: (&[i64], &[f32]), y: (&[i64], &[f32])) -> (Vec<i64>, Vec<f32>) {
    let (inputs, output) = equation.split_once("->").unwrap();
    let (a, b) = inputs.split_once(',').unwrap();
    let mut letters: Vec<char> = a.chars().chain(b.chars()).collect();
    letters.sort_unstable();
    letters.dedup();
    let size = |c: char| match a.find(c) {
        Some(i) => x.0[i],
        None => y.0[b.find(c).unwrap()],
    };
    let place = |s: &str, at: &[i64]| {
        s.chars().fold(0, |offset, c| {
            offset * size(c) + at[letters.iter().position(|&l| l == c).unwrap()]
        }) as usize
    };
    let dims: Vec<i64> = output.chars().map(size).collect();
    let mut sum = vec![0.0; dims.iter().product::<i64>() as usize];
    let total: i64 = letters.iter().map(|&c| size(c)).product();
    for mut number in 0..total {
        let mut at = vec![0; letters.len()];
        for (i, &c) in letters.iter().enumerate().rev() {
            at[i] = number % size(c);
            number /= size(c);
        }
        sum[place(output, &at)] += x.1[place(a, &at)] * y.1[place(b, &at)];
    }
    (dims, sum)
}

#[test]
fn functions_of_one_number() {
    type Case = (
        &'static str,
        for<'g> fn(Tensor<'g>) -> Tensor<'g>,
        fn(f32) -> f32,
    );
    let cases: [Case; 15] = [
        ("abs", |x| x.abs(), f32::abs),
        ("ceil", |x| x.ceil(), f32::ceil),
        ("cos", |x| x.cos(), f32::cos),
        ("exp", |x| x.exp(), f32::exp),
        ("expm1", |x| x.expm1(), f32::exp_m1),
        ("floor", |x| x.floor(), f32::floor),
        ("log", |x| x.abs().log(), |x| x.abs().ln()),
        ("log1p", |x| x.abs().log1p(), |x| x.abs().ln_1p()),
        ("logistic", |x| x.logistic(), |x| 1.0 / (1.0 + (-x).exp())),
        ("neg", |x| -x, |x| -x),
        ("rsqrt", |x| x.abs().rsqrt(), |x| 1.0 / x.abs().sqrt()),
        ("sign", |x| x.sign(), f32::signum),
        ("sin", |x| x.sin(), f32::sin),
        ("sqrt", |x| x.abs().sqrt(), |x| x.abs().sqrt()),
        ("tanh", |x| x.tanh(), f32::tanh),
    ];
    let numbers = [-3.7f32, -1.0, -0.25, -1e-4, 1e-4, 0.5, 1.0, 2.3];
    let x = HostTensor::from_f32([8], &numbers);
    let results = run(&[x], |_, x| cases.iter().map(|c| (c.1)(x[0])).collect());
    for ((name, _, expected), found) in cases.iter().zip(&results) {
        let expected: Vec<f32> = numbers.iter().map(|&v| expected(v)).collect();
        close(name, &values(found), &expected, 2e-6);
    }
}

#[test]
fn the_error_function_integrates_the_normal_density() {
    let numbers: Vec<f64> = (-6..=6).map(|i| i as f64 * 0.5).collect();
    let x = HostTensor::from_f64([13], &numbers);
    let results = run(&[x], |_, x| vec![x[0].erf()]);
    // 2 / sqrt(pi) times the integral of exp(-t^2) from 0, by Simpson's rule.
    for (&at, found) in numbers.iter().zip(values::<f64>(&results[0])) {
        let (steps, f) = (2000, |t: f64| (-t * t).exp());
        let h = at / steps as f64;
        let inner: f64 = (1..steps)
            .map(|i| f(i as f64 * h) * if i % 2 == 0 { 2.0 } else { 4.0 })
            .sum();
        let expected = (f(0.0) + inner + f(at)) * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI;
        assert!(
            (found - expected).abs() < 1e-12,
            "erf({at}) = {found}, {expected}"
        );
    }
}

#[test]
fn functions_of_two_numbers() {
    type Case = (
        &'static str,
        for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>,
        fn(f32, f32) -> f32,
    );
    let cases: [Case; 8] = [
        ("add", |x, y| x + y, |x, y| x + y),
        ("sub", |x, y| x - y, |x, y| x - y),
        ("mul", |x, y| x * y, |x, y| x * y),
        ("div", |x, y| x / y, |x, y| x / y),
        ("rem", |x, y| x % y, |x, y| x % y),
        ("maximum", |x, y| x.maximum(y), f32::max),
        ("minimum", |x, y| x.minimum(y), f32::min),
        ("pow", |x, y| x.abs().pow(y), |x, y| x.abs().powf(y)),
    ];
    let (a, b) = (
        [-3.5f32, 2.0, 0.5, 7.25, -1.0],
        [2.0f32, -0.75, 3.0, 7.25, 0.5],
    );
    let inputs = [HostTensor::from_f32([5], &a), HostTensor::from_f32([5], &b)];
    let results = run(&inputs, |_, x| {
        cases.iter().map(|c| (c.1)(x[0], x[1])).collect()
    });
    for ((name, _, expected), found) in cases.iter().zip(&results) {
        let expected: Vec<f32> = a.iter().zip(&b).map(|(&x, &y)| expected(x, y)).collect();
        close(name, &values(found), &expected, 1e-6);
    }
    let scaled = run(&inputs[..1], |_, x| {
        vec![2.0 - x[0], 1.0 / x[0], x[0] * 0.5 + 1.0]
    });
    let of = |f: fn(f32) -> f32| a.iter().map(|&x| f(x)).collect::<Vec<f32>>();
    close("2 - x", &values(&scaled[0]), &of(|x| 2.0 - x), 0.0);
    close("1 / x", &values(&scaled[1]), &of(|x| 1.0 / x), 1e-6);
    close(
        "x / 2 + 1",
        &values(&scaled[2]),
        &of(|x| x * 0.5 + 1.0),
        0.0,
    );
}

#[test]
fn integers_and_truth_values() {
    let (a, b) = ([0b1100u32, 7, 0x8000_0001, 3], [0b1010u32, 2, 4, 31]);
    let inputs = [HostTensor::from_u32([4], &a), HostTensor::from_u32([4], &b)];
    let results = run(&inputs, |_, x| {
        let (x, y) = (x[0], x[1]);
        vec![
            x & y,
            x | y,
            x ^ y,
            x << y,
            x >> y,
            x.logical_not(),
            x / y,
            x % y,
            x + y,
        ]
    });
    let expected: [fn(u32, u32) -> u32; 9] = [
        |x, y| x & y,
        |x, y| x | y,
        |x, y| x ^ y,
        |x, y| x.checked_shl(y).unwrap_or(0),
        |x, y| x.checked_shr(y).unwrap_or(0),
        |x, _| !x,
        |x, y| x / y,
        |x, y| x % y,
        u32::wrapping_add,
    ];
    for (number, (found, expected)) in results.iter().zip(expected).enumerate() {
        let expected: Vec<u32> = a.iter().zip(&b).map(|(&x, &y)| expected(x, y)).collect();
        assert_eq!(values::<u32>(found), expected, "operation {number}");
    }
    let signed = HostTensor::from_i32([3], &[-7, 0, 5]);
    let results = run(&[signed], |_, x| {
        let two = x[0].like(2.0);
        vec![
            -x[0],
            x[0].abs(),
            x[0].sign(),
            x[0] / two,
            x[0] % two,
            x[0] - 3.0,
        ]
    });
    let expected = [
        [7, 0, -5],
        [7, 0, 5],
        [-1, 0, 1],
        [-3, 0, 2],
        [-1, 0, 1],
        [-10, -3, 2],
    ];
    for (found, expected) in results.iter().zip(expected) {
        assert_eq!(values::<i32>(found), expected);
    }
    let (p, q) = ([true, true, false, false], [true, false, true, false]);
    let inputs = [
        HostTensor::from_bool([4], &p),
        HostTensor::from_bool([4], &q),
    ];
    let results = run(&inputs, |_, x| {
        vec![x[0] & x[1], x[0] | x[1], x[0] ^ x[1], x[0].logical_not()]
    });
    assert_eq!(values::<bool>(&results[0]), [true, false, false, false]);
    assert_eq!(values::<bool>(&results[1]), [true, true, true, false]);
    assert_eq!(values::<bool>(&results[2]), [false, true, true, false]);
    assert_eq!(values::<bool>(&results[3]), [false, false, true, true]);
}

#[test]
fn comparisons_order_floats_signed_and_unsigned() {
    type Compare = for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;
    let comparisons: [Compare; 6] = [
        |x, y| x.equal(y),
        |x, y| x.not_equal(y),
        |x, y| x.less(y),
        |x, y| x.less_equal(y),
        |x, y| x.greater(y),
        |x, y| x.greater_equal(y),
    ];
    fn check<T: Element + PartialOrd>(comparisons: &[Compare], a: [T; 3], b: [T; 3]) {
        let inputs = [HostTensor::new([3], &a), HostTensor::new([3], &b)];
        let results = run(&inputs, |_, x| {
            comparisons.iter().map(|c| c(x[0], x[1])).collect()
        });
        for i in 0..3 {
            let (x, y) = (a[i], b[i]);
            let expected = [x == y, x != y, x < y, x <= y, x > y, x >= y];
            let found: Vec<bool> = results.iter().map(|r| values::<bool>(r)[i]).collect();
            assert_eq!(found, expected, "element {i}");
        }
    }
    check(&comparisons, [1.0f32, f32::NAN, -0.0], [2.0, 0.0, 0.0]);
    check(&comparisons, [-1i32, 4, 3], [1, -4, 3]);
    // As signed numbers the first would be negative.
    check(&comparisons, [u32::MAX, 4, 3], [1, 5, 3]);
}

#[test]
fn selecting_takes_each_element_from_its_side_and_broadcasts() {
    let inputs = [
        HostTensor::from_bool([2, 1], &[true, false]),
        HostTensor::from_f32([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        HostTensor::from_f32([3], &[-1.0, -2.0, -3.0]),
    ];
    let results = run(&inputs, |_, x| vec![x[0].select(x[1], x[2])]);
    assert_eq!(
        values::<f32>(&results[0]),
        [1.0, 2.0, 3.0, -1.0, -2.0, -3.0]
    );
}

#[test]
fn conversions_round_truncate_and_keep_truth() {
    let numbers = [1.0f32, -2.7, 0.0, 1.003, 300.5];
    let results = run(&[HostTensor::from_f32([5], &numbers)], |_, x| {
        let to = |d| x[0].convert(d);
        vec![
            to(DType::Bf16),
            to(DType::F16),
            to(DType::F64),
            to(DType::S32),
            to(DType::S64),
            to(DType::Pred),
            to(DType::Pred).convert(DType::F32),
            to(DType::S32).abs().convert(DType::U8),
            to(DType::F32),
        ]
    });
    let each = numbers.iter();
    let rounded: Vec<bf16> = each.clone().map(|&v| bf16::from_f32(v)).collect();
    assert_eq!(values::<bf16>(&results[0]), rounded);
    let rounded: Vec<f16> = each.clone().map(|&v| f16::from_f32(v)).collect();
    assert_eq!(values::<f16>(&results[1]), rounded);
    let wide: Vec<f64> = each.clone().map(|&v| v.into()).collect();
    assert_eq!(values::<f64>(&results[2]), wide);
    assert_eq!(values::<i32>(&results[3]), [1, -2, 0, 1, 300]);
    assert_eq!(values::<i64>(&results[4]), [1, -2, 0, 1, 300]);
    assert_eq!(values::<bool>(&results[5]), [true, true, false, true, true]);
    assert_eq!(values::<f32>(&results[6]), [1.0, 1.0, 0.0, 1.0, 1.0]);
    assert_eq!(values::<u8>(&results[7]), [1, 2, 0, 1, 44]);
    assert_eq!(values::<f32>(&results[8]), numbers);
}

#[test]
fn constants_of_each_type_arrive() {
    let results = run(&[], |g, _| {
        let array = Literal::s32(&[2, 2], &[1, -2, 3, -4]).unwrap();
        let wide = Literal::u64(&[2], &[u64::MAX, 1]).unwrap();
        let real = Literal::f32(&[3], &[0.5, f32::NEG_INFINITY, -0.0]).unwrap();
        vec![
            g.literal(array),
            g.literal(wide),
            g.literal(real),
            g.scalar(DType::Bf16, 1.5),
            g.scalar(DType::F16, -0.25),
            g.scalar(DType::F64, 0.1),
            g.scalar(DType::Pred, 1.0),
            g.scalar(DType::U8, 200.0),
            g.scalar(DType::S64, -5.0),
            g.full(&Shape::new(DType::U32, [2]), 9.0),
            g.zeros(&Shape::new(DType::F32, [2, 1])),
        ]
    });
    assert_eq!(values::<i32>(&results[0]), [1, -2, 3, -4]);
    assert_eq!(values::<u64>(&results[1]), [u64::MAX, 1]);
    assert_eq!(values::<f32>(&results[2]), [0.5, f32::NEG_INFINITY, 0.0]);
    assert_eq!(values::<bf16>(&results[3]), [bf16::from_f32(1.5)]);
    assert_eq!(values::<f16>(&results[4]), [f16::from_f32(-0.25)]);
    assert_eq!(values::<f64>(&results[5]), [0.1]);
    assert_eq!(values::<bool>(&results[6]), [true]);
    assert_eq!(values::<u8>(&results[7]), [200]);
    assert_eq!(values::<i64>(&results[8]), [-5]);
    assert_eq!(values::<u32>(&results[9]), [9, 9]);
    assert_eq!(values::<f32>(&results[10]), [0.0, 0.0]);
    assert!(Literal::f32(&[2, 2], &[1.0; 3]).is_none());
}

#[test]
fn operands_broadcast_from_the_last_dimension() {
    let inputs = [counted(&[2, 1, 3]), counted(&[2, 1]), counted(&[])];
    let results = run(&inputs, |_, x| {
        vec![
            x[0] + x[1] * 10.0,
            x[0] + x[2],
            x[1].broadcast_in_dims(&[2, 4, 1], &[0, 2]),
            x[1].broadcast_to(&[2, 2, 2]),
        ]
    });
    assert_eq!(results[0].dims, [2, 2, 3]);
    let sums = [0., 1., 2., 10., 11., 12., 3., 4., 5., 13., 14., 15.];
    assert_eq!(values::<f32>(&results[0]), sums);
    assert_eq!(values::<f32>(&results[1]), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(values::<f32>(&results[2]), [0., 0., 0., 0., 1., 1., 1., 1.]);
    assert_eq!(values::<f32>(&results[3]), [0., 0., 1., 1., 0., 0., 1., 1.]);
}

#[test]
fn elements_move_where_they_should() {
    let results = run(&[counted(&[2, 3])], |g, x| {
        vec![
            x[0].reshape(&[3, 2]),
            x[0].transpose(&[1, 0]),
            x[0].reverse(&[1]),
            g.concatenate(&[x[0], x[0].slice(&[1, 0], &[2, 3]) * 10.0], 0),
            g.concatenate(&[x[0].slice_dim(1, 2, 3), x[0].slice_dim(1, 0, 1)], 1),
            x[0].strided_slice(&[0, 0], &[2, 3], &[1, 2]),
        ]
    });
    let expected: [&[f32]; 6] = [
        &[0., 1., 2., 3., 4., 5.],
        &[0., 3., 1., 4., 2., 5.],
        &[2., 1., 0., 5., 4., 3.],
        &[0., 1., 2., 3., 4., 5., 30., 40., 50.],
        &[2., 0., 5., 3.],
        &[0., 2., 3., 5.],
    ];
    for (number, (found, expected)) in results.iter().zip(expected).enumerate() {
        assert_eq!(values::<f32>(found), expected, "movement {number}");
    }
}

#[test]
fn dynamic_windows_are_moved_inside() {
    for (start, inside) in [(-5, 0usize), (0, 0), (2, 2), (3, 3), (9, 3)] {
        let inputs = [
            counted(&[5]),
            HostTensor::scalar(start),
            HostTensor::from_f32([2], &[-1.0, -2.0]),
        ];
        let results = run(&inputs, |_, x| {
            vec![
                x[0].dynamic_slice(&[x[1]], &[2]),
                x[0].dynamic_update_slice(x[2], &[x[1]]),
            ]
        });
        let first = inside as f32;
        assert_eq!(
            values::<f32>(&results[0]),
            [first, first + 1.0],
            "from {start}"
        );
        let mut expected = [0.0f32, 1.0, 2.0, 3.0, 4.0];
        expected[inside..inside + 2].copy_from_slice(&[-1.0, -2.0]);
        assert_eq!(values::<f32>(&results[1]), expected, "at {start}");
    }
}

/// What XLA's padding does to a vector.
fn naive_pad(x: &[f32], p: PadDim, filling: f32) -> Vec<f32> {
    let mut spread = Vec::new();
    for (i, &v) in x.iter().enumerate() {
        if i > 0 {
            spread.extend((0..p.interior).map(|_| filling));
        }
        spread.push(v);
    }
    let end = spread.len() as i64 + p.high;
    (-p.low..end)
        .map(|i| {
            usize::try_from(i)
                .ok()
                .and_then(|i| spread.get(i))
                .copied()
                .unwrap_or(filling)
        })
        .collect()
}

#[test]
fn padding_adds_crops_and_spreads() {
    let mut runner = runner(12);
    let strategy = (1i64..6, -2i64..4, -2i64..4, 0i64..3);
    let outcome = runner.run(&strategy, |(size, low, high, interior)| {
        let p = PadDim {
            low,
            high,
            interior,
        };
        let x: Vec<f32> = (0..size).map(|i| i as f32).collect();
        let expected = naive_pad(&x, p, -1.0);
        prop_assume!(low + high + size + interior * (size - 1) >= 0);
        let results = run(&[counted(&[size])], |_, x| {
            vec![x[0].pad(&[p], x[0].like(-1.0))]
        });
        prop_assert_eq!(values::<f32>(&results[0]), expected);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn slicing_undoes_padding_and_concatenation() {
    let mut runner = runner(6);
    let strategy = (
        prop::collection::vec(1i64..5, 3),
        prop::collection::vec(0i64..3, 9),
    );
    let outcome = runner.run(&strategy, |(dims, edges)| {
        let pads: Vec<PadDim> = edges
            .chunks(3)
            .map(|e| PadDim {
                low: e[0],
                high: e[1],
                interior: e[2],
            })
            .collect();
        let results = run(&[counted(&dims)], |g, x| {
            let padded = x[0].pad(&pads, x[0].like(7.0));
            let start: Vec<i64> = pads.iter().map(|p| p.low).collect();
            let limit: Vec<i64> = padded
                .dims()
                .iter()
                .zip(&pads)
                .map(|(d, p)| d - p.high)
                .collect();
            let stride: Vec<i64> = pads.iter().map(|p| p.interior + 1).collect();
            let joined = g.concatenate(&[x[0] * 2.0, x[0], x[0] * 3.0], 1);
            vec![
                padded.strided_slice(&start, &limit, &stride),
                joined.slice_dim(1, dims[1], 2 * dims[1]),
                x[0].transpose(&[2, 0, 1])
                    .transpose(&[1, 2, 0])
                    .reverse(&[0, 2])
                    .reverse(&[2, 0]),
            ]
        });
        for (way, result) in results.iter().enumerate() {
            prop_assert_eq!(
                result.to_vec_f32().unwrap(),
                counted(&dims).to_vec_f32().unwrap(),
                "way {}",
                way
            );
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn einsum_sums_what_its_letters_say() {
    let forms = [
        "ab,bc->ac",
        "bqhk,bshk->bhqs",
        "bhqs,bshk->bqhk",
        "a,a->",
        "a,b->ab",
        "ab,cd->cabd",
        "abc,cbd->da",
        "abc,abc->ca",
        "abc,b->abc",
        ",a->a",
    ];
    let mut runner = runner(14);
    let strategy = (
        prop::sample::select(forms.to_vec()),
        prop::collection::vec(1i64..4, 26),
    );
    let outcome = runner.run(&strategy, |(equation, sizes)| {
        let (inputs, _) = equation.split_once("->").unwrap();
        let (a, b) = inputs.split_once(',').unwrap();
        let dims = |s: &str| -> Vec<i64> {
            s.chars()
                .map(|c| sizes[c as usize - 'a' as usize])
                .collect()
        };
        let (x, y) = (counted(&dims(a)), counted(&dims(b)));
        let (shape, expected) = naive_einsum(
            equation,
            (&x.dims, &values::<f32>(&x)),
            (&y.dims, &values::<f32>(&y)),
        );
        let results = run(&[x, y], |g, x| vec![g.einsum(equation, x[0], x[1])]);
        prop_assert_eq!(&results[0].dims, &shape, "{}", equation);
        // Sums of small integers are exact.
        prop_assert_eq!(values::<f32>(&results[0]), expected, "{}", equation);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn products_keep_the_precision_asked_for() {
    let n = 4099;
    let tenth = bf16::from_f32(0.1);
    let x = HostTensor::from_bf16([1, n], &vec![tenth; n as usize]);
    let y = HostTensor::from_bf16([n, 1], &vec![bf16::ONE; n as usize]);
    let results = run(&[x, y], |g, x| {
        vec![
            g.einsum_with(
                "ab,bc->ac",
                x[0],
                x[1],
                Precision::Default,
                Some(DType::F32),
            ),
            g.einsum("ab,bc->ac", x[0], x[1]),
        ]
    });
    // 4099 * 0.1000977 in float32 is exact to its rounding; in bfloat16 the result has 8 bits.
    let exact = n as f32 * tenth.to_f32();
    assert!((values::<f32>(&results[0])[0] - exact).abs() < 1e-3 * exact);
    assert_ne!(
        values::<f32>(&results[0])[0],
        bf16::from_f32(exact).to_f32()
    );
    assert_eq!(dtype(&results[1]), DType::Bf16);

    let a: Vec<f64> = (0..6).map(|i| 1.0 + f64::from(i) * 1e-9).collect();
    let results = run(&[HostTensor::from_f64([2, 3], &a)], |_, x| {
        let dims = DotDims {
            lhs_contract: vec![1],
            rhs_contract: vec![1],
            ..DotDims::default()
        };
        vec![x[0].dot_general(x[0], dims, Precision::Highest, None)]
    });
    for (i, found) in values::<f64>(&results[0]).into_iter().enumerate() {
        let expected: f64 = (0..3).map(|k| a[i / 2 * 3 + k] * a[i % 2 * 3 + k]).sum();
        assert!((found - expected).abs() < 1e-15 * 8.0, "{found} {expected}");
    }
    let inputs = [
        HostTensor::from_i32([2, 2], &[1, 2, 3, 4]),
        HostTensor::from_i32([2], &[10, 100]),
    ];
    let results = run(&inputs, |g, x| vec![g.einsum("ab,b->a", x[0], x[1])]);
    assert_eq!(values::<i32>(&results[0]), [210, 430]);
}

#[test]
fn reductions_of_floats_and_integers() {
    let floats = HostTensor::from_f32([2, 3], &[1.0, -5.0, 3.0, 4.0, 2.0, -6.0]);
    let signed = HostTensor::from_i32([2, 2], &[-1, i32::MIN, i32::MAX, -7]);
    let bytes = HostTensor::from_u8([3], &[3, 250, 7]);
    let wide = HostTensor::from_u64([2], &[u64::MAX, u64::MAX - 1]);
    let results = run(&[floats, signed, bytes, wide], |_, x| {
        vec![
            x[0].sum(&[1]),
            x[0].max(&[0]),
            x[0].min(&[0, 1]),
            x[0].mean(&[0]),
            x[0].sum_all(),
            x[0].max(&[1]).keep(&[1]),
            x[0].sum(&[]),
            x[0].mean_all(),
            x[1].max(&[0]),
            x[1].min(&[1]),
            x[1].slice_dim(1, 0, 1).sum(&[0, 1]),
            x[2].max(&[0]),
            x[2].min(&[0]),
            x[3].max(&[0]),
            x[3].min(&[0]),
        ]
    });
    let floats: [&[f32]; 8] = [
        &[-1.0, 0.0],
        &[4.0, 2.0, 3.0],
        &[-6.0],
        &[2.5, -1.5, -1.5],
        &[-1.0],
        &[3.0, 4.0],
        &[1.0, -5.0, 3.0, 4.0, 2.0, -6.0],
        &[-1.0 / 6.0],
    ];
    for (i, expected) in floats.into_iter().enumerate() {
        close(
            &format!("reduction {i}"),
            &values(&results[i]),
            expected,
            1e-6,
        );
    }
    assert_eq!(results[5].dims, [2, 1]);
    assert_eq!(values::<i32>(&results[8]), [i32::MAX, -7]);
    assert_eq!(values::<i32>(&results[9]), [i32::MIN, -7]);
    assert_eq!(values::<i32>(&results[10]), [i32::MAX - 1]);
    assert_eq!(
        (values::<u8>(&results[11])[0], values::<u8>(&results[12])[0]),
        (250, 3)
    );
    assert_eq!(values::<u64>(&results[13]), [u64::MAX]);
    assert_eq!(values::<u64>(&results[14]), [u64::MAX - 1]);
}

#[test]
fn softmax_and_log_sum_exp_survive_large_elements() {
    let x = HostTensor::from_f32(
        [2, 3],
        &[1000.0, 1001.0, 999.0, 0.0, 1.0, f32::NEG_INFINITY],
    );
    let results = run(&[x], |_, x| vec![x[0].softmax(), x[0].log_sum_exp()]);
    let e = std::f32::consts::E;
    let (a, b) = (1.0 + e + 1.0 / e, 1.0 + e);
    let expected = [1.0 / a, e / a, 1.0 / e / a, 1.0 / b, e / b, 0.0];
    close("softmax", &values(&results[0]), &expected, 1e-6);
    close(
        "log_sum_exp",
        &values(&results[1]),
        &[1000.0 + a.ln(), b.ln()],
        1e-6,
    );
}

#[test]
fn rows_are_read_inside_and_added_where_they_exist() {
    let inputs = [
        counted(&[4, 2]),
        HostTensor::from_i32([2, 3], &[0, 3, 3, -1, 4, 1]),
        counted(&[2, 3, 2]),
    ];
    let results = run(&inputs, |g, x| {
        let rows = x[0].add_rows(x[1], x[2]);
        let read = x[0].take_rows(x[1]);
        let of_table = g.gradients(read.sum_all(), &[x[0]])[0];
        let of_updates = g.gradients(rows.sum_all(), &[x[2]])[0];
        vec![read, rows, of_table, of_updates]
    });
    assert_eq!(results[0].dims, [2, 3, 2]);
    assert_eq!(
        values::<f32>(&results[0]),
        [0., 1., 6., 7., 6., 7., 0., 1., 6., 7., 2., 3.]
    );
    // Row 3 gets two updates; those at -1 and 4 have no row.
    assert_eq!(
        values::<f32>(&results[1]),
        [0., 2., 12., 14., 4., 5., 12., 15.]
    );
    // The derivatives follow: an index that was moved inside counts there, an update that was dropped counts nowhere.
    assert_eq!(values::<f32>(&results[2]), [2., 2., 1., 1., 0., 0., 3., 3.]);
    assert_eq!(
        values::<f32>(&results[3]),
        [1., 1., 1., 1., 1., 1., 0., 0., 0., 0., 1., 1.]
    );
}

#[test]
fn positions_count_along_their_dimension() {
    let results = run(&[], |g, _| {
        vec![
            g.iota(Shape::new(DType::S32, [2, 3]), 0),
            g.iota(Shape::new(DType::F32, [2, 3]), 1),
        ]
    });
    assert_eq!(values::<i32>(&results[0]), [0, 0, 0, 1, 1, 1]);
    assert_eq!(values::<f32>(&results[1]), [0., 1., 2., 0., 1., 2.]);
}

#[test]
fn random_bits_are_a_function_of_the_state() {
    for (algorithm, words) in [(RngAlgorithm::ThreeFry, 2), (RngAlgorithm::Philox, 3)] {
        let mut state = vec![5u64; words as usize];
        let draw = |state: &[u64]| {
            run(&[HostTensor::from_u64([words], state)], |_, x| {
                let (next, bits) = x[0].random_bits(algorithm, Shape::new(DType::U32, [64]));
                let (_, more) = next.random_bits(algorithm, Shape::new(DType::U32, [64]));
                let (_, wide) = x[0].random_bits(algorithm, Shape::new(DType::U64, [8]));
                vec![bits, more, wide]
            })
        };
        let first = draw(&state);
        let again = draw(&state);
        assert_eq!(
            values::<u32>(&first[0]),
            values::<u32>(&again[0]),
            "{algorithm:?}"
        );
        assert_eq!(
            values::<u64>(&first[2]),
            values::<u64>(&again[2]),
            "{algorithm:?}"
        );
        assert_ne!(
            values::<u32>(&first[0]),
            values::<u32>(&first[1]),
            "{algorithm:?} goes on"
        );
        state[0] += 1;
        let other = values::<u32>(&draw(&state)[0]);
        let differing: u32 = values::<u32>(&first[0])
            .iter()
            .zip(other)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        // 2048 bits, each different with probability 1/2: 1024, standard deviation 22.6; six of those.
        assert!(
            (888..=1160).contains(&differing),
            "{algorithm:?}: {differing} bits differ"
        );
    }
}

#[test]
fn normal_samples_have_the_moments_of_the_normal_distribution() {
    let n = 100_000;
    let results = run(&[HostTensor::from_u64([2], &[1, 2])], |g, x| {
        vec![g.normal(x[0], &[n])]
    });
    let samples = values::<f32>(&results[0]);
    assert!(samples.iter().all(|v| v.is_finite() && v.abs() < 5.8));
    let moment = |k: i32| samples.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
    // Standard errors of the mean, the second, third and fourth moments: sqrt(1, 2, 15, 96) / sqrt(n); five of each.
    let error = |variance: f64| 5.0 * (variance / n as f64).sqrt();
    assert!(moment(1).abs() < error(1.0), "mean {}", moment(1));
    assert!(
        (moment(2) - 1.0).abs() < error(2.0),
        "variance {}",
        moment(2)
    );
    assert!(moment(3).abs() < error(15.0), "skewness {}", moment(3));
    assert!(
        (moment(4) - 3.0).abs() < error(96.0),
        "kurtosis {}",
        moment(4)
    );
}

#[test]
fn a_while_loop_runs_until_its_condition_fails_and_sees_outer_values() {
    for limit in [0, 1, 10] {
        let inputs = [
            HostTensor::scalar(limit),
            HostTensor::from_f32([2], &[1.0, 2.0]),
        ];
        let results = run(&inputs, |g, x| {
            let step = x[1] * 0.5;
            let zero = g.scalar(DType::S32, 0.0);
            g.while_loop(
                &[zero, x[1].zeros_like()],
                |s| s[0].less(x[0]),
                |s| {
                    // A loop in the loop that uses values of both levels above.
                    let twice = g.while_loop(
                        &[zero, s[1]],
                        |t| t[0].less(g.scalar(DType::S32, 2.0)),
                        |t| vec![t[0] + 1.0, t[1] + step + s[0].convert(DType::F32) * 0.0],
                    );
                    vec![s[0] + 1.0, twice[1]]
                },
            )
        });
        assert_eq!(values::<i32>(&results[0]), [limit]);
        let limit = limit as f32;
        assert_eq!(values::<f32>(&results[1]), [limit, 2.0 * limit]);
    }
}

#[test]
fn a_conditional_runs_the_branch_chosen() {
    for which in [true, false] {
        let inputs = [HostTensor::scalar(which), HostTensor::scalar(3.0f32)];
        let results = run(&inputs, |g, x| {
            let outer = x[1] * 2.0;
            g.conditional(
                x[0],
                || vec![outer + 1.0, x[1]],
                || vec![x[1].square(), g.scalar(DType::F32, -1.0)],
            )
        });
        let found = [values::<f32>(&results[0])[0], values::<f32>(&results[1])[0]];
        assert_eq!(found, if which { [7.0, 3.0] } else { [9.0, -1.0] });
    }
}

#[test]
fn calls_and_barriers_give_their_values() {
    let results = run(&[counted(&[3]), HostTensor::scalar(10.0f32)], |g, x| {
        let called = g.call("scaled", &[x[0]], |p| vec![p[0] * x[1], p[0] + 1.0]);
        let held = g.barrier(&[called[0], x[1]]);
        vec![
            held[0],
            held[1],
            called[1],
            x[0].checkpoint("here").stop_gradient(),
        ]
    });
    assert_eq!(values::<f32>(&results[0]), [0., 10., 20.]);
    assert_eq!(values::<f32>(&results[1]), [10.]);
    assert_eq!(values::<f32>(&results[2]), [1., 2., 3.]);
    assert_eq!(values::<f32>(&results[3]), [0., 1., 2.]);
}

#[test]
fn a_scan_goes_forward_backward_or_by_number() {
    let xs = [1.0f32, 2.0, 3.0, 4.0];
    for reverse in [false, true] {
        let inputs = [HostTensor::scalar(0.5f32), HostTensor::from_f32([4], &xs)];
        let results = run(&inputs, |g, x| {
            let options = ScanOptions {
                reverse,
                ..ScanOptions::default()
            };
            let factor = x[0] * 4.0;
            let (last, ys) = g.scan(options, &[x[0]], &[x[1]], |c, s| {
                let next = c[0] * factor + s[0];
                (vec![next], vec![next, s[0].square()])
            });
            vec![last[0], ys[0], ys[1]]
        });
        let mut carry = 0.5f32;
        let mut expected = [0.0; 4];
        for step in 0..4 {
            let i = if reverse { 3 - step } else { step };
            carry = carry * 2.0 + xs[i];
            expected[i] = carry;
        }
        assert_eq!(values::<f32>(&results[0]), [carry]);
        assert_eq!(
            values::<f32>(&results[1]),
            expected,
            "stacked where the slice was"
        );
        assert_eq!(values::<f32>(&results[2]), [1., 4., 9., 16.]);
    }
    let results = run(&[HostTensor::scalar(1.0f32)], |g, x| {
        let options = ScanOptions {
            length: Some(5),
            ..ScanOptions::default()
        };
        let (last, ys) = g.scan(options, &[x[0]], &[], |c, _| (vec![c[0] * 2.0], vec![c[0]]));
        vec![last[0], ys[0]]
    });
    assert_eq!(values::<f32>(&results[0]), [32.0]);
    assert_eq!(values::<f32>(&results[1]), [1., 2., 4., 8., 16.]);
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}
