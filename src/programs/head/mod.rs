//! The head that is trained on the states of a frozen encoder, as the authors of Ankh do: one
//! ConvBERT layer ([`convbert`]), a pool over residues where a sequence has one label, and a linear
//! layer.
//!
//! The state of a head is a list of arrays in a fixed order: its parameters, then what AdamW keeps
//! of each, then the number of steps done. Every device has all of it; the rows of a batch are
//! split by the rules.

pub mod convbert;
mod dropout;
mod outputs;

use ankh_hlo::{DType, Error, Graph, LogicalAxisRules, Module, Shape, Sharding, Tensor};

use super::{Array, declare, initial};
use crate::config::LogicalAxis;
use crate::model::Parameter;
use crate::optim::{AdamW, Optimizer, StepContext};

pub use dropout::{Dropout, Site};
pub use outputs::LEAST_SEPARATION;

/// What a head predicts, and from what labels it learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeadKind {
    /// A class of each residue: logits float32 `[rows, length, classes]` by cross-entropy. Labels
    /// are s32 `[rows, length]`, negative where there is none.
    Residues {
        /// How many there are.
        classes: usize,
    },
    /// A class of each sequence: logits float32 `[rows, classes]` by cross-entropy. Labels are s32
    /// `[rows]`, negative where there is none.
    Sequence {
        /// How many there are.
        classes: usize,
    },
    /// A number for each sequence: float32 `[rows]` by squared error. Labels are float32 `[rows]`;
    /// a row of padding alone has none.
    Value {
        /// The mean label, where the prediction begins.
        mean: f64,
    },
    /// Whether two residues touch: logits float32 `[rows, length, length]`, symmetric, by binary
    /// cross-entropy. Labels are s32 `[rows, length, length]`: 1 for a contact, 0 for none,
    /// negative where it is not known. Pairs nearer than [`LEAST_SEPARATION`] do not count.
    Pairs,
}

/// A head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// The width of the encoder's states, d; a multiple of 4.
    pub width: usize,
    /// What it predicts.
    pub kind: HeadKind,
    /// The share of units that a training step drops; 0.2 in the authors' experiments.
    pub dropout: f64,
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadBatchSize {
    /// Sequences, of all devices together.
    pub rows: usize,
    /// Residues of each, padding included.
    pub length: usize,
}

