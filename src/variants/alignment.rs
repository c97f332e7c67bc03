//! Reads sequences and alignments: FASTA, A2M and Stockholm.

use std::fs;
use std::path::{Path, PathBuf};

use ankh_data::Tokenizer;

use super::Error;

/// What stands where an aligned sequence has no residue.
pub const GAP: u8 = b'-';

/// A sequence of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The first word of its header.
    pub id: String,
    /// The line that it begins on, from 1.
    pub line: u64,
    /// Its letters and gaps, as they are written, without white space.
    pub text: Vec<u8>,
}

impl Record {
    /// Its residues alone, in capitals.
    pub fn residues(&self) -> Vec<u8> {
        let letters = self.text.iter().filter(|byte| !is_gap(**byte));
        letters.map(u8::to_ascii_uppercase).collect()
    }
}

/// An alignment of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Where it was read.
    pub path: PathBuf,
    /// The sequences as they are in the file, each with residues.
    pub records: Vec<Record>,
    /// The columns of the file, insertions of A2M left out.
    pub columns: usize,
    /// The columns that are kept, from 0: those with a residue in half of the sequences at least.
    pub kept: Vec<usize>,
    /// For each sequence what it has in each kept column: a capital, or [`GAP`].
    pub rows: Vec<Vec<u8>>,
}

impl Alignment {
    /// Reads an alignment. Where all sequences have one length, each place is a column; otherwise
    /// the places that are neither lower case nor `.`, as in A2M.
    pub fn read(path: &Path, tokenizer: Tokenizer) -> Result<Alignment, Error> {
        let records = records(path, tokenizer)?;
        let length = records[0].text.len();
        let rows: Vec<Vec<u8>> = match records.iter().all(|record| record.text.len() == length) {
            true => records
                .iter()
                .map(|record| capitals(&record.text))
                .collect(),
            false => {
                let matched = |byte: &u8| *byte != b'.' && !byte.is_ascii_lowercase();
                let row = |record: &Record| record.text.iter().copied().filter(matched).collect();
                records.iter().map(row).collect()
            }
        };
        let columns = rows[0].len();
        if let Some((record, row)) = records.iter().zip(&rows).find(|(_, r)| r.len() != columns) {
            return Err(Error::Columns {
                path: path.to_owned(),
                line: record.line,
                id: record.id.clone(),
                found: row.len(),
                expected: columns,
            });
        }
        let residues = |column: &usize| rows.iter().filter(|row| row[*column] != GAP).count();
        let is_kept = |column: &usize| 2 * residues(column) >= rows.len();
        let kept: Vec<usize> = (0..columns).filter(is_kept).collect();
        if kept.is_empty() {
            return Err(Error::NoColumns(path.to_owned()));
        }
        let of_kept = |row: &Vec<u8>| kept.iter().map(|&column| row[column]).collect();
        Ok(Alignment {
            path: path.to_owned(),
            rows: rows.iter().map(of_kept).collect(),
            records,
            columns,
            kept,
        })
    }
}

/// The sequences of a file, of which there is one at least; each has residues of the tokenizer.
pub fn records(path: &Path, tokenizer: Tokenizer) -> Result<Vec<Record>, Error> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    let text = String::from_utf8_lossy(&bytes);
    let is_stockholm = text.trim_start().starts_with("# STOCKHOLM");
    let records = match is_stockholm {
        true => stockholm(path, &text)?,
        false => fasta(path, &text)?,
    };
    if records.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    records
        .iter()
        .try_for_each(|record| check(path, record, tokenizer))?;
    Ok(records)
}

fn check(path: &Path, record: &Record, tokenizer: Tokenizer) -> Result<(), Error> {
    let is_known = |byte: u8| is_gap(byte) || tokenizer.residue_id(byte).is_some();
    if let Some(column) = record.text.iter().position(|&byte| !is_known(byte)) {
        return Err(Error::NoResidue {
            path: path.to_owned(),
            line: record.line,
            id: record.id.clone(),
            found: String::from_utf8_lossy(&record.text[column..])
                .chars()
                .next()
                .unwrap_or('?'),
            column: column + 1,
        });
    }
    match record.text.iter().all(|&byte| is_gap(byte)) {
        false => Ok(()),
        true => Err(Error::NoResidues {
            path: path.to_owned(),
            line: record.line,
            id: record.id.clone(),
        }),
    }
}

