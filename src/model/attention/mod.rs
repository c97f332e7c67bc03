//! Attention: softmax(q k' + bias) v, with a derivative written by hand.
//!
//! It is computed in one of three ways ([`AttentionImplementation`]): by a formula, in operations
//! that XLA fuses as it can (`formula`), by a kernel that keeps the scores in a core's own memory
//! (`kernel`), or block by block where rows are packed and nothing is derived (`blocks`). All are
//! the same function of the same inputs.

mod blocks;
mod formula;
mod kernel;

use ankh_hlo::{DType, Graph, Shape, Tensor};
use ankh_mosaic::Lowering;

use super::LogicalAxis::{self, Batch, Embed, Heads, Kv, Length};
use super::layers::{WeightAxes, project};
use super::lora::LayerAdapters;
use super::position::Direction;
use super::weights::Attention;

pub use blocks::{BLOCK, block_weighted_sum, relative_by_blocks};
pub use formula::{Scores, weighted_sum, weighted_sum_by};
pub use kernel::{kernel_weighted_sum, relative_for_kernel, suits_tpu};

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionImplementation {
    /// By operations on whole arrays of scores.
    Formula,
    /// By a kernel, lowered so.
    Kernel(Lowering),
    /// By loops over blocks of queries and keys: of an encoder alone, without a derivative.
    Blocks,
}

/// The score of a masked key, or what is added to it. It is so low that the key's weight is exactly
/// 0 in float32.
pub(super) const MASK_VALUE: f64 = -1e9;

const TO_HEADS: WeightAxes = [Embed, Heads];
const FROM_HEADS: WeightAxes = [Heads, Embed];

/// What changes the scores before the softmax.
#[derive(Clone, Copy)]
pub struct Bias<'g> {
    /// Learned, by relative position: `[heads, queries, keys]` for the formula; for a kernel what
    /// [`relative_for_kernel`] makes of it; for blocks what [`relative_by_blocks`] gives.
    pub relative: Option<Tensor<'g>>,
    /// Which of them are masked.
    pub mask: AttentionMask<'g>,
}

/// Which keys a query attends to.
#[derive(Clone, Copy)]
pub enum AttentionMask<'g> {
    /// A mask that is added to the scores: 0, or `MASK_VALUE` where a key is masked. It
    /// broadcasts to `[batch, heads, queries, keys]`.
    Additive(Tensor<'g>),
    /// Those of the query's own segment of the row. Only the segments' numbers are kept for the
    /// derivative: comparing them where the scores are computed costs less than reading a mask of
    /// all pairs.
    Segments(Segments<'g>),
}

/// Which segment of its row each position belongs to.
#[derive(Clone, Copy)]
pub struct Segments<'g> {
    /// s32 `[batch, queries]`: the number of the segment, 0 on padding.
    pub queries: Tensor<'g>,
    /// s32 `[batch, keys]`, likewise.
    pub keys: Tensor<'g>,
    /// Whether a query attends to later keys of its segment.
    pub direction: Direction,
}

impl<'g> AttentionMask<'g> {
    /// The scores `[batch, heads, queries, keys]`, masked.
    ///
    /// Padding is segment 0 on both sides and attends to padding. What it computes is finite and
    /// reaches no token, so one comparison is enough.
    fn applied_to(self, scores: Tensor<'g>) -> Tensor<'g> {
        match self {
            AttentionMask::Additive(mask) => scores + mask.convert(scores.dtype()),
            AttentionMask::Segments(Segments {
                queries,
                keys,
                direction,
            }) => {
                let own = queries
                    .expand_dims(&[1, 3])
                    .equal(keys.expand_dims(&[1, 2]));
                let seen = match direction {
                    Direction::Bidirectional => own,
                    Direction::Causal => {
                        let grid = Shape::new(DType::S32, [1, 1, queries.dim(1), keys.dim(1)]);
                        let g = scores.graph();
                        own & g.iota(grid.clone(), 3).less_equal(g.iota(grid, 2))
                    }
                };
                seen.select(scores, scores.full_like(MASK_VALUE))
            }
        }
    }

    /// Its tensors, and the direction where it has segments.
    fn tensors(self) -> (Vec<Tensor<'g>>, Option<Direction>) {
        match self {
            AttentionMask::Additive(mask) => (vec![mask], None),
            AttentionMask::Segments(of) => (vec![of.queries, of.keys], Some(of.direction)),
        }
    }

    /// What [`AttentionMask::tensors`] gave, perhaps of another program.
    fn of_tensors(tensors: &[Tensor<'g>], direction: Option<Direction>) -> Self {
        match direction {
            None => AttentionMask::Additive(tensors[0]),
            Some(direction) => AttentionMask::Segments(Segments {
                queries: tensors[0],
                keys: tensors[1],
                direction,
            }),
        }
    }
}

/// The additive mask `[batch, 1, 1, keys]` of padding, for keys `[batch, keys]` that are 1 where
/// there is a token.
pub fn key_mask<'g>(tokens: Tensor<'g>) -> Tensor<'g> {
    let hidden = tokens.equal(tokens.zeros_like()).convert(DType::F32) * MASK_VALUE;
    hidden.expand_dims(&[1, 2])
}

