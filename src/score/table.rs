//! Tables in CSV: rows with the lines they begin on, and the same rows with columns added.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ankh_storage::atomic;
use csv::{ReaderBuilder, StringRecord, Writer};

use super::{Error, Fault};

/// A table in memory.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    header: StringRecord,
    rows: Vec<Row>,
}

/// A row, and the line it begins on.
#[derive(Clone, Debug)]
pub struct Row {
    /// Counted from 1.
    pub line: u64,
    cells: StringRecord,
}

/// The number of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column(usize);

impl Row {
    /// A cell without the white space around it; empty where there is no such column.
    pub fn cell(&self, column: Option<Column>) -> &str {
        let cell = column.and_then(|column| self.cells.get(column.0));
        cell.unwrap_or_default().trim()
    }
}

impl Table {
    /// Reads a file: a header, then at least one row. Every row has as many cells as the header.
    pub fn read(path: &Path) -> Result<Table, Error> {
        let text = fs::read(path).map_err(Error::read(path))?;
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        if text.trim_ascii().is_empty() {
            return Err(Error::Empty { path: path.into() });
        }
        let mut lines = Lines {
            text,
            at: 0,
            line: 1,
        };
        let mut reader = ReaderBuilder::new().from_reader(text);
        let header = reader.headers().cloned();
        let header = header.map_err(|error| malformed(path, &error, &mut lines))?;
        let header: StringRecord = header.iter().map(str::trim).collect();
        let mut rows = Vec::new();
        let mut cells = StringRecord::new();
        while reader
            .read_record(&mut cells)
            .map_err(|error| malformed(path, &error, &mut lines))?
        {
            rows.push(Row {
                line: lines.of(cells.position()),
                cells: cells.clone(),
            });
        }
        match rows.is_empty() {
            true => Err(Error::Empty { path: path.into() }),
            false => Ok(Table {
                path: path.into(),
                header,
                rows,
            }),
        }
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its rows in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The first column of a name.
    pub fn column(&self, name: &str) -> Option<Column> {
        self.header
            .iter()
            .position(|other| other == name)
            .map(Column)
    }

    /// A column that must be there. `wanted` is how messages call it.
    pub fn expect(&self, name: &str, wanted: &'static str) -> Result<Column, Error> {
        self.column(name).ok_or_else(|| self.lacks(wanted))
    }

    /// The error of a column that is not there.
    pub fn lacks(&self, wanted: &'static str) -> Error {
        Error::NoColumn {
            path: self.path.clone(),
            wanted,
            found: self.header.iter().map(str::to_owned).collect(),
        }
    }

    /// The error of a row.
    pub fn fault(&self, row: &Row, fault: Fault) -> Error {
        Error::Row {
            path: self.path.clone(),
            line: row.line,
            fault,
        }
    }

    /// Writes the rows in their order with more columns behind them, all or nothing. Each column
    /// has a number for each row.
    pub fn write_with(
        &self,
        path: &Path,
        columns: &[(&'static str, Vec<f64>)],
    ) -> Result<(), Error> {
        atomic::replace_file_with(path, |file| {
            let mut writer = Writer::from_writer(io::BufWriter::new(file));
            let names = columns.iter().map(|(name, _)| *name);
            writer.write_record(self.header.iter().chain(names))?;
            for (number, row) in self.rows.iter().enumerate() {
                // As few digits as tell a float32, which the probabilities are.
                let scores = columns
                    .iter()
                    .map(|(_, scores)| (scores[number] as f32).to_string());
                let scores: Vec<String> = scores.collect();
                writer.write_record(row.cells.iter().chain(scores.iter().map(String::as_str)))?;
            }
            writer.flush()
        })
        .map_err(Error::write(path))
    }
}

/// Counts lines. A line ends in LF, CR LF or CR.
struct Lines<'a> {
    text: &'a [u8],
    /// The byte up to which they are counted, and its line.
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line that a record begins on. `position` is where the one before it ends, or later, and
    /// not before that of an earlier call.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let from = position.map_or(self.at, |position| position.byte() as usize);
        let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let blank = self.text[from..].iter().take_while(is_end).count();
        for place in self.at..from + blank {
            let next = self.text.get(place + 1);
            let ends = match self.text[place] {
                b'\n' => true,
                b'\r' => next != Some(&b'\n'),
                _ => false,
            };
            self.line += u64::from(ends);
        }
        self.at = self.at.max(from + blank);
        self.line
    }
}

fn malformed(path: &Path, error: &csv::Error, lines: &mut Lines<'_>) -> Error {
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("there are {len} cells: expected {expected_len}, as in the header")
        }
        csv::ErrorKind::Utf8 { .. } => "a cell is not UTF-8".into(),
        _ => error.to_string(),
    };
    Error::Malformed {
        path: path.into(),
        line: lines.of(error.position()),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> (tempfile::TempDir, Result<Table, Error>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("variants.csv");
        fs::write(&path, text).unwrap();
        let table = Table::read(&path);
        (directory, table)
    }

    #[test]
    fn what_is_written_is_what_was_read_with_columns_behind() {
        let text = "\u{feff}id,mutant,note\r\n1, A1G,\"a, b\"\n\n2,A2G,\"two\nlines\"\n3,WT,\n";
        let (directory, table) = read(text.as_bytes());
        let table = table.unwrap();
        let lines: Vec<u64> = table.rows().iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 4, 6]);
        assert_eq!(table.rows()[0].cell(table.column("mutant")), "A1G");
        assert_eq!(table.rows()[0].cell(None), "");
        let output = directory.path().join("scores.csv");
        let scores = vec![("score", vec![-0.1, 1.0, 2.5e-9])];
        table.write_with(&output, &scores).unwrap();
        assert_eq!(
            fs::read_to_string(output).unwrap(),
            "id,mutant,note,score\n1, A1G,\"a, b\",-0.1\n2,A2G,\"two\nlines\",1\n3,WT,,0.0000000025\n"
        );
    }

    #[test]
    fn a_malformed_table_is_an_error_with_its_line() {
        let problem = |text: &[u8]| read(text).1.unwrap_err().to_string();
        assert!(
            problem(b"a,b\n1,2\n3\n").contains("variants.csv:3: there are 1 cells: expected 2")
        );
        assert!(problem(b"a,b\n1,2\n\xff,3\n").contains("variants.csv:3: a cell is not UTF-8"));
        for empty in ["", " \n\n  \n", "mutant\n"] {
            assert!(problem(empty.as_bytes()).contains("has no variants"));
        }
        let (_directory, table) = read(b"a,b\n1,2\n");
        let error = table.unwrap().lacks("`mutant`").to_string();
        assert!(
            error.ends_with("variants.csv:1: there is no column `mutant`; it has a, b"),
            "{error}"
        );
    }
}
