//! LoRA: products of low rank that are added to projections whose weights stay (Hu et al., "LoRA:
//! low-rank adaptation of large language models", 2021).
//!
//! A projection `x W` becomes `x W + (alpha / rank) dropout(x) A B`. The encoder's self-attention
//! has an adapter for the queries and one for the values of each layer, as the paper recommends.

use ankh_hlo::{DType, Shape, Tensor};
use serde::Serialize;

use super::LogicalAxis::{self, Embed, Heads};
use super::layers::{WeightAxes, project};
use super::weights::{EncoderLayer, Tree};
use super::{Initializer, Model, Parameter};

/// The sizes of adapters. The defaults are those of the authors of Ankh.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lora {
    /// Columns of `A` and rows of `B`.
    pub rank: usize,
    /// What an adapter gives is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// The share of an adapter's input that a training step drops.
    pub dropout: f64,
}

impl Default for Lora {
    fn default() -> Lora {
        Lora {
            rank: 16,
            alpha: 16.0,
            dropout: 0.1,
        }
    }
}

/// An adapter's `A` and `B`.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<T> {
    /// `[embed, rank]`, of each layer where it is stacked.
    pub a: T,
    /// `[rank, heads]`, likewise.
    pub b: T,
}

/// The adapters of self-attention, stacked over the layers.
#[derive(Clone, Copy, Debug)]
pub struct Adapters<T> {
    /// Of the queries.
    pub q: Adapter<T>,
    /// Of the values.
    pub v: Adapter<T>,
}

impl<T> Tree<T> for Adapters<T> {
    type With<U> = Adapters<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Adapters<U> {
        let mut adapter = |from: &Adapter<T>| Adapter {
            a: f(&from.a),
            b: f(&from.b),
        };
        Adapters {
            q: adapter(&self.q),
            v: adapter(&self.v),
        }
    }
}

impl Adapters<Parameter> {
    /// The adapters of a model's encoder. They begin as in `peft`: `A` is drawn as
    /// `kaiming_uniform_(a=sqrt(5))` does in `LoraLayer.reset_lora_parameters`, from
    /// U(-embed^-1/2, embed^-1/2), and `B` is 0. So at first nothing is added. Every device has all
    /// of them.
    pub fn of(model: &Model, lora: Lora) -> Adapters<Parameter> {
        let parameter = |name: String, from: usize, to: usize, initializer| Parameter {
            name: format!("encoder.layers.attention.{name}"),
            dims: [model.encoder_layers, from, to].map(|n| n as i64).to_vec(),
            logical_axes: vec![],
            initializer,
        };
        let bound = (model.d_model as f64).powf(-0.5);
        let adapter = |of: &str| Adapter {
            a: parameter(
                format!("{of}.lora_a"),
                model.d_model,
                lora.rank,
                Initializer::Uniform(bound),
            ),
            b: parameter(
                format!("{of}.lora_b"),
                lora.rank,
                model.inner(),
                Initializer::Constant(0.0),
            ),
        };
        Adapters {
            q: adapter("q"),
            v: adapter("v"),
        }
    }
}

impl<T: Clone> Adapters<T> {
    /// The matrices in order.
    pub fn leaves(&self) -> Vec<T> {
        Tree::leaves(self)
    }

    /// The same with matrices from `leaves`, which has as many.
    pub fn filled<U: Clone>(&self, leaves: &[U]) -> Adapters<U> {
        Tree::filled(self, leaves)
    }
}

/// Drops units of `x [batch, length, embed]`, the input of an adapter. Adapters are told apart by
/// the second argument, a u32 scalar: 0 and 1 are those of the first layer.
pub type AdapterDropout<'a, 'g> = &'a dyn Fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;

/// Adapters at work.
#[derive(Clone, Copy)]
pub struct Adaptation<'a, 'g> {
    /// Their matrices, float32.
    pub adapters: Adapters<Tensor<'g>>,
    /// What they give is multiplied by it: `alpha / rank`.
    pub scale: f64,
    /// What becomes of their inputs.
    pub dropout: Option<AdapterDropout<'a, 'g>>,
}

/// An encoder layer with its adapters, and its number: what a stack of them scans over.
#[derive(Clone, Debug)]
pub(super) struct AdaptedLayer<T> {
    pub layer: EncoderLayer<T>,
    adapters: Adapters<T>,
    number: T,
}

impl<T> Tree<T> for AdaptedLayer<T> {
    type With<U> = AdaptedLayer<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> AdaptedLayer<U> {
        AdaptedLayer {
            layer: Tree::map(&self.layer, f),
            adapters: Tree::map(&self.adapters, f),
            number: f(&self.number),
        }
    }
}

impl<'g> AdaptedLayer<Tensor<'g>> {
    /// All layers of an encoder.
    pub fn stacked(layers: &EncoderLayer<Tensor<'g>>, adaptation: Adaptation<'_, 'g>) -> Self {
        let first = adaptation.adapters.q.a;
        let numbers = Shape::new(DType::U32, [first.dim(0)]);
        AdaptedLayer {
            layer: layers.clone(),
            adapters: adaptation.adapters,
            number: first.graph().iota(numbers, 0),
        }
    }

    /// The adapters of one layer.
    pub fn adapters<'a>(&self, adaptation: Adaptation<'a, 'g>) -> LayerAdapters<'a, 'g> {
        LayerAdapters {
            adaptation: Adaptation {
                adapters: self.adapters,
                ..adaptation
            },
            number: self.number,
        }
    }
}

/// The adapters of one layer at work.
#[derive(Clone, Copy)]
pub(super) struct LayerAdapters<'a, 'g> {
    adaptation: Adaptation<'a, 'g>,
    number: Tensor<'g>,
}

/// Nothing splits the rank.
const RANK: LogicalAxis = LogicalAxis::Microbatches;
const TO_RANK: WeightAxes = [Embed, RANK];
const FROM_RANK: WeightAxes = [RANK, Heads];

impl<'g> LayerAdapters<'_, 'g> {
    /// The queries `q` of `x`, adapted.
    pub fn query(self, x: Tensor<'g>, q: Tensor<'g>) -> Tensor<'g> {
        q + self.product(x, self.adaptation.adapters.q, 0.0)
    }

    /// The values `v` of `x`, adapted.
    pub fn value(self, x: Tensor<'g>, v: Tensor<'g>) -> Tensor<'g> {
        v + self.product(x, self.adaptation.adapters.v, 1.0)
    }

    fn product(self, x: Tensor<'g>, adapter: Adapter<Tensor<'g>>, of: f64) -> Tensor<'g> {
        let x = match self.adaptation.dropout {
            Some(dropout) => dropout(x, self.number * self.number.full_like(2.0) + of),
            None => x,
        };
        let low = project(x, adapter.a, TO_RANK);
        project(low, adapter.b, FROM_RANK) * self.adaptation.scale
    }
}
