//! From a sequence as written to token ids: what is kept, replaced, removed and refused.
//!
//! - Letters of the vocabulary (A-Z but J), of either case, are kept.
//! - `J` (leucine or isoleucine), the one letter the vocabulary lacks, becomes `X`.
//! - Characters that nobody sees, such as no-break spaces, are removed.
//! - Gaps (`-` and `.`) are removed: an aligned sequence becomes the sequence.
//! - Stops (`*`) at the end are removed. A stop inside means that the text is a translation across
//!   the end of a gene, not a protein, so the record is rejected.
//! - Anything else is no sequence, so the record is rejected.

use super::invisible::first_invisible;
use crate::format::Reason;
use crate::tokenizer::{Tokenizer, UNK};

/// A longer sequence is not kept, so that a file cannot claim all memory. The longest known protein
/// has some 45,000 residues.
pub const LONGEST_SEQUENCE: usize = 1 << 24;

/// Why a record is left out, and what about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The place, character or length in question.
    pub detail: String,
}

/// What was changed in a sequence that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Letters that became `X`.
    pub replaced: u64,
    /// Gaps removed.
    pub gaps: u64,
    /// Stops removed from the end.
    pub stops: u64,
    /// Lower-case letters.
    pub lower_case: u64,
}

/// The lengths a sequence may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthLimits {
    /// The least.
    pub min: usize,
    /// The most.
    pub max: Option<usize>,
}

/// Appends the token ids of a sequence to `tokens`. `length` is the number of bytes the sequence
/// had in the file, of which `sequence` may be only the first. On rejection `tokens` is as before.
pub fn tokenize(
    tokenizer: Tokenizer,
    lengths: LengthLimits,
    sequence: &[u8],
    length: usize,
    tokens: &mut Vec<u8>,
) -> Result<Changes, Rejection> {
    let start = tokens.len();
    let result = append(tokenizer, lengths, sequence, length, tokens);
    if result.is_err() {
        tokens.truncate(start);
    }
    result
}

fn append(
    tokenizer: Tokenizer,
    lengths: LengthLimits,
    sequence: &[u8],
    length: usize,
    tokens: &mut Vec<u8>,
) -> Result<Changes, Rejection> {
    let reject = |reason, detail: String| Err(Rejection { reason, detail });
    if length > LONGEST_SEQUENCE {
        let detail = format!("{length} residues, of at most {LONGEST_SEQUENCE}");
        return reject(Reason::TooLong, detail);
    }
    let start = tokens.len();
    // Nearly every sequence is capitals of the vocabulary and nothing else, which a table settles.
    let mut plain = true;
    tokens.extend(sequence.iter().map(|&byte| {
        let token = tokenizer.residue_id(byte);
        plain &= byte.is_ascii_uppercase() & token.is_some();
        token.unwrap_or(UNK)
    }));
    let mut changes = Changes::default();
    if !plain {
        tokens.truncate(start);
        changes = letter_by_letter(tokenizer, sequence, tokens)?;
    }
    let count = tokens.len() - start;
    if count == 0 {
        return reject(Reason::NoSequence, "0 residues".into());
    }
    if count < lengths.min {
        let least = lengths.min;
        return reject(
            Reason::TooShort,
            format!("{count} residues, of at least {least}"),
        );
    }
    match lengths.max {
        Some(most) if count > most => reject(
            Reason::TooLong,
            format!("{count} residues, of at most {most}"),
        ),
        _ => Ok(changes),
    }
}

fn letter_by_letter(
    tokenizer: Tokenizer,
    sequence: &[u8],
    tokens: &mut Vec<u8>,
) -> Result<Changes, Rejection> {
    let reject = |reason, detail: String| Err(Rejection { reason, detail });
    let mut changes = Changes::default();
    let mut unseen = 0;
    for (place, &byte) in sequence.iter().enumerate() {
        if place < unseen {
            continue;
        }
        unseen = place + first_invisible(&sequence[place..]);
        if place < unseen {
            continue;
        }
        let letter = byte.to_ascii_uppercase();
        let token = match (byte, tokenizer.residue_id(letter)) {
            (b'-' | b'.', _) => {
                changes.gaps += 1;
                continue;
            }
            (b'*', _) => {
                changes.stops += 1;
                continue;
            }
            (_, Some(token)) => token,
            (_, None) if letter.is_ascii_uppercase() => {
                changes.replaced += 1;
                tokenizer.residue_id(b'X').unwrap_or(UNK)
            }
            (_, None) => {
                let detail = format!("{:?} at place {}", shown(byte), place + 1);
                return reject(Reason::NotAResidue, detail);
            }
        };
        if changes.stops > 0 {
            let place = sequence.iter().position(|&byte| byte == b'*').unwrap_or(0);
            return reject(Reason::InnerStop, format!("'*' at place {}", place + 1));
        }
        changes.lower_case += u64::from(byte.is_ascii_lowercase());
        tokens.push(token);
    }
    Ok(changes)
}

fn shown(byte: u8) -> char {
    char::from(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: LengthLimits = LengthLimits { min: 1, max: None };

    fn tokens(sequence: &str) -> Result<(String, Changes), Reason> {
        let (tokenizer, mut tokens) = (Tokenizer::ankh(), vec![]);
        tokenize(
            tokenizer,
            ANY,
            sequence.as_bytes(),
            sequence.len(),
            &mut tokens,
        )
        .map(|changes| (tokenizer.decode(&tokens), changes))
        .map_err(|rejection| {
            assert!(tokens.is_empty());
            rejection.reason
        })
    }

    #[test]
    fn every_change_is_made_and_counted() {
        let (text, changes) = tokens("mk-J.LUOBZX**").unwrap();
        assert_eq!(text, "MKXLUOBZX");
        assert_eq!(
            changes,
            Changes {
                replaced: 1,
                gaps: 2,
                stops: 2,
                lower_case: 2
            }
        );
    }

    #[test]
    fn characters_that_nobody_sees_are_removed() {
        let found = tokens("M\u{a0}K\u{feff}L\u{200b}\u{2028}V");
        assert_eq!(found, Ok(("MKLV".to_string(), Changes::default())));
        assert_eq!(tokens("\u{a0}"), Err(Reason::NoSequence));
    }

    #[test]
    fn what_is_no_protein_is_rejected() {
        assert_eq!(tokens("MK*LV"), Err(Reason::InnerStop));
        assert_eq!(tokens("MK1LV"), Err(Reason::NotAResidue));
        assert_eq!(tokens("MK\u{e9}LV"), Err(Reason::NotAResidue));
        assert_eq!(tokens("-.-*"), Err(Reason::NoSequence));
        assert_eq!(tokens(""), Err(Reason::NoSequence));
    }

    #[test]
    fn lengths_are_limited_after_gaps_are_gone() {
        let lengths = LengthLimits {
            min: 3,
            max: Some(4),
        };
        let reason = |sequence: &[u8]| {
            let mut tokens = vec![];
            let length = sequence.len();
            tokenize(Tokenizer::ankh(), lengths, sequence, length, &mut tokens)
                .err()
                .map(|rejection| rejection.reason)
        };
        assert_eq!(reason(b"A-A---"), Some(Reason::TooShort));
        assert_eq!(reason(b"A-AA--"), None);
        assert_eq!(reason(b"AAAA*"), None);
        assert_eq!(reason(b"AAAAA"), Some(Reason::TooLong));
    }
}
