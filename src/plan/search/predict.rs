//! Predicts memory and time of a choice before it is compiled: cheap and rough, and corrected by
//! the results of other choices.
//!
//! Memory is a lower bound: the state, and what a step must keep. Time is the matrix products at a
//! fraction of the peak, and communication. Only the order of the choices matters, not the absolute
//! values.

use std::collections::HashMap;

use ankh_hlo::{DType, Module};
use ankh_proto::xla::ShapeProto;

use super::choice::mesh;
use crate::config::{Config, GradientType, Layout, Remat};
use crate::mesh::slice::{Chip, Generation, Slice};
use crate::plan::collectives::bytes;
use crate::plan::estimate::{Interconnect, links_used};
use crate::plan::fit::usable;
use crate::plan::flops::Flops;
use crate::plan::memory::Stacks;
use crate::programs::sharding;
use crate::programs::{Programs, compute_type};

/// Chips are held against this one where nothing is known of them.
const NOMINAL: Generation = Generation::V4;

/// The share of the peak that a step's products reach, softmax and norms included, where nothing
/// stands in their way.
const EFFICIENCY: f64 = 0.45;

/// What an update moves for each weight: the weight, its gradient and a factor of it in and out.
const UPDATE_BYTES: f64 = 24.0;

/// What is known of a choice before it is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prediction {
    /// Seconds of a step.
    pub seconds: f64,
    /// Bytes of a chip that are needed at least.
    pub least_memory: u64,
}

/// Predicts the steps of one run.
pub(super) struct Predictor<'c> {
    config: &'c Config,
    slice: Slice,
    compute: DType,
    /// For each policy, the figures of the unsharded step.
    policies: HashMap<Remat, UnshardedStep>,
}

/// A step on one device that is large enough.
struct UnshardedStep {
    flops: Flops,
    /// What layers keep whose size follows the model axis, in bytes.
    kept_split: f64,
    /// What layers keep besides, in bytes.
    kept_whole: f64,
}

