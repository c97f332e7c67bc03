//! Puts questions to a model: batches by length, one ahead of what is read back.

use std::ops::ControlFlow;

use ankh_data::Packing;
use ankh_pjrt::HostTensor;

use super::Error;
use super::masked::{Answers, Questions};
use crate::inference::{Journal, Lengths, LoadedModel, Program, input_batch};
use crate::mesh::ShardedArray;
use crate::programs::{BatchShape, DECODER_LENGTH};

/// How far the work is, in masked inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done, those of an earlier process included.
    pub done: usize,
    /// All.
    pub total: usize,
}

/// The inputs of one run of the program, in the order of its rows.
#[derive(Debug, PartialEq, Eq)]
struct InputBatch {
    length: usize,
    rows: usize,
    inputs: Vec<u32>,
}

/// The answers of a model to all questions, in batches of about `batch_tokens` tokens.
///
/// Batches and their order follow from the questions alone, so what `journal` kept of an earlier
/// process is the beginning of this one's work. `each` hears of every batch; no answers where it
/// breaks, and the journal keeps what is done.
pub fn answers(
    model: &LoadedModel,
    questions: &Questions,
    batch_tokens: usize,
    mut journal: Option<&mut Journal>,
    mut each: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Answers>, Error> {
    let of_input = questions.by_input();
    let mut found = vec![f32::NAN; questions.len()];
    let total = questions.inputs();
    let mut done = 0;
    let mut running: Option<(InputBatch, Program<'_>, Vec<ShardedArray>)> = None;
    // Those kept are read; each of the others is started before the one before it is read.
    let batches = batches(questions, batch_tokens, |rows| model.rows(rows));
    for batch in batches.into_iter().map(Some).chain([None]) {
        let numbers = |batch: &InputBatch| -> Vec<(u32, u8)> {
            let inputs = batch.inputs.iter();
            inputs
                .flat_map(|&input| of_input[input as usize].iter().copied())
                .collect()
        };
        if let Some(batch) = &batch
            && let Some(kept) = journal.as_mut().and_then(|journal| journal.next_kept())
        {
            let (kept, _) = kept.as_chunks::<4>();

            let numbers = numbers(batch);
            // The journal's description has the digest of the questions.
            assert_eq!(numbers.len(), kept.len(), "a batch of the same questions");
            for ((number, _), answer) in numbers.iter().zip(kept) {
                found[*number as usize] = f32::from_le_bytes(*answer);
            }
            done += batch.inputs.len();
            continue;
        }
        let next = match batch {
            None => None,
            Some(batch) => {
                let program = program(model, &batch)?;
                let tokens: Vec<Vec<u8>> = batch
                    .inputs
                    .iter()
                    .map(|&input| questions.tokens(input as usize))
                    .collect();
                let arrays = input_batch(&tokens, batch.rows, batch.length);
                let results = program.start(&arrays)?;
                Some((batch, program, results))
            }
        };
        if let Some((batch, program, results)) = std::mem::replace(&mut running, next) {
            let log_probabilities = program.to_host(&results[0])?;
            let answers = gather(&log_probabilities, &batch, &of_input);
            for ((number, _), answer) in numbers(&batch).iter().zip(&answers) {
                found[*number as usize] = *answer;
            }
            if let Some(journal) = &mut journal {
                let bytes: Vec<u8> = answers.iter().flat_map(|x| x.to_le_bytes()).collect();
                journal.append(&bytes)?;
            }
            done += batch.inputs.len();
        }
        if each(Progress { done, total }).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(Answers(found)))
}

fn program<'m>(model: &'m LoadedModel, batch: &InputBatch) -> Result<Program<'m>, Error> {
    let size = BatchShape {
        rows: batch.rows,
        input: batch.length,
        target: DECODER_LENGTH,
        packing: Packing::Padded,
    };
    Ok(model.program("residues", size, |programs| programs.residues())?)
}

/// The answers that a batch gives, in the order of its inputs and of the questions about each.
/// `log_probabilities` is float32 `[rows, vocabulary]`.
fn gather(
    log_probabilities: &HostTensor,
    batch: &InputBatch,
    of_input: &[Vec<(u32, u8)>],
) -> Vec<f32> {
    let vocabulary = log_probabilities.dims[1] as usize;
    let values = log_probabilities.to_vec::<f32>();
    let values = values.expect("the program's result is float32");
    let rows = batch.inputs.iter().zip(values.chunks(vocabulary));
    rows.flat_map(|(&input, row)| {
        let asked = of_input[input as usize].iter();
        asked.map(|(_, id)| row[usize::from(*id)])
    })
    .collect()
}

/// The inputs in batches: by their padded length, those of a length in the order in which they
/// were asked. `even` is the number of rows, at least as many, that devices split evenly.
fn batches(
    questions: &Questions,
    batch_tokens: usize,
    even: impl Fn(usize) -> usize,
) -> Vec<InputBatch> {
    let lengths = Lengths::default();
    let padded = |&input: &u32| lengths.of(questions.length(input as usize));
    let mut order: Vec<u32> = (0..questions.inputs() as u32).collect();
    order.sort_by_key(padded);
    let mut found = Vec::new();
    for group in order.chunk_by(|a, b| padded(a) == padded(b)) {
        let length = padded(&group[0]);
        let most = even((batch_tokens / length).max(1));
        // A few inputs need no batch of the full size.
        let rows = even(group.len().next_power_of_two()).min(most);
        found.extend(group.chunks(rows).map(|inputs| InputBatch {
            length,
            rows,
            inputs: inputs.to_vec(),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use ankh_data::Tokenizer;

    #[test]
    fn batches_hold_each_input_once_by_length() {
        let mut questions = Questions::new(Tokenizer::ankh());
        for length in [40usize, 10, 300, 12, 41] {
            let sequence = vec![b'A'; length];
            for position in 0..length {
                questions.ask(&sequence, position, [b'A']);
            }
        }
        let batches = batches(&questions, 512, |rows| rows.next_multiple_of(2));
        let mut seen: Vec<u32> = batches.iter().flat_map(|b| b.inputs.clone()).collect();
        for batch in &batches {
            assert!(batch.rows % 2 == 0 && batch.inputs.len() <= batch.rows);
            assert!(batch.rows * batch.length <= 1024, "{batch:?}");
            for &input in &batch.inputs {
                assert!(questions.length(input as usize) <= batch.length);
            }
        }
        let lengths: Vec<usize> = batches.iter().map(|batch| batch.length).collect();
        assert!(lengths.is_sorted());
        seen.sort_unstable();
        assert_eq!(seen, (0..questions.inputs() as u32).collect::<Vec<_>>());
    }
}
