//! Histograms of gradients, and of the tokens predicted and expected: counts that a training step
//! reports behind its metrics.
//!
//! The step counts itself, since gradients and predictions are its own: a program of its own would
//! need a second compilation, a second forward and backward pass, and the state and batch that the
//! step has used up. Gradients are counted at the steps that are asked for; tokens, which are few,
//! at all of them. Where no histograms are configured, the program has nothing of this.

use ankh_hlo::{DType, Graph, Shape, Tensor};

use crate::config::Config;
use crate::model::{Parameter, Targets, TokenLoss, Weights};

/// The logarithms to base 10 between which the sizes of gradients are counted: half a power of ten
/// apart, from 1e-12 to 1e3.
const LOWEST: f64 = -12.0;
const WIDTH: f64 = 0.5;
const BOUNDS: usize = 31;

/// Rows of counts of tokens: those predicted, and those expected.
const KINDS: i64 = 2;

/// How often values fall between bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Of what: `gradients/NAME` with a parameter's name, in powers of ten of the absolute value;
    /// `residues/predicted` and `residues/expected`, by token id.
    pub name: String,
    /// The lower bound, the upper bound and the number of each bucket; those at the ends have some.
    pub buckets: Vec<[f64; 3]>,
}

impl Histogram {
    /// The histograms that the step's numbers behind its metrics say; none where these are not
    /// those of this configuration.
    pub fn of_step(config: &Config, numbers: &[f32]) -> Vec<Histogram> {
        let parameters = Weights::of(&config.model).leaves();
        let vocabulary = config.model.vocabulary;
        if numbers.len() != parameters.len() * BOUNDS + KINDS as usize * vocabulary {
            return Vec::new();
        }
        let (gradients, tokens) = numbers.split_at(parameters.len() * BOUNDS);
        let of_gradient = |(i, parameter): (usize, &Parameter)| {
            let above = (0..BOUNDS).map(|bound| gradients[bound * parameters.len() + i]);
            Histogram {
                name: format!("gradients/{}", parameter.name),
                buckets: sizes(parameter.elements() as f64, above),
            }
        };
        let mut histograms: Vec<Histogram> =
            parameters.iter().enumerate().map(of_gradient).collect();
        let (predicted, expected) = tokens.split_at(vocabulary);
        for (name, counts) in [("predicted", predicted), ("expected", expected)] {
            let bucket =
                |(id, &count): (usize, &f32)| [id as f64 - 0.5, id as f64 + 0.5, count.into()];
            histograms.push(Histogram {
                name: format!("residues/{name}"),
                buckets: trimmed(counts.iter().enumerate().map(bucket).collect()),
            });
        }
        histograms
    }
}

/// The buckets of so many numbers, given how many are at least as large as each bound. What is
/// smaller than the lowest is counted below it, zeros included, and the largest above the highest.
fn sizes(all: f64, above: impl Iterator<Item = f32>) -> Vec<[f64; 3]> {
    let mut buckets = Vec::new();
    let (mut before, mut bound) = (all, LOWEST - WIDTH);
    for count in above.map(f64::from).chain([0.0]) {
        // Large counts are rounded.
        buckets.push([bound, bound + WIDTH, (before - count).max(0.0)]);
        (before, bound) = (count, bound + WIDTH);
    }
    trimmed(buckets)
}

/// Without the empty buckets at both ends.
fn trimmed(buckets: Vec<[f64; 3]>) -> Vec<[f64; 3]> {
    let is_used = |bucket: &[f64; 3]| bucket[2] > 0.0;
    let first = buckets.iter().position(is_used).unwrap_or(0);
    let end = buckets.iter().rposition(is_used).map_or(0, |last| last + 1);
    buckets.get(first..end).unwrap_or_default().to_vec()
}

