//! One component of a mixture: its order, and its sequences masked.

use super::assemble::RowArrays;
use super::objective::Masking;
use super::order::{self, DataOrder, Epochs, Examples, RowRange};
use super::packing::Sizes;
use super::{BatchConfig, Component, LongSequences, Packing, purpose};
use crate::error::Result;
use crate::random::Key;

/// A component, ready to fill rows.
pub(super) struct ComponentRows {
    pub component: Component,
    pub order: DataOrder,
    key: Key,
    long_sequences: LongSequences,
}

/// What a thread needs to fill a row, kept from one row to the next.
#[derive(Default)]
pub(super) struct Scratch {
    examples: Vec<u64>,
    masking: Masking,
}

impl ComponentRows {
    /// Indexes the component's data set as the configuration needs it.
    pub(super) fn new(
        component: &Component,
        config: &BatchConfig,
        key: Key,
        epochs: Epochs,
        threads: usize,
    ) -> Result<ComponentRows> {
        let Component {
            dataset, objective, ..
        } = component;
        let tokenizer = dataset.tokenizer();
        objective.validate_for(tokenizer)?;
        let lengths = (config.input_length, config.target_length);
        let window = objective.window(config.input_length, config.target_length);
        let sizes = match config.packing {
            Packing::Padded => None,
            Packing::Packed => Some(Sizes::new(objective, tokenizer, window, lengths)?),
        };
        let reader = dataset.clone();
        let order = DataOrder::new(order::OrderConfig {
            examples: Examples::new(dataset.shared_lengths(), window, config.long_sequences),
            shuffle: dataset.shuffle().clone(),
            sizes,
            epochs,
            key: key.with(purpose::ORDER),
            threads,
            prefetch_hint: Box::new(move |blocks| reader.prefetch_hint(blocks)),
        })?;
        Ok(ComponentRows {
            component: component.clone(),
            order,
            key,
            long_sequences: config.long_sequences,
        })
    }

    /// Fills a row of a batch with what row `row` of the component's run holds.
    pub(super) fn fill(
        &self,
        number: usize,
        ranges: &RowRange<'_>,
        row: u128,
        arrays: &mut RowArrays<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        scratch.examples.clear();
        let Some(epoch) = ranges.row(row, &mut scratch.examples) else {
            arrays.leave_empty();
            return Ok(());
        };
        arrays.belongs_to(number);
        let examples = self.order.examples();
        let kept = |example| match self.order.sizes() {
            None => 0,
            Some(sizes) => sizes.target(examples.shown(example)),
        };
        // Every sequence leaves the room that was kept for those behind it.
        let mut reserved: usize = scratch.examples.iter().map(|&example| kept(example)).sum();
        for &example in &scratch.examples {
            reserved -= kept(example);
            self.push(epoch, example, reserved, arrays, &mut scratch.masking)?;
        }
        Ok(())
    }

    fn push(
        &self,
        epoch: u64,
        example: u64,
        reserved: usize,
        arrays: &mut RowArrays<'_>,
        masking: &mut Masking,
    ) -> Result<()> {
        let Component {
            dataset, objective, ..
        } = &self.component;
        let examples = self.order.examples();
        let piece = examples.piece(example);
        let key = self.key.with(epoch).with(piece.row).with(piece.piece);
        let range = piece.range(dataset.length(piece.row)?);
        let length = range.len().min(examples.window());
        let spare = range.len() - length;
        let offset = match self.long_sequences {
            LongSequences::Crop => key.with(purpose::CROP).stream().below(spare + 1),
            // A piece of a split row has nothing to spare.
            LongSequences::Truncate | LongSequences::Split => 0,
        };
        let start = range.start + offset;
        let tokens = dataset.window(piece.row, start..start + length)?;
        let masks = key.with(purpose::MASKS);
        objective.apply_with(dataset.tokenizer(), &tokens, masks, masking);
        arrays.push(piece.row, length, &masking.example, reserved);
        Ok(())
    }
}
