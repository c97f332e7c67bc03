//! Operations that move elements without changing them.

use crate::graph::{Graph, Tensor, shapes};
use crate::ir::{Op, PadDim};
use crate::shape::{DType, Shape, Size, list};

impl<'g> Tensor<'g> {
    /// Repeats the tensor to `dims`; input dimension `i` becomes output dimension `mapping[i]`, of
    /// the same size.
    #[track_caller]
    pub fn broadcast_in_dims(self, dims: &[i64], mapping: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        if shape.dims == dims && mapping.iter().enumerate().all(|(i, &m)| i as i64 == m) {
            return self;
        }
        let fits = mapping.len() == shape.rank()
            && mapping.windows(2).all(|w| w[0] < w[1])
            && mapping
                .iter()
                .zip(&shape.dims)
                .all(|(&m, d)| m >= 0 && dims.get(m as usize) == Some(d));
        if !fits {
            return self.graph().refuse(
                "broadcast",
                format!("{shape} does not become {dims:?} through {mapping:?}"),
            );
        }
        self.graph().emit(
            Op::Broadcast {
                dims: mapping.to_vec(),
            },
            &[self],
            Shape::new(shape.dtype, dims),
        )
    }

    /// Repeats the tensor to `dims` as NumPy does: aligned at the last dimension, sizes of 1
    /// repeat.
    #[track_caller]
    pub fn broadcast_to(self, dims: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        if shape.dims == dims {
            return self;
        }
        let Some(first) = dims.len().checked_sub(shape.rank()) else {
            return self.graph().refuse(
                "broadcast",
                format!("{shape} has more dimensions than {dims:?}"),
            );
        };
        let kept = |&i: &usize| shape.dims[i] == dims[first + i];
        if let Some(i) = (0..shape.rank()).find(|i| !kept(i) && shape.dims[*i] != 1) {
            return self.graph().refuse(
                "broadcast",
                format!("dimension {i} of {shape} does not repeat to {dims:?}"),
            );
        }
        let mapping: Vec<i64> = (0..shape.rank())
            .filter(kept)
            .map(|i| (first + i) as i64)
            .collect();
        let squeezed: Vec<i64> = (0..shape.rank())
            .filter(kept)
            .map(|i| shape.dims[i])
            .collect();
        self.reshape(&squeezed).broadcast_in_dims(dims, &mapping)
    }

    /// The same elements in row-major order under other dimensions.
    #[track_caller]
    pub fn reshape(self, dims: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        if shape.dims == dims {
            return self;
        }
        let to = Shape::new(shape.dtype, dims);
        if to.problem().is_some() || shape.elements() != to.elements() {
            return self.graph().refuse(
                "reshape",
                format!("{shape} has not as many elements as {to}"),
            );
        }
        self.graph().emit(Op::Reshape, &[self], to)
    }

