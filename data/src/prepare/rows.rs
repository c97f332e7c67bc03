//! What a worker makes of a block of records: rows of tokens with their split, and what to report.

use super::PrepareOptions;
use super::duplicates::{Hashed, hash};
use super::engine::SequencedBlock;
use super::input::RecordRef;
use super::inputs::NamedInput;
use super::nucleotides::{TELLING, is_nucleotide};
use super::residues::{Changes, LengthLimits, Rejection, tokenize};
use crate::error::Result;
use crate::format::{Nucleotides, Reason, RejectExample, Report, SplitBy};
use crate::random::Key;
use crate::split::Split;
use crate::tokenizer::Tokenizer;

/// The rows of a block that belong to one chunk.
pub(super) struct ParsedBlock {
    /// The chunk's number.
    pub(super) chunk: u64,
    /// What was found in the block's records of this chunk.
    pub(super) report: Report,
    rows: Vec<TokenizedRow>,
    ids: String,
    tokens: Vec<u8>,
}

struct TokenizedRow {
    split: Split,
    /// Where its id and its tokens end; they begin where those of the row before end.
    ids: usize,
    tokens: usize,
}

impl ParsedBlock {
    fn new(chunk: u64) -> ParsedBlock {
        ParsedBlock {
            chunk,
            report: Report::default(),
            rows: Vec::new(),
            ids: String::new(),
            tokens: Vec::new(),
        }
    }

    /// The split, the id and the tokens of each row, in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Split, &str, &[u8])> {
        let (mut id, mut token) = (0, 0);
        self.rows.iter().map(move |row| {
            let ids = std::mem::replace(&mut id, row.ids)..row.ids;
            let tokens = std::mem::replace(&mut token, row.tokens)..row.tokens;
            (row.split, &self.ids[ids], &self.tokens[tokens])
        })
    }
}

/// What decides for these inputs. They are read until a second id is found, which is mostly the
/// second record's: so it is a function of the inputs, and every part finds the same. `told` is
/// called with the bytes and records read so far, if that takes longer. What can be read only once
/// is not looked at: the id decides then.
pub(super) fn split_by_of(
    inputs: &[NamedInput],
    told: &mut dyn FnMut(usize, u64, u64),
) -> Result<SplitBy> {
    let mut first: Option<String> = None;
    let (mut another, mut records, mut before) = (false, 0, 0);
    for (index, named) in inputs.iter().enumerate() {
        if named.passes() {
            return Ok(SplitBy::Id);
        }
        let mut input = named.open()?;
        while let Some(block) = input.next_block()? {
            block.for_each(&mut |record| {
                match &first {
                    None => first = Some(record.id.to_string()),
                    Some(first) => another |= first != record.id,
                }
                Ok(())
            })?;
            if another {
                return Ok(SplitBy::Id);
            }
            records += block.records();
            told(index, before + input.bytes_read(), records);
        }
        before += input.bytes_read();
    }
    // One record, or none, has an id of its own.
    match records {
        0 | 1 => Ok(SplitBy::Id),
        _ => Ok(SplitBy::Sequence),
    }
}

/// The shares of ids that are held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// For evaluation while training.
    pub validation: f64,
    /// For the end.
    pub test: f64,
}

impl Shares {
    /// The split of an id, or of the letters of a sequence (see [`SplitBy`]): where its hash, as a
    /// fraction, lies. Validation comes first, so that holding out for a test moves no id into or
    /// out of validation.
    pub fn split_of(self, id: &str) -> Split {
        // A contract: another constant or hash would move sequences between the splits.
        let mut key = Key::new(0x616e_6b68_2073_706c).with(id.len() as u64);
        for chunk in id.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            key = key.with(u64::from_le_bytes(word));
        }
        let place = key.stream().unit();
        if place < self.validation {
            Split::Validation
        } else if place < self.validation + self.test {
            Split::Test
        } else {
            Split::Train
        }
    }
}

/// How records become rows.
pub(super) struct Recipe {
    tokenizer: Tokenizer,
    lengths: LengthLimits,
    shares: Shares,
    /// Which tokens may be those of DNA or RNA.
    nucleotides: [bool; 256],
    split_by: SplitBy,
    pub(super) chunk_records: u64,
}

