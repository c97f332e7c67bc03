//! Parts of arrays on the host.

use ankh_pjrt::{Error, HostTensor};
use proptest::prelude::*;

/// The elements within `part` of an array of `dims` that counts from 0, one index at a time.
fn counted(dims: &[i64], part: &[std::ops::Range<i64>]) -> Vec<i32> {
    let mut values = vec![0];
    for (size, range) in dims.iter().zip(part) {
        values = values
            .iter()
            .flat_map(|v| range.clone().map(move |i| v * *size as i32 + i as i32))
            .collect();
    }
    values
}

prop_compose! {
    fn dims_and_part()(sizes in prop::collection::vec(1i64..6, 0..4))
        (part in sizes.iter().map(|&s| (0..=s, 0..=s)).collect::<Vec<_>>(), sizes in Just(sizes))
        -> (Vec<i64>, Vec<std::ops::Range<i64>>) {
        (sizes, part.into_iter().map(|(a, b)| a.min(b)..a.max(b)).collect())
    }
}

proptest! {
    #[test]
    fn a_part_holds_the_elements_within_its_ranges((dims, part) in dims_and_part()) {
        let count = dims.iter().product::<i64>() as i32;
        let whole = HostTensor::new::<i32>(dims.clone(), &(0..count).collect::<Vec<_>>());
        let found = whole.part(&part).unwrap();
        prop_assert_eq!(found.to_vec::<i32>().unwrap(), counted(&dims, &part));
        prop_assert_eq!(found.dims, part.iter().map(|r| r.end - r.start).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_put_back_changes_that_part_alone((dims, part) in dims_and_part()) {
        let count = dims.iter().product::<i64>() as i32;
        let whole = HostTensor::new::<i32>(dims.clone(), &(0..count).collect::<Vec<_>>());
        let zeros = HostTensor::new::<i32>(dims.clone(), &vec![0; count as usize]);
        let mut changed = zeros.clone();
        changed.set_part(&part, &whole.part(&part).unwrap()).unwrap();
        let within = counted(&dims, &part);
        let expected: Vec<i32> = (0..count).map(|i| if within.contains(&i) { i } else { 0 }).collect();
        prop_assert_eq!(changed.to_vec::<i32>().unwrap(), expected);
    }
}

#[test]
fn a_part_outside_or_of_another_shape_is_refused() {
    let mut x = HostTensor::new::<i32>([2, 3], &[0; 6]);
    let small = HostTensor::new::<i32>([1, 2], &[0; 2]);
    let misfit = |result| matches!(result, Err(Error::Part { .. }));
    let rows_alone = 0..2;
    assert!(misfit(x.part(&[rows_alone]).map(drop)));
    assert!(misfit(x.part(&[0..2, 1..4]).map(drop)));
    assert!(misfit(x.part(&[-1..2, 0..3]).map(drop)));
    assert!(misfit(x.set_part(&[0..2, 0..2], &small)));
    assert!(misfit(x.set_part(
        &[0..1, 0..2],
        &HostTensor::new::<f32>([1, 2], &[0.0; 2])
    )));
    assert!(!misfit(x.set_part(&[1..2, 1..3], &small)));
    let short = HostTensor {
        bytes: vec![0; 8],
        ..x
    };
    assert!(matches!(
        short.part(&[0..1, 0..1]),
        Err(Error::TensorSize { .. })
    ));
}
