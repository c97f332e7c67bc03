//! The pseudo-likelihood of sequences, as Ankh's authors have it: each residue masked by
//! `<extra_id_0>` in turn, the decoder's input `[0, <extra_id_0>]`, over residues alone.

use std::ops::ControlFlow;

use ankh_data::Split;

use super::{Error, MaskedData};
use crate::inference::LoadedModel;
use crate::score::{Questions, Terms, answers};

/// The likelihood of some sequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// How many.
    pub sequences: usize,
    /// Their residues.
    pub residues: usize,
    /// The mean of ln p(residue) over all residues, in nats.
    pub mean_log_probability: f64,
    /// The mean over sequences of `exp(mean ln p)`.
    pub pseudo_likelihood: f64,
}

impl Likelihood {
    /// `exp(-mean ln p)`.
    pub fn pseudo_perplexity(&self) -> f64 {
        (-self.mean_log_probability).exp()
    }
}

/// Of the first `most` sequences of some splits, in stored order. Of a sequence longer than an
/// input the first residues are taken. `each` hears how many residues are done, of how many.
pub fn likelihood(
    model: &LoadedModel,
    data: &MaskedData,
    splits: &[Split],
    most: usize,
    batch_tokens: usize,
    mut each: impl FnMut(u64, u64),
) -> Result<Likelihood, Error> {
    let tokenizer = model.tokenizer();
    let mut questions = Questions::new(tokenizer);
    let mut terms: Vec<(Terms, usize)> = Vec::new();
    for dataset in data.open(model, splits)? {
        for row in 0..dataset.rows() {
            if terms.len() == most {
                break;
            }
            let tokens = dataset.tokens(row)?;
            // The last place is that of `</s>`.
            let room = data.batch.input_length - 1;
            let letters = tokens
                .iter()
                .take(room)
                .filter_map(|&id| tokenizer.residue(id));
            // Letters are ASCII.
            let letters: Vec<u8> = letters.map(|letter| letter as u8).collect();
            if !letters.is_empty() {
                terms.push((Terms::of_sequence(&letters, &mut questions), letters.len()));
            }
        }
    }
    let answers = answers(model, &questions, batch_tokens, None, |progress| {
        each(progress.done as u64, progress.total as u64);
        ControlFlow::Continue(())
    })?;
    let answers = answers.expect("nothing breaks it");
    let sequences = terms.len();
    let residues = terms.iter().map(|(_, residues)| residues).sum();
    let (mut sum, mut likelihoods) = (0.0, 0.0);
    for (terms, residues) in &terms {
        let mean = terms.score(&answers);
        sum += mean * *residues as f64;
        likelihoods += mean.exp();
    }
    Ok(Likelihood {
        sequences,
        residues,
        mean_log_probability: sum / residues as f64,
        pseudo_likelihood: likelihoods / sequences as f64,
    })
}
