//! The family as a profile, and the best global alignment of a sequence with it.

use crate::confusion::{LETTERS, blosum62};

/// What opening a gap costs, and what each of its residues does: those of BLAST with BLOSUM62.
const OPEN: f32 = 11.0;
const EXTEND: f32 = 1.0;

/// Less than any score.
const NEVER: f32 = f32::NEG_INFINITY;

/// For each column of an alignment how well each residue fits it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// `[columns][256]`, by letter: the mean of BLOSUM62 over the column's amino acids.
    scores: Vec<[f32; 256]>,
}

/// How the best alignment reached a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A residue in a column.
    Match,
    /// A column without a residue.
    Delete,
    /// A residue without a column.
    Insert,
}

const STATES: [State; 3] = [State::Match, State::Delete, State::Insert];

impl Profile {
    /// Of rows of one length, of capitals and gaps. Gaps and letters beside the twenty amino acids
    /// count for nothing.
    pub fn of(rows: &[Vec<u8>]) -> Profile {
        let columns = rows.first().map_or(0, Vec::len);
        let scores = (0..columns).map(|column| {
            let mut counts = [0usize; 20];
            for row in rows {
                let place = LETTERS.iter().position(|&letter| letter == row[column]);
                place.into_iter().for_each(|place| counts[place] += 1);
            }
            let all = counts.iter().sum::<usize>().max(1) as f32;
            let mut scores = [0.0; 256];
            for &letter in LETTERS {
                let of = |(&there, &count): (&u8, &usize)| {
                    let score = blosum62(there, letter).expect("both are amino acids");
                    f32::from(score) * count as f32 / all
                };
                scores[usize::from(letter)] = LETTERS.iter().zip(&counts).map(of).sum();
            }
            scores
        });
        Profile {
            scores: scores.collect(),
        }
    }

    /// Which residue of a sequence of capitals is in each column, from 0, in its best global
    /// alignment: Needleman and Wunsch's, with Gotoh's affine gaps.
    pub fn align(&self, sequence: &[u8]) -> Vec<Option<usize>> {
        self.align_and_score(sequence).0
    }

    fn align_and_score(&self, sequence: &[u8]) -> (Vec<Option<usize>>, f32) {
        let (columns, residues) = (self.scores.len(), sequence.len());
        let width = residues + 1;
        let mut best = vec![[NEVER; 3]; (columns + 1) * width];
        let mut from = vec![[State::Match; 3]; (columns + 1) * width];
        best[0][0] = 0.0;
        for column in 0..=columns {
            for residue in 0..=residues {
                let cell = column * width + residue;
                // A gap goes on in its own state at a lower price. A gap in the sequence and one in
                // the profile do not follow each other: a match is never worse than both.
                let mut enter = |state: State, before: usize, prices: [f32; 3]| {
                    for (index, previous) in STATES.into_iter().enumerate() {
                        let score = best[before][index] + prices[index];
                        if score > best[cell][state as usize] {
                            best[cell][state as usize] = score;
                            from[cell][state as usize] = previous;
                        }
                    }
                };
                if column > 0 && residue > 0 {
                    let letter = usize::from(sequence[residue - 1]);
                    let score = self.scores[column - 1][letter];
                    enter(State::Match, cell - width - 1, [score; 3]);
                }
                if column > 0 {
                    enter(
                        State::Delete,
                        cell - width,
                        [-OPEN - EXTEND, -EXTEND, NEVER],
                    );
                }
                if residue > 0 {
                    enter(State::Insert, cell - 1, [-OPEN - EXTEND, NEVER, -EXTEND]);
                }
            }
        }
        let mut row = vec![None; columns];
        let (mut column, mut residue) = (columns, residues);
        let last = best[column * width + residue];
        let mut state = STATES.into_iter().fold(State::Match, |state, other| {
            match last[other as usize] > last[state as usize] {
                true => other,
                false => state,
            }
        });
        while column > 0 || residue > 0 {
            let previous = from[column * width + residue][state as usize];
            match state {
                State::Match => {
                    (column, residue) = (column - 1, residue - 1);
                    row[column] = Some(residue);
                }
                State::Delete => column -= 1,
                State::Insert => residue -= 1,
            }
            state = previous;
        }
        (row, last.into_iter().fold(NEVER, f32::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(rows: &[&str], sequence: &str) -> String {
        let rows: Vec<Vec<u8>> = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
        let places = Profile::of(&rows).align(sequence.as_bytes());
        let letters = places.into_iter().map(|place| match place {
            Some(place) => sequence.as_bytes()[place] as char,
            None => '-',
        });
        letters.collect()
    }

    #[test]
    fn sequences_are_placed_in_columns() {
        let family = ["MKWVAEYLLG", "MKWVAEFLIG"];
        assert_eq!(aligned(&family, "MKWVAEYLLG"), "MKWVAEYLLG");
        // Three residues are missing, and two are too many.
        assert_eq!(aligned(&family, "MKWYLLG"), "MKW---YLLG");
        assert_eq!(aligned(&family, "MKWVAPPEYLLG"), "MKWVAEYLLG");
        assert_eq!(aligned(&family, "WVAEYLLG"), "--WVAEYLLG");
        assert_eq!(aligned(&family, "MKWVAEYL"), "MKWVAEYL--");
        // A letter that is none of the twenty fits any column alike.
        assert_eq!(aligned(&family, "MKWXAEYLLG"), "MKWXAEYLLG");
    }

    #[test]
    fn no_other_alignment_scores_more() {
        // The best of all alignments of short sequences, by recursion. `gap` says whether the last
        // step left a column out, and whether it left a residue out.
        fn best(profile: &Profile, sequence: &[u8], column: usize, gap: [bool; 2]) -> f32 {
            let columns = profile.scores.len();
            if column == columns && sequence.is_empty() {
                return 0.0;
            }
            let price = |open: bool| if open { EXTEND } else { OPEN + EXTEND };
            let mut most = NEVER;
            if let Some((&first, rest)) = sequence.split_first() {
                if column < columns {
                    let matched = profile.scores[column][usize::from(first)];
                    most = most.max(matched + best(profile, rest, column + 1, [false; 2]));
                }
                if !gap[0] {
                    most = most.max(best(profile, rest, column, [false, true]) - price(gap[1]));
                }
            }
            if column < columns && !gap[1] {
                most = most.max(best(profile, sequence, column + 1, [true, false]) - price(gap[0]));
            }
            most
        }
        let mut random = ankh_data::Key::new(5).stream();
        for case in 0..60 {
            let mut draw = |length: usize| -> Vec<u8> {
                (0..length).map(|_| LETTERS[random.below(20)]).collect()
            };
            let profile = Profile::of(&[draw(5), draw(5)]);
            let sequence = draw(1 + case % 7);
            let (row, score) = profile.align_and_score(&sequence);
            let most = best(&profile, &sequence, 0, [false; 2]);
            assert!((score - most).abs() < 1e-3, "{score} {most} {row:?}");
            assert!(row.iter().flatten().is_sorted());
        }
    }
}
