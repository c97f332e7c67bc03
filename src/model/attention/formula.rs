//! Attention by operations on whole arrays.
//!
//! The derivative of a softmax needs no more than its output. Instead of keeping that, which is
//! quadratic in the length, the forward pass leaves the logarithm of each row's denominator, from
//! which the backward pass computes the output again (as FlashAttention does: Dao et al., 2022).
//! With `P` the weights, `O = P V` and `dP = dO V'`: `dS = P * (dP - rowsum(dO * O))`.

use ankh_hlo::{DType, Tensor};

use super::super::LogicalAxis::Batch;
use super::{AttentionMask, Bias, accumulation_dtype};

/// How often the scores are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Once in each pass; whatever uses them reads them from memory.
    Keep,
    /// Again for each use, which the compiler then fuses with the product. On a matrix unit that
    /// takes less time than writing and reading float32 arrays of `[batch, heads, queries, keys]`.
    /// Those that are still written are in the inputs' type.
    Recompute,
}

impl Scores {
    /// The quicker way: `Recompute` where the matrix products are in a narrower type than the
    /// scores.
    fn quicker(dtype: DType) -> Scores {
        match dtype == accumulation_dtype(dtype) {
            true => Scores::Keep,
            false => Scores::Recompute,
        }
    }

    /// `q` again, after `before`. With `Recompute` the compiler cannot tell that it is the same.
    fn again<'g>(self, q: Tensor<'g>, before: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        match self {
            Scores::Keep => (q, before),
            Scores::Recompute => {
                let both = q.graph().optimization_barrier(&[q, before]);
                (both[0], both[1])
            }
        }
    }

    /// `x`, rounded to its type. Otherwise the compiler may keep a wider `x`, to save conversions.
    fn settled(self, x: Tensor<'_>) -> Tensor<'_> {
        match self {
            Scores::Keep => x,
            Scores::Recompute => x.graph().optimization_barrier(&[x])[0],
        }
    }

    /// The sum of `x [batch, heads, queries, keys]` over the batch, in the type of the scores. Up
    /// to eight sequences are added at a time: a reduction would write the whole sum for each one.
    fn sum_over_batch(self, x: Tensor<'_>) -> Tensor<'_> {
        let (g, wide, batch) = (x.graph(), accumulation_dtype(x.dtype()), x.dim(0));
        let together = [8, 4, 2]
            .into_iter()
            .find(|n| batch % n == 0 && g.splits_evenly(Batch, batch / n));
        let (Scores::Recompute, Some(n)) = (self, together) else {
            return x.convert(wide).sum(&[0]);
        };
        let rest = &x.dims()[1..];
        let groups = x.reshape(&[&[batch / n, n], rest].concat());
        let of_each_group = |i: i64| {
            let slice = groups.slice_dim(1, i, i + 1).convert(wide);
            slice.reshape(&[&[batch / n], rest].concat())
        };
        let sums = (1..n).fold(of_each_group(0), |sum, i| sum + of_each_group(i));
        sums.sum(&[0])
    }
}

/// softmax(q k' + bias) v, for `[batch, heads, length, kv]`. A query whose keys are all masked gets
/// some mean of the values. Its result and its gradients are finite but meaningless.
pub fn weighted_sum<'g>(q: Tensor<'g>, k: Tensor<'g>, v: Tensor<'g>, bias: Bias<'g>) -> Tensor<'g> {
    weighted_sum_by(Scores::quicker(q.dtype()), q, k, v, bias)
}

/// [`weighted_sum`], computed in the given way.
pub fn weighted_sum_by<'g>(
    way: Scores,
    q: Tensor<'g>,
    k: Tensor<'g>,
    v: Tensor<'g>,
    bias: Bias<'g>,
) -> Tensor<'g> {
    let scores = |q| scores(q, k, bias);
    let max = scores(q).max(&[3]).expand_dims(&[3]);
    let (again, max) = way.again(q, max);
    let sum = (scores(again) - max).exp().sum(&[3]).expand_dims(&[3]);
    let (again, sum) = way.again(again, sum);
    let weights = (scores(again) - max).exp();
    let log_sum = (max + sum.log()).checkpoint_name("attention_log_sum");
    // Dividing the sum instead of each weight saves a pass over the square array.
    let weighted = q.graph().einsum_with(
        "bhqs,bhsk->bhqk",
        weights.convert(v.dtype()),
        v,
        Some(accumulation_dtype(q.dtype())),
    );
    let o = (weighted / sum)
        .convert(v.dtype())
        .checkpoint_name("attention_output");
    let inputs: Vec<Tensor<'g>> = [q, k, v].into_iter().chain(bias.relative).collect();
    let (count, (mask, direction)) = (inputs.len(), bias.mask.tensors());
    let residuals: Vec<Tensor<'g>> = [log_sum].into_iter().chain(mask).collect();
    o.custom_vjp(&inputs, &residuals, move |operands, o, dy| {
        let (inputs, residuals) = operands.split_at(count);
        let bias = Bias {
            relative: inputs.get(3).copied(),
            mask: AttentionMask::of_tensors(&residuals[1..], direction),
        };
        gradient(way, inputs, bias, residuals[0], o, dy)
    })
}

/// The scores, at least in float32: `[batch, heads, queries, keys]`.
fn scores<'g>(q: Tensor<'g>, k: Tensor<'g>, bias: Bias<'g>) -> Tensor<'g> {
    let s = q
        .graph()
        .einsum_with("bhqk,bhsk->bhqs", q, k, Some(accumulation_dtype(q.dtype())));
    let s = match bias.relative {
        Some(r) => s + r,
        None => s,
    };
    bias.mask.applied_to(s)
}

/// The gradients of queries, keys, values and, where there is one, the relative bias.
fn gradient<'g>(
    way: Scores,
    inputs: &[Tensor<'g>],
    bias: Bias<'g>,
    log_sum: Tensor<'g>,
    o: Tensor<'g>,
    dy: Tensor<'g>,
) -> Vec<Tensor<'g>> {
    let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
    let g = q.graph();
    let weights = (scores(q, k, bias) - log_sum).exp();
    let wide = weights.dtype();
    let weights = way.settled(weights.convert(v.dtype()));
    let dweights = g.einsum_with("bhqk,bhsk->bhqs", dy, v, Some(wide));
    let row = (dy.convert(wide) * o.convert(wide))
        .sum(&[3])
        .expand_dims(&[3]);
    let dscores = weights.convert(wide) * (dweights - row);
    let dscores = way.settled(dscores.convert(q.dtype()));
    let dv = g.einsum("bhqs,bhqk->bhsk", weights, dy);
    let dq = g.einsum("bhqs,bhsk->bhqk", dscores, k);
    let dk = g.einsum("bhqs,bhqk->bhsk", dscores, q);
    let drelative = bias.relative.map(|_| way.sum_over_batch(dscores));
    [dq, dk, dv].into_iter().chain(drelative).collect()
}
