//! What generated sequences are measured by, in the columns of their family.

use std::collections::HashSet;

use serde::Serialize;

use super::alignment::GAP;
use crate::confusion::LETTERS;
use crate::statistics::pearson;

/// Shannon's entropy of the amino acids in each column, in nats; none where a column has none of
/// the twenty. Gaps and other letters are left out, and nothing is added to small counts.
pub fn entropies(rows: &[Vec<u8>], columns: usize) -> Vec<Option<f64>> {
    let entropy = |column: usize| {
        let mut counts = [0usize; 20];
        for row in rows {
            let place = LETTERS.iter().position(|&letter| letter == row[column]);
            place.into_iter().for_each(|place| counts[place] += 1);
        }
        let all: usize = counts.iter().sum();
        let used = counts.iter().filter(|&&count| count > 0);
        let terms = used.map(|&count| {
            let share = count as f64 / all as f64;
            -share * share.ln()
        });
        // A lone amino acid gives -0.
        (all > 0).then(|| terms.sum::<f64>() + 0.0)
    };
    (0..columns).map(entropy).collect()
}

/// How entropies of generated sequences differ from those of their family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EntropyError {
    /// Columns in which both have residues.
    pub columns: usize,
    /// The mean squared difference, in squared nats; none without columns.
    pub mean_squared_error: Option<f64>,
    /// The same in squared bits.
    pub mean_squared_error_in_bits: Option<f64>,
    /// The mean of the generated entropies less that of the natural ones, in nats.
    pub mean_difference: Option<f64>,
    /// Pearson's correlation over the columns.
    pub correlation: Option<f64>,
}

impl EntropyError {
    /// Over the columns that `is_counted` says.
    pub fn between(
        natural: &[Option<f64>],
        generated: &[Option<f64>],
        is_counted: impl Fn(usize) -> bool,
    ) -> EntropyError {
        let pairs = natural.iter().zip(generated).enumerate();
        let pairs = pairs.filter(|(column, _)| is_counted(*column));
        let pairs =
            pairs.filter_map(|(_, (natural, generated))| Some(((*natural)?, (*generated)?)));
        let (natural, generated): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let columns = natural.len();
        let differences = || generated.iter().zip(&natural).map(|(g, n)| g - n);
        let mean = |sum: f64| (columns > 0).then(|| sum / columns as f64);
        let error = mean(
            differences()
                .map(|difference| difference * difference)
                .sum(),
        );
        let bits = std::f64::consts::LN_2 * std::f64::consts::LN_2;
        EntropyError {
            columns,
            mean_squared_error: error,
            mean_squared_error_in_bits: error.map(|error| error / bits),
            mean_difference: mean(differences().sum()),
            correlation: pearson(&natural, &generated),
        }
    }
}

/// The share of columns with equal residues, of those where either row has one.
pub fn identity(one: &[u8], other: &[u8]) -> f64 {
    let (mut same, mut all) = (0usize, 0usize);
    for (&one, &other) in one.iter().zip(other) {
        all += usize::from(one != GAP || other != GAP);
        same += usize::from(one == other && one != GAP);
    }
    same as f64 / all.max(1) as f64
}

/// For each row its identity to the row of `natural` that is most like it.
pub fn nearest(rows: &[Vec<u8>], natural: &[Vec<u8>]) -> Vec<f64> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = rows.len().div_ceil(threads).max(1);
    let of = |row: &Vec<u8>| natural.iter().map(|n| identity(row, n)).fold(0.0, f64::max);
    std::thread::scope(|scope| {
        let parts = rows
            .chunks(each)
            .map(|part| scope.spawn(move || part.iter().map(of).collect()));
        let parts: Vec<_> = parts.collect();
        let joined = parts.into_iter().map(|part| part.join());
        let found: Vec<Vec<f64>> = joined.map(|part| part.expect("it only compares")).collect();
        found.concat()
    })
}

/// The least, the mean and the most of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// The least.
    pub least: f64,
    /// The mean.
    pub mean: f64,
    /// The most.
    pub most: f64,
}

impl Range {
    /// Of numbers; none without any.
    pub fn of(numbers: &[f64]) -> Option<Range> {
        (!numbers.is_empty()).then(|| Range {
            least: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            mean: numbers.iter().sum::<f64>() / numbers.len() as f64,
            most: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// The share of sequences that are distinct: their number, each counted once, by that of all.
pub fn unique_share(sequences: &[Vec<u8>]) -> f64 {
    let distinct: HashSet<&[u8]> = sequences.iter().map(Vec::as_slice).collect();
    distinct.len() as f64 / sequences.len().max(1) as f64
}

/// The share of sequences that are not among others.
pub fn novel_share(sequences: &[Vec<u8>], known: &HashSet<Vec<u8>>) -> f64 {
    let novel = sequences
        .iter()
        .filter(|sequence| !known.contains(*sequence));
    novel.count() as f64 / sequences.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&str]) -> Vec<Vec<u8>> {
        rows.iter().map(|row| row.as_bytes().to_vec()).collect()
    }

    #[test]
    fn entropies_are_those_of_the_amino_acids_in_a_column() {
        let found = entropies(&rows(&["AA-X", "AC--", "ACE-", "ADE-"]), 4);
        let ln = f64::ln;
        // A, A, A, A; A, C, C, D; E, E; nothing.
        assert_eq!(found[0], Some(0.0));
        let expected = 0.5 * ln(4.0) + 0.5 * ln(2.0);
        assert!((found[1].unwrap() - expected).abs() < 1e-12);
        assert_eq!((found[2], found[3]), (Some(0.0), None));
    }

    #[test]
    fn errors_leave_out_columns_without_residues() {
        let natural = [Some(1.0), Some(0.5), None, Some(0.25)];
        let generated = [Some(0.0), Some(0.7), Some(9.0), Some(0.35)];
        let error = EntropyError::between(&natural, &generated, |_| true);
        assert_eq!(error.columns, 3);
        let expected = (1.0 + 0.04 + 0.01) / 3.0;
        assert!((error.mean_squared_error.unwrap() - expected).abs() < 1e-12);
        let bits = expected / (2f64.ln() * 2f64.ln());
        assert!((error.mean_squared_error_in_bits.unwrap() - bits).abs() < 1e-12);
        assert!((error.mean_difference.unwrap() + 0.7 / 3.0).abs() < 1e-12);
        let error = EntropyError::between(&natural, &generated, |column| column > 0);
        assert!((error.mean_squared_error.unwrap() - 0.025).abs() < 1e-12);
        let none = EntropyError::between(&natural, &generated, |column| column == 2);
        assert_eq!((none.columns, none.mean_squared_error), (0, None));
    }

    #[test]
    fn identities_and_shares_are_those_counted_by_hand() {
        assert_eq!(identity(b"MKV-", b"MRV-"), 2.0 / 3.0);
        assert_eq!(identity(b"MKVA", b"-KVC"), 0.5);
        let natural = rows(&["MKVA", "MRVA"]);
        assert_eq!(nearest(&rows(&["MRVC", "MKVA"]), &natural), [0.75, 1.0]);
        let generated = rows(&["MK", "MR", "MK", "MW"]);
        assert_eq!(unique_share(&generated), 0.75);
        let known = rows(&["MK"]).into_iter().collect();
        assert_eq!(novel_share(&generated, &known), 0.5);
        let range = Range::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((range.least, range.mean, range.most), (1.0, 3.0, 6.0));
        assert_eq!(Range::of(&[]), None);
    }
}
