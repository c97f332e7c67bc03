//! Several data sets, each with its own objective, in fixed proportions of the run's rows.
//!
//! Arithmetic decides which component a row of the run belongs to: the first takes its proportion
//! of the rows, as evenly spaced as whole numbers allow, the second its proportion of those that
//! are left, and so on. So any range of rows holds each component's proportion to within a row or
//! so, and the number of rows that a component had before any row is known at once.

use super::dataset::Dataset;
use super::objective::Objective;
use crate::error::{Error, Result, Setting};

/// Weights are rounded to multiples of `1 / SHARES`.
const SHARES: u128 = 1 << 16;

/// One data set of a mixture, and what is asked of it.
#[derive(Clone, Debug)]
pub struct Component {
    /// What it is called in messages and metrics.
    pub name: String,
    /// The sequences.
    pub dataset: Dataset,
    /// What the model is asked about them.
    pub objective: Objective,
    /// Its share of the run's rows, in proportion to the others'.
    pub weight: f64,
}

/// What a run's rows are made from.
#[derive(Clone, Debug)]
pub struct Mixture {
    components: Vec<Component>,
    /// Of [`SHARES`], one for each component.
    shares: Vec<u128>,
}

impl Mixture {
    /// One data set with one objective.
    pub fn one(dataset: Dataset, objective: Objective) -> Mixture {
        let component = Component {
            name: dataset.name().to_string(),
            dataset,
            objective,
            weight: 1.0,
        };
        Mixture {
            components: vec![component],
            shares: vec![SHARES],
        }
    }

    /// Several. Weights must be positive, and none so small that it would not be met once in 65,536
    /// rows; the data sets must share a tokenizer.
    pub fn of(components: Vec<Component>) -> Result<Mixture> {
        let wrong = |reason: String| Error::setting(Setting::Mixture, reason);
        let Some(first) = components.first() else {
            return Err(wrong("must have a component".into()));
        };
        for component in &components {
            let (name, weight) = (&component.name, component.weight);
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(wrong(format!(
                    "must have positive weights, but that of {name} is {weight}"
                )));
            }
            let (one, other) = (first.dataset.tokenizer(), component.dataset.tokenizer());
            if one != other {
                return Err(wrong(format!(
                    "must have one vocabulary, but that of {} is {} and that of {name} {}",
                    first.name,
                    one.vocabulary(),
                    other.vocabulary()
                )));
            }
        }
        let weights: Vec<f64> = components.iter().map(|c| c.weight).collect();
        let shares = shares(&weights);
        match shares.iter().position(|&share| share == 0) {
            None => Ok(Mixture { components, shares }),
            Some(none) => Err(wrong(format!(
                "gives {} less than one row in {SHARES} by its weight of {}",
                components[none].name, components[none].weight
            ))),
        }
    }

    /// The components, in the order that numbers them.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The component of a row of the run, and how many of that component's rows come before it.
    pub(super) fn place(&self, row: u128) -> (usize, u128) {
        let mut left = SHARES;
        let mut row = row;
        for (component, &share) in self.shares.iter().enumerate() {
            let before = row * share / left;
            if (row + 1) * share / left > before {
                return (component, before);
            }
            row -= before;
            left -= share;
        }
        unreachable!("the last component has all of the share that is left")
    }

    /// How many rows each component has among the first `rows` of the run.
    pub(super) fn before(&self, rows: u128) -> Vec<u128> {
        let mut left = SHARES;
        let mut rows = rows;
        let count = |&share: &u128| {
            let own = rows * share / left;
            rows -= own;
            left -= share;
            own
        };
        self.shares.iter().map(count).collect()
    }
}

/// Weights as whole numbers that add up to [`SHARES`], by the largest remainders.
fn shares(weights: &[f64]) -> Vec<u128> {
    // Divided first, so that the sum of large weights does not overflow.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let total: f64 = weights.iter().map(|weight| weight / largest).sum();
    let exact: Vec<f64> = weights
        .iter()
        .map(|weight| weight / largest / total * SHARES as f64)
        .collect();
    let mut shares: Vec<u128> = exact.iter().map(|share| share.floor() as u128).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let missing = SHARES.saturating_sub(shares.iter().sum());
    for &component in by_remainder.iter().cycle().take(missing as usize) {
        shares[component] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;
    use proptest::prelude::*;

    fn component(weight: f64) -> Component {
        Component {
            name: format!("weight {weight}"),
            dataset: Dataset::from_sequences(Tokenizer::ankh(), ["ACD"]),
            objective: Objective::default(),
            weight,
        }
    }

    proptest! {
        #[test]
        fn every_row_belongs_to_one_component_in_its_order(
            weights in prop::collection::vec(0.01f64..1.0, 1..6), first in 0u128..1 << 40,
        ) {
            let mixture = Mixture::of(weights.iter().map(|&w| component(w)).collect()).unwrap();
            prop_assert_eq!(mixture.shares.iter().sum::<u128>(), SHARES);
            let mut next = mixture.before(first);
            prop_assert_eq!(next.iter().sum::<u128>(), first);
            for row in first..first + 200 {
                let (component, number) = mixture.place(row);
                prop_assert_eq!(number, next[component]);
                next[component] += 1;
            }
            prop_assert_eq!(&mixture.before(first + 200), &next);
            // Shares are met by any beginning, to within a row for each component.
            for (rows, share) in next.iter().zip(&mixture.shares) {
                let exact = (first + 200) as f64 * *share as f64 / SHARES as f64;
                prop_assert!((*rows as f64 - exact).abs() <= weights.len() as f64, "{rows} {exact}");
            }
        }
    }

    #[test]
    fn weights_become_shares() {
        assert_eq!(shares(&[1.0]), [65_536]);
        assert_eq!(shares(&[1.0, 1.0, 1.0]), [21_846, 21_845, 21_845]);
        assert_eq!(shares(&[3.0, 1.0]), [49_152, 16_384]);
        assert_eq!(shares(&[f64::MAX, f64::MAX]), [32_768, 32_768]);
    }

    #[test]
    fn wrong_mixtures_are_named() {
        let message = |components| Mixture::of(components).err().unwrap().to_string();
        assert!(message(vec![]).contains("must have a component"));
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let found = message(vec![component(1.0), component(weight)]);
            assert!(
                found.contains(&format!("that of weight {weight} is")),
                "{found}"
            );
        }
        let found = message(vec![component(1.0), component(1e-9)]);
        assert!(
            found.contains("gives weight 0.000000001 less than one row"),
            "{found}"
        );
        let other = Component {
            dataset: Dataset::from_sequences(Tokenizer::ankh3(), ["ACD"]),
            ..component(1.0)
        };
        let found = message(vec![component(1.0), other]);
        assert!(found.contains("must have one vocabulary"), "{found}");
    }
}
