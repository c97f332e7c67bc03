//! What a head sees of each protein: a row of numbers for each residue.
//!
//! The states of a frozen encoder are the same in every epoch, so they are computed once and kept
//! in a file beside the output, which may be larger than memory. A process that was killed while it
//! computed them is gone on from, and the file goes when the output is there. Where the encoder is
//! adapted, the programs of the head compute its states, and take the tokens.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use ankh_data::Tokenizer;
use ankh_data::tokenizer::EOS;
use ankh_pjrt::{ElementType, HostTensor};

use super::Error;
use super::dataset::Example;
use super::states_file::StatesFile;
use crate::inference::{LoadedModel, SortedBatch, input_batch};
use crate::programs::Pooling;

/// One number for each kind of residue, of which one is 1: what a head can know without a model.
const LETTERS: &[u8] = b"ACDEFGHIKLMNPQRSTVWYXBZUO";
/// The width of rows without a model: a multiple of 4, as the head needs.
const COMPOSITION_WIDTH: usize = LETTERS.len().next_multiple_of(4);

/// The states of all examples.
pub struct States {
    kept: Kept,
    width: usize,
    /// The residues before each example, and of all.
    starts: Vec<u64>,
}

enum Kept {
    File(StatesFile),
    /// The letters themselves.
    Letters(Vec<u8>),
    /// The tokens of each example, `</s>` at the end.
    Tokens(Vec<Vec<u8>>),
}

impl States {
    /// Rows that tell which residue is where, and no more.
    pub fn of_letters(examples: &[Example]) -> States {
        let letters = examples.iter().flat_map(|e| e.sequence.bytes()).collect();
        States {
            kept: Kept::Letters(letters),
            width: COMPOSITION_WIDTH,
            starts: starts(examples),
        }
    }

    /// The encoder's states of each residue, `</s>` left out. Those that an earlier process left at
    /// `path` are taken, where `identity` tells that they follow from the same. `each` hears how
    /// many examples are done; nothing where it breaks.
    pub fn of_encoder(
        model: &LoadedModel,
        examples: &[Example],
        (path, identity): (&Path, &str),
        each: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<States>, Error> {
        let width = model.model().d_model;
        let starts = starts(examples);
        let row = (width * size_of::<f32>()) as u64;
        let bytes = starts.iter().map(|start| start * row).collect();
        let mut file = StatesFile::open(path, bytes, identity)?;
        let flow = encode(model, examples, &mut file, each)?;
        file.keep()?;
        Ok(flow.is_continue().then_some(States {
            kept: Kept::File(file),
            width,
            starts,
        }))
    }

    /// What the encoder computes them from, for programs that do.
    pub fn of_tokens(model: &LoadedModel, examples: &[Example]) -> States {
        let tokens = examples.iter().map(|e| tokens(model.tokenizer(), e));
        States {
            kept: Kept::Tokens(tokens.collect()),
            width: model.model().d_model,
            starts: starts(examples),
        }
    }

    /// Positions of an example in a row: its residues, and `</s>` where tokens are seen.
    pub fn positions(&self, example: usize) -> usize {
        match &self.kept {
            Kept::Tokens(tokens) => tokens[example].len(),
            _ => (self.starts[example + 1] - self.starts[example]) as usize,
        }
    }

    /// The features of a batch, as [`HeadBatch`](super::HeadBatch) has them.
    pub fn features(&self, batch: &SortedBatch) -> Result<HostTensor, Error> {
        let (rows, length) = (batch.rows, batch.length);
        if let Kept::Tokens(tokens) = &self.kept {
            let inputs: Vec<&Vec<u8>> = batch.sequences.iter().map(|&i| &tokens[i]).collect();
            let [ids, _] = input_batch(&inputs, rows, length);
            return Ok(ids);
        }
        let row_bytes = length * self.width * size_of::<f32>();
        let mut bytes = vec![0u8; rows * row_bytes];
        for (row, &example) in bytes.chunks_mut(row_bytes).zip(&batch.sequences) {
            let own = self.of(example)?;
            row[..own.len()].copy_from_slice(&own);
        }
        Ok(HostTensor {
            element_type: ElementType::F32,
            dims: [rows, length, self.width].map(|size| size as i64).to_vec(),
            bytes,
        })
    }

    /// Examples.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Numbers of a residue.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows of an example, float32, little-endian: `[residues, width]`. An error where they are
    /// tokens, of which no rows are known.
    pub fn of(&self, example: usize) -> Result<Vec<u8>, Error> {
        match &self.kept {
            Kept::File(file) => file.read(example),
            Kept::Tokens(_) => Err(Error::NearestAdapted),
            Kept::Letters(letters) => {
                let (start, end) = (self.starts[example], self.starts[example + 1]);
                let letters = &letters[start as usize..end as usize];
                let rows = letters.iter().flat_map(|letter| one_hot(*letter));
                Ok(rows.flat_map(f32::to_le_bytes).collect())
            }
        }
    }

    /// The mean of an example's rows.
    pub fn mean_of(&self, example: usize) -> Result<Vec<f32>, Error> {
        let bytes = self.of(example)?;
        let (values, _) = bytes.as_chunks::<4>();
        let mut sums = vec![0.0f64; self.width];
        for row in values.chunks(self.width) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(f32::from_le_bytes(*value));
            }
        }
        let rows = (values.len() / self.width).max(1) as f64;
        Ok(sums.iter().map(|sum| (sum / rows) as f32).collect())
    }
}

fn starts(examples: &[Example]) -> Vec<u64> {
    let mut end = 0;
    let ends = examples.iter().map(|example| {
        end += example.sequence.len() as u64;
        end
    });
    [0].into_iter().chain(ends).collect()
}

/// An unknown letter is an X.
fn one_hot(letter: u8) -> [f32; COMPOSITION_WIDTH] {
    let place = |letter| LETTERS.iter().position(|&known| known == letter);
    let mut row = [0.0; COMPOSITION_WIDTH];
    row[place(letter).or(place(b'X')).expect("X is a letter")] = 1.0;
    row
}

/// The tokens of a sequence, `</s>` at the end.
fn tokens(tokenizer: Tokenizer, example: &Example) -> Vec<u8> {
    let id = |letter| tokenizer.residue_id(letter);
    let unknown = id(b'X').expect("every tokenizer has X");
    let residues = example.sequence.bytes();
    let residues = residues.map(|letter| id(letter).unwrap_or(unknown));
    residues.chain([EOS]).collect()
}

/// Writes the states of all examples that are not there. What is left of a batch goes through the
/// encoder in the same batch as before, so that the states are the same to the last bit.
fn encode(
    model: &LoadedModel,
    examples: &[Example],
    file: &mut StatesFile,
    each: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let lengths: Vec<usize> = examples.iter().map(|e| e.sequence.len() + 1).collect();
    let mut counts = BTreeMap::new();
    for length in &lengths {
        *counts.entry(*length).or_default() += 1;
    }
    let layout = model.encoder_layout(&counts, model.encoder_tokens(None));
    let mut batches = layout.batches(&lengths);
    batches.retain(|batch| batch.places.iter().any(|p| !file.has(p.sequence)));
    let input = |example: usize| tokens(model.tokenizer(), &examples[example]);
    let mut done = file.count();
    model.encode(&batches, Pooling::None, input, &mut |encoded| {
        for place in &encoded.batch.places {
            let example = place.sequence;
            if !file.has(example) {
                file.write(example, encoded.of(place, lengths[example] - 1))?;
                done += 1;
            }
        }
        file.keep_now_and_then()?;
        Ok(each(done))
    })
}
