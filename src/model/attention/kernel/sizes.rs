//! The sizes of a device's shards, and the blocks of the kernels' arrays.

use ankh_hlo::{DType, Shape, Tensor};
use ankh_mosaic::BlockDim::{Element, Part, Whole};
use ankh_mosaic::{Block, BlockDim, Kernel};

use super::super::accumulation_dtype;
use super::Direction;

/// The most scores of a place: 1 MiB of float32, of which some are alive at once.
pub(super) const SCORES: i64 = 512 * 512;

/// The most scores of all sequences of a place. The backward pass has more arrays in VMEM, and with
/// twice as many sequences XLA does not fuse the slices of saved values into its reads.
pub(super) const FORWARD_SCORES: i64 = 2 * SCORES;
pub(super) const BACKWARD_SCORES: i64 = SCORES;

/// The sides of the tiles that a TPU's memory and registers have, for bfloat16: rows of `kv`
/// elements in sublanes, positions in lanes.
pub(super) const TILE: (i64, i64) = (16, 128);

/// The places of a kernel's operands. The masks, and what a backward kernel reads besides, follow.
pub(super) const Q: usize = 0;
pub(super) const K: usize = 1;
pub(super) const V: usize = 2;
/// Of the bias, where there is one.
pub(super) const BIAS_AT: usize = 3;

/// The sizes of a device's shards.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub batch: i64,
    pub heads: i64,
    pub kv: i64,
    pub queries: i64,
    pub keys: i64,
    /// Queries of a place.
    pub block: i64,
    /// Sequences of a place.
    pub sequences: i64,
    pub dtype: DType,
    pub biased: bool,
    pub direction: Direction,
}

/// The axes of a grid that the arrays' dimensions follow.
#[derive(Clone, Copy)]
pub(super) struct Axes {
    pub heads: usize,
    pub batch: usize,
    /// Of the blocks of queries, where there are several.
    pub queries: Option<usize>,
}

impl Sizes {
    /// Those of the operands q, k, v, the bias where there is one, the mask of queries ..., with so
    /// many scores at a place.
    pub fn of(operands: &[Tensor<'_>], direction: Direction, together: i64) -> Sizes {
        let (q, k) = (operands[0], operands[1]);
        let (queries, keys) = (q.dim(3), k.dim(3));
        let fits = |block: &i64| block * keys <= SCORES && queries % block == 0;
        let blocks = (1..=queries / TILE.1).rev().map(|tiles| tiles * TILE.1);
        let block = [queries].into_iter().chain(blocks).find(fits);
        let block = block.unwrap_or(queries);
        let most = (together / (block * keys)).max(1);
        let sequences = (1..=most).rev().find(|n| q.dim(0) % n == 0);
        Sizes {
            batch: q.dim(0),
            heads: q.dim(1),
            kv: q.dim(2),
            queries,
            keys,
            block,
            sequences: sequences.unwrap_or(1),
            dtype: q.dtype(),
            biased: operands[3].rank() == 4,
            direction,
        }
    }

    pub fn name(&self, pass: &str) -> String {
        let bias = if self.biased { "_bias" } else { "" };
        let causal = match self.direction {
            Direction::Bidirectional => "",
            Direction::Causal => "_causal",
        };
        let (queries, keys) = (self.queries, self.keys);
        format!("attention_{pass}_{queries}x{keys}{bias}{causal}")
    }

    pub fn blocks(&self) -> i64 {
        self.queries / self.block
    }

    pub fn groups(&self) -> i64 {
        self.batch / self.sequences
    }

    /// The sequences that a place has.
    pub fn batch_dim(&self, axes: Axes) -> BlockDim {
        Part {
            axis: axes.batch,
            size: self.sequences,
        }
    }

    /// The part of the queries that a place has.
    pub fn query_dim(&self, axes: Axes) -> BlockDim {
        match axes.queries {
            Some(axis) => Part {
                axis,
                size: self.block,
            },
            None => Whole,
        }
    }

    /// `[batch, heads, kv, queries]`
    pub fn query(&self, axes: Axes) -> Block {
        let dims = [self.batch, self.heads, self.kv, self.queries];
        let place = [self.batch_dim(axes), Element(axes.heads), Whole];
        let place = [&place[..], &[self.query_dim(axes)]].concat();
        Block::new(Shape::new(self.dtype, dims), &place)
    }

    /// `[batch, heads, kv, keys]`
    pub fn key(&self, axes: Axes) -> Block {
        let dims = [self.batch, self.heads, self.kv, self.keys];
        let place = [self.batch_dim(axes), Element(axes.heads), Whole, Whole];
        Block::new(Shape::new(self.dtype, dims), &place)
    }

    /// `[batch, heads, 1, queries]`
    pub fn sums(&self, axes: Axes) -> Block {
        let dims = [self.batch, self.heads, 1, self.queries];
        let place = [self.batch_dim(axes), Element(axes.heads), Whole];
        let place = [&place[..], &[self.query_dim(axes)]].concat();
        Block::new(Shape::new(accumulation_dtype(self.dtype), dims), &place)
    }

    /// `[1, heads, keys, queries]`: of the copies, a device has one.
    pub fn relative(&self, axes: Axes) -> Block {
        let dims = [1, self.heads, self.keys, self.queries];
        let place = [Whole, Element(axes.heads), Whole, self.query_dim(axes)];
        Block::new(Shape::new(accumulation_dtype(self.dtype), dims), &place)
    }

    /// What both kernels read: queries, keys, values, the bias, the segments of queries and keys.
    pub fn with_inputs(&self, kernel: Kernel, axes: Axes) -> Kernel {
        let s32 = |dims: [i64; 3]| Shape::new(DType::S32, dims);
        let mut kernel = kernel
            .input(self.query(axes))
            .input(self.key(axes))
            .input(self.key(axes));
        if self.biased {
            kernel = kernel.input(self.relative(axes));
        }
        let of_queries = [self.batch_dim(axes), Whole, self.query_dim(axes)];
        let of_keys = [self.batch_dim(axes), Whole, Whole];
        kernel
            .input(Block::new(s32([self.batch, 1, self.queries]), &of_queries))
            .input(Block::new(s32([self.batch, self.keys, 1]), &of_keys))
    }
}
