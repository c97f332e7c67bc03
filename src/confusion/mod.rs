//! Which residues a model takes for which: counts, accuracy by residue, and how its confusions
//! agree with what evolution exchanges, as BLOSUM62 has it.

mod blosum62;

use ankh_data::Tokenizer;
use serde::Serialize;

pub use blosum62::{LETTERS, blosum62};

use crate::statistics::{pearson, spearman};

/// Predictions of residues, by what stood there.
#[derive(Clone, Debug, PartialEq)]
pub struct Confusion {
    /// The residues of the vocabulary.
    letters: Vec<u8>,
    /// `[letter][letter]`: how often a residue was predicted first where another stood. The last
    /// column counts predictions that are no residue.
    counts: Vec<Vec<f64>>,
    /// `[letter][letter]`: the sums of the probabilities. Of the last column too.
    mass: Vec<Vec<f64>>,
}

/// The predictions where one residue stood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ResidueAccuracy {
    /// The residue.
    pub residue: char,
    /// How often it stood there.
    pub count: u64,
    /// How often it was predicted first.
    pub correct: u64,
}

/// How confusions agree with BLOSUM62; a correlation is none where it is undefined.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Blosum62Agreement {
    /// Pairs of different amino acids that were compared, of 190.
    pub pairs: usize,
    /// Spearman's rank correlation.
    pub spearman: Option<f64>,
    /// Pearson's correlation.
    pub pearson: Option<f64>,
}

impl Confusion {
    /// Of no predictions yet.
    pub fn new(tokenizer: Tokenizer) -> Confusion {
        let letters: Vec<u8> = (0..=u8::MAX)
            .filter_map(|id| tokenizer.residue(id))
            // Letters are ASCII.
            .map(|letter| letter as u8)
            .collect();
        let zeros = vec![vec![0.0; letters.len() + 1]; letters.len()];
        Confusion {
            letters,
            counts: zeros.clone(),
            mass: zeros,
        }
    }

    /// Adds predictions of a batch: two matrices `[vocabulary, vocabulary]`, row-major, of counts
    /// and of sums of probabilities, what stood there by what was predicted.
    ///
    /// # Panics
    /// Where they are no such matrices.
    pub fn add(&mut self, tokenizer: Tokenizer, counts: &[f32], mass: &[f32]) {
        let vocabulary = counts.len().isqrt();
        assert!(vocabulary * vocabulary == counts.len() && counts.len() == mass.len());
        let columns: Vec<usize> = (0..vocabulary)
            .map(|id| self.column(tokenizer, id))
            .collect();
        for (row, letter) in self.letters.clone().into_iter().enumerate() {
            let id = tokenizer.residue_id(letter);
            let start = usize::from(id.expect("a letter of the vocabulary")) * vocabulary;
            for (id, &column) in columns.iter().enumerate() {
                self.counts[row][column] += f64::from(counts[start + id]);
                self.mass[row][column] += f64::from(mass[start + id]);
            }
        }
    }

    /// The column of a predicted id.
    fn column(&self, tokenizer: Tokenizer, id: usize) -> usize {
        let letter = u8::try_from(id).ok().and_then(|id| tokenizer.residue(id));
        let place =
            letter.and_then(|letter| self.letters.iter().position(|&l| l as char == letter));
        place.unwrap_or(self.letters.len())
    }

    /// The residues, in the order of rows and columns.
    pub fn letters(&self) -> &[u8] {
        &self.letters
    }

    /// How often each residue was predicted first where each stood, the row; behind them how often
    /// no residue was.
    pub fn counts(&self) -> Vec<Vec<u64>> {
        let whole = |row: &Vec<f64>| row.iter().map(|&count| count as u64).collect();
        self.counts.iter().map(whole).collect()
    }

    /// For each residue that stood somewhere, in the order of the vocabulary.
    pub fn accuracies(&self) -> Vec<ResidueAccuracy> {
        let rows = self.letters.iter().zip(self.counts()).enumerate();
        let found = rows.map(|(place, (&letter, counts))| ResidueAccuracy {
            residue: char::from(letter),
            count: counts.iter().sum(),
            correct: counts[place],
        });
        found.filter(|accuracy| accuracy.count > 0).collect()
    }

    /// The share of residues predicted first; none of none.
    pub fn accuracy(&self) -> Option<f64> {
        let found = self.accuracies();
        let count: u64 = found.iter().map(|residue| residue.count).sum();
        let correct: u64 = found.iter().map(|residue| residue.correct).sum();
        (count > 0).then(|| correct as f64 / count as f64)
    }

