//! Attention by TPU kernels.
//!
//! A place on the grid is one head of a few sequences, and a block of their queries where the
//! scores of all would not fit. Several sequences share what a place costs in any case, and while
//! the scores of one are in the matrix unit, the softmax of another has the vector unit. All keys
//! of a place are in VMEM at once, so its softmax is exact, without a running maximum. The scores
//! lie transposed, `[keys, queries]`: then the softmax reduces over sublanes, which costs a
//! fraction of a reduction over lanes, and `[batch, heads, kv, length]` is how XLA lays out the
//! operands anyway.
//!
//! The backward pass computes the weights again from the logarithm of their sums, as the formula's
//! does. The gradient of the relative bias is added up over the sequences in VMEM. With several
//! blocks of queries it has a kernel of its own, because the gradients of keys and values are then
//! added up over the blocks, and only one of the two can be innermost.

mod bodies;
mod sizes;

use ankh_hlo::{AxisName, Graph, ShardMapAxes, Tensor};
use ankh_mosaic::Lowering;

use super::super::LogicalAxis::{self, Batch, Heads, Length};
use super::super::position::Direction;
use super::Segments;
use sizes::{BACKWARD_SCORES, FORWARD_SCORES, SCORES, Sizes, TILE};

/// Whether a TPU's kernels take heads of this size and so many queries and keys: whole tiles of
/// sublanes, and of lanes where the queries do not fit one place.
pub fn suits_tpu(kv: i64, queries: i64, keys: i64) -> bool {
    let whole = [kv, queries, keys].iter().all(|size| size % TILE.0 == 0);
    whole && (queries * keys <= SCORES || queries % TILE.1 == 0)
}

/// The relative bias `[heads, queries, keys]` as the kernels take it: `[copies, heads, keys,
/// queries]`, where each shard of the batch has a copy of its own. So has its gradient, and the
/// copies are summed over the devices once, after all layers.
pub fn relative_for_kernel(relative: Tensor<'_>) -> Tensor<'_> {
    let transposed = relative.transpose(&[0, 2, 1]);
    let copies = relative.graph().shards(Batch);
    let dims = [&[copies], &*transposed.dims()].concat();
    let each = transposed.broadcast_in_dims(&dims, &[1, 2, 3]);
    each.with_logical_axes(&[Batch, Heads, Length, Length])
}

/// softmax(q k' + relative) v over the keys of each query's segment, for `q`, `k` and `v` of
/// `[batch, heads, kv, length]` and a bias that [`relative_for_kernel`] gave.
pub fn kernel_weighted_sum<'g>(
    lowering: Lowering,
    [q, k, v]: [Tensor<'g>; 3],
    relative: Option<Tensor<'g>>,
    segments: Segments<'g>,
) -> Tensor<'g> {
    let direction = segments.direction;
    let g = q.graph();
    let mask = [
        segments.queries.expand_dims(&[1]),
        segments.keys.expand_dims(&[2]),
    ];
    let inputs: Vec<Tensor<'g>> = [q, k, v].into_iter().chain(relative).collect();
    let operands: Vec<Tensor<'g>> = inputs.iter().chain(&mask).copied().collect();
    let results = map_shards(g, "attention_forward", &operands, &[OPERAND, SUMS], |x| {
        let sizes = Sizes::of(x, direction, FORWARD_SCORES);
        sizes.forward().apply(lowering, x)
    });
    let o = results[0].checkpoint_name("attention_output");
    let log_sum = results[1].checkpoint_name("attention_log_sum");
    let count = inputs.len();
    let residuals: Vec<Tensor<'g>> = mask.into_iter().chain([log_sum]).collect();
    o.custom_vjp(&inputs, &residuals, move |operands, o, dy| {
        let all: Vec<_> = operands.iter().copied().chain([o, dy]).collect();
        let biased = count == 4;
        let mut results = vec![OPERAND; 3];
        results.extend(biased.then_some(BIAS));
        let g = dy.graph();
        map_shards(g, "attention_backward", &all, &results, |x| {
            let sizes = Sizes::of(x, direction, BACKWARD_SCORES);
            let kernels = sizes.backward();
            let parts = kernels.iter().map(|kernel| kernel.apply(lowering, x));
            parts.flatten().collect()
        })
    })
}

/// What splits each dimension of an array.
type Layout = [Option<LogicalAxis>; 4];

/// `[batch, heads, kv, length]`
const OPERAND: Layout = [Some(Batch), Some(Heads), None, None];
/// `[batch, heads, 1, queries]`
const SUMS: Layout = OPERAND;
/// `[copies, heads, keys, queries]`
const BIAS: Layout = OPERAND;

/// Applies `body` to each device's shards.
fn map_shards<'g>(
    g: &'g Graph,
    name: &str,
    operands: &[Tensor<'g>],
    results: &[Layout],
    body: impl FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Vec<Tensor<'g>> {
    let axes = |layout: &Layout| -> ShardMapAxes {
        let axes = layout.iter();
        axes.map(|axis| axis.map(AxisName::from)).collect()
    };
    let operands: Vec<(Tensor<'g>, ShardMapAxes)> = operands
        .iter()
        .map(|&t| match t.rank() {
            // A mask is the same for all heads.
            3 => (t, vec![Some(Batch.into()), None, None]),
            _ => (t, axes(&OPERAND)),
        })
        .collect();
    let results: Vec<ShardMapAxes> = results.iter().map(axes).collect();
    g.shard_map(name, &operands, &results, body)
}
