//! The inverse of masking: the sequence back from input and target.

use super::TargetFormat;
use crate::error::{Error, Result};
use crate::tokenizer::{EOS, PAD, Task, Tokenizer};

pub(super) fn mismatch<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Unmask(reason.into()))
}

/// The hidden residues of a target in their places in the input.
pub(super) fn fill(
    format: TargetFormat,
    tokenizer: Tokenizer,
    input: &[u8],
    target: &[u8],
) -> Result<Vec<u8>> {
    match format {
        TargetFormat::Pairs => fill_pairs(tokenizer, input, target),
        TargetFormat::Runs => fill_runs(tokenizer, input, target),
    }
}

/// Every sentinel stands for the next `ngram` residues of the target.
pub(super) fn fill_in_order(
    ngram: usize,
    tokenizer: Tokenizer,
    input: &[u8],
    target: &[u8],
) -> Result<Vec<u8>> {
    let mut literals = target.chunks(ngram.max(1));
    let mut sequence = Vec::new();
    for &id in input {
        match tokenizer.sentinel_index(id) {
            None => sequence.push(id),
            Some(i) => match literals.next() {
                Some(literal) => sequence.extend_from_slice(literal),
                None => return mismatch(format!("the target ends before sentinel {i}")),
            },
        }
    }
    match literals.next() {
        None => Ok(sequence),
        Some(_) => mismatch("the target has more residues than the input has sentinels"),
    }
}

/// The tokens without what was added around them.
pub(super) fn body(tokenizer: Tokenizer, tokens: &[u8]) -> &[u8] {
    let is_task = |id| {
        [Task::Nlu, Task::S2s]
            .iter()
            .any(|&task| tokenizer.task(task) == Some(id))
    };
    let end = tokens
        .iter()
        .rposition(|&id| id != PAD && id != EOS)
        .map_or(0, |last| last + 1);
    match &tokens[..end] {
        [first, rest @ ..] if is_task(*first) => rest,
        tokens => tokens,
    }
}

/// `<0> C <1> G`: sentinel `i` of the input stands for what follows sentinel `i` of the target.
fn fill_pairs(tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
    let mut literals: Vec<&[u8]> = Vec::new();
    let mut rest = target;
    while let [first, after @ ..] = rest {
        if tokenizer.sentinel_index(*first) != Some(literals.len()) {
            let (found, expected) = (tokenizer.name(*first), literals.len());
            return mismatch(format!(
                "expected sentinel {expected} in the target, found {found}"
            ));
        }
        let next = |&id: &u8| tokenizer.sentinel_index(id).is_some();
        let length = after.iter().position(next).unwrap_or(after.len());
        literals.push(&after[..length]);
        rest = &after[length..];
    }
    let mut sequence = Vec::new();
    let mut seen = 0;
    for &id in input {
        match tokenizer.sentinel_index(id) {
            None => sequence.push(id),
            Some(i) if i == seen && i < literals.len() => {
                sequence.extend_from_slice(literals[i]);
                seen += 1;
            }
            Some(i) => return mismatch(format!("sentinel {i} of the input is not in the target")),
        }
    }
    if seen != literals.len() {
        return mismatch(format!("sentinel {seen} of the target is not in the input"));
    }
    Ok(sequence)
}

/// A target of runs alternates between literal masked residues and one sentinel for each unmasked
/// run, and the input alternates, at the same places, between groups of touching sentinels and
/// literal runs. So the two are walked side by side.
fn fill_runs(tokenizer: Tokenizer, input: &[u8], target: &[u8]) -> Result<Vec<u8>> {
    let mut sequence = Vec::new();
    let (mut input, mut target) = (input, target);
    let (mut masks, mut runs) = (0, 0);
    while !input.is_empty() || !target.is_empty() {
        // A group of masks: sentinels in the input, residues in the target.
        let hidden = input
            .iter()
            .enumerate()
            .take_while(|&(i, &id)| tokenizer.sentinel_index(id) == Some(masks + i))
            .count();
        let literal = residues(tokenizer, target);
        if (hidden == 0) != (literal == 0) {
            return mismatch(format!(
                "before unmasked run {runs} the input hides {hidden} spans, but the target spells out {literal} residues"
            ));
        }
        sequence.extend_from_slice(&target[..literal]);
        masks += hidden;
        input = &input[hidden..];
        target = &target[literal..];
        // An unmasked run: residues in the input, one sentinel in the target.
        let shown = residues(tokenizer, input);
        sequence.extend_from_slice(&input[..shown]);
        input = &input[shown..];
        match target {
            [first, rest @ ..] if shown > 0 && tokenizer.sentinel_index(*first) == Some(runs) => {
                target = rest;
                runs += 1;
            }
            [] if shown == 0 && input.is_empty() => {}
            _ => {
                return mismatch(format!(
                    "unmasked run {runs} has {shown} residues in the input, but the target goes on with {:?}",
                    tokenizer.decode(&target[..target.len().min(4)])
                ));
            }
        }
    }
    Ok(sequence)
}

fn residues(tokenizer: Tokenizer, tokens: &[u8]) -> usize {
    let special = |&id: &u8| tokenizer.sentinel_index(id).is_some();
    tokens.iter().position(special).unwrap_or(tokens.len())
}
