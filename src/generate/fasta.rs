//! Prompts in FASTA. Unlike proteins they have `>` inside a line, as part of a sentinel, so the
//! reader of sequences takes them for damaged.

use std::path::Path;

use super::Error;

/// A record as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'t> {
    /// The first word of the header, or nothing.
    pub id: &'t str,
    /// The line that it begins on, from 1.
    pub line: u64,
    /// Its lines, without the header.
    lines: &'t str,
}

impl Record<'_> {
    /// The sequence without white space.
    pub fn sequence(&self) -> String {
        self.lines.split_whitespace().collect()
    }
}

/// The records of a text.
pub(super) fn records<'t>(path: &Path, text: &'t str) -> Result<Vec<Record<'t>>, Error> {
    let mut records: Vec<Record<'t>> = Vec::new();
    let mut end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = end;
        end += line.len();
        let line_number = number as u64 + 1;
        let content = line.trim_start_matches('\u{feff}').trim();
        match (content.strip_prefix('>'), records.last_mut()) {
            (Some(header), _) => records.push(Record {
                id: header.split_whitespace().next().unwrap_or_default(),
                line: line_number,
                lines: &text[end..end],
            }),
            (None, Some(record)) => {
                let from = end - record.lines.len() - line.len();
                debug_assert!(from <= start);
                record.lines = &text[from..end];
            }
            (None, None) if content.is_empty() => {}
            (None, None) => {
                return Err(Error::NotFasta {
                    path: path.to_owned(),
                    line: line_number,
                    found: content.chars().take(40).collect(),
                });
            }
        }
    }
    match records.is_empty() {
        false => Ok(records),
        true => Err(Error::NoPrompts(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let text = "\n>a first\nMK<extra_\nid_0> T\n>\n>b\r\nAC\r\n\r\nDE";
        let records = records(Path::new("p.fasta"), text).unwrap();
        let found: Vec<(&str, u64, String)> = records
            .iter()
            .map(|r| (r.id, r.line, r.sequence()))
            .collect();
        let expected = [("a", 2, "MK<extra_id_0>T"), ("", 5, ""), ("b", 6, "ACDE")];
        let expected = expected.map(|(id, line, text)| (id, line, text.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_fasta_is_named_with_its_line() {
        let error = |text| records(Path::new("p.fasta"), text).unwrap_err().to_string();
        assert_eq!(error(" \n"), "p.fasta has no prompts: expected FASTA");
        assert_eq!(
            error("\nMKV\n"),
            "p.fasta, line 2: expected a header that begins with `>`, found `MKV`"
        );
    }
}