impl<'c> Predictor<'c> {
    pub fn new(config: &'c Config, slice: Slice) -> Result<Predictor<'c>, ankh_hlo::Error> {
        let platform = slice.platform().to_string();
        let compute = compute_type(config.train.compute, &platform);
        let mut policies = HashMap::new();
        for remat in Remat::ALL {
            let mut config = config.clone();
            config.train.remat = remat;
            config.train.gradient_accumulation = 1;
            let programs = Programs::of(&config, &platform, None);
            policies.insert(remat, UnshardedStep::of(&config, &programs.step()?));
        }
        Ok(Predictor {
            config,
            slice,
            compute,
            policies,
        })
    }

    /// What a choice takes; `None` where it cannot be laid out.
    pub fn predict(&self, choice: &Layout) -> Option<Prediction> {
        Some(Prediction {
            seconds: self.seconds(choice),
            least_memory: self.least_memory(choice)?,
        })
    }

    /// What a chip has, where that is known.
    pub fn memory(&self) -> Option<u64> {
        self.slice.generation().map(usable)
    }

    fn least_memory(&self, choice: &Layout) -> Option<u64> {
        let config = choice.apply(self.config);
        let mesh = mesh(choice, self.slice);
        let rules = sharding::logical_axis_rules(&config, mesh).ok()?;
        let platform = self.slice.platform().to_string();
        let programs = Programs::of(&config, &platform, rules.as_ref());
        let part = |spec: &ankh_hlo::ArraySpec| {
            let whole = spec.shape.bytes();
            let parts = spec.sharding.as_ref().map_or(1, |sharding| {
                (0..sharding.rank())
                    .map(|dim| sharding.shards(dim))
                    .product()
            });
            whole / parts.unsigned_abs()
        };
        let state: u64 = programs.state_specs().iter().map(part).sum();
        let unsharded = &self.policies[&choice.remat];
        let shares = (mesh.data * mesh.fsdp * choice.gradient_accumulation) as f64;
        let kept = unsharded.kept_whole + unsharded.kept_split / mesh.model as f64;
        let gradients = self.weights() * self.gradient_bytes(choice) / self.weight_shares(choice);
        Some(state + (kept / shares + gradients) as u64)
    }

    fn seconds(&self, choice: &Layout) -> f64 {
        let chip: &Chip = self.slice.generation().unwrap_or(NOMINAL).chip();
        let flops = self.policies[&choice.remat].flops.total();
        let products = flops / (self.slice.devices() as f64 * chip.peak_flops * EFFICIENCY);
        // Norms and residuals are computed by each device of the model axis.
        let repeated = 1.0 + 0.1 * (choice.model as f64 - 1.0);
        // Each part reads the weights again.
        let parts = 1.0 + 0.02 * (choice.gradient_accumulation as f64).log2();
        products * repeated * parts + self.updating(choice, chip) + self.sending(choice)
    }

    /// Seconds of the optimizer, which reads weights and gradients and writes weights.
    fn updating(&self, choice: &Layout, chip: &Chip) -> f64 {
        let weights = self.weights() / self.weight_shares(choice);
        let own = match choice.zero {
            true => weights / mesh(choice, self.slice).data as f64,
            false => weights,
        };
        UPDATE_BYTES * own / chip.memory_bandwidth
    }

    /// Seconds of what chips send: gradients along `data`, weights and gradients along `fsdp`,
    /// activations along `model`.
    fn sending(&self, choice: &Layout) -> f64 {
        let interconnect = Interconnect::of(self.slice.generation().unwrap_or(NOMINAL));
        let mesh = mesh(choice, self.slice);
        let along = |devices: usize, bytes: f64| {
            let others = (devices as f64 - 1.0) / devices as f64;
            bytes * others / (links_used(devices, &interconnect) * interconnect.bandwidth)
        };
        let element = self.compute.byte_width() as f64;
        let parts = choice.gradient_accumulation as f64;
        let share = self.weights() / self.weight_shares(choice);
        let data = along(mesh.data, 2.0 * share * self.gradient_bytes(choice) * parts);
        // Each pass gathers a layer's weights; gradients are summed and scattered.
        let passes = match self.policies[&choice.remat].flops.recompute {
            0.0 => 2.0,
            _ => 3.0,
        };
        let gathered = self.weights() / mesh.model as f64;
        let fsdp = along(
            mesh.fsdp,
            parts * gathered * (passes * element + self.gradient_bytes(choice)),
        );
        let model = &self.config.model;
        let (input, target) = (self.config.data.input_length, self.config.target_length());
        // Each sum of partial products over `model`, forward and backward: two of an encoder layer,
        // three of a decoder layer.
        let positions = 2 * model.encoder_layers * input + 3 * model.decoder_layers * target;
        let rows = self.config.batch_rows() as f64 / (mesh.data * mesh.fsdp) as f64;
        let sums = 2.0 * rows * (positions * model.d_model) as f64 * element;
        // What each device of `data` has updated, the others need.
        let updated = match choice.zero {
            true => along(mesh.data, 4.0 * share),
            false => 0.0,
        };
        data + updated + fsdp + along(mesh.model, 2.0 * sums)
    }

    fn weights(&self) -> f64 {
        self.config.model.parameters() as f64
    }

    fn weight_shares(&self, choice: &Layout) -> f64 {
        (choice.fsdp * choice.model) as f64
    }

    fn gradient_bytes(&self, choice: &Layout) -> f64 {
        match (choice.gradients, self.compute) {
            (GradientType::Bfloat16, DType::Bf16) => 2.0,
            _ => 4.0,
        }
    }
}

impl UnshardedStep {
    fn of(config: &Config, step: &Module) -> UnshardedStep {
        let model = &config.model;
        let split = [model.heads, model.inner(), model.d_ff].map(|n| n as i64);
        // The first dimension counts layers, the next one sequences.
        let follows_model = |shape: &ShapeProto| {
            let of_a_sequence = shape.dimensions.get(2..).unwrap_or_default();
            of_a_sequence.iter().any(|size| split.contains(size))
        };
        let stacks = Stacks::of(step.proto());
        let (mut kept_split, mut kept_whole) = (0.0, 0.0);
        for shape in &stacks.activations {
            match follows_model(shape) {
                true => kept_split += bytes(shape) as f64,
                false => kept_whole += bytes(shape) as f64,
            }
        }
        UnshardedStep {
            flops: Flops::of(step.proto(), 1),
            kept_split,
            kept_whole,
        }
    }
}