    /// The correlation of the log-odds of confusions with BLOSUM62, over pairs of different amino
    /// acids that both stood somewhere.
    ///
    /// The log-odds of `b` where `a` stood are `ln p(b | a) / p(b)`: the mean probability given to
    /// `b` there, over that given to it anywhere. A pair has the mean of both directions.
    pub fn blosum62_agreement(&self) -> Blosum62Agreement {
        let total = |row: &Vec<f64>| row.iter().sum::<f64>();
        let all: f64 = self.mass.iter().map(total).sum();
        let log_odds = |a: usize, b: usize| {
            let given = self.mass[a][b] / total(&self.mass[a]);
            let anywhere = self.mass.iter().map(|row| row[b]).sum::<f64>() / all;
            (given / anywhere).ln()
        };
        let (mut scores, mut odds) = (Vec::new(), Vec::new());
        for (a, &one) in self.letters.iter().enumerate() {
            for (b, &other) in self.letters.iter().enumerate().skip(a + 1) {
                let Some(score) = blosum62(one, other) else {
                    continue;
                };
                let of_pair = (log_odds(a, b) + log_odds(b, a)) / 2.0;
                if of_pair.is_finite() {
                    scores.push(f64::from(score));
                    odds.push(of_pair);
                }
            }
        }
        Blosum62Agreement {
            pairs: scores.len(),
            spearman: spearman(&scores, &odds),
            pearson: pearson(&scores, &odds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each amino acid is found in the alignments that BLOSUM62 was made from (Henikoff
    /// and Henikoff, 1992), in thousandths.
    const FREQUENCIES: [(u8, f32); 20] = [
        (b'A', 74.0),
        (b'R', 52.0),
        (b'N', 45.0),
        (b'D', 54.0),
        (b'C', 25.0),
        (b'Q', 34.0),
        (b'E', 54.0),
        (b'G', 74.0),
        (b'H', 26.0),
        (b'I', 68.0),
        (b'L', 99.0),
        (b'K', 58.0),
        (b'M', 25.0),
        (b'F', 47.0),
        (b'P', 39.0),
        (b'S', 57.0),
        (b'T', 51.0),
        (b'W', 13.0),
        (b'Y', 32.0),
        (b'V', 73.0),
    ];

    /// Predictions of a model that exchanges residues as BLOSUM62 has it: a score is twice the
    /// binary logarithm of how much more often two residues are exchanged than their frequencies
    /// alone would have it.
    fn of_blosum62(tokenizer: Tokenizer, vocabulary: usize) -> Vec<f32> {
        let mut matrix = vec![0.0; vocabulary * vocabulary];
        let id = |letter: u8| usize::from(tokenizer.residue_id(letter).unwrap());
        for (a, often) in FREQUENCIES {
            for (b, as_often) in FREQUENCIES {
                let score = f32::from(blosum62(a, b).unwrap());
                matrix[id(a) * vocabulary + id(b)] = often * as_often * (score / 2.0).exp2();
            }
        }
        matrix
    }

    #[test]
    fn a_model_that_confuses_as_evolution_does_agrees_with_blosum62() {
        for (tokenizer, vocabulary) in [(Tokenizer::ankh(), 144), (Tokenizer::ankh3(), 256)] {
            let mass = of_blosum62(tokenizer, vocabulary);
            let mut confusion = Confusion::new(tokenizer);
            confusion.add(tokenizer, &mass, &mass);
            let agreement = confusion.blosum62_agreement();
            assert_eq!(agreement.pairs, 190);
            // What is left are the scores' rounding to whole numbers, of which most of the 190 are
            // equal to many others: the ranks of those follow from the rounding alone.
            assert!(agreement.pearson.unwrap() > 0.98, "{agreement:?}");
            assert!(agreement.spearman.unwrap() > 0.95, "{agreement:?}");
        }
    }

    #[test]
    fn predictions_are_counted_by_what_stood_there() {
        let tokenizer = Tokenizer::ankh();
        let mut counts = vec![0.0; 144 * 144];
        let id = |letter: u8| usize::from(tokenizer.residue_id(letter).unwrap());
        counts[id(b'A') * 144 + id(b'A')] = 3.0;
        counts[id(b'A') * 144 + id(b'L')] = 1.0;
        counts[id(b'A') * 144 + 143] = 2.0;
        counts[id(b'L') * 144 + id(b'L')] = 2.0;
        // Where a sentinel stood, no residue did.
        counts[143 * 144 + id(b'L')] = 7.0;
        let mut confusion = Confusion::new(tokenizer);
        assert_eq!(confusion.accuracy(), None);
        confusion.add(tokenizer, &counts, &counts);
        confusion.add(tokenizer, &counts, &counts);
        let accuracies = confusion.accuracies();
        let numbers: Vec<_> = accuracies
            .iter()
            .map(|a| (a.residue, a.count, a.correct))
            .collect();
        assert_eq!(numbers, [('A', 12, 6), ('L', 4, 4)]);
        assert_eq!(confusion.accuracy(), Some(10.0 / 16.0));
        assert_eq!(confusion.counts()[0][..2], [6, 2]);
        assert_eq!(confusion.counts()[0][25], 4);
        assert_eq!(confusion.letters().len(), 25);
    }
}
