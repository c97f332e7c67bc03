//! An encoder with adapters that are trained together with the head on it.

use ankh_data::Packing;
use ankh_data::tokenizer::PAD;
use ankh_hlo::{DType, Graph, LogicalAxisRules, Remat, Shape, Tensor};

use super::{Dropout, HeadBatchSize};
use crate::config::Config;
use crate::model::lora::{Adaptation, Adapters, Lora};
use crate::model::{Network, Parameter, Tokens, Weights};
use crate::programs::encoder::encoder_parameters;
use crate::programs::forward::network;
use crate::programs::{BatchShape, Programs, is_of_encoder};

/// An encoder whose weights stay as they are, with adapters that are trained.
#[derive(Clone, Copy, Debug)]
pub struct AdaptedEncoder<'c> {
    /// The encoder.
    pub config: &'c Config,
    /// The platform of the devices.
    pub platform: &'c str,
    /// The adapters.
    pub lora: Lora,
}

/// The encoder's weights in a program.
pub(super) struct Frozen<'g> {
    specs: Weights<Parameter>,
    values: Vec<Tensor<'g>>,
}

impl Frozen<'_> {
    /// How many arrays they are.
    pub(super) fn count(&self) -> usize {
        let leaves = self.specs.leaves();
        leaves.iter().filter(|p| is_of_encoder(&p.name)).count()
    }
}

impl AdaptedEncoder<'_> {
    /// The adapters' parameters, float32, in order.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        Adapters::of(&self.config.model, self.lora).leaves()
    }

    /// Declares the encoder's weights.
    pub(super) fn frozen<'g>(&self, g: &'g Graph) -> Frozen<'g> {
        let (specs, values) = encoder_parameters(g, self.config);
        Frozen { specs, values }
    }

    /// The states float32 `[rows, length, d]` of `ids`, s32 `[rows, length]`, with the values of
    /// [`AdaptedEncoder::parameters`].
    pub(super) fn states<'g>(
        &self,
        (size, rules): (HeadBatchSize, Option<&LogicalAxisRules>),
        frozen: &Frozen<'g>,
        adapters: &[Tensor<'g>],
        ids: Tensor<'g>,
        dropout: Option<Dropout<'g>>,
    ) -> Tensor<'g> {
        let shape = BatchShape {
            rows: size.rows,
            input: size.length,
            target: size.length,
            packing: Packing::Padded,
        };
        let mut programs = Programs::of_size(self.config, shape, self.platform, rules);
        programs.unroll = false;
        let network = Network {
            // All layers' activations together would be many times the weights.
            remat: Remat::SaveNothing,
            ..network(&programs, &frozen.specs, &frozen.values)
        };
        let dropout = dropout.map(|of| Dropout {
            rate: self.lora.dropout,
            ..of
        });
        let dropout = dropout.filter(|of| of.rate > 0.0);
        let dropped = |x: Tensor<'g>, number: Tensor<'g>| match dropout {
            Some(dropout) => dropout.of_adapter(x, number),
            None => x,
        };
        let adaptation = Adaptation {
            adapters: Adapters::of(&self.config.model, self.lora).filled(adapters),
            scale: self.lora.alpha / self.lora.rank as f64,
            dropout: Some(&dropped),
        };
        let tokens = Tokens::Padded {
            attention_mask: attention_mask(ids),
        };
        let states = network.encode_adapted(ids, tokens, adaptation);
        states.convert(DType::F32)
    }
}

/// 1 at tokens, s32 `[rows, length]`. The first position always is one, so that no row is without.
fn attention_mask(ids: Tensor<'_>) -> Tensor<'_> {
    let g = ids.graph();
    let place = g.iota(Shape::new(DType::S32, ids.dims()), 1);
    let is_token = ids.not_equal(ids.full_like(PAD.into()));
    (is_token | place.equal(place.zeros_like())).convert(DType::S32)
}
