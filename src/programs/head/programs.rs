//! The programs of a head: drawing its first state, a training step, a prediction.
//!
//! What is trained is a list of arrays in a fixed order: the parameters, of the head and then of
//! adapters, then what AdamW keeps of each, then the number of steps done. Every device has all of
//! it; the rows of a batch are split by the rules.

use ankh_hlo::{DType, Error, Graph, LogicalAxisRules, Module, Shape, Sharding, Tensor};

use super::adapted::Frozen;
use super::{AdaptedEncoder, Dropout, Head, HeadBatchSize, HeadKind};
use crate::config::LogicalAxis;
use crate::model::Parameter;
use crate::optim::{AdamW, Optimizer, StepContext};
use crate::programs::{Array, declare, initial};

/// What the programs of a head are made from.
#[derive(Clone, Copy, Debug)]
pub struct HeadPrograms<'c> {
    /// The head.
    pub head: Head,
    /// The encoder below it, where that is adapted. Programs then take its weights first, and
    /// `features` are tokens.
    pub encoder: Option<AdaptedEncoder<'c>>,
    /// How batches are split over the devices, if there are several.
    pub rules: Option<&'c LogicalAxisRules>,
}

impl HeadPrograms<'_> {
    /// What is trained, float32, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = self.head.parameters();
        all.extend(self.encoder.iter().flat_map(AdaptedEncoder::parameters));
        all
    }

    /// The arrays of the state, in order: the parameters, two moments of each, and `step`, s32.
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
    pub fn initial(&self) -> Result<Module, Error> {
        let g = self.graph("head_initial");
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let parameters = self.parameters();
        let mut state: Vec<Tensor<'_>> =
            parameters.iter().map(|p| initial::drawn(seed, p)).collect();
        let arrays = self.state();
        state.extend(arrays[parameters.len()..].iter().map(|a| g.zeros(&a.shape)));
        g.finish(&self.replicated(&state), &[])
    }

    /// A training step. It takes the state, then `learning_rate` float32, `seed` u64, `examples`
    /// s32 `[rows]`, `features`, `mask` s32 `[rows, length]` with 0 at padding and at `</s>`, and
    /// `labels` as [`HeadKind`] says. `features` are the encoder's states, float32 `[rows, length,
    /// d]`, or the tokens of an encoder that is adapted, s32 `[rows, length]`. It gives the next
    /// state, in the memory of the last one, and the loss, float32: the mean over all labels of the
    /// batch.
    ///
    /// AdamW has its usual settings and no weight decay. What dropout draws depends on the seed,
    /// the step and the numbers in `examples`, and not on the rows' places.
    pub fn step(&self, size: HeadBatchSize) -> Result<Module, Error> {
        let g = self.graph("head_step");
        let frozen = self.encoder.map(|encoder| encoder.frozen(&g));
        let first = frozen.as_ref().map_or(0, Frozen::count);
        let arrays = self.state();
        let state = declare(&g, &arrays);
        let learning_rate = g.parameter("learning_rate", Shape::new(DType::F32, []));
        let seed = g.parameter("seed", Shape::new(DType::U64, []));
        let batch = declare(&g, &self.batch(size));
        let [examples, features, mask, labels] = batch[..] else {
            unreachable!("`batch` lists four arrays")
        };
        let parameters = self.parameters();
        let (values, rest) = state.split_at(parameters.len());
        let (slots, step) = rest.split_at(rest.len() - 1);
        let step = step[0];
        let dropout = Dropout {
            seed,
            step,
            examples,
            rate: self.head.dropout,
        };
        let inputs = [features, mask];
        let outputs = self.outputs(size, frozen, values, inputs, Some(dropout));
        let loss = self.head.kind.loss(outputs, labels, mask);
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
        let donations: Vec<(usize, usize)> = (0..arrays.len()).map(|i| (i, first + i)).collect();
        g.finish(&self.replicated(&next), &donations)
    }

    /// A prediction: the parameters, `features` and `mask` as in [`HeadPrograms::step`] to what
    /// [`HeadKind`] says, without dropout.
    pub fn predict(&self, size: HeadBatchSize) -> Result<Module, Error> {
        let g = self.graph("head_predict");
        let frozen = self.encoder.map(|encoder| encoder.frozen(&g));
        let parameters = self.parameters();
        let arrays: Vec<Array> = parameters.iter().map(Array::of_parameter).collect();
        let values = declare(&g, &arrays);
        let batch = declare(&g, &self.batch(size)[1..3]);
        let outputs = self.outputs(size, frozen, &values, [batch[0], batch[1]], None);
        let axes = match self.head.kind {
            HeadKind::Residues { .. } => vec![LogicalAxis::Batch, LogicalAxis::Length, CLASSES],
            HeadKind::Sequence { .. } => vec![LogicalAxis::Batch, CLASSES],
            HeadKind::Value { .. } => vec![LogicalAxis::Batch],
            HeadKind::Pairs => vec![LogicalAxis::Batch, LogicalAxis::Length, LogicalAxis::Length],
        };
        g.finish(&[outputs.with_logical_axes(&axes)], &[])
    }

    /// What the head gives for `features` and `mask`.
    fn outputs<'g>(
        &self,
        size: HeadBatchSize,
        frozen: Option<Frozen<'g>>,
        values: &[Tensor<'g>],
        [features, mask]: [Tensor<'g>; 2],
        dropout: Option<Dropout<'g>>,
    ) -> Tensor<'g> {
        let (own, adapters) = values.split_at(self.head.parameters().len());
        let states = match (&self.encoder, &frozen) {
            (Some(encoder), Some(frozen)) => {
                encoder.states((size, self.rules), frozen, adapters, features, dropout)
            }
            _ => features,
        };
        let dropout = dropout.filter(|dropout| dropout.rate > 0.0);
        self.head.outputs(own, states, mask, dropout)
    }

    /// The arrays of a batch: `examples`, `features`, `mask`, `labels`.
    fn batch(&self, size: HeadBatchSize) -> Vec<Array> {
        use LogicalAxis::{Batch, Embed, Length};
        let (rows, length) = (size.rows as i64, size.length as i64);
        let array = |name: &str, shape: Shape, axes: &[LogicalAxis]| Array {
            name: name.into(),
            shape,
            logical_axes: axes.to_vec(),
        };
        let of_places = |name: &str| {
            let shape = Shape::new(DType::S32, [rows, length]);
            array(name, shape, &[Batch, Length])
        };
        let features = match self.encoder {
            Some(_) => of_places("tokens"),
            None => {
                let states = Shape::new(DType::F32, [rows, length, self.head.width as i64]);
                array("states", states, &[Batch, Length, Embed])
            }
        };
        let (labels, axes) = self.head.kind.labels(rows, length);
        vec![
            array("examples", Shape::new(DType::S32, [rows]), &[Batch]),
            features,
            of_places("mask"),
            array("labels", labels, &axes),
        ]
    }

    fn graph(&self, name: &str) -> Graph {
        let g = Graph::new(name);
        if let Some(rules) = self.rules {
            g.set_logical_axis_rules(rules.clone());
        }
        g
    }

    /// Results that every device has as a whole.
    fn replicated<'g>(&self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let whole = |t: &Tensor<'g>| match self.rules {
            Some(rules) => t.with_sharding_constraint(Sharding::replicated(rules.mesh(), t.rank())),
            None => *t,
        };
        tensors.iter().map(whole).collect()
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