fn is_gap(byte: u8) -> bool {
    byte == GAP || byte == b'.'
}

fn capitals(text: &[u8]) -> Vec<u8> {
    let capital = |byte: &u8| match is_gap(*byte) {
        true => GAP,
        false => byte.to_ascii_uppercase(),
    };
    text.iter().map(capital).collect()
}

/// Lines with their numbers, without white space at their ends.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let text = text.trim_start_matches('\u{feff}');
    (1..).zip(text.lines().map(str::trim))
}

fn not_an_alignment(path: &Path, line: u64, found: &str) -> Error {
    Error::NotAnAlignment {
        path: path.to_owned(),
        line,
        found: found.chars().take(40).collect(),
    }
}

pub(super) fn fasta(path: &Path, text: &str) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = Vec::new();
    for (line, content) in lines(text) {
        if let Some(header) = content.strip_prefix('>') {
            let id = header.split_whitespace().next();
            records.push(Record {
                id: id.map_or_else(|| format!("line{line}"), str::to_owned),
                line,
                text: Vec::new(),
            });
        } else if let Some(record) = records.last_mut() {
            let letters = content.bytes().filter(|byte| !byte.is_ascii_whitespace());
            record.text.extend(letters);
        } else if !content.is_empty() {
            return Err(not_an_alignment(path, line, content));
        }
    }
    Ok(records)
}

/// Interleaved or not; annotations are passed over.
fn stockholm(path: &Path, text: &str) -> Result<Vec<Record>, Error> {
    let mut records: Vec<Record> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (line, content) in lines(text) {
        if content == "//" {
            break;
        }
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut words = content.split_whitespace();
        let (Some(id), Some(letters), None) = (words.next(), words.next(), words.next()) else {
            return Err(not_an_alignment(path, line, content));
        };
        let place = *places.entry(id.to_owned()).or_insert_with(|| {
            records.push(Record {
                id: id.to_owned(),
                line,
                text: Vec::new(),
            });
            records.len() - 1
        });
        records[place].text.extend(letters.bytes());
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Alignment, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("family");
        fs::write(&path, text).unwrap();
        let alignment = Alignment::read(&path, Tokenizer::ankh());
        alignment.map_err(|error| error.to_string().replace(&path.display().to_string(), "F"))
    }

    fn rows(text: &str) -> Vec<String> {
        let rows = read(text).unwrap().rows.into_iter();
        rows.map(|row| String::from_utf8(row).unwrap()).collect()
    }

    #[test]
    fn one_alignment_is_read_from_all_formats() {
        let expected = ["MKVA", "M-VA", "MKV-"];
        assert_eq!(rows(">a\nMK\nVA\n>b x\nM.va\n\n>c\nMKV-\n"), expected);
        assert_eq!(rows(">a\nMKwwVA\n>b\nM-VA\n>c\nMKV-\n"), expected);
        let stockholm = "# STOCKHOLM 1.0\n#=GF ID x\n\na MK\nb M-\nc MK\n#=GC RF xx\n\n\
                         a VA\nb VA\nc V.\n//\n";
        assert_eq!(rows(stockholm), expected);
        let alignment = read(">a\nM-KVA\n>b\nM--VA\n>c\nMYKV-\n").unwrap();
        assert_eq!(
            (alignment.columns, &alignment.kept[..]),
            (5, &[0, 2, 3, 4][..])
        );
    }

    #[test]
    fn what_is_no_alignment_is_named_with_its_line() {
        let error = |text| read(text).unwrap_err();
        assert_eq!(error(""), "F has no sequences");
        assert_eq!(
            error("\nMKV\n"),
            "F, line 2: expected FASTA, A2M or Stockholm, found `MKV`"
        );
        assert_eq!(
            error(">a\nMKV\n>b\nMK\n"),
            "F, line 3: `b` has 2 columns, and the first sequence has 3"
        );
        assert_eq!(
            error(">a\nMKV\n>b\nM1V\n"),
            "F, line 3: `b` has `1` at column 2, which is no residue and no gap"
        );
        assert_eq!(
            error(">a\nMKV\n>b\n--.\n"),
            "F, line 3: `b` has no residues"
        );
    }
}
