//! The head that is trained on an encoder's states, as the authors of Ankh do: one ConvBERT layer
//! ([`convbert`]), a pool over residues where a sequence has one label, and a linear layer.
//!
//! The encoder is frozen, and its states are given; or adapters of it are trained with the head
//! ([`AdaptedEncoder`]), and tokens are given. [`HeadPrograms`] are the programs of both.

mod adapted;
pub mod convbert;
mod dropout;
mod outputs;
mod programs;

use ankh_hlo::Tensor;

use crate::model::Parameter;

pub use adapted::AdaptedEncoder;
pub use dropout::{Dropout, Site};
pub use outputs::LEAST_SEPARATION;
pub use programs::HeadPrograms;

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
    /// Positions of each: its residues, `</s>` where it is given, and padding.
    pub length: usize,
}

impl Head {
    /// Its parameters, float32, in order.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = convbert::parameters(self.width);
        all.extend(self.kind.parameters(self.width));
        all
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
