//! The largest elements of rows.

use ankh_hlo::{DType, ScanOptions, Shape, Tensor};

/// Less than any score.
const TAKEN: f64 = f32::MIN as f64;

/// The first index of the largest element of each row: s32 `[batch]` of `[batch, width]`.
pub(super) fn argmax<'g>(x: Tensor<'g>) -> Tensor<'g> {
    let g = x.graph();
    let places = g.iota(Shape::new(DType::S32, x.dims()), 1);
    let largest = x.equal(x.max(&[1]).expand_dims(&[1]));
    let nowhere = g.scalar(DType::S32, x.dim(1) as f64 - 1.0);
    largest.select(places, nowhere).min(&[1])
}

/// The places of the `k` largest keys of each row, the largest first, and of equals the first one
/// first: s32 `[batch, k]`, with the `values` there. Both are float32 `[batch, width]`.
///
/// One after the other: `k` passes over short rows take less than sorting them all.
pub(super) fn top_k<'g>(keys: Tensor<'g>, values: Tensor<'g>, k: i64) -> (Tensor<'g>, Tensor<'g>) {
    let g = keys.graph();
    let options = ScanOptions {
        length: Some(k),
        ..Default::default()
    };
    let (_, found) = g.scan(options, &[keys], &[], |left, _| {
        let place = argmax(left[0]);
        let places = g.iota(Shape::new(DType::S32, left[0].dims()), 1);
        let is_it = places.equal(place.expand_dims(&[1]));
        let value = is_it.select(values, values.zeros_like()).sum(&[1]);
        let left = is_it.select(left[0].full_like(TAKEN), left[0]);
        (vec![left], vec![value, place])
    });
    let by_row = |x: Tensor<'g>| x.transpose(&[1, 0]);
    (by_row(found[0]), by_row(found[1]))
}

/// Of each group of rows those at `places`: `[batch, k, ..]` of `x [batch, n, ..]` and s32 `places
/// [batch, k]`.
pub(super) fn gather<'g>(x: Tensor<'g>, places: Tensor<'g>) -> Tensor<'g> {
    let dims = x.dims();
    let rows: Vec<i64> = [&[dims[0] * dims[1]], &dims[2..]].concat();
    x.reshape(&rows).gather_rows(rows_of(places, dims[1]))
}

/// The numbers of rows among all groups, of places in groups of `n` rows.
pub(super) fn rows_of(places: Tensor<'_>, n: i64) -> Tensor<'_> {
    let first = places.graph().iota(places.shape(), 0) * places.full_like(n as f64);
    places + first
}
