//! Dropout whose random numbers belong to an example, a position and a unit, and not to a place in
//! a batch: they are the same however rows are ordered, padded and split over devices.

use ankh_hlo::{DType, Shape, Tensor};

use crate::programs::random::philox;

/// Where units are dropped. Each place has random numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The weights of the attending heads.
    Attention,
    /// What the attention adds to the states.
    AttentionOutput,
    /// What the feed-forward layer adds to the states.
    Output,
    /// What the adapters of an encoder see.
    Adapter,
}

/// There are no more sites than this.
const SITES: f64 = 4.0;

/// The numbers of heads and of adapters begin at this bit of a counter, those of units below it.
const HEAD_BITS: f64 = 24.0;

/// Dropout of one step.
#[derive(Clone, Copy)]
pub struct Dropout<'g> {
    /// u64, a scalar.
    pub seed: Tensor<'g>,
    /// Steps done before, s32, a scalar; below 2^30.
    pub step: Tensor<'g>,
    /// The number of each row's example, s32 `[rows]`.
    pub examples: Tensor<'g>,
    /// The share of units that become 0; the others grow so that sums stay, on average.
    pub rate: f64,
}

impl<'g> Dropout<'g> {
    /// `x [rows, length, width]` with units dropped.
    pub fn of_states(self, x: Tensor<'g>, site: Site) -> Tensor<'g> {
        let shape = Shape::new(DType::U32, x.dims());
        let g = x.graph();
        self.apply(x, site, g.iota(shape.clone(), 1), g.iota(shape, 2))
    }

    /// `weights [rows, heads, length, length]` with keys dropped.
    pub fn of_attention(self, weights: Tensor<'g>) -> Tensor<'g> {
        let shape = Shape::new(DType::U32, weights.dims());
        let g = weights.graph();
        let (head, key) = (g.iota(shape.clone(), 1), g.iota(shape.clone(), 3));
        let unit = (head << head.full_like(HEAD_BITS)) + key;
        self.apply(weights, Site::Attention, g.iota(shape, 2), unit)
    }

    /// The input `x [rows, length, width]` of an adapter with units dropped. Its number is a u32
    /// scalar below 256.
    pub fn of_adapter(self, x: Tensor<'g>, number: Tensor<'g>) -> Tensor<'g> {
        let shape = Shape::new(DType::U32, x.dims());
        let g = x.graph();
        let number = number << number.full_like(HEAD_BITS);
        let unit = g.iota(shape.clone(), 2) + number.broadcast_to(&x.dims());
        self.apply(x, Site::Adapter, g.iota(shape, 1), unit)
    }

    fn apply(
        self,
        x: Tensor<'g>,
        site: Site,
        position: Tensor<'g>,
        unit: Tensor<'g>,
    ) -> Tensor<'g> {
        let dims = x.dims();
        let examples = self.examples.convert(DType::U32);
        let examples = examples.broadcast_in_dims(&dims, &[0]);
        let draw = self.step.convert(DType::U32) * self.step.convert(DType::U32).full_like(SITES);
        let draw = (draw + f64::from(site as u32)).broadcast_to(&dims);
        let high = self.seed >> self.seed.full_like(32.0);
        let key = [self.seed, high].map(|word| word.convert(DType::U32));
        let bits = philox([unit, position, examples, draw], key);
        let threshold = (self.rate * 32f64.exp2()).floor();
        let is_kept = bits.greater_equal(bits.full_like(threshold));
        // Kept for the derivative, a byte a unit: fused into both passes, the hundreds of
        // operations of a number would be compiled and done twice.
        let is_kept = x.graph().optimization_barrier(&[is_kept])[0];
        is_kept.select(x * (1.0 / (1.0 - self.rate)), x.zeros_like())
    }
}
