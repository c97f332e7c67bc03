//! The forward pass: what an evaluation and a comparison with other implementations run, and what
//! the training step differentiates.

use ankh_hlo::{DType, Error, Module, Remat, Tensor};

use super::signature::BatchTensors;
use super::{EvaluationSums, Programs, batch, declare, parameters, vector};
use crate::config;
use crate::model::{Network, Parameter, States, TokenLoss, Weights, one_hot, saved, token_loss};

/// Whether a forward pass gives gradients too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// Of each parameter, in the state's order.
    Yes,
    /// None.
    No,
}

impl Programs<'_> {
    /// An evaluation: parameters and batch to [`EvaluationSums`].
    pub fn evaluation(&self) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("evaluation");
        let (specs, values) = parameters(&g, config);
        let batch = declare(&g, &batch(size));
        let sums = losses(self, &specs, &values, &batch).1;
        let out = EvaluationSums {
            cross_entropy: sums.cross_entropy,
            correct: sums.correct,
            tokens: BatchTensors::of(&batch).targets.count(),
        };
        let out = vector(&g, &out.to_array());
        g.finish(&[out], &[])
    }

    /// An evaluation with its confusions: parameters and batch to [`EvaluationSums`], and two
    /// matrices, float32 `[vocabulary, vocabulary]`: by the label, how often each id was predicted
    /// first, and the sum of its probabilities. Counts are exact up to 2^24 in a batch.
    pub fn confusion(&self) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("confusion");
        let (specs, values) = parameters(&g, config);
        let batch = declare(&g, &batch(size));
        let (states, sums) = losses(self, &specs, &values, &batch);
        let targets = BatchTensors::of(&batch).targets;
        let out = EvaluationSums {
            cross_entropy: sums.cross_entropy,
            correct: sums.correct,
            tokens: targets.count(),
        };
        // No id is a label where nothing is predicted.
        let labels = one_hot(targets.0, states.logits);
        let predicted = one_hot(sums.predictions, states.logits);
        let by_label = |of| g.einsum("btv,btw->vw", labels, of);
        let (counts, mass) = (by_label(predicted), by_label(states.logits.softmax()));
        g.finish(&[vector(&g, &out.to_array()), counts, mass], &[])
    }

    /// A forward pass: parameters and batch to logits, encoder states, the mean loss and, if asked
    /// for, the gradient of each parameter.
    pub fn forward(&self, gradients: Gradients) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("forward");
        let (specs, values) = parameters(&g, config);
        let batch = declare(&g, &batch(size));
        let (states, sums) = losses(self, &specs, &values, &batch);
        let loss = sums.objective / BatchTensors::of(&batch).targets.count();
        let mut outputs = vec![states.logits, states.encoder.convert(DType::F32), loss];
        if gradients == Gradients::Yes {
            outputs.extend(g.gradients(loss, &values));
        }
        g.finish(&outputs, &[])
    }
}

/// The states of a batch's forward pass, and its sums.
pub(super) fn losses<'g>(
    programs: &Programs<'_>,
    specs: &Weights<Parameter>,
    values: &[Tensor<'g>],
    batch: &[Tensor<'g>],
) -> (States<'g>, TokenLoss<'g>) {
    let batch = BatchTensors::of(batch);
    let network = network(programs, specs, values);
    let states = network.forward(batch.input_ids, batch.decoder_input_ids, batch.tokens);
    let _scope = states.logits.graph().scope("loss");
    let loss = token_loss(states.logits, batch.targets, &programs.config.loss);
    (states, loss)
}

/// The configured model with these weights.
pub(super) fn network<'g, 'c>(
    programs: &Programs<'c>,
    specs: &Weights<Parameter>,
    values: &[Tensor<'g>],
) -> Network<'g, 'c> {
    let Programs {
        config, compute, ..
    } = *programs;
    Network {
        model: &config.model,
        weights: specs.filled(values),
        compute,
        remat: remat(config.train.remat),
        attention: programs.attention,
        unroll: programs.unroll,
        gradients: match config.sharding.gradients {
            config::GradientType::Float32 => DType::F32,
            config::GradientType::Bfloat16 => compute,
        },
    }
}

fn remat(remat: config::Remat) -> Remat {
    let named = |names: &[&str]| Remat::Named(names.iter().map(|n| (*n).into()).collect());
    match remat {
        config::Remat::Full => Remat::SaveNothing,
        config::Remat::Attention => named(saved::ATTENTION),
        config::Remat::Projections => named(saved::PROJECTIONS),
        config::Remat::Named => named(saved::PRODUCTS),
        config::Remat::None => Remat::SaveAll,
    }
}
