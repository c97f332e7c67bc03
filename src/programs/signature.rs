//! What the programs take: the arrays of the state and of a batch, by name, shape and logical axes.

use ankh_data::Packing;
use ankh_hlo::{DType, Shape, Tensor};

use super::spikes;
use crate::config::{Config, LogicalAxis};
use crate::model::{Parameter, Targets, Tokens, Weights};

/// An array that a program takes or gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its name in checkpoints and messages.
    pub name: String,
    /// Its element type and dimensions.
    pub shape: Shape,
    /// What its dimensions are; none for an array that every device has as a whole.
    pub logical_axes: Vec<LogicalAxis>,
}

impl Array {
    /// The array of a parameter.
    pub(super) fn of_parameter(p: &Parameter) -> Array {
        Array {
            name: p.name.clone(),
            shape: Shape::new(DType::F32, p.dims.clone()),
            logical_axes: p.logical_axes.clone(),
        }
    }
}

/// The shape of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Rows.
    pub rows: usize,
    /// Encoder positions a row.
    pub input: usize,
    /// Decoder positions a row.
    pub target: usize,
    /// What a row holds.
    pub packing: Packing,
}

impl BatchShape {
    /// The configured sizes.
    pub fn of(config: &Config) -> BatchShape {
        BatchShape {
            rows: config.batch_rows(),
            input: config.data.input_length,
            target: config.target_length(),
            packing: config.data.packing,
        }
    }

    /// Positions of both sides, padding included.
    pub fn positions(self) -> usize {
        self.rows * (self.input + self.target)
    }
}

/// The state's arrays, in order.
pub fn state(config: &Config) -> Vec<Array> {
    let parameters = Weights::of(&config.model).leaves();
    let mut arrays: Vec<Array> = parameters.iter().map(Array::of_parameter).collect();
    for slot in parameters.iter().flat_map(|p| config.optimizer.slots(p)) {
        arrays.push(Array {
            name: slot.name,
            shape: Shape::new(DType::F32, slot.dims),
            logical_axes: slot.logical_axes,
        });
    }
    arrays.extend(spikes::state(&config.recovery));
    arrays.push(Array {
        name: "step".into(),
        shape: Shape::new(DType::S32, []),
        logical_axes: vec![],
    });
    arrays
}

/// The arrays of a batch without targets, in order: `input_ids` and `attention_mask`, s32 `[rows,
/// input length]`.
pub fn inputs(size: BatchShape) -> Vec<Array> {
    let padded = BatchShape {
        packing: Packing::Padded,
        ..size
    };
    batch(padded).into_iter().take(2).collect()
}

/// The batch's arrays, in order.
pub fn batch(size: BatchShape) -> Vec<Array> {
    let array = |name: &str, length: usize| Array {
        name: name.into(),
        shape: Shape::new(DType::S32, [size.rows as i64, length as i64]),
        logical_axes: vec![LogicalAxis::Batch, LogicalAxis::Length],
    };
    let (input, target) = (size.input, size.target);
    match size.packing {
        Packing::Padded => vec![
            array("input_ids", input),
            array("attention_mask", input),
            array("decoder_input_ids", target),
            array("labels", target),
        ],
        Packing::Packed => vec![
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
pub(super) struct BatchTensors<'g> {
    pub input_ids: Tensor<'g>,
    pub tokens: Tokens<'g>,
    pub decoder_input_ids: Tensor<'g>,
    pub targets: Targets<'g>,
}

impl<'g> BatchTensors<'g> {
    pub fn of(arrays: &[Tensor<'g>]) -> BatchTensors<'g> {
        match *arrays {
            [input_ids, attention_mask, decoder_input_ids, labels] => BatchTensors {
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
            ] => BatchTensors {
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
    pub fn input_tokens(self) -> Tensor<'g> {
        let ones = match self.tokens {
            Tokens::Padded { attention_mask } => attention_mask,
            Tokens::Packed { input_segments, .. } => {
                input_segments.not_equal(input_segments.zeros_like())
            }
        };
        ones.convert(DType::F32).sum_all()
    }
}