impl Head {
    /// Its parameters, float32, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = convbert::parameters(self.width);
        all.extend(self.kind.parameters(self.width));
        all
    }

    /// The arrays of its state, in order: the parameters, two moments of each, and `step`, s32.
    pub fn state(&self) -> Vec<Array> {
        let parameters = self.parameters();
        let mut arrays: Vec<Array> = parameters.iter().map(Array::of_parameter).collect();
        let optimizer = optimizer();
        arrays.extend(parameters.iter().flat_map(|p| {
            let slots = optimizer.slots(p).into_iter();
            slots.map(|slot| whole(&slot.name, Shape::new(DType::F32, slot.dims)))
        }));
        arrays.push(whole("step", Shape::new(DType::S32, [])));
        arrays
    }

    /// The program that draws the first state from a `seed`, u64.
    pub fn initial(&self, rules: Option<&LogicalAxisRules>) -> Result<Module, Error> {
        let g = graph("head_initial", rules);
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let parameters = self.parameters();
        let mut state: Vec<Tensor<'_>> =
            parameters.iter().map(|p| initial::drawn(seed, p)).collect();
        let arrays = self.state();
        state.extend(arrays[parameters.len()..].iter().map(|a| g.zeros(&a.shape)));
        g.finish(&replicated(&state, rules), &[])
    }

    /// A training step. It takes the state, then `learning_rate` float32, `seed` u64, `examples`
    /// s32 `[rows]`, `states` float32 `[rows, length, d]`, `mask` s32 `[rows, length]` with 0 at
    /// padding, and `labels` as [`HeadKind`] says. It gives the next state, in the memory of the
    /// last one, and the loss, float32: the mean over all labels of the batch.
    ///
    /// AdamW has its usual settings and no weight decay. What dropout draws depends on the seed,
    /// the step and the numbers in `examples`, and not on the rows' places.
    pub fn step(
        &self,
        size: HeadBatchSize,
        rules: Option<&LogicalAxisRules>,
    ) -> Result<Module, Error> {
        let g = graph("head_step", rules);
        let arrays = self.state();
        let state = declare(&g, &arrays);
        let learning_rate = g.parameter("learning_rate", Shape::new(DType::F32, []));
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let batch = declare(&g, &self.batch(size));
        let [examples, states, mask, labels] = batch[..] else {
            unreachable!("`batch` lists four arrays")
        };
        let parameters = self.parameters();
        let (values, rest) = state.split_at(parameters.len());
        let (slots, step) = rest.split_at(rest.len() - 1);
        let step = step[0];
        let dropout = (self.dropout > 0.0).then_some(Dropout {
            seed,
            step,
            examples,
            rate: self.dropout,
        });
        let outputs = self.outputs(values, states, mask, dropout);
        let loss = self.kind.loss(outputs, labels, mask);
        let gradients = g.gradients(loss, values);

        let optimizer = optimizer();
        let context = StepContext {
            step: step.convert(DType::F32),
            learning_rate,
        };
        let (mut next, mut next_slots) = (Vec::new(), Vec::new());
        let mut slots = slots;
        for ((p, &value), &gradient) in parameters.iter().zip(values).zip(&gradients) {
            let (own, others) = slots.split_at(optimizer.slots(p).len());
            slots = others;
            let updated = optimizer.update(p, value, gradient, own, context);
            next.push(updated.value);
            next_slots.extend(updated.slots);
        }
        next.extend(next_slots);
        next.push(step + 1.0);
        next.push(loss);
        let donations: Vec<(usize, usize)> = (0..arrays.len()).map(|i| (i, i)).collect();
        g.finish(&replicated(&next, rules), &donations)
    }

    /// A prediction: the parameters, `states` and `mask` as in [`Head::step`] to what [`HeadKind`]
    /// says, without dropout.
    pub fn predict(
        &self,
        size: HeadBatchSize,
        rules: Option<&LogicalAxisRules>,
    ) -> Result<Module, Error> {
        let g = graph("head_predict", rules);
        let parameters = self.parameters();
        let arrays: Vec<Array> = parameters.iter().map(Array::of_parameter).collect();
        let values = declare(&g, &arrays);
        let batch = declare(&g, &self.batch(size)[1..3]);
        let outputs = self.outputs(&values, batch[0], batch[1], None);
        let axes = match self.kind {
            HeadKind::Residues { .. } => vec![LogicalAxis::Batch, LogicalAxis::Length, CLASSES],
            HeadKind::Sequence { .. } => vec![LogicalAxis::Batch, CLASSES],
            HeadKind::Value { .. } => vec![LogicalAxis::Batch],
            HeadKind::Pairs => vec![LogicalAxis::Batch, LogicalAxis::Length, LogicalAxis::Length],
        };
        g.finish(&[outputs.with_logical_axes(&axes)], &[])
    }

    /// The arrays of a batch: `examples`, `states`, `mask`, `labels`.
    fn batch(&self, size: HeadBatchSize) -> Vec<Array> {
        use LogicalAxis::{Batch, Embed, Length};
        let (rows, length) = (size.rows as i64, size.length as i64);
        let array = |name: &str, shape: Shape, axes: &[LogicalAxis]| Array {
            name: name.into(),
            shape,
            logical_axes: axes.to_vec(),
        };
        let states = Shape::new(DType::F32, [rows, length, self.width as i64]);
        let (labels, axes) = self.kind.labels(rows, length);
        vec![
            array("examples", Shape::new(DType::S32, [rows]), &[Batch]),
            array("states", states, &[Batch, Length, Embed]),
            array(
                "mask",
                Shape::new(DType::S32, [rows, length]),
                &[Batch, Length],
            ),
            array("labels", labels, &axes),
        ]
    }

    fn outputs<'g>(
        &self,
        values: &[Tensor<'g>],
        states: Tensor<'g>,
        mask: Tensor<'g>,
        dropout: Option<Dropout<'g>>,
    ) -> Tensor<'g> {
        let (layer, last) = values.split_at(values.len() - 2);
        let states = convbert::layer(layer, states, mask, dropout);
        self.kind.outputs(last[0], last[1], states, mask)
    }
}

/// Classes are few, and nothing splits them.
const CLASSES: LogicalAxis = LogicalAxis::Microbatches;

/// AdamW without weight decay; the learning rate is an input of each step.
fn optimizer() -> Optimizer {
    Optimizer::Adamw(AdamW {
        weight_decay: 0.0,
        ..AdamW::default()
    })
}

/// An array that every device has as a whole.
fn whole(name: &str, shape: Shape) -> Array {
    Array {
        name: name.into(),
        shape,
        logical_axes: vec![],
    }
}

fn graph(name: &str, rules: Option<&LogicalAxisRules>) -> Graph {
    let g = Graph::new(name);
    if let Some(rules) = rules {
        g.set_logical_axis_rules(rules.clone());
    }
    g
}

/// Results that every device has as a whole.
fn replicated<'g>(tensors: &[Tensor<'g>], rules: Option<&LogicalAxisRules>) -> Vec<Tensor<'g>> {
    let whole = |t: &Tensor<'g>| match rules {
        Some(rules) => t.with_sharding_constraint(Sharding::replicated(rules.mesh(), t.rank())),
        None => *t,
    };
    tensors.iter().map(whole).collect()
}
