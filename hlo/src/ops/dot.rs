//! Dot products, and the field's notation for them.

use crate::graph::{Graph, Tensor};
use crate::op::{DotDims, Op, Precision};
use crate::shape::{DType, Shape};

impl<'g> Tensor<'g> {
    /// The general dot product: batch dimensions, then this tensor's other dimensions, then `other`'s. The result has the
    /// operands' element type, or `dtype` where a wider accumulation is to be kept.
    #[track_caller]
    pub fn dot_general(
        self,
        other: Tensor<'g>,
        dims: DotDims,
        precision: Precision,
        dtype: Option<DType>,
    ) -> Tensor<'g> {
        let (a, b) = (self.shape(), other.shape());
        let dtype = dtype.unwrap_or(a.dtype);
        let widens = dtype.is_float() == a.dtype.is_float() && dtype != DType::Pred;
        let Some(out) = dims.result(&a, &b).filter(|_| widens) else {
            let problem = format!(
                "{a} and {b} do not multiply to {} by {dims:?}",
                dtype.name()
            );
            return self.graph().refuse("dot", problem);
        };
        let shape = Shape::new(dtype, out);
        self.graph()
            .emit(Op::Dot { dims, precision }, &[self, other], shape)
    }
}

impl Graph {
    /// Einstein's sum of two tensors: `einsum("bqhk,bshk->bhqs", q, k)`. A letter in both inputs and the output is a batch
    /// dimension; one in both inputs only is summed over; any other is kept from its input.
    #[track_caller]
    pub fn einsum<'g>(&'g self, equation: &str, x: Tensor<'g>, y: Tensor<'g>) -> Tensor<'g> {
        self.einsum_with(equation, x, y, Precision::Default, None)
    }

    /// [`Graph::einsum`] with the precision and the result's element type chosen.
    #[track_caller]
    pub fn einsum_with<'g>(
        &'g self,
        equation: &str,
        x: Tensor<'g>,
        y: Tensor<'g>,
        precision: Precision,
        dtype: Option<DType>,
    ) -> Tensor<'g> {
        let Some((dims, permutation)) = parse(equation, x.rank(), y.rank()) else {
            return self.refuse(
                "einsum",
                format!(
                    "`{equation}` does not describe {} and {}",
                    x.shape(),
                    y.shape()
                ),
            );
        };
        x.dot_general(y, dims, precision, dtype)
            .transpose(&permutation)
    }
}

impl DotDims {
    /// The result's dimensions, if the operands suit each other.
    fn result(&self, a: &Shape, b: &Shape) -> Option<Vec<i64>> {
        let pairs = |l: &[i64], r: &[i64]| {
            l.len() == r.len()
                && l.iter().zip(r).all(|(&l, &r)| {
                    let size = |s: &Shape, i: i64| {
                        usize::try_from(i).ok().and_then(|i| s.dims.get(i).copied())
                    };
                    size(a, l).is_some() && size(a, l) == size(b, r)
                })
        };
        let distinct = |batch: &[i64], contract: &[i64]| {
            let mut all: Vec<i64> = batch.iter().chain(contract).copied().collect();
            all.sort_unstable();
            all.windows(2).all(|w| w[0] < w[1])
        };
        if a.dtype != b.dtype
            || !distinct(&self.lhs_batch, &self.lhs_contract)
            || !distinct(&self.rhs_batch, &self.rhs_contract)
            || !pairs(&self.lhs_batch, &self.rhs_batch)
            || !pairs(&self.lhs_contract, &self.rhs_contract)
        {
            return None;
        }
        let lhs = free(a.rank(), &self.lhs_batch, &self.lhs_contract);
        let rhs = free(b.rank(), &self.rhs_batch, &self.rhs_contract);
        let batch = self.lhs_batch.iter().map(|&i| a.dims[i as usize]);
        let lhs = lhs.iter().map(|&i| a.dims[i as usize]);
        let rhs = rhs.iter().map(|&i| b.dims[i as usize]);
        Some(batch.chain(lhs).chain(rhs).collect())
    }

