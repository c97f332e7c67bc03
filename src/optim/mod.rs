//! Update rules as tensor programs, with the semantics of optax, the library Ankh was trained with.
//!
//! Rules that look at a whole tensor (factored moments, its root mean square) look at one layer's matrix at a time where
//! layers are stacked: each slice of the leading dimension is a tensor of its own.

mod adafactor;
mod adamw;
mod schedule;

use ankh_hlo::Tensor;

use crate::config::Optimizer;
use crate::model::Parameter;

pub use schedule::{learning_rate, learning_rate_at};

/// An array that an update rule keeps between steps, float32, zeros at first.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// `v_row/encoder.layers.mlp.wo` for example.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<i64>,
    /// What they are, as in the parameter.
    pub logical_axes: Vec<&'static str>,
}

impl Slot {
    fn like(kind: &str, parameter: &Parameter) -> Slot {
        Slot {
            name: format!("{kind}/{}", parameter.name),
            dims: parameter.dims.clone(),
            logical_axes: parameter.logical_axes.clone(),
        }
    }

    fn without(kind: &str, parameter: &Parameter, dim: usize) -> Slot {
        let mut slot = Slot::like(kind, parameter);
        slot.dims.remove(dim);
        slot.logical_axes.remove(dim);
        slot
    }
}

/// A parameter and its slots after a step.
pub struct Updated<'g> {
    /// The parameter.
    pub value: Tensor<'g>,
    /// Its slots, in the order of [`slots`].
    pub slots: Vec<Tensor<'g>>,
}

/// What a step knows besides the tensors.
#[derive(Clone, Copy)]
pub struct StepContext<'g> {
    /// Steps done before this one, float32.
    pub step: Tensor<'g>,
    /// The learning rate, float32.
    pub learning_rate: Tensor<'g>,
}

/// The arrays the rule keeps for a parameter.
pub fn slots(optimizer: &Optimizer, parameter: &Parameter) -> Vec<Slot> {
    match optimizer {
        Optimizer::Adafactor(rule) => adafactor::slots(rule, parameter),
        Optimizer::Adamw(_) => vec![Slot::like("m", parameter), Slot::like("v", parameter)],
    }
}

/// One step for one parameter.
pub fn update<'g>(
    optimizer: &Optimizer,
    parameter: &Parameter,
    value: Tensor<'g>,
    gradient: Tensor<'g>,
    slots: &[Tensor<'g>],
    context: StepContext<'g>,
) -> Updated<'g> {
    match optimizer {
        Optimizer::Adafactor(rule) => {
            adafactor::update(rule, parameter, value, gradient, slots, context)
        }
        Optimizer::Adamw(rule) => adamw::update(rule, value, gradient, slots, context),
    }
}

/// The Euclidean norm of all gradients together.
pub fn global_norm<'g>(gradients: &[Tensor<'g>]) -> Option<Tensor<'g>> {
    gradients
        .iter()
        .map(|g| g.square().sum_all())
        .reduce(|a, b| a + b)
        .map(|sum| sum.sqrt())
}

/// The gradients, scaled down where their norm exceeds `bound`.
pub fn clip<'g>(gradients: &[Tensor<'g>], norm: Tensor<'g>, bound: f64) -> Vec<Tensor<'g>> {
    let scale = norm
        .less(norm.full_like(bound))
        .select(norm.full_like(1.0), bound / norm);
    gradients.iter().map(|g| *g * scale).collect()
}

/// The dimensions of one tensor's worth of a parameter: all but the stacked layers.
fn own_dims(parameter: &Parameter) -> Vec<i64> {
    (i64::from(parameter.is_stacked())..parameter.dims.len() as i64).collect()
}

/// The root mean square of each tensor, with dimensions of size 1 in place of the reduced ones.
fn root_mean_square<'g>(x: Tensor<'g>, dims: &[i64]) -> Tensor<'g> {
    x.square().mean(dims).expand_dims(dims).sqrt()
}
