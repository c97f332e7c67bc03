//! The programs of a run: drawing the first weights, a training step, an evaluation, a forward pass with its gradients.
//!
//! The state of a run is a list of arrays in a fixed order: the parameters, then what the optimizer keeps for each, then
//! the number of steps done. A step takes the state and a batch and gives the next state, in the memory of the last one,
//! and a few numbers to log.

use ankh_data::Rows;
use ankh_hlo::{
    ArraySpec, DType, Error, Graph, Literal, LogicalAxisRules, Module, Remat, Shape, Sharding,
    Tensor,
};

use crate::config::{self, Config, MeshAxis};
use crate::model::Initializer;
use crate::model::{Network, Parameter, Targets, Tokens, Weights, saved, token_loss};
use crate::optim::{self, StepContext};

/// An array that a program takes or gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its name in checkpoints and messages.
    pub name: String,
    /// Its element type and dimensions.
    pub shape: Shape,
    /// What its dimensions are.
    pub logical_axes: Vec<&'static str>,
}

/// The shape of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Rows.
    pub rows: usize,
    /// Encoder positions a row.
    pub input: usize,
    /// Decoder positions a row.
    pub target: usize,
    /// What a row holds.
    pub layout: Rows,
}

impl BatchSize {
    /// The configured sizes.
    pub fn of(config: &Config) -> BatchSize {
        BatchSize {
            rows: config.train.batch_size,
            input: config.data.input_length,
            target: config.data.target_length,
            layout: config.data.rows,
        }
    }

    /// Positions of both sides, padding included.
    pub fn positions(self) -> usize {
        self.rows * (self.input + self.target)
    }
}

/// What a step reports, in the order of the program's last output, float32.
pub const METRICS: [&str; 6] = [
    "loss",
    "accuracy",
    "grad_norm",
    "learning_rate",
    "input_tokens",
    "target_tokens",
];

/// What an evaluation reports: sums over the target tokens of a batch, and their number.
pub const EVALUATION: [&str; 3] = ["cross_entropy", "correct", "tokens"];

/// The element type of activations and matrix products.
pub fn compute_type(compute: config::Compute, platform: &str) -> DType {
    match compute {
        config::Compute::Float32 => DType::F32,
        config::Compute::Bfloat16 => DType::Bf16,
        config::Compute::Auto if platform == "cpu" => DType::F32,
        config::Compute::Auto => DType::Bf16,
    }
}

/// The state's arrays, in order.
pub fn state(config: &Config) -> Vec<Array> {
    let parameters = Weights::of(&config.model).leaves();
    let mut arrays: Vec<Array> = parameters.iter().map(parameter_array).collect();
    for slot in parameters
        .iter()
        .flat_map(|p| optim::slots(&config.optimizer, p))
    {
        arrays.push(Array {
            name: slot.name,
            shape: Shape::new(DType::F32, slot.dims),
            logical_axes: slot.logical_axes,
        });
    }
    arrays.push(Array {
        name: "step".into(),
        shape: Shape::new(DType::S32, []),
        logical_axes: vec![],
    });
    arrays
}

/// The batch's arrays, in order.
pub fn batch(size: BatchSize) -> Vec<Array> {
    let array = |name: &str, length: usize| Array {
        name: name.into(),
        shape: Shape::new(DType::S32, [size.rows as i64, length as i64]),
        logical_axes: vec!["batch", "length"],
    };
    let (input, target) = (size.input, size.target);
    match size.layout {
        Rows::Padded => vec![
            array("input_ids", input),
            array("attention_mask", input),
            array("decoder_input_ids", target),
            array("labels", target),
        ],
        Rows::Packed => vec![
            array("input_ids", input),
            array("input_segments", input),
            array("decoder_input_ids", target),
            array("target_segments", target),
            array("labels", target),
        ],
    }
}

/// The arrays of [`batch`] as a program's tensors.
#[derive(Clone, Copy)]
struct Fed<'g> {
    input_ids: Tensor<'g>,
    tokens: Tokens<'g>,
    decoder_input_ids: Tensor<'g>,
    targets: Targets<'g>,
}