    /// The gradient of the left operand, given that of the result and the right operand.
    #[track_caller]
    pub(crate) fn grad_lhs<'g>(
        &self,
        dy: Tensor<'g>,
        rhs: Tensor<'g>,
        lhs: &Shape,
        precision: Precision,
    ) -> Tensor<'g> {
        let batch = self.lhs_batch.len() as i64;
        let lhs_free = free(lhs.rank(), &self.lhs_batch, &self.lhs_contract);
        let rhs_free = free(rhs.rank(), &self.rhs_batch, &self.rhs_contract);
        let first = batch + lhs_free.len() as i64;
        let dims = DotDims {
            lhs_batch: (0..batch).collect(),
            rhs_batch: self.rhs_batch.clone(),
            lhs_contract: (first..first + rhs_free.len() as i64).collect(),
            rhs_contract: rhs_free,
        };
        let product = dy.dot_general(rhs, dims, precision, Some(lhs.dtype));
        // The product's dimensions are those of the left operand in this order; the contracted ones come as they stand in
        // the right operand.
        let mut contracted: Vec<(i64, i64)> = self
            .rhs_contract
            .iter()
            .copied()
            .zip(self.lhs_contract.iter().copied())
            .collect();
        contracted.sort_unstable();
        let order: Vec<i64> = self
            .lhs_batch
            .iter()
            .copied()
            .chain(lhs_free)
            .chain(contracted.into_iter().map(|c| c.1))
            .collect();
        product.transpose(&inverse(&order))
    }

    /// The gradient of the right operand, given the left operand and the gradient of the result.
    #[track_caller]
    pub(crate) fn grad_rhs<'g>(
        &self,
        lhs: Tensor<'g>,
        dy: Tensor<'g>,
        rhs: &Shape,
        precision: Precision,
    ) -> Tensor<'g> {
        let batch = self.lhs_batch.len() as i64;
        let lhs_free = free(lhs.rank(), &self.lhs_batch, &self.lhs_contract);
        let rhs_free = free(rhs.rank(), &self.rhs_batch, &self.rhs_contract);
        let dims = DotDims {
            lhs_batch: self.lhs_batch.clone(),
            rhs_batch: (0..batch).collect(),
            rhs_contract: (batch..batch + lhs_free.len() as i64).collect(),
            lhs_contract: lhs_free,
        };
        let product = lhs.dot_general(dy, dims, precision, Some(rhs.dtype));
        // As in `grad_lhs`, the contracted dimensions come as they stand in the left operand.
        let mut contracted: Vec<(i64, i64)> = self
            .lhs_contract
            .iter()
            .copied()
            .zip(self.rhs_contract.iter().copied())
            .collect();
        contracted.sort_unstable();
        let order: Vec<i64> = self
            .rhs_batch
            .iter()
            .copied()
            .chain(contracted.into_iter().map(|c| c.1))
            .chain(rhs_free)
            .collect();
        product.transpose(&inverse(&order))
    }
}

/// The dimensions that are neither batch nor contracted.
pub(crate) fn free(rank: usize, batch: &[i64], contract: &[i64]) -> Vec<i64> {
    (0..rank as i64)
        .filter(|i| !batch.contains(i) && !contract.contains(i))
        .collect()
}

/// The permutation that undoes `order`.
pub(crate) fn inverse(order: &[i64]) -> Vec<i64> {
    let mut out = vec![0; order.len()];
    for (i, &o) in order.iter().enumerate() {
        out[o as usize] = i as i64;
    }
    out
}

/// Reads `ab,bc->ac` into the dot's dimensions and the permutation of its result.
fn parse(equation: &str, x_rank: usize, y_rank: usize) -> Option<(DotDims, Vec<i64>)> {
    let (inputs, output) = equation.split_once("->")?;
    let (x, y) = inputs.split_once(',')?;
    let (x, y, output): (Vec<char>, Vec<char>, Vec<char>) = (
        x.trim().chars().collect(),
        y.trim().chars().collect(),
        output.trim().chars().collect(),
    );
    let distinct = |s: &[char]| {
        s.iter()
            .enumerate()
            .all(|(i, c)| c.is_ascii_alphabetic() && !s[..i].contains(c))
    };
    if x.len() != x_rank
        || y.len() != y_rank
        || !distinct(&x)
        || !distinct(&y)
        || !distinct(&output)
    {
        return None;
    }
    let place = |s: &[char], c: char| s.iter().position(|&d| d == c).map(|i| i as i64);
    let mut dims = DotDims::default();
    let mut result = Vec::new();
    for (i, &c) in x.iter().enumerate() {
        if let Some(j) = place(&y, c) {
            let (lhs, rhs) = if output.contains(&c) {
                result.push(c);
                (&mut dims.lhs_batch, &mut dims.rhs_batch)
            } else {
                (&mut dims.lhs_contract, &mut dims.rhs_contract)
            };
            lhs.push(i as i64);
            rhs.push(j);
        }
    }
    result.extend(x.iter().filter(|c| !y.contains(c)));
    result.extend(y.iter().filter(|c| !x.contains(c)));
    let permutation: Vec<i64> = output
        .iter()
        .map(|&c| place(&result, c))
        .collect::<Option<_>>()?;
    (permutation.len() == result.len()).then_some((dims, permutation))
}
