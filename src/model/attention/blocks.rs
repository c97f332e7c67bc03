//! Attention of packed rows, a block of queries and a block of keys at a time.
//!
//! For each block of queries, a loop visits the blocks of keys that have positions of the same
//! segments, and no others. So a row of many sequences costs little more than the sequences alone,
//! a long one needs no array of all pairs, and one program serves sequences of all lengths. The
//! softmax is put together block by block, from a running maximum and a running sum (Milakov and
//! Gimelshein, 2018; Dao et al., 2022). The loops end where the data says, which suits a processor
//! that runs one operation after the other. They have no derivative.

use ankh_hlo::{DType, Graph, Literal, Shape, ShardMapAxes, Tensor};

use super::super::LogicalAxis::{Batch, Heads};
use super::super::position::{self, Direction};
use super::{MASK_VALUE, Segments, accumulation_dtype};

/// Positions of a block, of which a row is a multiple. The scores of a few heads stay in a core's
/// own cache.
pub const BLOCK: i64 = 128;

/// What the running maximum begins with: less than each score, masked ones too.
const LOWEST: f64 = -1e30;

/// The relative bias of the encoder as [`block_weighted_sum`] takes it, from `table` `[buckets,
/// heads]`: `[2 reach + 1, heads, BLOCK, BLOCK]`, by how many blocks the keys are after the
/// queries, from -reach on. Further away all pairs are in the last bucket of their side, as they
/// are at the reach.
pub fn relative_by_blocks(table: Tensor<'_>, max_distance: usize) -> Tensor<'_> {
    let g = table.graph();
    let reach = reach(max_distance);
    let whole = position::bias(
        table,
        Direction::Bidirectional,
        max_distance,
        (reach + 1) * BLOCK,
    );
    let blocks: Vec<Tensor<'_>> = (-reach..=reach)
        .map(|after| {
            let (queries, keys) = ((-after).max(0) * BLOCK, after.max(0) * BLOCK);
            let block =
                whole
                    .slice_dim(1, queries, queries + BLOCK)
                    .slice_dim(2, keys, keys + BLOCK);
            block.expand_dims(&[0])
        })
        .collect();
    g.concatenate(&blocks, 0)
}

/// The least number of blocks between queries and keys at which all pairs are `max_distance` apart
/// or more.
fn reach(max_distance: usize) -> i64 {
    // The nearest pair of blocks that are n apart is (n - 1) BLOCK + 1 apart.
    max_distance.saturating_sub(1).div_ceil(BLOCK as usize) as i64 + 1
}

/// softmax(q k' + relative) v over the keys of each query's segment, for `q`, `k` and `v` of
/// `[batch, heads, length, kv]` and a bias that [`relative_by_blocks`] gave. In a row, segments are
/// numbered in ascending order and take up consecutive positions; padding comes last. What is
/// computed for padding is finite.
pub fn block_weighted_sum<'g>(
    [q, k, v]: [Tensor<'g>; 3],
    relative: Option<Tensor<'g>>,
    segments: Segments<'g>,
) -> Tensor<'g> {
    let g = q.graph();
    let length = q.dim(2);
    let problem = match (relative, segments.direction) {
        (_, Direction::Causal) => "all keys of a segment are seen, later ones too".into(),
        (None, _) => "there is no relative bias".into(),
        _ if length % BLOCK != 0 || k.dim(2) != length => {
            format!("{} queries and {} keys", length, k.dim(2))
        }
        (Some(relative), _) => {
            let of_heads: ShardMapAxes = vec![Some(Batch.into()), Some(Heads.into()), None, None];
            let operands = [
                (q, of_heads.clone()),
                (k, of_heads.clone()),
                (v, of_heads.clone()),
                (relative, vec![None, Some(Heads.into()), None, None]),
                (segments.queries, vec![Some(Batch.into()), None]),
            ];
            let results = g.shard_map("block_attention", &operands, &[of_heads], |x| {
                vec![of_shard([x[0], x[1], x[2]], x[3], x[4])]
            });
            return results[0];
        }
    };
    g.refuse("block_attention", problem)
}

/// [`block_weighted_sum`] of one device's rows and heads.
fn of_shard<'g>(
    [q, k, v]: [Tensor<'g>; 3],
    relative: Tensor<'g>,
    segments: Tensor<'g>,
) -> Tensor<'g> {
    let g = q.graph();
    let (batch, blocks) = (q.dim(0), q.dim(2) / BLOCK);
    let [first, end] = keys_of_queries(segments, blocks);
    let init = [integer(g, 0), v.zeros_like()];
    let all = |state: &[Tensor<'g>]| state[0].less(integer(g, batch * blocks));
    let out = g.while_loop(&init, all, |state| {
        let (number, out) = (state[0], state[1]);
        let row = number / integer(g, blocks);
        let block = number - row * integer(g, blocks);
        let place = Place { row, block };
        let range = [first, end].map(|of| of.dynamic_slice(&[row, block], &[1, 1]).reshape(&[]));
        let o = of_block([q, k, v], relative, segments, place, range);
        let zero = integer(g, 0);
        let start = [row, zero, block * integer(g, BLOCK), zero];
        let out = out.dynamic_update_slice(o.expand_dims(&[0]), &start);
        vec![number + integer(g, 1), out]
    });
    out[1]
}

/// A block of a row.
#[derive(Clone, Copy)]
struct Place<'g> {
    row: Tensor<'g>,
    block: Tensor<'g>,
}

