//! Masked sequences into the rows of a batch's arrays.

use rayon::prelude::*;

use super::objective::Example;
use super::{Batch, IGNORED, Packing};
use crate::error::Result;
use crate::tokenizer::{EOS, PAD};

/// What one row turned out to hold.
#[derive(Debug, Default)]
pub(super) struct Filled {
    component: usize,
    /// The row of the data set of each sequence.
    examples: Vec<u64>,
    residues: u64,
    masked: u64,
    unmasked_for_lack_of_sentinels: u64,
    truncated_targets: u64,
    input_tokens: u64,
    target_tokens: u64,
}

/// One row's part of each array, filled from the left.
pub(super) struct RowArrays<'a> {
    input_ids: &'a mut [i32],
    input_segments: &'a mut [i32],
    decoder_input_ids: &'a mut [i32],
    target_segments: &'a mut [i32],
    labels: &'a mut [i32],
    filled: Filled,
}

impl RowArrays<'_> {
    /// Adds a sequence behind those that are there. The target leaves `reserved` tokens of room
    /// behind it, for those that follow; what does not fit before that is cut.
    pub(super) fn push(&mut self, row: u64, residues: usize, example: &Example, reserved: usize) {
        let filled = &mut self.filled;
        filled.examples.push(row);
        filled.residues += residues as u64;
        filled.masked += example.masked as u64;
        filled.unmasked_for_lack_of_sentinels += example.unmasked_for_lack_of_sentinels as u64;
        let segment = filled.examples.len() as i32; // at most a row's tokens

        // Both starts lie within the row: every sequence before left room for this one.
        let start = filled.input_tokens as usize;
        let length = example.input.len().min(self.input_ids.len() - start);
        let places = start..start + length;
        let ids = self.input_ids[places.clone()].iter_mut();
        ids.zip(&example.input)
            .for_each(|(to, &id)| *to = i32::from(id));
        self.input_segments[places].fill(segment);
        filled.input_tokens += length as u64;

        let start = filled.target_tokens as usize;
        let room = (self.labels.len() - start).saturating_sub(reserved);
        let length = example.target.len().min(room);
        let places = start..start + length;
        let ids = self.labels[places.clone()].iter_mut();
        ids.zip(&example.target)
            .for_each(|(to, &id)| *to = i32::from(id));
        // One place to the right, behind the start token. The last token goes beyond the target,
        // where the next sequence's start token takes its place.
        if let Some(first) = self.decoder_input_ids.get_mut(start) {
            *first = i32::from(PAD);
        }
        let end = (start + length).min(self.labels.len() - 1);
        self.decoder_input_ids[start + 1..=end].copy_from_slice(&self.labels[start..end]);
        self.target_segments[places].fill(segment);
        filled.target_tokens += length as u64;
        filled.truncated_targets += u64::from(example.target.len() > length);
    }

    /// Says which component of the mixture the row belongs to.
    pub(super) fn belongs_to(&mut self, component: usize) {
        self.filled.component = component;
    }

    /// Fills a row that has no sequence: a lone `</s>`, so that attention has something to attend
    /// to, and no labels.
    pub(super) fn leave_empty(&mut self) {
        self.input_ids[0] = i32::from(EOS);
        self.input_segments[0] = 1;
    }
}

impl Batch {
    /// A batch of padding.
    pub(super) fn blank(packing: Packing, rows: usize, inputs: usize, targets: usize) -> Batch {
        Batch {
            packing,
            rows,
            input_length: inputs,
            target_length: targets,
            input_ids: vec![i32::from(PAD); rows * inputs],
            input_segments: vec![0; rows * inputs],
            decoder_input_ids: vec![i32::from(PAD); rows * targets],
            target_segments: vec![0; rows * targets],
            labels: vec![IGNORED; rows * targets],
            ..Batch::default()
        }
    }

    /// Fills every row with what `fill` puts in the row of that number, on the threads of the pool
    /// this runs in. Rows depend on nothing but their number, so the order in which they are made
    /// does not matter.
    pub(super) fn fill<S, F>(&mut self, fill: F) -> Result<()>
    where
        S: Default,
        F: Fn(usize, &mut RowArrays<'_>, &mut S) -> Result<()> + Sync,
    {
        let (inputs, targets) = (self.input_length, self.target_length);
        let rows = self
            .input_ids
            .par_chunks_mut(inputs)
            .zip(self.input_segments.par_chunks_mut(inputs))
            .zip(self.decoder_input_ids.par_chunks_mut(targets))
            .zip(self.target_segments.par_chunks_mut(targets))
            .zip(self.labels.par_chunks_mut(targets))
            .enumerate();
        let one =
            |scratch: &mut S,
             (i, ((((input_ids, input_segments), decoder), target_segments), labels))| {
                let mut row = RowArrays {
                    input_ids,
                    input_segments,
                    decoder_input_ids: decoder,
                    target_segments,
                    labels,
                    filled: Filled::default(),
                };
                fill(i, &mut row, scratch)?;
                Ok(row.filled)
            };
        let all: Vec<Filled> = rows.map_init(S::default, one).collect::<Result<_>>()?;
        all.into_iter().for_each(|row| self.count(row));
        Ok(())
    }

    fn count(&mut self, row: Filled) {
        self.segments.push(row.examples.len());
        self.components.push(row.component);
        self.examples.extend(row.examples);
        self.residues += row.residues;
        self.masked += row.masked;
        self.unmasked_for_lack_of_sentinels += row.unmasked_for_lack_of_sentinels;
        self.truncated_targets += row.truncated_targets;
        self.input_tokens += row.input_tokens;
        self.target_tokens += row.target_tokens;
    }
}
