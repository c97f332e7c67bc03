//! Optimizers: update rules as tensor programs, with the semantics of optax, the library that
//! trained Ankh, and the settings of each.
//!
//! An optimizer is one file: its settings with their defaults and checks, the arrays it keeps
//! (slots), and its update. It is listed once, in [`Optimizer`]. Per-tensor rules (factored
//! moments, root mean squares) apply to each layer's matrix: where layers are stacked, each slice
//! of the leading dimension is a tensor of its own.

mod adafactor;
mod adamw;
mod schedule;

use ankh_hlo::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{LogicalAxis, Parameter};
use crate::validation::Problems;

pub use adafactor::Adafactor;
pub use adamw::AdamW;
pub use schedule::{Schedule, ScheduleKind, learning_rate, learning_rate_at};

/// What an optimizer does.
trait UpdateRule: Default {
    /// The arrays it keeps for a parameter.
    fn slots(&self, parameter: &Parameter) -> Vec<Slot>;

    /// One step for one parameter.
    fn update<'g>(
        &self,
        parameter: &Parameter,
        value: Tensor<'g>,
        gradient: Tensor<'g>,
        slots: &[Tensor<'g>],
        context: StepContext<'g>,
    ) -> Updated<'g>;

    /// The bound on the global norm of the gradients, where one is set.
    fn clip_norm(&self) -> Option<f64>;

    /// Whether it can go on with the slots of `other`: they have the same shapes.
    fn continues(&self, other: &Self) -> bool;

    /// Reports the settings that make no sense.
    fn check(&self, problems: &mut Problems);
}

/// Lists the optimizers, and passes on to each what [`UpdateRule`] asks of it.
macro_rules! optimizers {
    ($($(#[$doc:meta])* $name:ident($rule:ident),)*) => {
        /// The optimizer and its settings; `name` in the file says which.
        #[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
        #[serde(tag = "name", rename_all = "kebab-case")]
        pub enum Optimizer {
            $($(#[$doc])* $name($rule),)*
        }

        impl Optimizer {
            /// One of each kind, with its defaults.
            pub(crate) fn kinds() -> Vec<Self> {
                vec![$(Self::$name($rule::default()),)*]
            }

            /// The same kind with its defaults.
            pub(crate) fn defaults(&self) -> Self {
                match self {
                    $(Self::$name(_) => Self::$name($rule::default()),)*
                }
            }

            /// The bound on the global norm of the gradients, where one is set.
            pub fn clip_norm(&self) -> Option<f64> {
                match self {
                    $(Self::$name(rule) => rule.clip_norm(),)*
                }
            }

            /// Whether it can go on with what `other` kept of a model: it is of the same kind and
            /// keeps arrays of the same shapes.
            pub fn continues(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$name(rule), Self::$name(other)) => rule.continues(other),)*
                    _ => false,
                }
            }

            /// Reports the settings that make no sense.
            pub fn check(&self, problems: &mut Problems) {
                match self {
                    $(Self::$name(rule) => rule.check(problems),)*
                }
                if let Some(norm) = self.clip_norm() {
                    problems.positive_number("optimizer.clip_norm", norm);
                }
            }

            /// The arrays that it keeps for a parameter.
            pub fn slots(&self, parameter: &Parameter) -> Vec<Slot> {
                match self {
                    $(Self::$name(rule) => rule.slots(parameter),)*
                }
            }

            /// One step for one parameter.
            pub fn update<'g>(
                &self,
                parameter: &Parameter,
                value: Tensor<'g>,
                gradient: Tensor<'g>,
                slots: &[Tensor<'g>],
                context: StepContext<'g>,
            ) -> Updated<'g> {
                match self {
                    $(Self::$name(rule) => rule.update(parameter, value, gradient, slots, context),)*
                }
            }
        }
    };
}

optimizers! {
    /// Factored second moments, updates scaled by the size of the tensor: what trained Ankh.
    Adafactor(Adafactor),
    /// Adam with decoupled weight decay.
    Adamw(AdamW),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adafactor(Adafactor::default())
    }
}

/// An array that an optimizer keeps between steps, float32, zeros at first.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// `v_row/encoder.layers.mlp.wo` for example.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<i64>,
    /// What they are, as in the parameter.
    pub logical_axes: Vec<LogicalAxis>,
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
    /// Its slots, in the order of [`Optimizer::slots`].
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
