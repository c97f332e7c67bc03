//! Prepared data, opened: rows of token ids by number.
//!
//! A [`Dataset`] is one split of a prepared directory. What fits a memory budget is read when it is
//! opened, and all of it verified; of other data the lengths are read, and pages of rows when they
//! are needed, each verified before its rows are given out. So nothing that comes later can meet a
//! bad token.

mod file;
mod lengths;
mod pages;
mod row_decoder;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ankh_storage::{Location, Storage, StorageOptions};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::format::Manifest;
use crate::split::Split;
use crate::tokenizer::Tokenizer;
use file::ListedFile;
pub use lengths::Lengths;
use pages::Pages;

/// How the rows of a data set can be put in a random order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// Any row can be had at any time: one permutation of all rows.
    Exact,
    /// Rows are read from their files in blocks when they are needed, so a permutation of blocks
    /// fills windows one after the other, and the rows of a window are permuted.
    Windows {
        /// The first row of each block, ascending, and behind the last the number of rows.
        blocks: Arc<[u64]>,
        /// The residues of a window, at most; a window holds one block at least.
        residues: u64,
    },
}

/// Where rows of tokens lie.
pub(crate) trait RowStore: Send + Sync {
    /// Some tokens of a row, which lies at `bounds` of all tokens. The range lies within its
    /// length.
    fn read(&self, row: u64, bounds: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>>;
    /// How rows can be shuffled.
    fn shuffle(&self) -> &Shuffle;
    /// Which blocks will be read from now on, the most urgent first; others may be forgotten.
    fn prefetch_hint(&self, blocks: &[u32]);
}

/// All tokens, one after the other.
struct InMemory {
    tokens: Vec<u8>,
    shuffle: Shuffle,
}

impl InMemory {
    fn new(tokens: Vec<u8>) -> InMemory {
        let shuffle = Shuffle::Exact;
        InMemory { tokens, shuffle }
    }
}

impl RowStore for InMemory {
    fn read(&self, _: u64, bounds: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        // What lies in memory has places that fit.
        let start = bounds.start as usize;
        Ok(Cow::Borrowed(
            &self.tokens[start + range.start..start + range.end],
        ))
    }

    fn shuffle(&self) -> &Shuffle {
        &self.shuffle
    }

    fn prefetch_hint(&self, _: &[u32]) {}
}

/// How prepared data is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Bytes of memory for tokens, one each. A split with more residues is read by pages, and
    /// shuffled in windows of half as many: the one in use, and the next.
    pub memory: u64,
    /// How remote data is read.
    pub storage: StorageOptions,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            memory: 8 << 30,
            storage: StorageOptions::default(),
        }
    }
}

/// Rows of another store, in another order.
struct Shuffled {
    store: Arc<dyn RowStore>,
    shuffle: Shuffle,
}

impl RowStore for Shuffled {
    fn read(&self, row: u64, bounds: Range<u64>, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        self.store.read(row, bounds, range)
    }

    fn shuffle(&self) -> &Shuffle {
        &self.shuffle
    }

    // The blocks are not the store's own.
    fn prefetch_hint(&self, _: &[u32]) {}
}

/// One split of prepared data. Cloning is cheap: the rows are shared.
#[derive(Clone)]
pub struct Dataset {
    lengths: Arc<Lengths>,
    store: Arc<dyn RowStore>,
    tokenizer: Tokenizer,
    name: Arc<str>,
}

impl Dataset {
    /// Opens one split of a directory of prepared data.
    pub fn open(
        location: impl Into<Location>,
        split: Split,
        options: &ReadOptions,
    ) -> Result<Dataset> {
        let location = location.into();
        let storage = Storage::open(&location, &options.storage)?;
        let manifest = Manifest::read(&storage)?;
        let tokenizer = Tokenizer::of(manifest.tokenizer.name);
        let amount = manifest.amount(split);
        if amount.rows == 0 {
            return Err(Error::EmptySplit {
                path: location.to_string().into(),
                split,
                reason: manifest.why_empty(split),
            });
        }
        let files = manifest.files.iter().filter(|file| file.split == split);
        let listed = |info| ListedFile {
            storage: &storage,
            info,
            tokenizer,
        };
        let files: Vec<ListedFile<'_>> = files.map(listed).collect();
        let (lengths, store): (Lengths, Arc<dyn RowStore>) = match amount.residues <= options.memory
        {
            true => {
                let (lengths, tokens) = read_all(&files, amount.residues)?;
                (lengths, Arc::new(InMemory::new(tokens)))
            }
            false => {
                let opened: Vec<Result<_>> = files.par_iter().map(ListedFile::open).collect();
                let opened = opened.into_iter().collect::<Result<Vec<_>>>()?;
                let (files, lengths): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
                let lengths = Arc::new(Lengths::from_iter(lengths.into_iter().flatten()));
                let store = Pages::new(files, lengths.clone(), options.memory / 2);
                return Ok(Dataset {
                    lengths,
                    store: Arc::new(store),
                    tokenizer,
                    name: location.to_string().into(),
                });
            }
        };
        Ok(Dataset {
            lengths: Arc::new(lengths),
            store,
            tokenizer,
            name: location.to_string().into(),
        })
    }

