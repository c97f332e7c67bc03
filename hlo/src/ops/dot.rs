//! Dot products, and the field's notation for them.

use crate::graph::{Graph, Tensor};
use crate::ir::{DotDims, Op};
use crate::shape::{DType, Shape};

impl<'g> Tensor<'g> {
    /// The general dot product: batch dimensions, then this tensor's other dimensions, then
    /// `other`'s. The result has the operands' element type, or `dtype` where a wider accumulation
    /// is to be kept.
    #[track_caller]
    pub fn dot_general(self, other: Tensor<'g>, dims: DotDims, dtype: Option<DType>) -> Tensor<'g> {
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
        self.graph().emit(Op::Dot { dims }, &[self, other], shape)
    }
}

impl Graph {
    /// Einstein's sum of two tensors: `einsum("bqhk,bshk->bhqs", q, k)`. A letter in both inputs
    /// and the output is a batch dimension; one in both inputs only is summed over; any other is
    /// kept from its input.
    #[track_caller]
    pub fn einsum<'g>(&'g self, equation: &str, x: Tensor<'g>, y: Tensor<'g>) -> Tensor<'g> {
        self.einsum_with(equation, x, y, None)
    }

    /// [`Graph::einsum`] with the result's element type chosen.
    #[track_caller]
    pub fn einsum_with<'g>(
        &'g self,
        equation: &str,
        x: Tensor<'g>,
        y: Tensor<'g>,
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
        x.dot_general(y, dims, dtype).transpose(&permutation)
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
}

/// The dimensions that are neither batch nor contracted.
pub(crate) fn free(rank: usize, batch: &[i64], contract: &[i64]) -> Vec<i64> {
    (0..rank as i64)
        .filter(|i| !batch.contains(i) && !contract.contains(i))
        .collect()
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
