//! Loops, branches, calls.

use crate::{counted, run, values};
use ankh_hlo::{DType, ScanOptions};
use ankh_pjrt::HostTensor;

#[test]
fn a_while_loop_runs_until_its_condition_fails_and_sees_outer_values() {
    for limit in [0, 1, 10] {
        let inputs = [
            HostTensor::scalar(limit),
            HostTensor::new::<f32>([2], &[1.0, 2.0]),
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
        let held = g.optimization_barrier(&[called[0], x[1]]);
        vec![
            held[0],
            held[1],
            called[1],
            x[0].checkpoint_name("here").stop_gradient(),
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
        let inputs = [HostTensor::scalar(0.5f32), HostTensor::new::<f32>([4], &xs)];
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
