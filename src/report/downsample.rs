//! As many points of a series as a screen can show.
//!
//! The known values are divided into buckets of equal size. Of each, the lowest and the highest
//! value are drawn, so that no spike is lost, and its mean is what a smoothed line follows. The
//! first and the last value are always there.

use serde::Serialize;

/// Points to draw of one quantity.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Points {
    /// Rising steps.
    pub steps: Vec<u64>,
    /// The value at each.
    pub values: Vec<f32>,
    /// The means of the buckets; none where every value is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<Means>,
}

/// The means of buckets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Means {
    /// The step in the middle of each bucket.
    pub steps: Vec<u64>,
    /// The mean of its values.
    pub values: Vec<f32>,
}

/// At most two points for each of `buckets`, and the first and the last one. A value that is not
/// finite is none; there may be fewer values than steps.
pub fn downsample(steps: &[u64], values: &[f32], buckets: usize) -> Points {
    let known = || {
        let pairs = steps.iter().copied().zip(values.iter().copied());
        pairs.filter(|(_, value)| value.is_finite())
    };
    let (count, buckets) = (known().count(), buckets.max(1));
    if count <= 2 * buckets {
        let (steps, values) = known().unzip();
        return Points {
            steps,
            values,
            means: None,
        };
    }
    let mut points = Points::default();
    let mut means = Means::default();
    let mut bucket = Bucket::default();
    for (index, point) in known().enumerate() {
        bucket.add(point);
        let last = index + 1 == count;
        if index == 0 {
            points.add(point);
        }
        // The next value belongs to another bucket.
        if last || (index + 1) * buckets / count != index * buckets / count {
            let (low, high) = (bucket.low, bucket.high);
            let ordered = if low.0 <= high.0 {
                [low, high]
            } else {
                [high, low]
            };
            ordered.into_iter().for_each(|extreme| points.add(extreme));
            means.steps.push(bucket.first.midpoint(point.0));
            means
                .values
                .push((bucket.sum / f64::from(bucket.count)) as f32);
            bucket = Bucket::default();
        }
        if last {
            points.add(point);
        }
    }
    points.means = Some(means);
    points
}

#[derive(Default)]
struct Bucket {
    first: u64,
    low: (u64, f32),
    high: (u64, f32),
    sum: f64,
    count: u32,
}

impl Bucket {
    fn add(&mut self, point: (u64, f32)) {
        if self.count == 0 {
            (self.first, self.low, self.high) = (point.0, point, point);
        }
        if point.1 < self.low.1 {
            self.low = point;
        }
        if point.1 > self.high.1 {
            self.high = point;
        }
        self.sum += f64::from(point.1);
        self.count += 1;
    }
}

impl Points {
    /// Adds a point, unless it is the one that was added last.
    fn add(&mut self, (step, value): (u64, f32)) {
        if self.steps.last() != Some(&step) {
            self.steps.push(step);
            self.values.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ends_and_extremes_stay_and_nothing_is_made_up(
            values in prop::collection::vec(
                prop_oneof![8 => -1e3f32..1e3, 1 => Just(f32::NAN)], 0..600),
            buckets in 1usize..60,
        ) {
            let steps: Vec<u64> = (0..values.len() as u64).map(|i| 3 * i + 1).collect();
            let points = downsample(&steps, &values, buckets);
            let known: Vec<(u64, f32)> = steps.iter().copied().zip(values.iter().copied())
                .filter(|(_, value)| value.is_finite()).collect();
            let drawn: Vec<(u64, f32)> =
                points.steps.iter().copied().zip(points.values.iter().copied()).collect();
            prop_assert!(drawn.len() <= 2 * buckets + 2);
            prop_assert!(drawn.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(drawn.iter().all(|point| known.contains(point)));
            prop_assert_eq!(drawn.first(), known.first());
            prop_assert_eq!(drawn.last(), known.last());
            let extremes = |points: &[(u64, f32)]| {
                let values = points.iter().map(|point| point.1);
                (values.clone().reduce(f32::min), values.reduce(f32::max))
            };
            prop_assert_eq!(extremes(&drawn), extremes(&known));
            match &points.means {
                None => prop_assert_eq!(drawn, known),
                Some(means) => {
                    // Buckets are of nearly equal size, so the means' mean is nearly that of all.
                    prop_assert_eq!(means.steps.len(), buckets);
                    prop_assert!(means.steps.windows(2).all(|pair| pair[0] < pair[1]));
                    let (low, high) = extremes(&known);
                    prop_assert!(means.values.iter().all(
                        |mean| *mean >= low.unwrap() - 1e-3 && *mean <= high.unwrap() + 1e-3));
                }
            }
        }
    }

    #[test]
    fn a_single_spike_among_many_values_is_drawn_and_moves_only_its_mean() {
        let steps: Vec<u64> = (1..=10_000).collect();
        let mut values = vec![1.0; 10_000];
        values[7_654] = 100.0;
        let points = downsample(&steps, &values, 100);
        assert!(points.steps.contains(&7_655) && points.values.contains(&100.0));
        let means = points.means.unwrap().values;
        assert_eq!(means.iter().filter(|mean| **mean != 1.0).count(), 1);
        assert!(means.contains(&1.99));
    }
}
