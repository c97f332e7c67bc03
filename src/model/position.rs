//! T5's relative positions: the distance from a query to a key falls into one of a few buckets,
//! exact for near keys and logarithmic for far ones, and each bucket has a learned bias per head.

use std::ops::Range;

use ankh_hlo::{DType, Graph, Literal, Shape, Tensor};

/// Which keys the queries of a stack attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those on both sides: the encoder. Each side has half of the buckets.
    Bidirectional,
    /// None at a later position than the query's: the decoder.
    Causal,
}

/// The bucket of a key `distance` positions after its query (negative: before), of `buckets` with
/// the last one from `max_distance` on. In float32, as `transformers` computes it, so that no
/// distance changes its bucket.
pub fn bucket(distance: i64, direction: Direction, buckets: usize, max_distance: usize) -> usize {
    let (offset, buckets, n) = match direction {
        Direction::Bidirectional => (
            if distance > 0 { buckets / 2 } else { 0 },
            buckets / 2,
            distance.unsigned_abs() as usize,
        ),
        Direction::Causal => (0, buckets, (-distance).max(0) as usize),
    };
    let exact = buckets / 2;
    if n < exact {
        return offset + n;
    }
    let share = (n as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    offset + (exact + (share * (buckets - exact) as f32) as usize).min(buckets - 1)
}

/// The bias of each head for each pair of query and key: `table` `[buckets, heads]` to `[heads,
/// length, length]`.
///
/// It depends on their distance alone, so it is read from the table once for each distance, as a
/// row that is then written shifted for each query. With distances in the order 0, 1, ..., -2, -1,
/// that row repeated without end has query q's biases from `q (2 length - 1)` on.
pub fn bias<'g>(
    table: Tensor<'g>,
    direction: Direction,
    max_distance: usize,
    length: i64,
) -> Tensor<'g> {
    let g: &Graph = table.graph();
    let (buckets, heads) = (table.dim(0), table.dim(1));
    let distances = (0..length).chain(-length..0);
    let of_distances: Vec<i32> = distances
        .map(|distance| bucket(distance, direction, buckets as usize, max_distance) as i32)
        .collect();
    let around = 2 * length;
    let of_distances = Literal::s32(&[around, 1], &of_distances).expect("one bucket a distance");
    let buckets = g.iota(Shape::new(DType::S32, [around, buckets]), 1);
    let one_hot = g
        .literal(of_distances)
        .equal(buckets)
        .convert(table.dtype());
    let row = g.einsum("dn,nh->hd", one_hot, table);
    row.broadcast_in_dims(&[heads, length, around], &[0, 2])
        .reshape(&[heads, length * around])
        .slice_dim(1, 0, length * (around - 1))
        .reshape(&[heads, length, around - 1])
        .slice_dim(2, 0, length)
}

/// [`bias`] for a matrix unit.
///
/// A bucket is an interval of distances, so "which bucket" is two comparisons, and reading the
/// table is a product with the resulting 0-1 array: quick on a matrix unit, and so is its
/// derivative, where a gather's would be a scatter.
pub fn bias_by_products<'g>(
    table: Tensor<'g>,
    direction: Direction,
    max_distance: usize,
    length: i64,
) -> Tensor<'g> {
    bias_from(table, direction, max_distance, 0, length, length)
}

/// [`bias`] for queries from `first_query` on.
pub fn bias_from<'g>(
    table: Tensor<'g>,
    direction: Direction,
    max_distance: usize,
    first_query: i64,
    queries: i64,
    keys: i64,
) -> Tensor<'g> {
    let g: &Graph = table.graph();
    let buckets = table.dim(0);
    let distances = (1 - queries - first_query)..keys;
    let (first, last) = intervals(direction, buckets as usize, max_distance, distances);
    let ends = |values: &[i32]| {
        let literal = Literal::s32(&[buckets], values).expect("one end a bucket");
        g.literal(literal)
            .broadcast_in_dims(&[queries, keys, buckets], &[2])
    };
    let grid = Shape::new(DType::S32, [queries, keys, buckets]);
    let distance = g.iota(grid.clone(), 1) - g.iota(grid, 0);
    let distance = match first_query {
        0 => distance,
        first => distance - distance.full_like(first as f64),
    };
    let inside = distance.greater_equal(ends(&first)) & distance.less_equal(ends(&last));
    let one_hot = inside.convert(table.dtype());
    g.einsum("qkn,nh->hqk", one_hot, table)
}

/// The first and last distance of each bucket, among those that occur; an empty bucket ends before
/// it begins.
fn intervals(
    direction: Direction,
    buckets: usize,
    max_distance: usize,
    distances: Range<i64>,
) -> (Vec<i32>, Vec<i32>) {
    let (mut first, mut last) = (vec![1; buckets], vec![0; buckets]);
    for distance in distances {
        let b = bucket(distance, direction, buckets, max_distance);
        if first[b] > last[b] {
            first[b] = distance as i32;
        }
        last[b] = distance as i32;
    }
    (first, last)
}