impl<'g> Fed<'g> {
    fn of(arrays: &[Tensor<'g>]) -> Fed<'g> {
        match *arrays {
            [input_ids, attention_mask, decoder_input_ids, labels] => Fed {
                input_ids,
                tokens: Tokens::Padded { attention_mask },
                decoder_input_ids,
                targets: Targets(labels),
            },
            [
                input_ids,
                input_segments,
                decoder_input_ids,
                target_segments,
                labels,
            ] => Fed {
                input_ids,
                tokens: Tokens::Packed {
                    input_segments,
                    target_segments,
                },
                decoder_input_ids,
                targets: Targets(labels),
            },
            _ => unreachable!("`batch` lists four arrays or five"),
        }
    }

    /// How many positions of the inputs hold a token, float32.
    fn input_tokens(self) -> Tensor<'g> {
        let ones = match self.tokens {
            Tokens::Padded { attention_mask } => attention_mask,
            Tokens::Packed { input_segments, .. } => {
                input_segments.not_equal(input_segments.zeros_like())
            }
        };
        ones.convert(DType::F32).sum_all()
    }
}

fn parameter_array(p: &Parameter) -> Array {
    Array {
        name: p.name.clone(),
        shape: Shape::new(DType::F32, p.dims.clone()),
        logical_axes: p.logical_axes.clone(),
    }
}

/// What the programs of a run are made from.
#[derive(Clone, Debug)]
pub struct Programs<'c> {
    /// The run.
    pub config: &'c Config,
    /// The sizes of a batch, of all devices together.
    pub size: BatchSize,
    /// The element type of activations and matrix products.
    pub compute: DType,
    /// How arrays lie on the devices, where there are several.
    pub layout: Option<LogicalAxisRules>,
    /// The step that what the optimizer keeps began at: 0, unless a run was given another optimizer on its way. The optimizer
    /// counts its steps from there, while the schedule counts those of the run.
    pub optimizer_start: u64,
}

impl<'c> Programs<'c> {
    /// Programs for one device.
    pub fn new(config: &'c Config, size: BatchSize, compute: DType) -> Programs<'c> {
        Programs {
            config,
            size,
            compute,
            layout: None,
            optimizer_start: 0,
        }
    }

    /// Where each array of the state lies, on a mesh: the parameters by the rules, and what the optimizer keeps likewise or, if
    /// so configured, split over `data` too.
    fn state_shardings(&self) -> Option<Vec<Sharding>> {
        let layout = self.layout.as_ref()?;
        let parameters = Weights::of(&self.config.model).leaves().len();
        let of = |(i, array): (usize, &Array)| {
            let sharding = layout
                .sharding(&array.logical_axes, &array.shape.dims)
                .ok()?;
            let spread = self.config.sharding.zero && i >= parameters;
            Some(if spread {
                over_data(sharding, &array.shape.dims)
            } else {
                sharding
            })
        };
        state(self.config).iter().enumerate().map(of).collect()
    }

    /// The configured programs for devices of a platform, laid out on a mesh if there is one.
    pub fn of(
        config: &'c Config,
        platform: &str,
        layout: Option<&LogicalAxisRules>,
    ) -> Programs<'c> {
        Programs {
            layout: layout.cloned(),
            ..Programs::new(
                config,
                BatchSize::of(config),
                compute_type(config.train.compute, platform),
            )
        }
    }

