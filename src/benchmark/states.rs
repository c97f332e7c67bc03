//! What a head sees of each protein: a row of numbers for each residue.
//!
//! The states of a frozen encoder are the same in every epoch, so they are computed once and kept
//! in a file beside the output, which may be larger than memory. The file appears under its name
//! when it is whole, and goes when the output is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ankh_data::Tokenizer;
use ankh_data::tokenizer::EOS;
use ankh_storage::atomic;

use super::Error;
use super::dataset::Example;
use crate::inference::{BatchSize, EncodedBatch, LoadedModel, SortedBatch, sorted_batches};
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
    /// float32, little-endian, example by example.
    File { file: File, path: PathBuf },
    /// The letters themselves.
    Letters(Vec<u8>),
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
    /// `path` are taken. `each` hears how many examples are done; nothing where it breaks.
    pub fn of_encoder(
        model: &LoadedModel,
        examples: &[Example],
        path: &Path,
        each: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<States>, Error> {
        let width = model.model().d_model;
        let starts = starts(examples);
        let bytes = starts[examples.len()] * (width * size_of::<f32>()) as u64;
        if !fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
            let part = part_of(path);
            let mut file = File::create(&part).map_err(|e| Error::file("write", &part, e))?;
            let flow = encode(model, examples, &starts, (&mut file, &part), each)?;
            if flow.is_break() {
                return Ok(None);
            }
            let whole = file.sync_all().and_then(|()| atomic::rename(&part, path));
            whole.map_err(|e| Error::file("write", path, e))?;
        }
        let file = File::open(path).map_err(|source| Error::file("read", path, source))?;
        let path = path.to_owned();
        Ok(Some(States {
            kept: Kept::File { file, path },
            width,
            starts,
        }))
    }

    /// Numbers of a residue.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows of an example, float32, little-endian: `[residues, width]`.
    pub fn of(&self, example: usize) -> Result<Vec<u8>, Error> {
        let (start, end) = (self.starts[example], self.starts[example + 1]);
        match &self.kept {
            Kept::File { file, path } => {
                let row = (self.width * size_of::<f32>()) as u64;
                let mut bytes = vec![0; ((end - start) * row) as usize];
                file.read_exact_at(&mut bytes, start * row)
                    .map_err(|source| Error::file("read", path, source))?;
                Ok(bytes)
            }
            Kept::Letters(letters) => {
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

/// Where states are until they are whole. A killed process leaves the file, and the next one
/// writes it anew.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.part"))
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

/// Writes the states of all examples to their places, a batch ahead of what is read back.
fn encode(
    model: &LoadedModel,
    examples: &[Example],
    starts: &[u64],
    (file, path): (&mut File, &Path),
    each: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Error> {
    let lengths: Vec<usize> = examples.iter().map(|e| e.sequence.len() + 1).collect();
    let mut counts = BTreeMap::new();
    for length in &lengths {
        *counts.entry(*length).or_default() += 1;
    }
    let rows = model.encoder_lengths(&counts);
    let width = model.model().d_model * size_of::<f32>();
    let mut done = 0;
    let mut started: Option<(SortedBatch, EncodedBatch<'_>)> = None;
    let size = BatchSize::Tokens {
        tokens: model.encoder_tokens(None),
        devices: model.devices().1,
    };
    let batches = sorted_batches(&lengths, &rows, size);
    for batch in batches.into_iter().map(Some).chain([None]) {
        let next = match batch {
            None => None,
            Some(batch) => {
                let inputs = batch.sequences.iter();
                let inputs = inputs.map(|&i| tokens(model.tokenizer(), &examples[i]));
                let inputs: Vec<Vec<u8>> = inputs.collect();
                let encoded = model.encode(&batch, &inputs, Pooling::None)?;
                Some((batch, encoded))
            }
        };
        if let Some((batch, encoded)) = std::mem::replace(&mut started, next) {
            let states = encoded.wait()?;
            for (row, &example) in batch.sequences.iter().enumerate() {
                let residues = lengths[example] - 1;
                let first = row * batch.length * width;
                let values = &states.bytes[first..first + residues * width];
                file.write_all_at(values, starts[example] * width as u64)
                    .map_err(|source| Error::file("write", path, source))?;
            }
            done += batch.sequences.len();
            if each(done).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
