//! Reductions over dimensions, and what is built of them.

use crate::graph::Tensor;
use crate::ir::{Op, Reduction};
use crate::shape::{DType, Shape, Size};

impl<'g> Tensor<'g> {
    /// The sum over `dims`, which are removed.
    #[track_caller]
    pub fn sum(self, dims: &[i64]) -> Tensor<'g> {
        self.reduce(Reduction::Sum, dims)
    }

    /// The largest over `dims`, which are removed.
    #[track_caller]
    pub fn max(self, dims: &[i64]) -> Tensor<'g> {
        self.reduce(Reduction::Max, dims)
    }

    /// The smallest over `dims`, which are removed.
    #[track_caller]
    pub fn min(self, dims: &[i64]) -> Tensor<'g> {
        self.reduce(Reduction::Min, dims)
    }

    /// The sum of all elements.
    #[track_caller]
    pub fn sum_all(self) -> Tensor<'g> {
        self.sum(&(0..self.rank() as i64).collect::<Vec<_>>())
    }

    /// The mean over `dims`, which are removed.
    #[track_caller]
    pub fn mean(self, dims: &[i64]) -> Tensor<'g> {
        if !self.dtype().is_float() {
            return self
                .graph()
                .refuse("mean", format!("not defined for {}", self.shape()));
        }
        let shape = self.shape();
        let size = |d: &i64| shape.dims.get(usize::try_from(*d).ok()?).copied();
        // A dimension that is not there is refused by the sum; others count no more than the array
        // has elements.
        let sizes: Vec<i64> = dims.iter().filter_map(size).collect();
        let count = Size::product(&sizes).get().unwrap_or(0);
        self.sum(dims) * (1.0 / count as f64)
    }

    /// The mean of all elements.
    #[track_caller]
    pub fn mean_all(self) -> Tensor<'g> {
        self.mean(&(0..self.rank() as i64).collect::<Vec<_>>())
    }

    /// Inserts dimensions of size 1 at `dims`, so that the result of a reduction over `dims`
    /// broadcasts against its input.
    #[track_caller]
    pub fn expand_dims(self, dims: &[i64]) -> Tensor<'g> {
        let mut shape = self.dims();
        let mut dims = dims.to_vec();
        dims.sort_unstable();
        for d in dims {
            if d < 0 || d as usize > shape.len() {
                return self.graph().refuse(
                    "expand_dims",
                    format!("{} has no place for dimension {d}", self.shape()),
                );
            }
            shape.insert(d as usize, 1);
        }
        self.reshape(&shape)
    }

    /// ln sum e^x over the last dimension, which is removed; exact for large elements.
    #[track_caller]
    pub fn log_sum_exp(self) -> Tensor<'g> {
        let last = [self.rank() as i64 - 1];
        let max = self.max(&last).stop_gradient();
        (self - max.expand_dims(&last)).exp().sum(&last).log() + max
    }

    /// ln of [`Tensor::softmax`]: `x - ln sum e^x` over the last dimension.
    #[track_caller]
    pub fn log_softmax(self) -> Tensor<'g> {
        let last = self.rank() as i64 - 1;
        self - self.log_sum_exp().expand_dims(&[last])
    }

    /// e^x / sum e^x over the last dimension.
    #[track_caller]
    pub fn softmax(self) -> Tensor<'g> {
        let last = [self.rank() as i64 - 1];
        let max = self.max(&last).stop_gradient().expand_dims(&last);
        let e = (self - max).exp();
        e / e.sum(&last).expand_dims(&last)
    }

    #[track_caller]
    pub(crate) fn reduce(self, kind: Reduction, dims: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        if !shape.has_dims(dims) || shape.dtype == DType::Pred {
            return self
                .graph()
                .refuse("reduce", format!("{shape} cannot be reduced over {dims:?}"));
        }
        if dims.is_empty() {
            return self;
        }
        let mut dims = dims.to_vec();
        dims.sort_unstable();
        let rest = (0..shape.rank())
            .filter(|i| !dims.contains(&(*i as i64)))
            .map(|i| shape.dims[i]);
        let to = Shape::new(shape.dtype, rest.collect::<Vec<_>>());
        self.graph().emit(Op::Reduce { kind, dims }, &[self], to)
    }
}