    /// The arrays of the state, in order.
    pub fn state_specs(&self) -> Vec<ArraySpec> {
        let shardings = self.state_shardings();
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
                .layout
                .as_ref()
                .and_then(|l| l.sharding(&array.logical_axes, &array.shape.dims).ok()),
            name: array.name,
            shape: array.shape,
        };
        batch(self.size).into_iter().map(spec).collect()
    }

    /// Where a parameter is updated, on a mesh: where it lies, or, if so configured, each device of `data` a part.
    fn update_sharding(&self, parameter: &Parameter) -> Option<Sharding> {
        let layout = self.layout.as_ref()?;
        let sharding = layout
            .sharding(&parameter.logical_axes, &parameter.dims)
            .ok()?;
        Some(if self.config.sharding.zero {
            over_data(sharding, &parameter.dims)
        } else {
            sharding
        })
    }

    /// The state's inputs.
    fn declare_state<'g>(&self, g: &'g Graph) -> Vec<Tensor<'g>> {
        let arrays = state(self.config);
        match self.state_shardings() {
            Some(shardings) => arrays
                .iter()
                .zip(shardings)
                .map(|(a, s)| g.sharded_parameter(&a.name, a.shape.clone(), s))
                .collect(),
            None => declare(g, &arrays),
        }
    }

    /// The state's results, where its inputs lie.
    fn laid_out<'g>(&self, state: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        match self.state_shardings() {
            Some(shardings) => state
                .iter()
                .zip(shardings)
                .map(|(t, s)| t.with_sharding_constraint(s))
                .collect(),
            None => state.to_vec(),
        }
    }

    fn graph(&self, name: &str) -> Graph {
        let g = Graph::new(name);
        if let Some(layout) = &self.layout {
            g.set_logical_axis_rules(layout.clone());
        }
        g
    }

    /// The program that draws the first state from a seed, `u64[]`. Each parameter has a random stream of its own, so that
    /// adding one leaves the others as they were.
    pub fn initial(&self) -> Result<Module, Error> {
        let config = self.config;
        let g = self.graph("initial");
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let parameters = Weights::of(&config.model).leaves();
        let mut outputs: Vec<Tensor<'_>> = parameters
            .iter()
            .map(|p| match p.initializer {
                Initializer::Ones => g.full(&Shape::new(DType::F32, p.dims.clone()), 1.0),
                Initializer::Normal(deviation) => {
                    let stream = Literal::u64(&[1], &[stream(&p.name)]).expect("one word");
                    let key = g.concatenate(&[seed.reshape(&[1]), g.literal(stream)], 0);
                    g.normal(key, &p.dims) * deviation
                }
            })
            .collect();
        let arrays = state(config);
        outputs.extend(arrays[parameters.len()..].iter().map(|a| g.zeros(&a.shape)));
        g.finish(&self.laid_out(&outputs), &[])
    }

    /// A training step: state and batch to state (in place) and [`METRICS`].
    pub fn step(&self) -> Result<Module, Error> {
        let Programs {
            config,
            size,
            compute,
            ..
        } = *self;
        let g = self.graph("train_step");
        let arrays = state(config);
        let inputs = self.declare_state(&g);
        let fed = declare(&g, &batch(size));
        let specs = Weights::of(&config.model);
        let parameters = specs.leaves();
        let (values, rest) = inputs.split_at(parameters.len());
        let (slots, count) = rest.split_at(rest.len() - 1);

        let tokens = Fed::of(&fed).targets.count();
        let (gradients, cross_entropy, correct) =
            accumulate(&g, config, &specs, values, &fed, tokens, compute);
        let norm = optim::global_norm(&gradients).unwrap_or_else(|| g.scalar(DType::F32, 0.0));
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
        for ((p, &value), &gradient) in parameters.iter().zip(values).zip(&gradients) {
            let (own, others) = slots.split_at(optim::slots(&config.optimizer, p).len());
            slots = others;
            let (value, gradient) = match self.update_sharding(p) {
                Some(s) => (
                    value.with_sharding_constraint(s.clone()),
                    gradient.with_sharding_constraint(s),
                ),
                None => (value, gradient),
            };
            let updated = optim::update(&config.optimizer, p, value, gradient, own, context);
            next.push(updated.value);
            next_slots.extend(updated.slots);
        }
        next.extend(next_slots);
        next.push(count[0] + 1.0);
        let outputs = self.laid_out(&next);
        let metrics = vector(
            &g,
            &[
                cross_entropy / tokens,
                correct / tokens,
                norm,
                rate,
                Fed::of(&fed).input_tokens(),
                tokens,
            ],
        );
        let donations: Vec<(usize, usize)> = (0..arrays.len()).map(|i| (i, i)).collect();
        g.finish(&[outputs, vec![metrics]].concat(), &donations)
    }

    /// An evaluation: parameters and batch to [`EVALUATION`].
    pub fn evaluation(&self) -> Result<Module, Error> {
        let Programs {
            config,
            size,
            compute,
            ..
        } = *self;
        let g = self.graph("evaluation");
        let (specs, values) = parameters(&g, config);
        let fed = declare(&g, &batch(size));
        let sums = losses(config, &specs, &values, &fed, compute).1;
        let out = vector(
            &g,
            &[
                sums.cross_entropy,
                sums.correct,
                Fed::of(&fed).targets.count(),
            ],
        );
        g.finish(&[out], &[])
    }

    /// A forward pass: parameters and batch to logits, encoder states, the mean loss and, if asked for, the gradient of each
    /// parameter.
    pub fn forward(&self, gradients: Gradients) -> Result<Module, Error> {
        let Programs {
            config,
            size,
            compute,
            ..
        } = *self;
        let g = self.graph("forward");
        let (specs, values) = parameters(&g, config);
        let fed = declare(&g, &batch(size));
        let (states, sums) = losses(config, &specs, &values, &fed, compute);
        let loss = sums.objective / Fed::of(&fed).targets.count();
        let mut outputs = vec![states.logits, states.encoder.convert(DType::F32), loss];
        if gradients == Gradients::Yes {
            outputs.extend(g.gradients(loss, &values));
        }
        g.finish(&outputs, &[])
    }
}

