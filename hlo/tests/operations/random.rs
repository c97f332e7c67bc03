//! Random bits and normal samples.

use crate::{run, values};
use ankh_hlo::{DType, RngAlgorithm, Shape};
use ankh_pjrt::HostTensor;

#[test]
fn random_bits_are_a_function_of_the_state() {
    for (algorithm, words) in [(RngAlgorithm::ThreeFry, 2), (RngAlgorithm::Philox, 3)] {
        let mut state = vec![5u64; words as usize];
        let draw = |state: &[u64]| {
            run(&[HostTensor::new::<u64>([words], state)], |_, x| {
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
        // 2048 bits, each different with probability 1/2: 1024, standard deviation 22.6; six of
        // those.
        assert!(
            (888..=1160).contains(&differing),
            "{algorithm:?}: {differing} bits differ"
        );
    }
}

#[test]
fn normal_samples_have_the_moments_of_the_normal_distribution() {
    let n = 100_000;
    let results = run(&[HostTensor::new::<u64>([2], &[1, 2])], |g, x| {
        vec![g.normal(x[0], &[n])]
    });
    let samples = values::<f32>(&results[0]);
    assert!(samples.iter().all(|v| v.is_finite() && v.abs() < 5.8));
    let moment = |k: i32| samples.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
    // Standard errors of the mean, the second, third and fourth moments: sqrt(1, 2, 15, 96) /
    // sqrt(n); five of each.
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