    /// The same data, if it was prepared with the tokenizer that a model needs.
    pub fn expecting(self, tokenizer: Tokenizer) -> Result<Dataset> {
        match self.tokenizer == tokenizer {
            true => Ok(self),
            false => Err(Error::WrongTokenizer {
                path: self.name().into(),
                found: self.tokenizer.vocabulary(),
                expected: tokenizer.vocabulary(),
            }),
        }
    }

    /// A data set of the given sequences of letters, in memory.
    pub fn from_sequences<S: AsRef<[u8]>>(
        tokenizer: Tokenizer,
        sequences: impl IntoIterator<Item = S>,
    ) -> Dataset {
        let (mut lengths, mut tokens) = (Lengths::default(), Vec::new());
        for sequence in sequences {
            let before = tokens.len();
            tokens.extend(tokenizer.encode(sequence.as_ref()));
            // No sequence in memory is longer than 2^32.
            lengths.push((tokens.len() - before) as u32);
        }
        Dataset {
            lengths: Arc::new(lengths),
            store: Arc::new(InMemory::new(tokens)),
            tokenizer,
            name: "sequences in memory".into(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.lengths.rows()
    }

    /// The number of residues of all rows together.
    pub fn residues(&self) -> u64 {
        self.lengths.total()
    }

    /// The number of residues of each row.
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// The number of residues of each row, to keep.
    pub(crate) fn shared_lengths(&self) -> Arc<Lengths> {
        self.lengths.clone()
    }

    /// How its rows can be put in a random order.
    pub fn shuffle(&self) -> &Shuffle {
        self.store.shuffle()
    }

    /// The same rows, put in order in another way: as they would be if they were read by these
    /// blocks.
    pub fn shuffled(mut self, shuffle: Shuffle) -> Dataset {
        let store = self.store;
        self.store = Arc::new(Shuffled { store, shuffle });
        self
    }

    /// Says which blocks will be read from now on, the most urgent first, so that they can be read
    /// ahead and others forgotten. Reading a row of another block is possible, and slow.
    pub fn prefetch_hint(&self, blocks: &[u32]) {
        self.store.prefetch_hint(blocks);
    }

    /// The tokenizer the ids belong to.
    pub fn tokenizer(&self) -> Tokenizer {
        self.tokenizer
    }

    /// Where it is, or what stands for that.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of residues of a row.
    pub fn length(&self, row: u64) -> Result<usize> {
        let length = self.lengths.of(row).ok_or_else(|| self.no_such(row))?;
        Ok(length as usize)
    }

    /// The tokens of a row, without `</s>`.
    pub fn tokens(&self, row: u64) -> Result<Cow<'_, [u8]>> {
        let length = self.length(row)?;
        self.window(row, 0..length)
    }

    /// Some of a row's tokens. The range lies within the row's length.
    pub fn window(&self, row: u64, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        let bounds = self.lengths.bounds(row).ok_or_else(|| self.no_such(row))?;
        match range.start <= range.end && range.end as u64 <= bounds.end - bounds.start {
            true => self.store.read(row, bounds, range),
            false => Err(self.no_such(row)),
        }
    }

    fn no_such(&self, row: u64) -> Error {
        Error::NoSuchRow {
            row,
            rows: self.rows(),
        }
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({}, {} rows)", self.name, self.rows())
    }
}

/// All rows of some files, one behind the other. Each file is read straight to its place.
fn read_all(files: &[ListedFile<'_>], residues: u64) -> Result<(Lengths, Vec<u8>)> {
    // Chosen because it fits the memory budget.
    let mut tokens = vec![0; residues as usize];
    let mut rest = &mut tokens[..];
    let mut offsets = Vec::new();
    for file in files {
        // The manifest was checked: its files' residues add up to the split's.
        let (place, after) = rest.split_at_mut(file.info.residues as usize);
        offsets.push((file, place));
        rest = after;
    }
    let read: Vec<Result<Vec<u32>>> = offsets
        .into_par_iter()
        .map(|(file, place)| file.read(place))
        .collect();
    let mut lengths = Lengths::default();
    for file in read {
        lengths.extend(file?);
    }
    Ok((lengths, tokens))
}
