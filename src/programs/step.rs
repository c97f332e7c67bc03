//! The training step: gradients of a batch, the optimizer's update, and metrics.

use ankh_hlo::{DType, Error, Graph, Module, Tensor};

use super::encoder::is_of_encoder;
use super::forward::losses;
use super::signature::BatchTensors;
use super::spikes::{self, Window};
use super::{
    Programs, SkipReason, StepMetrics, batch, declare, histograms, sharding, state, vector,
};
use crate::config::{Config, Freeze, LogicalAxis};
use crate::model::{Parameter, Weights};
use crate::optim::{self, StepContext};

impl Programs<'_> {
    /// A training step: state and batch to the next state (in place) and [`StepMetrics`], with the
    /// numbers of histograms behind them where they are configured. Where the
    /// loss or the norm of the gradients is not finite, or a spike, the state stays as it is, but
    /// for the number of steps done. optax calls this `apply_if_finite`. Frozen parameters have no
    /// gradient: they are constants of the loss, and the norm is that of the others.
    pub fn step(&self) -> Result<Module, Error> {
        let Programs { config, size, .. } = *self;
        let g = self.graph("train_step");
        let arrays = state(config);
        let inputs = self.declare_state(&g);
        let batch = declare(&g, &batch(size));
        let specs = Weights::of(&config.model);
        let parameters = specs.leaves();
        let (values, rest) = inputs.split_at(parameters.len());
        let (rest, count) = rest.split_at(rest.len() - 1);
        let kept = spikes::state(&config.recovery).len();
        let (slots, window) = rest.split_at(rest.len() - kept);
        let window = Window::of(window);

        let tokens = BatchTensors::of(&batch).targets.count();
        let Sums {
            gradients,
            cross_entropy,
            correct,
            predicted,
        } = accumulate(self, &g, &specs, values, &batch, tokens);
        let counts = predicted.map(|tokens| {
            let all = with_zeros_of_frozen(config, &parameters, values, &gradients);
            histograms::numbers(config, count[0], &all, tokens)
        });
        let norm = optim::global_norm(&gradients).unwrap_or_else(|| g.scalar(DType::F32, 0.0));
        let loss = cross_entropy / tokens;
        let finite = is_finite(loss) & is_finite(norm);
        let spikes = window.as_ref().map(|window| {
            let _scope = g.scope("spikes");
            window.spikes(&config.recovery, loss, norm)
        });
        let sound = match &spikes {
            None => finite,
            Some(spikes) => finite & (spikes.loss | spikes.grad_norm).logical_not(),
        };
        let gradients = match config.optimizer.clip_norm() {
            Some(bound) => optim::clip(&gradients, norm, bound),
            None => gradients,
        };

        let _scope = g.scope("optimizer");
        let done = count[0].convert(DType::F32);
        let rate = optim::learning_rate(&config.schedule, config.train.steps, done);
        let context = StepContext {
            step: match self.optimizer_start {
                0 => done,
                // Subtracted as whole numbers: the difference is small where the step need not be.
                start => (count[0] - start as f64).convert(DType::F32),
            },
            learning_rate: rate,
        };
        let mut next = Vec::new();
        let mut next_slots = Vec::new();
        let mut slots = slots;
        let mut gradients = gradients.into_iter();
        for (p, &value) in parameters.iter().zip(values) {
            let (own, others) = slots.split_at(config.optimizer.slots(p).len());
            slots = others;
            if !is_trained(config, p) {
                next.push(value);
                next_slots.extend(own);
                continue;
            }
            let gradient = gradients.next().expect("one for each trained parameter");
            let (value, gradient) = match sharding::of_update(self, p) {
                Some(s) => (
                    value.with_sharding_constraint(s.clone()),
                    gradient.with_sharding_constraint(s),
                ),
                None => (value, gradient),
            };
            let updated = config.optimizer.update(p, value, gradient, own, context);
            next.push(sound.select(updated.value, value));
            let updated = updated.slots.into_iter().zip(own);
            next_slots.extend(updated.map(|(new, &old)| sound.select(new, old)));
        }
        next.extend(next_slots);
        let non_finite = count_non_finite(&g, &next);
        if let Some(window) = window {
            next.extend(window.after(sound, loss, norm));
        }
        next.push(count[0] + 1.0);
        let outputs = self.laid_out(&next);
        let metrics = StepMetrics {
            loss,
            accuracy: correct / tokens,
            learning_rate: rate,
            grad_norm: norm,
            input_tokens: BatchTensors::of(&batch).input_tokens(),
            target_tokens: tokens,
            skipped: {
                let number = |reason: SkipReason| g.scalar(DType::F32, reason.number());
                let skipped = spikes.map_or(g.scalar(DType::F32, 0.0), |spikes| {
                    let grad_norm = number(SkipReason::GradNormSpike);
                    let other = spikes
                        .grad_norm
                        .select(grad_norm, g.scalar(DType::F32, 0.0));
                    spikes.loss.select(number(SkipReason::LossSpike), other)
                });
                finite.select(skipped, number(SkipReason::NotFinite))
            },
            non_finite,
        };
        let mut metrics = vector(&g, &metrics.to_array());
        if let Some(counts) = counts {
            metrics = g.concatenate(&[metrics, counts], 0);
        }
        let donations: Vec<(usize, usize)> = (0..arrays.len()).map(|i| (i, i)).collect();
        g.finish(&[outputs, vec![metrics]].concat(), &donations)
    }
}