impl Recipe {
    pub(super) fn new(options: &PrepareOptions, split_by: SplitBy) -> Recipe {
        let tokenizer = Tokenizer::of(options.tokenizer);
        let mut nucleotides = [false; 256];
        for letter in (b'A'..=b'Z').filter(|&letter| is_nucleotide(letter)) {
            if let Some(token) = tokenizer.residue_id(letter) {
                nucleotides[usize::from(token)] = true;
            }
        }
        Recipe {
            tokenizer,
            nucleotides,
            lengths: LengthLimits {
                min: options.min_length,
                max: options.max_length,
            },
            shares: Shares {
                validation: options.validation_fraction,
                test: options.test_fraction,
            },
            split_by,
            chunk_records: options.chunk_records,
        }
    }

    fn split_of(&self, id: &str, tokens: &[u8]) -> Split {
        match self.split_by {
            SplitBy::Id => self.shares.split_of(id),
            // Letters, so that it is the same for every tokenizer.
            SplitBy::Sequence => self.shares.split_of(&self.tokenizer.decode(tokens)),
        }
    }

    /// The rows of a block's records in the chunks that are `wanted`, chunk by chunk.
    pub(super) fn rows(
        &self,
        block: &SequencedBlock,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<Vec<ParsedBlock>> {
        let mut pieces: Vec<ParsedBlock> = Vec::new();
        let mut counts = [0u64; 256];
        let mut nucleotides = Nucleotides::default();
        let end = |piece: &mut ParsedBlock, counts: &mut [u64; 256], found: &mut Nucleotides| {
            piece.report.count_residues(self.tokenizer, counts);
            piece
                .report
                .count_nucleotides(&block.file, std::mem::take(found));
        };
        let mut number = block.first;
        let mut duplicates = block.duplicates.iter().peekable();
        block.block.for_each(&mut |record| {
            let this = number;
            number += 1;
            let duplicate = duplicates.next_if_eq(&&this).is_some();
            let chunk = this / self.chunk_records;
            if pieces.last().is_none_or(|piece| piece.chunk != chunk) {
                if !wanted(chunk) {
                    return Ok(());
                }
                if let Some(last) = pieces.last_mut() {
                    end(last, &mut counts, &mut nucleotides);
                }
                pieces.push(ParsedBlock::new(chunk));
            }
            let Some(piece) = pieces.last_mut() else {
                return Ok(());
            };
            let start = piece.tokens.len();
            let result = match self.tokens(record, &mut piece.tokens) {
                Ok(_) if duplicate => {
                    piece.tokens.truncate(start);
                    Err(Rejection {
                        reason: Reason::Duplicate,
                        detail: "an earlier record has the same residues".into(),
                    })
                }
                result => result,
            };
            match result {
                Ok(changes) => {
                    let tokens = &piece.tokens[start..];
                    for &token in tokens {
                        counts[usize::from(token)] += 1;
                    }
                    if tokens.len() >= TELLING {
                        let are = |&token: &u8| self.nucleotides[usize::from(token)];
                        nucleotides.records += u64::from(tokens.iter().all(are));
                        nucleotides.of += 1;
                    }
                    piece.report.keep(tokens.len() as u64, changes);
                    piece.ids.push_str(record.id);
                    piece.rows.push(TokenizedRow {
                        split: self.split_of(record.id, tokens),
                        ids: piece.ids.len(),
                        tokens: piece.tokens.len(),
                    });
                }
                Err(rejection) => piece.report.reject(rejection.reason, || RejectExample {
                    file: block.file.to_string(),
                    line: record.line,
                    id: record.id.to_string(),
                    detail: rejection.detail,
                }),
            }
            Ok(())
        })?;
        if let Some(last) = pieces.last_mut() {
            end(last, &mut counts, &mut nucleotides);
        }
        Ok(pieces)
    }

    /// The hash of each record that would become a row, with the record's number.
    pub(super) fn hashes(&self, block: &SequencedBlock) -> Result<Vec<Hashed>> {
        let (mut hashes, mut tokens) = (Vec::new(), Vec::new());
        let mut number = block.first;
        block.block.for_each(&mut |record| {
            tokens.clear();
            if self.tokens(record, &mut tokens).is_ok() {
                hashes.push(hash(&tokens, number));
            }
            number += 1;
            Ok(())
        })?;
        Ok(hashes)
    }

    /// Appends the tokens of a record that can be a row.
    fn tokens(
        &self,
        record: RecordRef<'_>,
        tokens: &mut Vec<u8>,
    ) -> std::result::Result<Changes, Rejection> {
        if let Some(reason) = record.fault {
            return Err(Rejection {
                reason,
                detail: reason.detail().into(),
            });
        }
        let (sequence, length) = (record.sequence, record.length);
        tokenize(self.tokenizer, self.lengths, sequence, length, tokens)
    }
}
