//! Tables of labelled sequences in CSV: FLIP's (`sequence,target,set[,validation]`) and
//! ProteinGym's (`mutant,mutated_sequence,DMS_score,DMS_score_bin`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord};

use super::collect::{Collector, Label, Labelled};
use super::error::{Error, Fault};
use super::{Kind, Place, split};

/// Reads a table, whose columns say whose format it is.
pub(super) fn read(path: &Path, into: &mut Collector) -> Result<(), Error> {
    let kind = into.reading.kind;
    if let Kind::ResidueClasses | Kind::Contacts = kind {
        return Err(Error::OtherKind {
            path: path.into(),
            format: "CSV",
            kind,
            expected: "FASTA or JSON",
        });
    }
    let text = fs::read(path).map_err(Error::read(path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let file = Arc::new(PathBuf::from(path));
    let mut lines = Lines {
        text,
        at: 0,
        line: 1,
    };
    let mut rows = ReaderBuilder::new().from_reader(text);
    let header = rows.headers().cloned();
    let header = header.map_err(|error| malformed(&error, &mut lines, &file))?;
    let columns = Columns::of(&header, kind, path)?;
    let mut cells = StringRecord::new();
    let mut found = 0;
    while rows
        .read_record(&mut cells)
        .map_err(|error| malformed(&error, &mut lines, &file))?
    {
        found += 1;
        let at = cells.position().map_or(0, |position| position.byte());
        let place = Place {
            file: file.clone(),
            line: lines.of(at),
        };
        columns.row(&cells, place, into)?;
    }
    match found {
        0 => Err(Error::Empty {
            path: path.into(),
            expected: "a header, and a row for each protein",
        }),
        _ => Ok(()),
    }
}

/// Which column is which.
struct Columns {
    sequence: usize,
    target: usize,
    id: Option<usize>,
    set: Option<usize>,
    validation: Option<usize>,
}

impl Columns {
    fn of(header: &StringRecord, kind: Kind, path: &Path) -> Result<Columns, Error> {
        let find = |name| header.iter().position(|other| other.trim() == name);
        let expect = |name| {
            find(name).ok_or_else(|| Error::NoColumn {
                path: path.into(),
                column: name,
                found: header.iter().map(|name| name.trim().to_owned()).collect(),
            })
        };
        if let Some(sequence) = find("mutated_sequence") {
            let target = match kind {
                Kind::SequenceClasses => "DMS_score_bin",
                _ => "DMS_score",
            };
            return Ok(Columns {
                sequence,
                target: expect(target)?,
                id: find("mutant"),
                set: None,
                validation: None,
            });
        }
        Ok(Columns {
            sequence: expect("sequence")?,
            target: expect("target")?,
            id: None,
            set: Some(expect("set")?),
            validation: find("validation"),
        })
    }

    fn row(&self, cells: &StringRecord, place: Place, into: &mut Collector) -> Result<(), Error> {
        let cell = |column| cells.get(column).unwrap_or_default().trim();
        into.counts.read += 1;
        let id = self.id.map(cell).filter(|id| !id.is_empty());
        // FLIP's rows have no ids.
        let name = place.file.file_name().unwrap_or_default();
        let name = || format!("{}:{}", name.to_string_lossy(), place.line);
        let id = id.map_or_else(name, str::to_owned);
        let mut split = None;
        if let Some(column) = self.set {
            let (name, fault) = (cell(column), |fault| Error::at(&place, fault));
            // FLIP's tables keep the rows that a split does not use.
            if name.is_empty() || name.eq_ignore_ascii_case("nan") {
                into.counts.without_set += 1;
                return Ok(());
            }
            let set = split::of_set(name, &into.reading.tests)
                .ok_or_else(|| fault(split::unknown(&id, name)))?;
            let flag = self.validation.map(cell).unwrap_or_default();
            split = Some(split::with_flag(set, flag, &id).map_err(fault)?);
        }
        let target = cell(self.target);
        match self.set {
            // Some variants of a screen are not measured.
            None if target.is_empty() => {
                into.counts.unlabelled += 1;
                return Ok(());
            }
            Some(_) if target.is_empty() => {
                let expected = "one in the column target";
                return Err(Error::at(&place, Fault::NoLabel { id, expected }));
            }
            _ => {}
        }
        let label = Label::of(into.reading.kind, target, &id, &place)?;
        into.add(Labelled {
            sequence: cell(self.sequence).to_owned(),
            id,
            split,
            label,
            place,
        })
    }
}

fn malformed(error: &csv::Error, lines: &mut Lines, file: &Arc<PathBuf>) -> Error {
    let at = error.position().map_or(0, |position| position.byte());
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("the row has {len} cells and the header {expected_len}: expected as many"),
        csv::ErrorKind::Utf8 { .. } => "the row is not text in UTF-8".into(),
        _ => error.to_string(),
    };
    let line = lines.of(at);
    let file = file.clone();
    Error::at(&Place { file, line }, Fault::Malformed { problem })
}

/// Counts lines up to places that come in order.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of a record that begins at a byte, or after the empty lines there.
    fn of(&mut self, byte: u64) -> usize {
        let end = usize::try_from(byte).unwrap_or(usize::MAX);
        let end = end.clamp(self.at, self.text.len());
        let empty = self.text[end..].iter();
        let empty = empty
            .take_while(|byte| matches!(byte, b'\n' | b'\r'))
            .count();
        let passed = &self.text[self.at..end + empty];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at = end + empty;
        self.line
    }
}
