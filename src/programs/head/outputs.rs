//! What a head gives for the states of the ConvBERT layer, and what it costs.

use ankh_hlo::{DType, Shape, Tensor};

use super::HeadKind;
use super::convbert::{linear, parameter};
use crate::model::LogicalAxis::{self, Batch, Embed, Length};
use crate::model::{Initializer, Parameter};

/// The last linear layer is drawn from U(-this, this).
const BOUND: f64 = 0.1;

/// Pairs of residues nearer than this in the sequence are not predicted.
pub const LEAST_SEPARATION: usize = 6;

impl HeadKind {
    /// The last linear layer, its weight `[d, outputs]` and its bias.
    pub(super) fn parameters(self, width: usize) -> Vec<Parameter> {
        let (outputs, bias) = match self {
            HeadKind::Residues { classes } | HeadKind::Sequence { classes } => (classes, 0.0),
            HeadKind::Value { mean } => (1, mean),
            // "No contact" and "contact".
            HeadKind::Pairs => (2, 0.0),
        };
        let (width, outputs) = (width as i64, outputs as i64);
        let weight = Initializer::Uniform(BOUND);
        vec![
            parameter("classifier.weight", &[width, outputs], weight),
            parameter("classifier.bias", &[outputs], Initializer::Constant(bias)),
        ]
    }

    /// The shape of labels and what its dimensions are.
    pub(super) fn labels(self, rows: i64, length: i64) -> (Shape, Vec<LogicalAxis>) {
        match self {
            HeadKind::Residues { .. } => {
                (Shape::new(DType::S32, [rows, length]), vec![Batch, Length])
            }
            HeadKind::Sequence { .. } => (Shape::new(DType::S32, [rows]), vec![Batch]),
            HeadKind::Value { .. } => (Shape::new(DType::F32, [rows]), vec![Batch]),
            HeadKind::Pairs => (
                Shape::new(DType::S32, [rows, length, length]),
                vec![Batch, Length, Length],
            ),
        }
    }

    /// What the head gives, as [`HeadKind`] says, for `states` `[rows, length, d]` and `mask` s32
    /// `[rows, length]`.
    pub(super) fn outputs<'g>(
        self,
        weight: Tensor<'g>,
        bias: Tensor<'g>,
        states: Tensor<'g>,
        mask: Tensor<'g>,
    ) -> Tensor<'g> {
        match self {
            HeadKind::Residues { .. } => linear(states, weight) + bias,
            HeadKind::Sequence { .. } => pooled(weight, bias, states, mask),
            HeadKind::Value { .. } => {
                let values = pooled(weight, bias, states, mask);
                values.reshape(&[states.dim(0)])
            }
            HeadKind::Pairs => pairs(weight, bias, states),
        }
    }

    /// The mean cost of `outputs` over what has a label; 0 where nothing has.
    pub(super) fn loss<'g>(
        self,
        outputs: Tensor<'g>,
        labels: Tensor<'g>,
        mask: Tensor<'g>,
    ) -> Tensor<'g> {
        let known = labels.greater_equal(labels.zeros_like());
        let (costs, counted) = match self {
            HeadKind::Residues { .. } | HeadKind::Sequence { .. } => {
                (cross_entropy(outputs, labels), known)
            }
            HeadKind::Value { .. } => {
                let is_residue = mask.not_equal(mask.zeros_like());
                let residues = is_residue.convert(DType::F32).sum(&[1]);
                let is_sequence = residues.greater(residues.zeros_like());
                ((outputs - labels).square(), is_sequence)
            }
            HeadKind::Pairs => {
                let shape = Shape::new(DType::S32, labels.dims());
                let g = labels.graph();
                let apart = (g.iota(shape.clone(), 1) - g.iota(shape, 2)).abs();
                let far = apart.greater_equal(apart.full_like(LEAST_SEPARATION as f64));
                (binary_cross_entropy(outputs, labels), known & far)
            }
        };
        let count = counted.convert(DType::F32).sum_all();
        let sum = counted.select(costs, costs.zeros_like()).sum_all();
        sum / count.maximum(count.full_like(1.0))
    }
}

/// The mean state of the residues of each row, in a linear layer: `[rows, outputs]`.
fn pooled<'g>(
    weight: Tensor<'g>,
    bias: Tensor<'g>,
    states: Tensor<'g>,
    mask: Tensor<'g>,
) -> Tensor<'g> {
    let g = states.graph();
    let is_residue = mask.not_equal(mask.zeros_like()).convert(DType::F32);
    let sums = g.einsum("rl,rld->rd", is_residue, states);
    let residues = is_residue.sum(&[1]).expand_dims(&[1]);
    let mean = sums / residues.maximum(residues.full_like(1.0));
    let mean = mean.with_logical_axes(&[Batch, Embed]);
    g.einsum("rd,de->re", mean, weight) + bias
}

/// The logit of a contact, `[rows, length, length]`.
///
/// The authors give a linear layer of two classes the features `[h_i * h_j, h_i - h_j]` of a pair
/// and take the mean of its logits for (i, j) and (j, i). The part of the difference changes its
/// sign with the order and cancels exactly, so that its weights neither count nor learn. What is
/// left is `sum_d h_id w_d h_jd`: one matrix product, and no array of pairs by units. Of two
/// classes only the difference of their logits counts. The weight stays `[d, 2]`, so that it learns
/// as theirs does: with one column the same gradients would move the difference half as far.
fn pairs<'g>(weight: Tensor<'g>, bias: Tensor<'g>, states: Tensor<'g>) -> Tensor<'g> {
    let width = weight.dim(0);
    let class = |x: Tensor<'g>, i| x.slice_dim(x.rank() - 1, i, i + 1);
    let weight = (class(weight, 1) - class(weight, 0)).reshape(&[width]);
    let bias = class(bias, 1) - class(bias, 0);
    let g = states.graph();
    g.einsum("rid,rjd->rij", states * weight, states) + bias
}

/// -ln softmax(logits)[label], for `logits` `[.., classes]` and `labels` s32 `[..]`; 0 where a
/// label is negative.
fn cross_entropy<'g>(logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let last = logits.rank() - 1;
    let classes = Shape::new(DType::S32, logits.dims());
    let classes = logits.graph().iota(classes, last);
    let is_label = classes.equal(labels.expand_dims(&[last as i64]));
    let log_shares = logits.log_softmax();
    -is_label
        .select(log_shares, log_shares.zeros_like())
        .sum(&[last as i64])
}

/// ln(1 + e^x) - x where the label is 1, ln(1 + e^x) where it is 0; exact for large logits x.
fn binary_cross_entropy<'g>(logits: Tensor<'g>, labels: Tensor<'g>) -> Tensor<'g> {
    let softplus = logits.maximum(logits.zeros_like()) + (-logits.abs()).exp().log1p();
    softplus - logits * labels.convert(DType::F32)
}
