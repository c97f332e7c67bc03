//! Element by element: arithmetic, comparisons, choices, conversions, broadcasting.

use crate::{close, counted, run, values};
use ankh_hlo::{DType, Literal, Shape, Tensor};
use ankh_pjrt::{Element, HostTensor};
use half::{bf16, f16};

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
    let x = HostTensor::new::<f32>([8], &numbers);
    let results = run(&[x], |_, x| cases.iter().map(|c| (c.1)(x[0])).collect());
    for ((name, _, expected), found) in cases.iter().zip(&results) {
        let expected: Vec<f32> = numbers.iter().map(|&v| expected(v)).collect();
        close(name, &values(found), &expected, 2e-6);
    }
}

#[test]
fn the_error_function_integrates_the_normal_density() {
    let numbers: Vec<f64> = (-6..=6).map(|i| i as f64 * 0.5).collect();
    let x = HostTensor::new::<f64>([13], &numbers);
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
    let inputs = [
        HostTensor::new::<f32>([5], &a),
        HostTensor::new::<f32>([5], &b),
    ];
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
    let inputs = [
        HostTensor::new::<u32>([4], &a),
        HostTensor::new::<u32>([4], &b),
    ];
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
    let signed = HostTensor::new::<i32>([3], &[-7, 0, 5]);
    let results = run(&[signed], |_, x| {
        let two = x[0].full_like(2.0);
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
        HostTensor::new::<bool>([4], &p),
        HostTensor::new::<bool>([4], &q),
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
        HostTensor::new::<bool>([2, 1], &[true, false]),
        HostTensor::new::<f32>([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        HostTensor::new::<f32>([3], &[-1.0, -2.0, -3.0]),
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
    let results = run(&[HostTensor::new::<f32>([5], &numbers)], |_, x| {
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
