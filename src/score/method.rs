//! How a variant's score is made of a model's probabilities.

use super::Variant;
use super::masked::{Answers, Question, Questions};

/// What a score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The sum over the mutations of `ln p(mutant) - ln p(wild type)` at the mutated position, that
    /// position alone masked in the wild type (Meier et al., 2021). Mutations of one variant do not
    /// see each other.
    MaskedMarginals,
    /// The mean of `ln p(residue)` over the residues of the variant, each masked in turn.
    PseudoLikelihood,
}

/// The questions whose answers make up a variant's score.
pub enum Terms {
    /// The mutant's and the wild type's residue at each mutated position.
    Differences(Vec<[Question; 2]>),
    /// Each residue.
    Residues(Vec<Question>),
}

impl Method {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Method::MaskedMarginals => "masked-marginals",
            Method::PseudoLikelihood => "pseudo-likelihood",
        }
    }

    /// The columns of its scores; the first is what variants are ranked by.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Method::MaskedMarginals => &["masked_marginals"],
            Method::PseudoLikelihood => &["mean_log_probability", "pseudo_likelihood"],
        }
    }

    /// Asks what a variant's score needs.
    ///
    /// # Panics
    /// Where masked marginals are asked of a variant whose origin is not known.
    pub fn ask(self, variant: &Variant, questions: &mut Questions) -> Terms {
        match self {
            Method::MaskedMarginals => {
                let origin = variant.origin.as_ref();
                let origin = origin.expect("`variants` refuses those without a wild type");
                let ask = |mutation: &super::Mutation| {
                    let residues = [mutation.to, mutation.from];
                    questions.ask(&origin.wild_type, mutation.position, residues)
                };
                Terms::Differences(origin.mutations.iter().map(ask).collect())
            }
            Method::PseudoLikelihood => Terms::of_sequence(&variant.sequence, questions),
        }
    }
}

impl Terms {
    /// The terms of a sequence's pseudo-likelihood; its residues are capitals.
    pub fn of_sequence(sequence: &[u8], questions: &mut Questions) -> Terms {
        let ask = |(position, &residue): (usize, &u8)| {
            let [question] = questions.ask(sequence, position, [residue]);
            question
        };
        Terms::Residues(sequence.iter().enumerate().map(ask).collect())
    }

    /// The score: the sum of the differences, 0 without any; or the mean over the residues.
    pub fn score(&self, answers: &Answers) -> f64 {
        match self {
            Terms::Differences(pairs) => {
                let difference = |[to, from]: &[Question; 2]| answers.of(*to) - answers.of(*from);
                // Not `sum`, which is -0 of nothing.
                pairs
                    .iter()
                    .map(difference)
                    .fold(0.0, |sum, term| sum + term)
            }
            Terms::Residues(residues) => {
                let sum: f64 = residues.iter().map(|residue| answers.of(*residue)).sum();
                sum / residues.len() as f64
            }
        }
    }
}