impl<'g> Place<'g> {
    /// That block of `x [batch, heads, length, kv]`: `[heads, BLOCK, kv]`.
    fn of(self, x: Tensor<'g>) -> Tensor<'g> {
        let g = x.graph();
        let (heads, kv, zero) = (x.dim(1), x.dim(3), integer(g, 0));
        let start = [self.row, zero, self.block * integer(g, BLOCK), zero];
        x.dynamic_slice(&start, &[1, heads, BLOCK, kv])
            .reshape(&[heads, BLOCK, kv])
    }

    /// Its segments, of `[batch, length]`: `[BLOCK]`.
    fn segments(self, segments: Tensor<'g>) -> Tensor<'g> {
        let start = [self.row, self.block * integer(segments.graph(), BLOCK)];
        segments
            .dynamic_slice(&start, &[1, BLOCK])
            .reshape(&[BLOCK])
    }
}

/// The result of one block of queries, `[heads, BLOCK, kv]`, from the blocks of keys in a range.
fn of_block<'g>(
    [q, k, v]: [Tensor<'g>; 3],
    relative: Tensor<'g>,
    segments: Tensor<'g>,
    queries: Place<'g>,
    [first, end]: [Tensor<'g>; 2],
) -> Tensor<'g> {
    let g = q.graph();
    let wide = accumulation_dtype(q.dtype());
    let (heads, kv) = (q.dim(1), q.dim(3));
    let own = queries.of(q);
    let own_segments = queries.segments(segments).expand_dims(&[0, 2]);
    let constant = |dims: &[i64], value| {
        let scalar = g.literal(Literal::scalar(wide, value));
        scalar.broadcast_in_dims(dims, &[])
    };
    let init = [
        first,
        constant(&[heads, BLOCK, 1], LOWEST),
        constant(&[heads, BLOCK, 1], 0.0),
        constant(&[heads, BLOCK, kv], 0.0),
    ];
    let left = |state: &[Tensor<'g>]| state[0].less(end);
    let last = g.while_loop(&init, left, |state| {
        let (block, max, sum, o) = (state[0], state[1], state[2], state[3]);
        let keys = Place {
            row: queries.row,
            block,
        };
        let scores = g.einsum_with("hqk,hsk->hqs", own, keys.of(k), Some(wide));
        let scores = scores + bias(relative, block - queries.block);
        let seen = own_segments.equal(keys.segments(segments).expand_dims(&[0, 1]));
        let scores = seen.select(scores, scores.full_like(MASK_VALUE));
        let next = max.maximum(scores.max(&[2]).expand_dims(&[2]));
        // A query that has not seen its own segment yet has a masked maximum, and so weights that
        // mean nothing. Its first key of that segment makes this factor 0.
        let rescaled = (max - next).exp();
        let weights = (scores - next).exp();
        let sum = sum * rescaled + weights.sum(&[2]).expand_dims(&[2]);
        let values = keys.of(v);
        let weighted = g.einsum_with(
            "hqs,hsk->hqk",
            weights.convert(values.dtype()),
            values,
            Some(wide),
        );
        vec![block + integer(g, 1), next, sum, o * rescaled + weighted]
    });
    // Blocks of padding see no keys: 0 of 0.
    let sum = last[2].maximum(last[2].full_like(f32::MIN_POSITIVE.into()));
    (last[3] / sum).convert(v.dtype())
}

/// The bias `[heads, BLOCK, BLOCK]` of keys so many blocks after the queries.
fn bias<'g>(relative: Tensor<'g>, after: Tensor<'g>) -> Tensor<'g> {
    let g = relative.graph();
    let (last, heads) = (relative.dim(0) - 1, relative.dim(1));
    let index = (after + integer(g, last / 2))
        .maximum(integer(g, 0))
        .minimum(integer(g, last));
    let zero = integer(g, 0);
    relative
        .dynamic_slice(&[index, zero, zero, zero], &[1, heads, BLOCK, BLOCK])
        .reshape(&[heads, BLOCK, BLOCK])
}

/// For each block of queries the first block of keys that has positions of the same segments, and
/// the one after the last: s32 `[batch, blocks]` both. There are none for a block of padding.
fn keys_of_queries(segments: Tensor<'_>, blocks: i64) -> [Tensor<'_>; 2] {
    let g = segments.graph();
    let numbers = segments.reshape(&[segments.dim(0), blocks, BLOCK]);
    let is_token = numbers.not_equal(numbers.zeros_like());
    let most = numbers.full_like(i32::MAX.into());
    let lowest = is_token.select(numbers, most).min(&[2]);
    let highest = numbers.max(&[2]);
    // [batch, blocks of queries, blocks of keys]; the numbers of a block are consecutive.
    let overlap = lowest
        .expand_dims(&[1])
        .less_equal(highest.expand_dims(&[2]))
        & highest
            .expand_dims(&[1])
            .greater_equal(lowest.expand_dims(&[2]));
    let key = g.iota(Shape::new(DType::S32, overlap.dims().to_vec()), 2);
    let none = key.full_like(blocks as f64);
    let first = overlap.select(key, none).min(&[2]);
    let after = key + key.full_like(1.0);
    let end = overlap.select(after, key.zeros_like()).max(&[2]);
    [first, end]
}

fn integer(g: &Graph, value: i64) -> Tensor<'_> {
    g.literal(Literal::scalar(DType::S32, value as f64))
}