/// How often each token is predicted, and how often it is expected: s32 `[2, vocabulary]`.
pub(super) fn tokens<'g>(
    config: &Config,
    loss: &TokenLoss<'g>,
    targets: Targets<'g>,
) -> Tensor<'g> {
    let g = targets.0.graph();
    let _scope = g.scope("histograms");
    let shape = [&targets.0.dims()[..], &[config.model.vocabulary as i64]].concat();
    let ids = g.iota(Shape::new(DType::S32, shape), 2);
    let is_target = targets.0.greater_equal(targets.0.zeros_like());
    // No token has this id.
    let none = targets.0.full_like(-1.0);
    let counts = [is_target.select(loss.predictions, none), targets.0].map(|tokens| {
        let is_there = ids.equal(tokens.expand_dims(&[2]));
        is_there.convert(DType::S32).sum(&[0, 1]).expand_dims(&[0])
    });
    g.concatenate(&counts, 0)
}

/// How many tokens' counts there are before any batch.
pub(super) fn no_tokens<'g>(g: &'g Graph, config: &Config) -> Tensor<'g> {
    g.zeros(&Shape::new(
        DType::S32,
        [KINDS, config.model.vocabulary as i64],
    ))
}

/// The numbers of the step that follows `done` others: float32, one after the other.
pub(super) fn numbers<'g>(
    config: &Config,
    done: Tensor<'g>,
    gradients: &[Tensor<'g>],
    tokens: Tensor<'g>,
) -> Tensor<'g> {
    let g = done.graph();
    let _scope = g.scope("histograms");
    let every = config.telemetry.histograms_every as f64;
    let step = done + 1.0;
    let is_due = step.equal(step / every * every);
    let length = (gradients.len() * BOUNDS) as i64;
    let counts = g.conditional(
        is_due,
        || vec![at_least_each_bound(g, gradients).reshape(&[length])],
        || vec![g.zeros(&Shape::new(DType::S32, [length]))],
    );
    let count = tokens.shape().elements();
    let all = g.concatenate(&[counts[0], tokens.reshape(&[count])], 0);
    all.convert(DType::F32)
}

/// How many elements of each tensor are at least as large as each bound, s32 `[bounds, tensors]`.
/// Bound after bound, so that no memory is needed but for the counts.
fn at_least_each_bound<'g>(g: &'g Graph, tensors: &[Tensor<'g>]) -> Tensor<'g> {
    let exponents = g.iota(Shape::new(DType::F32, [BOUNDS as i64]), 0) * WIDTH + LOWEST;
    let bounds = (exponents * std::f64::consts::LN_10).exp();
    let (_, counts) = g.scan(Default::default(), &[], &[bounds], |_, bound| {
        let count = |tensor: &Tensor<'g>| {
            let bound = bound[0].convert(tensor.dtype());
            let is_above = tensor
                .abs()
                .greater_equal(bound.broadcast_to(&tensor.dims()));
            is_above.convert(DType::S32).sum_all().reshape(&[1])
        };
        let counts: Vec<Tensor<'g>> = tensors.iter().map(count).collect();
        (vec![], vec![g.concatenate(&counts, 0)])
    });
    counts[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_above_bounds_become_buckets_between_them() {
        // Of ten, eight are at least 1e-12, five at least 10^-11.5, and none is larger.
        let above = [8.0, 5.0].into_iter().chain([0.0; BOUNDS - 2]);
        let expected = [
            [-12.5, -12.0, 2.0],
            [-12.0, -11.5, 3.0],
            [-11.5, -11.0, 5.0],
        ];
        assert_eq!(sizes(10.0, above), expected);
        let largest = sizes(3.0, [3.0; BOUNDS].into_iter());
        assert_eq!(largest, [[3.0, 3.5, 3.0]]);
        assert_eq!(
            sizes(0.0, [0.0; BOUNDS].into_iter()),
            Vec::<[f64; 3]>::new()
        );
    }

    #[test]
    fn numbers_of_another_step_are_no_histograms() {
        let mut config = Config::default();
        config.telemetry.histograms_every = 5;
        assert_eq!(Histogram::of_step(&config, &[1.0; 7]), []);
    }
}
