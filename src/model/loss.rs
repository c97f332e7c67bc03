//! The loss: cross-entropy over the target tokens, in the element type of the logits.

use ankh_hlo::{DType, Shape, Tensor};

use super::Loss;

/// The labels: s32 `[batch, length]`, negative where there is nothing to predict.
#[derive(Clone, Copy)]
pub struct Targets<'g>(pub Tensor<'g>);

/// Sums over the tokens of a batch; scalars.
#[derive(Clone, Copy)]
pub struct TokenLoss<'g> {
    /// What is minimised: cross-entropy, with label smoothing and z-loss where they are configured.
    pub objective: Tensor<'g>,
    /// The cross-entropy alone, in nats.
    pub cross_entropy: Tensor<'g>,
    /// How many tokens were predicted correctly. The prediction is the first token of those with
    /// the largest logit.
    pub correct: Tensor<'g>,
    /// The prediction for each position, s32 `[batch, length]`.
    pub predictions: Tensor<'g>,
}

impl<'g> Targets<'g> {
    /// 1 where there is a token to predict, float32 `[batch, length]`.
    pub fn weights(self) -> Tensor<'g> {
        self.0
            .greater_equal(self.0.zeros_like())
            .convert(DType::F32)
    }

    /// How many tokens there are to predict, float32.
    pub fn count(self) -> Tensor<'g> {
        self.weights().sum_all()
    }
}

/// The sums for `logits` `[batch, length, vocab]`.
///
/// With `z = ln sum e^logit` a token costs `z - logit[label]`; label smoothing `e` spreads `e` of
/// the target evenly, and z-loss adds `weight * z^2` (Chowdhery et al., 2022), which keeps `z` near
/// 0.
pub fn token_loss<'g>(logits: Tensor<'g>, targets: Targets<'g>, loss: &Loss) -> TokenLoss<'g> {
    let weights = targets.weights().convert(logits.dtype());
    let wanted = one_hot(targets.0, logits);
    let z = logits.log_sum_exp();
    let of_label = (logits * wanted).sum(&[2]);
    let cross_entropy = (z - of_label) * weights;
    let (smoothing, z_weight) = (loss.label_smoothing, loss.z_loss);
    let mut cost = cross_entropy;
    if smoothing > 0.0 {
        cost = cost + (of_label - logits.mean(&[2])) * weights * smoothing;
    }
    if z_weight > 0.0 {
        cost = cost + z.square() * weights * z_weight;
    }
    // The gradient is written by hand: softmax minus target, without keeping the softmax.
    let cost = cost.custom_vjp(&[logits], &[z, weights, wanted], move |operands, _, dy| {
        let [logits, z, weights, wanted] = operands else {
            unreachable!("one input and three residuals")
        };
        let vocab = logits.dim(2) as f64;
        let softmax = (*logits - z.expand_dims(&[2])).exp();
        let slope = if z_weight > 0.0 {
            softmax * (*z * (2.0 * z_weight) + 1.0).expand_dims(&[2])
        } else {
            softmax
        };
        let target = if smoothing > 0.0 {
            *wanted * (1.0 - smoothing) + smoothing / vocab
        } else {
            *wanted
        };
        vec![(slope - target) * (*weights * dy).expand_dims(&[2])]
    });
    let predictions = predictions(logits);
    let correct = predictions.equal(targets.0).convert(logits.dtype()) * weights;
    TokenLoss {
        objective: cost.sum_all(),
        cross_entropy: cross_entropy.sum_all(),
        correct: correct.sum_all(),
        predictions,
    }
}

/// The first token of those with the largest logit, s32 `[batch, length]`.
fn predictions<'g>(logits: Tensor<'g>) -> Tensor<'g> {
    let ids = token_ids(logits);
    // Others enter the minimum with a number that no token has.
    let none = ids.graph().scalar(DType::S32, i32::MAX.into());
    let largest = logits.equal(logits.max(&[2]).expand_dims(&[2]));
    largest.select(ids, none).min(&[2])
}

/// Each logit's token, s32 `[batch, length, vocab]`.
fn token_ids<'g>(logits: Tensor<'g>) -> Tensor<'g> {
    let grid = Shape::new(DType::S32, logits.dims());
    logits.graph().iota(grid, 2)
}

/// 1 at each label of `[batch, length]`, 0 elsewhere and for negative labels: `[batch, length,
/// vocab]` in the type of `logits`.
pub fn one_hot<'g>(labels: Tensor<'g>, logits: Tensor<'g>) -> Tensor<'g> {
    let ids = token_ids(logits);
    ids.equal(labels.expand_dims(&[2])).convert(logits.dtype())
}

/// The score of the token `ids [rows]` in each row of `scores [rows, vocab]`.
pub fn token_scores<'g>(scores: Tensor<'g>, ids: Tensor<'g>) -> Tensor<'g> {
    let tokens = scores
        .graph()
        .iota(Shape::new(DType::S32, scores.dims()), 1);
    let is_it = tokens.equal(ids.expand_dims(&[1]));
    is_it.select(scores, scores.zeros_like()).sum(&[1])
}
