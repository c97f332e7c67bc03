//! Reading and adding to rows of a table by index, which is what embeddings need of XLA's gather
//! and scatter.

use crate::graph::Tensor;
use crate::ir::Op;
use crate::shape::{DType, Shape};

impl<'g> Tensor<'g> {
    /// Row `indices[i..]` of this table `[rows, rest..]`: `[indices.., rest..]`. An index out of
    /// range is clamped.
    #[track_caller]
    pub fn gather_rows(self, indices: Tensor<'g>) -> Tensor<'g> {
        let (table, at) = (self.shape(), indices.shape());
        if table.rank() == 0 || at.dtype != DType::S32 {
            return self.graph().refuse(
                "gather",
                format!("{at} does not index the rows of {table}; indices are s32"),
            );
        }
        let dims: Vec<i64> = at.dims.iter().chain(&table.dims[1..]).copied().collect();
        self.graph().emit(
            Op::GatherRows,
            &[self, indices],
            Shape::new(table.dtype, dims),
        )
    }

    /// This table `[rows, rest..]` with `updates` `[indices.., rest..]` added to the rows `indices`
    /// name; what is out of range is dropped.
    #[track_caller]
    pub fn scatter_add_rows(self, indices: Tensor<'g>, updates: Tensor<'g>) -> Tensor<'g> {
        let (table, at, new) = (self.shape(), indices.shape(), updates.shape());
        let fits = table.rank() > 0
            && at.dtype == DType::S32
            && new.dtype == table.dtype
            && new.dims.iter().eq(at.dims.iter().chain(&table.dims[1..]));
        if !fits {
            return self.graph().refuse(
                "scatter",
                format!("{new} at {at} does not add to the rows of {table}"),
            );
        }
        self.graph()
            .emit(Op::ScatterAddRows, &[self, indices, updates], table)
    }
}
