//! BLOSUM62: log-odds of substitutions in blocks of aligned proteins, in half bits.
//!
//! Henikoff and Henikoff, "Amino acid substitution matrices from protein blocks", PNAS 89, 1992.
//! The numbers are those of the file `BLOSUM62` that NCBI distributes with BLAST.

/// The amino acids, in the order of the matrix.
pub const LETTERS: &[u8; 20] = b"ARNDCQEGHILKMFPSTWYV";

#[rustfmt::skip]
const SCORES: [[i8; 20]; 20] = [
    [4, -1, -2, -2, 0, -1, -1, 0, -2, -1, -1, -1, -1, -2, -1, 1, 0, -3, -2, 0],
    [-1, 5, 0, -2, -3, 1, 0, -2, 0, -3, -2, 2, -1, -3, -2, -1, -1, -3, -2, -3],
    [-2, 0, 6, 1, -3, 0, 0, 0, 1, -3, -3, 0, -2, -3, -2, 1, 0, -4, -2, -3],
    [-2, -2, 1, 6, -3, 0, 2, -1, -1, -3, -4, -1, -3, -3, -1, 0, -1, -4, -3, -3],
    [0, -3, -3, -3, 9, -3, -4, -3, -3, -1, -1, -3, -1, -2, -3, -1, -1, -2, -2, -1],
    [-1, 1, 0, 0, -3, 5, 2, -2, 0, -3, -2, 1, 0, -3, -1, 0, -1, -2, -1, -2],
    [-1, 0, 0, 2, -4, 2, 5, -2, 0, -3, -3, 1, -2, -3, -1, 0, -1, -3, -2, -2],
    [0, -2, 0, -1, -3, -2, -2, 6, -2, -4, -4, -2, -3, -3, -2, 0, -2, -2, -3, -3],
    [-2, 0, 1, -1, -3, 0, 0, -2, 8, -3, -3, -1, -2, -1, -2, -1, -2, -2, 2, -3],
    [-1, -3, -3, -3, -1, -3, -3, -4, -3, 4, 2, -3, 1, 0, -3, -2, -1, -3, -1, 3],
    [-1, -2, -3, -4, -1, -2, -3, -4, -3, 2, 4, -2, 2, 0, -3, -2, -1, -2, -1, 1],
    [-1, 2, 0, -1, -3, 1, 1, -2, -1, -3, -2, 5, -1, -3, -1, 0, -1, -3, -2, -2],
    [-1, -1, -2, -3, -1, 0, -2, -3, -2, 1, 2, -1, 5, 0, -2, -1, -1, -1, -1, 1],
    [-2, -3, -3, -3, -2, -3, -3, -3, -1, 0, 0, -3, 0, 6, -4, -2, -2, 1, 3, -1],
    [-1, -2, -2, -1, -3, -1, -1, -2, -2, -3, -3, -1, -2, -4, 7, -1, -1, -4, -3, -2],
    [1, -1, 1, 0, -1, 0, 0, 0, -1, -2, -2, 0, -1, -2, -1, 4, 1, -3, -2, -2],
    [0, -1, 0, -1, -1, -1, -1, -2, -2, -1, -1, -1, -1, -2, -1, 1, 5, -2, -2, 0],
    [-3, -3, -4, -4, -2, -2, -3, -2, -2, -3, -2, -3, -1, 1, -4, -3, -2, 11, 2, -3],
    [-2, -2, -2, -3, -2, -1, -2, -3, 2, -1, -1, -2, -1, 3, -3, -2, -2, 2, 7, -1],
    [0, -3, -3, -3, -1, -2, -2, -3, -3, 3, 1, -2, 1, -1, -2, -2, 0, -3, -1, 4],
];

/// The score of a residue in the place of another; none where one is none of the twenty.
pub fn blosum62(one: u8, other: u8) -> Option<i8> {
    let place = |letter: u8| LETTERS.iter().position(|&known| known == letter);
    Some(SCORES[place(one)?][place(other)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_symmetric_and_sums_to_what_the_published_one_does() {
        for (i, row) in SCORES.iter().enumerate() {
            for (j, score) in row.iter().enumerate() {
                assert_eq!(*score, SCORES[j][i]);
            }
            assert!(row.iter().all(|score| *score <= row[i]));
        }
        let sum: i32 = SCORES
            .as_flattened()
            .iter()
            .map(|score| i32::from(*score))
            .sum();
        assert_eq!(sum, -426);
        assert_eq!(blosum62(b'W', b'W'), Some(11));
        assert_eq!(blosum62(b'I', b'V'), Some(3));
        assert_eq!(blosum62(b'X', b'V'), None);
    }
}
