//! Random numbers of their own for each row: what a row draws depends on the seed, its stream and
//! the step, and on nothing else of the batch that it is in.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), written in
//! operations. XLA's own generator has one state for an array, so that a row's numbers would depend
//! on its place.

use ankh_hlo::{DType, Shape, Tensor};

/// The multipliers of a round.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];

/// What is added to the key after each round.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

const ROUNDS: usize = 10;

/// The first of the four words that Philox makes of a counter, all u32. The words of `counter`
/// broadcast to one shape, those of `key` are scalars.
pub(super) fn philox<'g>(counter: [Tensor<'g>; 4], key: [Tensor<'g>; 2]) -> Tensor<'g> {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for round in 0..ROUNDS {
        if round > 0 {
            k0 = k0 + k0.full_like(WEYL[0].into());
            k1 = k1 + k1.full_like(WEYL[1].into());
        }
        let (high0, low0) = wide_product(c0, MULTIPLIERS[0]);
        let (high1, low1) = wide_product(c2, MULTIPLIERS[1]);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
    }
    c0
}

/// The upper and the lower half of a product.
fn wide_product(x: Tensor<'_>, multiplier: u32) -> (Tensor<'_>, Tensor<'_>) {
    let x = x.convert(DType::U64);
    let product = x * x.full_like(multiplier.into());
    let high = product >> product.full_like(32.0);
    (high.convert(DType::U32), product.convert(DType::U32))
}

/// Samples of the standard Gumbel distribution, float32 `[batch, width]`, from `seed`, u64, the
/// `streams` of the rows, u32 `[batch, 2]`, and the `step`, s32. The largest of logits with such
/// noise is a sample of their softmax (Gumbel, 1954), and the k largest are k samples without
/// replacement (Vieira, 2014).
pub(super) fn gumbel<'g>(
    seed: Tensor<'g>,
    streams: Tensor<'g>,
    step: Tensor<'g>,
    width: i64,
) -> Tensor<'g> {
    let g = seed.graph();
    let batch = streams.dim(0);
    let shape = Shape::new(DType::U32, [batch, width]);
    let high = (seed >> seed.full_like(32.0)).convert(DType::U32);
    let key = [seed.convert(DType::U32), high];
    let stream = |i| streams.slice_dim(1, i, i + 1);
    let step = step.convert(DType::U32).broadcast_to(&shape.dims);
    let bits = philox([g.iota(shape, 1), step, stream(0), stream(1)], key);
    // The middles of 2^24 equal parts of (0, 1), which float32 has all.
    let steps = (bits >> bits.full_like(8.0)).convert(DType::F32);
    let uniform = (steps + 0.5) * (-24f64).exp2();
    -(-uniform.log()).log()
}

#[cfg(test)]
mod tests {
    use ankh_hlo::Graph;
    use ankh_pjrt::HostTensor;

    use super::*;
    use crate::mesh::slice::Slice;
    use crate::mesh::{DeviceMesh, Input, MeshOptions};

    /// From the known answers that the authors publish with their library, Random123.
    const KNOWN: [([u32; 4], [u32; 2], u32); 3] = [
        ([0; 4], [0; 2], 0x6627_e8d5),
        ([u32::MAX; 4], [u32::MAX; 2], 0x408f_276d),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            0xd16c_fe09,
        ),
    ];

    #[test]
    fn philox_gives_the_published_words() {
        let g = Graph::new("philox");
        let inputs = g.parameter("words", Shape::new(DType::U32, [6]));
        let word = |i| inputs.slice_dim(0, i, i + 1).reshape(&[]);
        let out = philox([0, 1, 2, 3].map(word), [4, 5].map(word));
        let module = g.finish(&[out], &[]).unwrap();
        let mesh = DeviceMesh::open(Slice::default(), MeshOptions::single_device()).unwrap();
        let program = mesh.compile(&module).unwrap();
        for (counter, key, expected) in KNOWN {
            let words: Vec<u32> = counter.into_iter().chain(key).collect();
            let words = HostTensor::new::<u32>([6], &words);
            let words = mesh.upload(&program.parameters()[0], &words).unwrap();
            let out = program.execute(vec![Input::Keep(&words)]).unwrap();
            let out = mesh.to_host(&out[0]).unwrap().to_vec::<u32>().unwrap();
            assert_eq!(out, [expected]);
        }
    }
}