/// The additive mask of the keys after each query: `[1, 1, length, length]`.
pub fn causal_mask<'g>(graph: &'g Graph, length: i64) -> Tensor<'g> {
    let grid = Shape::new(DType::S32, [1, 1, length, length]);
    let later = graph.iota(grid.clone(), 3).greater(graph.iota(grid, 2));
    later.convert(DType::F32) * MASK_VALUE
}

/// The element type of the scores and of sums over keys: float32, or float64 for float64 inputs.
pub(super) fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// Attention of `x [batch, queries, embed]` to `memory [batch, keys, embed]`. Where there are
/// `adapters`, the queries and the values are adapted. T5 does not scale the scores.
pub(super) fn attention<'g>(
    implementation: AttentionImplementation,
    p: &Attention<Tensor<'g>>,
    adapters: Option<LayerAdapters<'_, 'g>>,
    (x, memory): (Tensor<'g>, Tensor<'g>),
    heads: i64,
    bias: Bias<'g>,
) -> Tensor<'g> {
    let queries = || {
        let q = project(x, p.q, TO_HEADS);
        adapters.map_or(q, |adapters| adapters.query(x, q))
    };
    let values = || {
        let v = project(memory, p.v, TO_HEADS);
        adapters.map_or(v, |adapters| adapters.value(memory, v))
    };
    let split = |t: Tensor<'g>, order: [i64; 4], axes: [LogicalAxis; 4], name| {
        let (batch, length, inner) = (t.dim(0), t.dim(1), t.dim(2));
        let t = t.reshape(&[batch, length, heads, inner / heads]);
        let t = t.transpose(&order).with_logical_axes(&axes);
        t.checkpoint_name(name)
    };
    let operands = |order, axes| {
        [
            split(queries(), order, axes, "query"),
            split(project(memory, p.k, TO_HEADS), order, axes, "key"),
            split(values(), order, axes, "value"),
        ]
    };
    let o = match (implementation, bias.mask) {
        (AttentionImplementation::Formula, _) => {
            let [q, k, v] = operands([0, 2, 1, 3], [Batch, Heads, Length, Kv]);
            weighted_sum(q, k, v, bias).transpose(&[0, 2, 1, 3])
        }
        (AttentionImplementation::Kernel(lowering), AttentionMask::Segments(segments)) => {
            // The order in which XLA lays out such arrays on a TPU, so that no copies are made.
            let qkv = operands([0, 2, 3, 1], [Batch, Heads, Kv, Length]);
            let o = kernel_weighted_sum(lowering, qkv, bias.relative, segments);
            o.transpose(&[0, 3, 1, 2])
        }
        (AttentionImplementation::Blocks, AttentionMask::Segments(segments)) => {
            let qkv = operands([0, 2, 1, 3], [Batch, Heads, Length, Kv]);
            block_weighted_sum(qkv, bias.relative, segments).transpose(&[0, 2, 1, 3])
        }
        (_, AttentionMask::Additive(_)) => {
            let problem = "kernels and blocks take segments, not a mask that is added".into();
            return x.graph().refuse("attention", problem);
        }
    };
    let inner = o.dim(2) * o.dim(3);
    project(o.reshape(&[x.dim(0), x.dim(1), inner]), p.o, FROM_HEADS)
}
