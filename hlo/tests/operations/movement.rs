//! Elements that change place: reshapes, slices, padding, windows.

use crate::{counted, run, runner, values};
use ankh_hlo::{DType, PadDim, Shape};
use ankh_pjrt::HostTensor;
use proptest::prelude::*;

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
            HostTensor::new::<f32>([2], &[-1.0, -2.0]),
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
            vec![x[0].pad(&[p], x[0].graph().scalar(x[0].dtype(), -1.0))]
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
            let padded = x[0].pad(&pads, x[0].graph().scalar(x[0].dtype(), 7.0));
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
                result.to_vec::<f32>().unwrap(),
                counted(&dims).to_vec::<f32>().unwrap(),
                "way {}",
                way
            );
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
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
