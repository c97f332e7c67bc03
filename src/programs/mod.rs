//! The programs of a run: drawing the initial state, a training step, an evaluation, a forward
//! pass.
//!
//! The state of a run is a list of arrays in a fixed order: the parameters, then the optimizer's
//! slots of each parameter, then what is kept of good steps where spikes are skipped, then the
//! number of steps done. A step takes the state and a batch; it
//! returns the next state, in the memory of the last one, and its metrics. This module builds
//! programs and knows what they take and return. It does not know devices, and runs nothing.

mod attention;
mod encoder;
mod forward;
mod generation;
pub mod head;
mod histograms;
mod initial;
mod metrics;
mod random;
mod residues;
pub mod sharding;
mod signature;
mod spikes;
mod step;

use ankh_hlo::{ArraySpec, DType, Graph, LogicalAxisRules, Tensor};
use ankh_mosaic::Lowering;

use crate::config::{self, Config};
use crate::model::{AttentionImplementation, Parameter, Weights};

pub use attention::{NoKernel, attention};
pub use encoder::{Pooling, is_of_encoder, most_segments};
pub use forward::Gradients;
pub use generation::{AMINO_ACIDS, Constraint, RowsPerPrompt, Search};
pub use histograms::Histogram;
pub use metrics::{EvaluationSums, SkipReason, StepMetrics};
pub use residues::DECODER_LENGTH;
pub use signature::{Array, BatchShape, batch, inputs, state};
pub use spikes::is_of_spikes;

/// The element type of activations and matrix products.
pub fn compute_type(compute: config::Compute, platform: &str) -> DType {
    match compute {
        config::Compute::Float32 => DType::F32,
        config::Compute::Bfloat16 => DType::Bf16,
        config::Compute::Auto if platform == "cpu" => DType::F32,
        config::Compute::Auto => DType::Bf16,
    }
}

/// The deepest stack that is compiled layer by layer. Six and three layers take XLA a second or two
/// more than two loops do; deeper stacks than this were not tried.
const DEEPEST_UNROLLED: usize = 12;

/// Whether layers stand one after the other: on the CPU where everything is kept, for a loop would
/// copy it into its stacks and out of them. Where something is to be computed again, a loop is what
/// keeps the compiler from merging that with the forward pass.
fn unroll(config: &Config, platform: &str) -> bool {
    let model = &config.model;
    let deepest = model.encoder_layers.max(model.decoder_layers);
    let everything = config.train.remat == config::Remat::None;
    platform == "cpu" && everything && deepest <= DEEPEST_UNROLLED
}

/// What computes a training's attention.
fn implementation(kernels: Result<Lowering, NoKernel>) -> AttentionImplementation {
    kernels.map_or(
        AttentionImplementation::Formula,
        AttentionImplementation::Kernel,
    )
}

/// What the programs of a run are made from.
#[derive(Clone, Debug)]
pub struct Programs<'c> {
    /// The run.
    pub config: &'c Config,
    /// The sizes of a batch, of all devices together.
    pub size: BatchShape,
    /// The element type of activations and matrix products.
    pub compute: DType,
    /// How attention is computed.
    pub attention: AttentionImplementation,
    /// Whether the layers of a stack stand one after the other, and not in a loop.
    pub unroll: bool,
    /// How arrays are split over the devices, if there are several.
    pub rules: Option<LogicalAxisRules>,
    /// The step that what the optimizer keeps began at: 0, unless a run was given another optimizer
    /// on its way. The optimizer counts its steps from there, while the schedule counts those of
    /// the run.
    pub optimizer_start: u64,
}

impl<'c> Programs<'c> {
    /// Programs for one device, of any platform.
    pub fn new(config: &'c Config, size: BatchShape, compute: DType) -> Programs<'c> {
        Programs {
            config,
            size,
            compute,
            attention: implementation(attention(config, size, compute, "cpu", None)),
            unroll: false,
            rules: None,
            optimizer_start: 0,
        }
    }

    /// The configured programs for devices of a platform, laid out on a mesh if there is one.
    pub fn of(
        config: &'c Config,
        platform: &str,
        rules: Option<&LogicalAxisRules>,
    ) -> Programs<'c> {
        Programs::of_size(config, BatchShape::of(config), platform, rules)
    }

    /// The same for batches of another size than is configured.
    pub fn of_size(
        config: &'c Config,
        size: BatchShape,
        platform: &str,
        rules: Option<&LogicalAxisRules>,
    ) -> Programs<'c> {
        let compute = compute_type(config.train.compute, platform);
        let attention = implementation(attention(config, size, compute, platform, rules));
        Programs {
            attention,
            unroll: unroll(config, platform),
            rules: rules.cloned(),
            ..Programs::new(config, size, compute)
        }
    }

    /// The arrays of the state, in order.
    pub fn state_specs(&self) -> Vec<ArraySpec> {
        let shardings = sharding::of_state(self);
        let spec = |(i, array): (usize, Array)| ArraySpec {
            name: array.name,
            shape: array.shape,
            sharding: shardings.as_ref().map(|s| s[i].clone()),
        };
        state(self.config)
            .into_iter()
            .enumerate()
            .map(spec)
            .collect()
    }

    /// The arrays of a batch, in order.
    pub fn batch_specs(&self) -> Vec<ArraySpec> {
        let spec = |array: Array| ArraySpec {
            sharding: self
                .rules
                .as_ref()
                .and_then(|l| l.sharding(&array.logical_axes, &array.shape.dims).ok()),
            name: array.name,
            shape: array.shape,
        };
        batch(self.size).into_iter().map(spec).collect()
    }

    fn graph(&self, name: &str) -> Graph {
        let g = Graph::new(name);
        if let Some(rules) = &self.rules {
            g.set_logical_axis_rules(rules.clone());
        }
        g
    }

    /// The state's inputs.
    fn declare_state<'g>(&self, g: &'g Graph) -> Vec<Tensor<'g>> {
        let arrays = state(self.config);
        match sharding::of_state(self) {
            Some(shardings) => arrays
                .iter()
                .zip(shardings)
                .map(|(a, s)| g.sharded_parameter(&a.name, a.shape.clone(), s))
                .collect(),
            None => declare(g, &arrays),
        }
    }

    /// The state's results, with the shardings of its inputs.
    fn laid_out<'g>(&self, state: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        match sharding::of_state(self) {
            Some(shardings) => state
                .iter()
                .zip(shardings)
                .map(|(t, s)| t.with_sharding_constraint(s))
                .collect(),
            None => state.to_vec(),
        }
    }
}

fn parameters<'g>(g: &'g Graph, config: &Config) -> (Weights<Parameter>, Vec<Tensor<'g>>) {
    let specs = Weights::of(&config.model);
    let arrays: Vec<Array> = specs.leaves().iter().map(Array::of_parameter).collect();
    let values = declare(g, &arrays);
    (specs, values)
}

fn declare<'g>(g: &'g Graph, arrays: &[Array]) -> Vec<Tensor<'g>> {
    arrays
        .iter()
        .map(|a| match a.logical_axes.is_empty() {
            true => g.parameter(&a.name, a.shape.clone()),
            false => g.parameter_with_logical_axes(&a.name, a.shape.clone(), &a.logical_axes),
        })
        .collect()
}

/// Scalars, one after the other.
fn vector<'g>(g: &'g Graph, scalars: &[Tensor<'g>]) -> Tensor<'g> {
    let parts: Vec<Tensor<'g>> = scalars.iter().map(|s| s.reshape(&[1])).collect();
    g.concatenate(&parts, 0)
}
