//! The VJP of a dot product: two dot products.

use crate::graph::Tensor;
use crate::ir::DotDims;
use crate::ops::free;
use crate::shape::Shape;

impl DotDims {
    /// The cotangent of the left operand, given that of the result and the right operand.
    #[track_caller]
    pub(super) fn lhs_cotangent<'g>(
        &self,
        dy: Tensor<'g>,
        rhs: Tensor<'g>,
        lhs: &Shape,
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
        let product = dy.dot_general(rhs, dims, Some(lhs.dtype));
        let contracted = in_order_of(&self.rhs_contract, &self.lhs_contract);
        product.transpose(&inverse(
            &[&self.lhs_batch[..], &lhs_free, &contracted].concat(),
        ))
    }

    /// The cotangent of the right operand, given the left operand and the cotangent of the result.
    #[track_caller]
    pub(super) fn rhs_cotangent<'g>(
        &self,
        lhs: Tensor<'g>,
        dy: Tensor<'g>,
        rhs: &Shape,
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
        let product = lhs.dot_general(dy, dims, Some(rhs.dtype));
        let contracted = in_order_of(&self.lhs_contract, &self.rhs_contract);
        product.transpose(&inverse(
            &[&self.rhs_batch[..], &contracted, &rhs_free].concat(),
        ))
    }
}

/// An operand's contracted dimensions in the order in which its product has them: that of the other
/// operand's, which they are paired with.
fn in_order_of(other: &[i64], own: &[i64]) -> Vec<i64> {
    let mut pairs: Vec<(i64, i64)> = other.iter().copied().zip(own.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|pair| pair.1).collect()
}

/// The permutation that undoes `order`.
pub(super) fn inverse(order: &[i64]) -> Vec<i64> {
    let mut out = vec![0; order.len()];
    for (i, &o) in order.iter().enumerate() {
        out[o as usize] = i as i64;
    }
    out
}