/// Whether a step changes a parameter.
fn is_trained(config: &Config, parameter: &Parameter) -> bool {
    match config.train.freeze {
        Freeze::None => true,
        Freeze::Encoder => !is_of_encoder(&parameter.name),
    }
}

/// The gradients of all parameters, with zeros for frozen ones.
fn with_zeros_of_frozen<'g>(
    config: &Config,
    parameters: &[Parameter],
    values: &[Tensor<'g>],
    gradients: &[Tensor<'g>],
) -> Vec<Tensor<'g>> {
    let mut gradients = gradients.iter();
    let of = |(p, value): (&Parameter, &Tensor<'g>)| match is_trained(config, p) {
        true => *gradients.next().expect("one for each trained parameter"),
        false => value.zeros_like(),
    };
    parameters.iter().zip(values).map(of).collect()
}

/// Whether each element is a number below infinity.
fn is_finite<'g>(x: Tensor<'g>) -> Tensor<'g> {
    x.abs().less(x.full_like(f64::INFINITY))
}

/// How many elements of all tensors together are not finite, float32.
fn count_non_finite<'g>(g: &'g Graph, tensors: &[Tensor<'g>]) -> Tensor<'g> {
    let count = |x: &Tensor<'g>| {
        let ones = is_finite(*x).select(x.zeros_like(), x.full_like(1.0));
        ones.sum_all()
    };
    let counts = tensors.iter().map(count).reduce(|a, b| a + b);
    counts.unwrap_or_else(|| g.scalar(DType::F32, 0.0))
}

/// What is summed over a batch.
struct Sums<'g> {
    /// Of the mean objective over the batch's tokens, for each trained parameter.
    gradients: Vec<Tensor<'g>>,
    cross_entropy: Tensor<'g>,
    correct: Tensor<'g>,
    /// How often each token is predicted and expected, where histograms are configured.
    predicted: Option<Tensor<'g>>,
}

/// The sums of a batch with so many `tokens`. It is computed in as many parts as configured, one
/// after the other.
fn accumulate<'g>(
    programs: &Programs<'_>,
    g: &'g Graph,
    specs: &Weights<Parameter>,
    values: &[Tensor<'g>],
    batch: &[Tensor<'g>],
    tokens: Tensor<'g>,
) -> Sums<'g> {
    let config = programs.config;
    let counts_tokens = config.telemetry.histograms_every > 0;
    let leaves = specs.leaves();
    let trained = leaves.iter().zip(values);
    let trained = trained.filter(|(p, _)| is_trained(config, p));
    let trained: Vec<Tensor<'g>> = trained.map(|(_, &value)| value).collect();
    let part = |values: &[Tensor<'g>], batch: &[Tensor<'g>]| {
        let sums = losses(programs, specs, values, batch).1;
        let targets = BatchTensors::of(batch).targets;
        Sums {
            gradients: g.gradients(sums.objective / tokens, &trained),
            cross_entropy: sums.cross_entropy,
            correct: sums.correct,
            predicted: counts_tokens.then(|| histograms::tokens(config, &sums, targets)),
        }
    };
    let parts = config.train.gradient_accumulation as i64;
    if parts == 1 {
        return part(values, batch);
    }
    let split: Vec<Tensor<'g>> = batch
        .iter()
        // Each device's rows are split over the parts, so that none moves to another device.
        .map(|t| {
            t.reshape(&[t.dim(0) / parts, parts, t.dim(1)])
                .transpose(&[1, 0, 2])
                .with_logical_axes(&[
                    LogicalAxis::Microbatches,
                    LogicalAxis::Batch,
                    LogicalAxis::Length,
                ])
        })
        .collect();
    let mut init: Vec<Tensor<'g>> = trained.iter().map(|v| v.zeros_like()).collect();
    init.extend([g.scalar(DType::F32, 0.0); 2]);
    init.extend(counts_tokens.then(|| histograms::no_tokens(g, config)));
    let (sums, _) = g.scan(Default::default(), &init, &split, |carries, batch| {
        let part = part(values, batch);
        let new = part.gradients.into_iter();
        let new = new.chain([part.cross_entropy, part.correct]);
        let new = new.chain(part.predicted);
        (
            carries
                .iter()
                .zip(new)
                .map(|(sum, new)| *sum + new)
                .collect(),
            vec![],
        )
    });
    let (gradients, sums) = sums.split_at(trained.len());
    Sums {
        gradients: gradients.to_vec(),
        cross_entropy: sums[0],
        correct: sums[1],
        predicted: sums.get(2).copied(),
    }
}
