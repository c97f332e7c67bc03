//! The program that draws the initial state.

use ankh_hlo::{DType, Error, Literal, Module, Shape, Tensor};

use super::{Programs, state};
use crate::model::{Initializer, Parameter, Weights};

impl Programs<'_> {
    /// The program that draws the first state from a seed, `u64[]`.
    pub fn initial(&self) -> Result<Module, Error> {
        let config = self.config;
        let g = self.graph("initial");
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let parameters = Weights::of(&config.model).leaves();
        let mut outputs: Vec<Tensor<'_>> = parameters.iter().map(|p| drawn(seed, p)).collect();
        let arrays = state(config);
        outputs.extend(arrays[parameters.len()..].iter().map(|a| g.zeros(&a.shape)));
        g.finish(&self.laid_out(&outputs), &[])
    }
}

/// The first value of a parameter, from a seed, `u64[]`. Each parameter has a random stream of its
/// own, so that adding one leaves the others as they were.
pub(super) fn drawn<'g>(seed: Tensor<'g>, parameter: &Parameter) -> Tensor<'g> {
    let g = seed.graph();
    let shape = Shape::new(DType::F32, parameter.dims.clone());
    let key = || {
        let stream = Literal::u64(&[1], &[stream(&parameter.name)]).expect("one word");
        g.concatenate(&[seed.reshape(&[1]), g.literal(stream)], 0)
    };
    match parameter.initializer {
        Initializer::Constant(value) => g.full(&shape, value),
        Initializer::Normal(deviation) => g.normal(key(), &shape.dims) * deviation,
        Initializer::Uniform(bound) => (g.uniform(key(), &shape.dims) * 2.0 - 1.0) * bound,
    }
}

/// A parameter's random stream: FNV-1a of its name.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}