/// Splits the first dimension that divides over `data` as well.
fn over_data(sharding: Sharding, dims: &[i64]) -> Sharding {
    let further = dims
        .iter()
        .enumerate()
        .find_map(|(dim, &size)| sharding.split_further(dim, size, MeshAxis::Data.name()));
    further.unwrap_or(sharding)
}

/// A parameter's random stream: FNV-1a of its name.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Gradients of the mean objective over the batch's `tokens`, with the summed cross-entropy and correct predictions. The
/// batch is computed in as many parts as configured, one after the other.
fn accumulate<'g>(
    g: &'g Graph,
    config: &Config,
    specs: &Weights<Parameter>,
    values: &[Tensor<'g>],
    batch: &[Tensor<'g>],
    tokens: Tensor<'g>,
    compute: DType,
) -> (Vec<Tensor<'g>>, Tensor<'g>, Tensor<'g>) {
    let part = |values: &[Tensor<'g>], batch: &[Tensor<'g>]| {
        let sums = losses(config, specs, values, batch, compute).1;
        (
            g.gradients(sums.objective / tokens, values),
            sums.cross_entropy,
            sums.correct,
        )
    };
    let parts = config.train.accumulation as i64;
    if parts == 1 {
        return part(values, batch);
    }
    let split: Vec<Tensor<'g>> = batch
        .iter()
        // Each device's rows are shared out over the parts, so that none moves to another device.
        .map(|t| {
            t.reshape(&[t.dim(0) / parts, parts, t.dim(1)])
                .transpose(&[1, 0, 2])
                .with_logical_axes(&["parts", "batch", "length"])
        })
        .collect();
    let mut init: Vec<Tensor<'g>> = values.iter().map(|v| v.zeros_like()).collect();
    init.extend([g.scalar(DType::F32, 0.0); 2]);
    let (sums, _) = g.scan(Default::default(), &init, &split, |carries, batch| {
        let (gradients, cross_entropy, correct) = part(values, batch);
        let new = gradients.into_iter().chain([cross_entropy, correct]);
        (
            carries
                .iter()
                .zip(new)
                .map(|(sum, new)| *sum + new)
                .collect(),
            vec![],
        )
    });
    let (gradients, sums) = sums.split_at(values.len());
    (gradients.to_vec(), sums[0], sums[1])
}

/// Whether a forward pass gives gradients too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// Of each parameter, in the state's order.
    Yes,
    /// None.
    No,
}

fn losses<'g>(
    config: &Config,
    specs: &Weights<Parameter>,
    values: &[Tensor<'g>],
    batch: &[Tensor<'g>],
    compute: DType,
) -> (crate::model::States<'g>, crate::model::TokenLoss<'g>) {
    let network = Network {
        model: &config.model,
        weights: specs.filled(values),
        compute,
        remat: remat(config.train.remat),
        gradients: match config.sharding.gradients {
            config::GradientType::Float32 => DType::F32,
            config::GradientType::Bfloat16 => compute,
        },
    };
    let fed = Fed::of(batch);
    let states = network.forward(fed.input_ids, fed.decoder_input_ids, fed.tokens);
    let _scope = states.logits.graph().scope("loss");
    let loss = token_loss(states.logits, fed.targets, &config.loss);
    (states, loss)
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

fn parameters<'g>(g: &'g Graph, config: &Config) -> (Weights<Parameter>, Vec<Tensor<'g>>) {
    let specs = Weights::of(&config.model);
    let arrays: Vec<Array> = specs.leaves().iter().map(parameter_array).collect();
    let values = declare(g, &arrays);
    (specs, values)
}

fn declare<'g>(g: &'g Graph, arrays: &[Array]) -> Vec<Tensor<'g>> {
    arrays
        .iter()
        .map(|a| g.parameter_with_logical_axes(&a.name, a.shape.clone(), &a.logical_axes))
        .collect()
}

/// Scalars, one after the other.
fn vector<'g>(g: &'g Graph, scalars: &[Tensor<'g>]) -> Tensor<'g> {
    let parts: Vec<Tensor<'g>> = scalars.iter().map(|s| s.reshape(&[1])).collect();
    g.concatenate(&parts, 0)
}
