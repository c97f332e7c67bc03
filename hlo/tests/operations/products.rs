//! Sums: dot products, reductions, rows of tables.

use crate::{close, counted, dtype, run, runner, values};
use ankh_hlo::{DType, DotDims};
use ankh_pjrt::HostTensor;
use half::bf16;
use proptest::prelude::*;

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
fn products_have_the_element_type_asked_for() {
    let n = 4099;
    let tenth = bf16::from_f32(0.1);
    let x = HostTensor::new::<bf16>([1, n], &vec![tenth; n as usize]);
    let y = HostTensor::new::<bf16>([n, 1], &vec![bf16::ONE; n as usize]);
    let results = run(&[x, y], |g, x| {
        vec![
            g.einsum_with("ab,bc->ac", x[0], x[1], Some(DType::F32)),
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
    let results = run(&[HostTensor::new::<f64>([2, 3], &a)], |_, x| {
        let dims = DotDims {
            lhs_contract: vec![1],
            rhs_contract: vec![1],
            ..DotDims::default()
        };
        vec![x[0].dot_general(x[0], dims, None)]
    });
    for (i, found) in values::<f64>(&results[0]).into_iter().enumerate() {
        let expected: f64 = (0..3).map(|k| a[i / 2 * 3 + k] * a[i % 2 * 3 + k]).sum();
        assert!((found - expected).abs() < 1e-15 * 8.0, "{found} {expected}");
    }
    let inputs = [
        HostTensor::new::<i32>([2, 2], &[1, 2, 3, 4]),
        HostTensor::new::<i32>([2], &[10, 100]),
    ];
    let results = run(&inputs, |g, x| vec![g.einsum("ab,b->a", x[0], x[1])]);
    assert_eq!(values::<i32>(&results[0]), [210, 430]);
}

#[test]
fn reductions_of_floats_and_integers() {
    let floats = HostTensor::new::<f32>([2, 3], &[1.0, -5.0, 3.0, 4.0, 2.0, -6.0]);
    let signed = HostTensor::new::<i32>([2, 2], &[-1, i32::MIN, i32::MAX, -7]);
    let bytes = HostTensor::new::<u8>([3], &[3, 250, 7]);
    let wide = HostTensor::new::<u64>([2], &[u64::MAX, u64::MAX - 1]);
    let results = run(&[floats, signed, bytes, wide], |_, x| {
        vec![
            x[0].sum(&[1]),
            x[0].max(&[0]),
            x[0].min(&[0, 1]),
            x[0].mean(&[0]),
            x[0].sum_all(),
            x[0].max(&[1]).expand_dims(&[1]),
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
    let x = HostTensor::new::<f32>(
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
        HostTensor::new::<i32>([2, 3], &[0, 3, 3, -1, 4, 1]),
        counted(&[2, 3, 2]),
    ];
    let results = run(&inputs, |g, x| {
        let rows = x[0].scatter_add_rows(x[1], x[2]);
        let read = x[0].gather_rows(x[1]);
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
    // The derivatives follow: an index that was moved inside counts there, an update that was
    // dropped counts nowhere.
    assert_eq!(values::<f32>(&results[2]), [2., 2., 1., 1., 0., 0., 3., 3.]);
    assert_eq!(
        values::<f32>(&results[3]),
        [1., 1., 1., 1., 1., 1., 0., 0., 0., 0., 1., 1.]
    );
}
