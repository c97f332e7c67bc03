//! Generated sequences in the columns of their family.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use super::alignment::{GAP, fasta};
use super::profile::Profile;
use super::{Alignment, Error};

/// What places sequences in the columns of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aligner {
    /// A global alignment with the mean BLOSUM62 score of each column.
    #[default]
    BuiltIn,
    /// `hmmbuild` and `hmmalign` of HMMER.
    Hmmalign,
}

/// The programs of HMMER.
const BUILD: &str = "hmmbuild";
const ALIGN: &str = "hmmalign";

impl Aligner {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Aligner::BuiltIn => "built-in",
            Aligner::Hmmalign => ALIGN,
        }
    }

    /// Fails where its programs are not installed.
    pub fn check(self) -> Result<(), Error> {
        match self {
            Aligner::BuiltIn => Ok(()),
            Aligner::Hmmalign => [BUILD, ALIGN]
                .into_iter()
                .try_for_each(|program| run(program, Command::new(program).arg("-h")).map(drop)),
        }
    }

    /// For each sequence of capitals, which of its residues is in each kept column, from 0.
    pub fn align(
        self,
        family: &Alignment,
        sequences: &[Vec<u8>],
    ) -> Result<Vec<Vec<Option<usize>>>, Error> {
        match self {
            Aligner::BuiltIn => {
                let profile = Profile::of(&family.rows);
                Ok(sequences
                    .iter()
                    .map(|sequence| profile.align(sequence))
                    .collect())
            }
            Aligner::Hmmalign => by_hmmalign(family, sequences),
        }
    }
}

/// What is in each column, given which residue is.
pub fn row(sequence: &[u8], places: &[Option<usize>]) -> Vec<u8> {
    let letter = |place: &Option<usize>| place.map_or(GAP, |place| sequence[place]);
    places.iter().map(letter).collect()
}

fn by_hmmalign(
    family: &Alignment,
    sequences: &[Vec<u8>],
) -> Result<Vec<Vec<Option<usize>>>, Error> {
    let directory = tempfile::tempdir().map_err(Error::file("make", Path::new("a directory")))?;
    let place = |name: &str| directory.path().join(name);
    let mut stockholm = String::from("# STOCKHOLM 1.0\n");
    for (number, row) in family.rows.iter().enumerate() {
        stockholm += &format!("s{number} {}\n", String::from_utf8_lossy(row));
    }
    // Each kept column is to be a state of the profile, and nothing else is one.
    stockholm += &format!("#=GC RF {}\n//\n", "x".repeat(family.kept.len()));
    let named = sequences.iter().enumerate();
    let named = named.map(|(i, s)| format!(">q{i}\n{}\n", String::from_utf8_lossy(s)));
    for (name, text) in [
        ("family.sto", stockholm),
        ("sequences.fasta", named.collect()),
    ] {
        fs::write(place(name), text).map_err(Error::file("write", &place(name)))?;
    }
    let mut build = Command::new(BUILD);
    build.args(["--amino", "--hand", "--informat", "stockholm"]);
    run(
        BUILD,
        build.arg(place("family.hmm")).arg(place("family.sto")),
    )?;
    let mut align = Command::new(ALIGN);
    align.args(["--amino", "--outformat", "A2M"]);
    let text = run(
        ALIGN,
        align.arg(place("family.hmm")).arg(place("sequences.fasta")),
    )?;
    let found: Vec<Vec<Option<usize>>> = fasta(&place("sequences.a2m"), &text)?
        .iter()
        .map(|record| in_columns(&record.text))
        .collect();
    let whole = found.iter().all(|places| places.len() == family.kept.len());
    match whole && found.len() == sequences.len() {
        true => Ok(found),
        false => Err(Error::Aligner {
            program: ALIGN,
            message: "its alignment is not of the sequences and columns that it was given".into(),
        }),
    }
}

/// Which residue is in each match column of a row of A2M.
fn in_columns(text: &[u8]) -> Vec<Option<usize>> {
    let mut residues = 0;
    let mut places = Vec::new();
    for &byte in text {
        match byte {
            GAP => places.push(None),
            byte if byte.is_ascii_uppercase() => {
                places.push(Some(residues));
                residues += 1;
            }
            byte => residues += usize::from(byte.is_ascii_lowercase()),
        }
    }
    places
}

/// What a program prints.
fn run(program: &'static str, command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NoAligner(program),
            _ => Error::Aligner {
                program,
                message: error.to_string(),
            },
        })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Aligner {
            program,
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insertions_of_a2m_are_counted_and_left_out() {
        let places = in_columns(b"M.-Kwv.VA");
        assert_eq!(places, [Some(0), None, Some(1), Some(4), Some(5)]);
        assert_eq!(row(b"MKWVVA", &places), b"M-KVA");
    }
}
