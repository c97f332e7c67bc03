//! Random numbers as a function of a key: no state outside the program.

use crate::graph::{Graph, Tensor};
use crate::ir::{Op, RngAlgorithm};
use crate::shape::{DType, Shape};

impl<'g> Tensor<'g> {
    /// Random bits of `shape` (an unsigned type) from this state, and the state to go on from:
    /// `(state, bits)`. The state is `u64[2]` for [`RngAlgorithm::ThreeFry`], `u64[3]` for
    /// [`RngAlgorithm::Philox`].
    #[track_caller]
    pub fn random_bits(self, algorithm: RngAlgorithm, shape: Shape) -> (Tensor<'g>, Tensor<'g>) {
        let words = match algorithm {
            RngAlgorithm::ThreeFry => 2,
            RngAlgorithm::Philox => 3,
        };
        let state = self.shape();
        if state != Shape::new(DType::U64, [words])
            || !matches!(shape.dtype, DType::U32 | DType::U64 | DType::U8)
        {
            let problem = format!(
                "{state} is no state, or {shape} is not unsigned; expected a state u64[{words}]"
            );
            let bad = self.graph().refuse("rng-bit-generator", problem);
            return (bad, bad);
        }
        let out = self
            .graph()
            .emit_tuple(Op::RngBits { algorithm }, &[self], vec![state, shape]);
        (out[0], out[1])
    }
}

impl Graph {
    /// Samples of the standard normal distribution, float32 of `dims`, from a Threefry state
    /// `u64[2]`.
    ///
    /// Box and Muller's transform (1958): with u, v uniform, sqrt(-2 ln u) cos(2 pi v) is normal.
    /// `u` takes 2^-24 steps in (0, 1], so samples end at 5.8 standard deviations.
    #[track_caller]
    pub fn normal<'g>(&'g self, state: Tensor<'g>, dims: &[i64]) -> Tensor<'g> {
        let two: Vec<i64> = [2].iter().chain(dims).copied().collect();
        let steps = self.uniform_steps(state, &two);
        let part = |i| steps.slice_dim(0, i, i + 1).reshape(dims);
        let (u, v) = ((part(0) + 1.0) * (-24f64).exp2(), part(1) * (-24f64).exp2());
        (u.log() * -2.0).sqrt() * (v * std::f64::consts::TAU).cos()
    }

    /// Samples of the uniform distribution on [0, 1), float32 of `dims`, in steps of 2^-24, from a
    /// Threefry state `u64[2]`.
    #[track_caller]
    pub fn uniform<'g>(&'g self, state: Tensor<'g>, dims: &[i64]) -> Tensor<'g> {
        self.uniform_steps(state, dims) * (-24f64).exp2()
    }

    /// Whole numbers below 2^24, which float32 has all.
    #[track_caller]
    fn uniform_steps<'g>(&'g self, state: Tensor<'g>, dims: &[i64]) -> Tensor<'g> {
        let shape = Shape::new(DType::U32, dims);
        let (_, bits) = state.random_bits(RngAlgorithm::ThreeFry, shape);
        (bits >> bits.full_like(8.0)).convert(DType::F32)
    }
}