    /// Output dimension `i` is input dimension `permutation[i]`.
    #[track_caller]
    pub fn transpose(self, permutation: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        let mut sorted = permutation.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..shape.rank() as i64) {
            return self.graph().refuse(
                "transpose",
                format!("{permutation:?} does not permute the dimensions of {shape}"),
            );
        }
        if permutation.is_sorted() {
            return self;
        }
        let dims: Vec<i64> = permutation
            .iter()
            .map(|&p| shape.dims[p as usize])
            .collect();
        let op = Op::Transpose {
            permutation: permutation.to_vec(),
        };
        self.graph()
            .emit(op, &[self], Shape::new(shape.dtype, dims))
    }

    /// Elements `start..limit` of each dimension.
    #[track_caller]
    pub fn slice(self, start: &[i64], limit: &[i64]) -> Tensor<'g> {
        self.strided_slice(start, limit, &vec![1; start.len()])
    }

    /// Every `stride`-th of the elements `start..limit` of each dimension.
    #[track_caller]
    pub fn strided_slice(self, start: &[i64], limit: &[i64], stride: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        let r = shape.rank();
        let fits = start.len() == r
            && limit.len() == r
            && stride.len() == r
            && (0..r).all(|i| {
                0 <= start[i] && start[i] <= limit[i] && limit[i] <= shape.dims[i] && stride[i] > 0
            });
        if !fits {
            let problem = format!("{start:?}..{limit:?} by {stride:?} does not lie in {shape}");
            return self.graph().refuse("slice", problem);
        }
        let dims: Vec<i64> = (0..r)
            .map(|i| (limit[i] - start[i] - 1).div_euclid(stride[i]) + 1)
            .collect();
        if dims == shape.dims {
            return self;
        }
        let op = Op::Slice {
            start: start.to_vec(),
            limit: limit.to_vec(),
            stride: stride.to_vec(),
        };
        self.graph()
            .emit(op, &[self], Shape::new(shape.dtype, dims))
    }

    /// Elements `start..limit` of one dimension, all of the others.
    #[track_caller]
    pub fn slice_dim(self, dim: usize, start: i64, limit: i64) -> Tensor<'g> {
        let dims = self.dims();
        if dim >= dims.len() {
            return self
                .graph()
                .refuse("slice", format!("{} has no dimension {dim}", self.shape()));
        }
        let mut starts = vec![0; dims.len()];
        let mut limits = dims;
        starts[dim] = start;
        limits[dim] = limit;
        self.slice(&starts, &limits)
    }

    /// A window of `sizes` elements from `starts` (one scalar integer a dimension). Starts are
    /// clamped so that the window lies inside.
    #[track_caller]
    pub fn dynamic_slice(self, starts: &[Tensor<'g>], sizes: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        let fits = sizes.len() == shape.rank()
            && sizes
                .iter()
                .zip(&shape.dims)
                .all(|(s, d)| 0 <= *s && s <= d);
        if !fits || !are_starts(starts, shape.rank()) {
            let problem = format!(
                "a window of {sizes:?} from {} scalar starts does not lie in {shape}",
                starts.len()
            );
            return self.graph().refuse("dynamic-slice", problem);
        }
        let inputs: Vec<Tensor<'g>> = [self].into_iter().chain(starts.iter().copied()).collect();
        self.graph().emit(
            Op::DynamicSlice {
                sizes: sizes.to_vec(),
            },
            &inputs,
            Shape::new(shape.dtype, sizes),
        )
    }

    /// This tensor with the window from `starts` replaced by `update`.
    #[track_caller]
    pub fn dynamic_update_slice(self, update: Tensor<'g>, starts: &[Tensor<'g>]) -> Tensor<'g> {
        let (shape, part) = (self.shape(), update.shape());
        let fits = part.dtype == shape.dtype
            && part.rank() == shape.rank()
            && part.dims.iter().zip(&shape.dims).all(|(p, d)| p <= d);
        if !fits || !are_starts(starts, shape.rank()) {
            let problem = format!(
                "{part} at {} scalar starts does not fit into {shape}",
                starts.len()
            );
            return self.graph().refuse("dynamic-update-slice", problem);
        }
        let inputs: Vec<Tensor<'g>> = [self, update]
            .into_iter()
            .chain(starts.iter().copied())
            .collect();
        self.graph().emit(Op::DynamicUpdateSlice, &inputs, shape)
    }

    /// Pads with `filling` (a scalar) around and between the elements.
    #[track_caller]
    pub fn pad(self, dims: &[PadDim], filling: Tensor<'g>) -> Tensor<'g> {
        let shape = self.shape();
        let size = |(p, d): (&PadDim, &i64)| {
            let between = Size::from(p.interior) * (d - 1).max(0);
            let size = (between + *d + p.low + p.high).get()?;
            (size >= 0 && p.interior >= 0).then_some(size)
        };
        let to: Option<Vec<i64>> = dims.iter().zip(&shape.dims).map(size).collect();
        let fits = dims.len() == shape.rank() && filling.shape() == Shape::new(shape.dtype, []);
        let Some(to) = to.filter(|_| fits) else {
            let edges: Vec<(i64, i64, i64)> =
                dims.iter().map(|p| (p.low, p.high, p.interior)).collect();
            let problem = format!(
                "{shape} cannot be padded by {edges:?} (low, high, interior) with a {}",
                filling.shape()
            );
            return self.graph().refuse("pad", problem);
        };
        // One element has no neighbors to be kept apart from.
        let dims = dims.iter().zip(&shape.dims).map(|(p, d)| PadDim {
            interior: if *d > 1 { p.interior } else { 0 },
            ..*p
        });
        let dims: Vec<PadDim> = dims.collect();
        if dims.iter().all(|p| *p == PadDim::default()) {
            return self;
        }
        let to = Shape::new(shape.dtype, to);
        self.graph().emit(Op::Pad { dims }, &[self, filling], to)
    }

    /// The elements of the given dimensions in the opposite order.
    #[track_caller]
    pub fn reverse(self, dims: &[i64]) -> Tensor<'g> {
        let shape = self.shape();
        if !shape.has_dims(dims) {
            return self.graph().refuse(
                "reverse",
                format!("{shape} does not have the dimensions {dims:?}"),
            );
        }
        self.graph().emit(
            Op::Reverse {
                dims: dims.to_vec(),
            },
            &[self],
            shape,
        )
    }
}

impl Graph {
    /// The tensors one after the other along dimension `dim`.
    #[track_caller]
    pub fn concatenate<'g>(&'g self, tensors: &[Tensor<'g>], dim: usize) -> Tensor<'g> {
        let shapes = shapes(tensors);
        let Some(first) = shapes.first().filter(|s| dim < s.rank()) else {
            return self.refuse(
                "concatenate",
                format!("nothing to join along dimension {dim}"),
            );
        };
        let agrees = |s: &Shape| {
            s.dtype == first.dtype
                && s.rank() == first.rank()
                && (0..s.rank()).all(|i| i == dim || s.dims[i] == first.dims[i])
        };
        if let Some(odd) = shapes.iter().find(|s| !agrees(s)) {
            return self.refuse(
                "concatenate",
                format!("{odd} does not join {first} along dimension {dim}"),
            );
        }
        let sum: Size = shapes.iter().map(|s| s.dims[dim]).sum();
        let Some(sum) = sum.get() else {
            return self.refuse(
                "concatenate",
                format!(
                    "{} joined along dimension {dim} have more elements than can be counted",
                    list(&shapes)
                ),
            );
        };
        let mut shape = first.clone();
        shape.dims[dim] = sum;
        self.emit(Op::Concatenate { dim: dim as i64 }, tensors, shape)
    }
}

/// One scalar a dimension, all of one integer type.
#[track_caller]
fn are_starts(starts: &[Tensor<'_>], rank: usize) -> bool {
    let shapes = shapes(starts);
    let integer = |d| matches!(d, DType::S32 | DType::S64 | DType::U32 | DType::U64);
    shapes.len() == rank
        && shapes
            .iter()
            .all(|s| s.rank() == 0 && integer(s.dtype) && *s == shapes[0])
}
