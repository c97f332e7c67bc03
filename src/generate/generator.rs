//! Prompts run in batches.

use ankh_data::Packing;
use ankh_data::tokenizer::EOS;
use ankh_pjrt::HostTensor;
use serde::{Deserialize, Serialize};

use super::{Constraint, Error, Prompt, Search};
use crate::inference::{Lengths, LoadedModel, input_batch};
use crate::programs::{BatchShape, RowsPerPrompt};

/// How tokens are chosen, and what is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How the next token is chosen.
    pub search: Search,
    /// Beams, or samples at once.
    pub rows_per_prompt: usize,
    /// What logits are divided by before drawing; greater than 0.
    pub temperature: f32,
    /// How many tokens may be drawn, the likeliest; 0 for all.
    pub top_k: usize,
    /// How much of the probability the likeliest tokens must have that may be drawn; 1 for all.
    pub top_p: f32,
    /// A beam's score is divided by its length to this power.
    pub length_penalty: f32,
    /// What all random numbers follow from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            search: Search::Greedy,
            rows_per_prompt: 1,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            length_penalty: 1.0,
            seed: 0,
        }
    }
}

/// A prompt in a batch. What is drawn for it depends on these numbers and the seed, and not on the
/// rest of the batch.
#[derive(Clone, Copy, Debug)]
pub struct Item<'p> {
    /// The prompt.
    pub prompt: &'p Prompt,
    /// Its number among all.
    pub number: u32,
    /// The number of its first sample here, among all of the prompt.
    pub first_sample: u32,
}

/// What was generated in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// Tokens up to `</s>`, or as many as the limit allows.
    pub tokens: Vec<u8>,
    /// Their score: see [`crate::programs::Programs::generation`].
    pub score: f32,
}

/// Runs prompts on a model.
pub struct Generator<'m> {
    model: &'m LoadedModel,
    settings: Settings,
}

impl<'m> Generator<'m> {
    /// Generates in this way with this model.
    pub fn new(model: &'m LoadedModel, settings: Settings) -> Generator<'m> {
        Generator { model, settings }
    }

    /// Runs some prompts at once, padded to `rows` of them: for each, in order, its samples or
    /// beams, the best beam first. Those that run together have one limit.
    pub fn run(&self, items: &[Item<'_>], rows: usize) -> Result<Vec<Vec<Generated>>, Error> {
        self.run_with_positions(items, rows, 1)
    }

    /// The same with a cache of so many positions at least.
    pub fn run_with_positions(
        &self,
        items: &[Item<'_>],
        rows: usize,
        positions: usize,
    ) -> Result<Vec<Vec<Generated>>, Error> {
        let rows = self.model.rows(rows.max(items.len()));
        let longest = |length: fn(&Prompt) -> usize| {
            let lengths = items.iter().map(|item| length(item.prompt));
            lengths.max().unwrap_or(1).max(1)
        };
        let lengths = Lengths::default();
        let limit = longest(|prompt| prompt.limit);
        let size = BatchShape {
            rows,
            input: lengths.of(longest(|prompt| prompt.input.len())),
            target: lengths.of(limit.max(positions)),
            packing: Packing::Padded,
        };
        let Settings {
            search,
            rows_per_prompt: each,
            ..
        } = self.settings;
        let key = format!("generation {search:?} {each}");
        let build = |programs: &crate::programs::Programs<'_>| {
            programs.generation(search, RowsPerPrompt(each))
        };
        let program = self.model.program(&key, size, build)?;
        let arrays = self.arrays(items, size, limit);
        let [tokens, scores] = &program.run(&arrays)?[..] else {
            unreachable!("a generation gives tokens and scores")
        };
        let (tokens, scores) = (tokens.to_vec::<i32>()?, scores.to_vec::<f32>()?);
        let rows = tokens.chunks_exact(size.target).zip(scores);
        let rows = rows.map(|(tokens, score)| Generated {
            tokens: until_end(&tokens[..limit]),
            score,
        });
        let rows: Vec<Generated> = rows.collect();
        let of_items = rows.chunks_exact(each).zip(items);
        let checked =
            of_items.map(
                |(rows, item)| match rows.iter().all(|row| row.score.is_finite()) {
                    true => Ok(rows.to_vec()),
                    false => Err(Error::NotFinite {
                        id: item.prompt.id.clone(),
                    }),
                },
            );
        checked.collect()
    }

    /// The arrays of [`crate::programs::Programs::generation_arrays`].
    fn arrays(&self, items: &[Item<'_>], size: BatchShape, limit: usize) -> Vec<HostTensor> {
        let inputs: Vec<&[u8]> = items.iter().map(|item| &item.prompt.input[..]).collect();
        let mut constraints = Vec::with_capacity(size.rows * size.target);
        let mut streams = Vec::with_capacity(2 * size.rows);
        for row in 0..size.rows {
            // Rows that hold no prompt end at once.
            let (target, rest) = match items.get(row) {
                Some(item) => (&item.prompt.target[..], item.prompt.rest),
                None => (&[][..], Constraint::Token(EOS)),
            };
            let at = |position| target.get(position).copied().unwrap_or(rest).code();
            constraints.extend((0..size.target).map(at));
            let numbers = items.get(row).map(|item| [item.first_sample, item.number]);
            streams.extend(numbers.unwrap_or_default());
        }
        let rows = size.rows as i64;
        let settings = &self.settings;
        let [input_ids, attention_mask] = input_batch(&inputs, size.rows, size.input);
        vec![
            input_ids,
            attention_mask,
            HostTensor::new::<i32>([rows, size.target as i64], &constraints),
            HostTensor::scalar::<i32>(limit as i32),
            HostTensor::scalar::<u64>(settings.seed),
            HostTensor::new::<u32>([rows, 2], &streams),
            HostTensor::scalar::<f32>(settings.temperature),
            HostTensor::scalar::<i32>(settings.top_k as i32),
            HostTensor::scalar::<f32>(settings.top_p),
            HostTensor::scalar::<f32>(settings.length_penalty),
        ]
    }
}

/// The tokens up to `</s>`, which is one of them.
fn until_end(tokens: &[i32]) -> Vec<u8> {
    let end = tokens.iter().position(|&id| id == i32::from(EOS));
    let kept = &tokens[..end.map_or(tokens.len(), |end| end + 1)];
    // Vocabularies of known tokenizers have 256 ids at most; a padded one has more, which are
    // unknown to the tokenizer as 2 is.
    let id = |&id: &i32| u8::try_from(id).unwrap_or(ankh_data::tokenizer::UNK);
    kept.iter().map(id).collect()
}
