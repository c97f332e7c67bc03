//! Which records repeat the residues of an earlier one.
//!
//! A first pass over all inputs hashes every record that would be kept. Sorted by hash and number,
//! the records with the same residues stand together and the first of them is the one to keep; the
//! numbers of the others, sorted again, come out in the order in which a second pass meets them.
//! Both sorts write sorted runs to files and merge them, so memory does not grow with the input.
//! The answer is a function of the inputs: it is the same for any number of threads, and on every
//! machine that prepares a part, as each reads everything.

use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::engine::{self, Choice, ReadProgress, SequencedBlock};
use super::groups::Encoder;
use super::inputs::NamedInput;
use super::rows::Recipe;
use super::sort::{Sorted, Sorter};
use crate::error::Result;

/// A hash of 16 bytes, and the record's number in 8, big-endian: sorted as bytes, by hash and then
/// by number.
pub(super) type Hashed = [u8; 24];

/// Entries that are sorted in memory at once: 48 MiB of hashes, 16 MiB of numbers.
const RUN: usize = 1 << 21;

/// The numbers of the records to leave out, in order.
pub(super) struct Dropped {
    numbers: Option<Sorted<8>>,
    next: Option<u64>,
}

/// The first half of the SHA-256 of the tokens. Among 2^40 sequences two different ones share it
/// with a probability of 2^-49; and nobody can make two that do.
pub(super) fn hash(tokens: &[u8], number: u64) -> Hashed {
    let mut entry = [0; 24];
    entry[..16].copy_from_slice(&Sha256::digest(tokens)[..16]);
    entry[16..].copy_from_slice(&number.to_be_bytes());
    entry
}

fn number_of(entry: &Hashed) -> [u8; 8] {
    let mut number = [0; 8];
    number.copy_from_slice(&entry[16..]);
    number
}

impl Dropped {
    /// Every record is kept.
    pub(super) fn none() -> Dropped {
        Dropped {
            numbers: None,
            next: None,
        }
    }

    /// Reads all inputs. Files in the making lie in `scratch`.
    pub(super) fn find(
        inputs: Vec<NamedInput>,
        recipe: &Recipe,
        threads: usize,
        encoder: &Encoder,
        scratch: &Path,
        tick: &mut dyn FnMut(&ReadProgress),
    ) -> Result<Dropped> {
        let mut hashes = Sorter::new(scratch, "hashes", RUN);
        let all = |_: Range<u64>| Ok(Choice::Read(Vec::new()));
        let parse = |block: &SequencedBlock| recipe.hashes(block);
        engine::with_engine(inputs, threads, all, parse, encoder, tick, |engine| {
            while let Some(block) = engine.next_block()? {
                for entry in block {
                    hashes.push(entry)?;
                }
                engine.tick();
            }
            engine.sources()
        })?;
        let mut numbers = Sorter::new(scratch, "duplicates", RUN);
        let mut hashes = hashes.sorted()?;
        let mut first: Option<Hashed> = None;
        while let Some(entry) = hashes.next()? {
            match first {
                Some(first) if first[..16] == entry[..16] => numbers.push(number_of(&entry))?,
                _ => first = Some(entry),
            }
        }
        let mut dropped = Dropped {
            numbers: Some(numbers.sorted()?),
            next: None,
        };
        dropped.advance()?;
        Ok(dropped)
    }

    /// Those of a range of records. Ranges are asked for in their order.
    pub(super) fn within(&mut self, records: &Range<u64>) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        while let Some(next) = self.next.filter(|&next| next < records.end) {
            found.push(next);
            self.advance()?;
        }
        Ok(found)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = match &mut self.numbers {
            Some(numbers) => numbers.next()?.map(u64::from_be_bytes),
            None => None,
        };
        Ok(())
    }
}
