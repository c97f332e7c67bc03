//! Which columns of a table hold the sequences and their ids.
//!
//! Without being told, the columns are found by the names that published tables give them. A column
//! that holds something else under such a name is passed over: only if no other is there is it
//! named in the error, with its type. Ids may be numbers; a column of text comes before one of
//! numbers.

use std::path::Path;

use crate::error::Error;
use crate::format::ColumnNames;

/// Columns named in a message.
const SHOWN: usize = 20;

impl ColumnNames {
    /// Whether the name of a sequence column may stand in a line, alone or as part of a word.
    pub(super) fn may_be_in(&self, line: &[u8]) -> bool {
        // A name may be written otherwise in the line: in quotes, with spaces around it.
        self.sequence.is_some()
            || SEQUENCE.iter().any(|name| {
                let mut places = line.windows(name.len());
                places.any(|place| place.eq_ignore_ascii_case(name.as_bytes()))
            })
    }
}

/// What a column can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Sequences, or ids.
    Text,
    /// Ids.
    Numbers,
    /// Neither.
    Other,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) holds: Holds,
    /// What it holds, as the format calls it; empty where all columns are text.
    pub(super) kind: String,
}

/// The columns that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) sequence: usize,
    /// Without one, rows are numbered.
    pub(super) id: Option<usize>,
}

/// Names of the sequence column: the first that is there wins, case does not matter. `text` is
/// what the published UniRef50 tables call it, "reference sequence" what UniProt's do.
const SEQUENCE: [&str; 6] = [
    "sequence",
    "seq",
    "aa_sequence",
    "protein_sequence",
    "reference sequence",
    "text",
];
/// Names of the id column.
const ID: [&str; 8] = [
    "id",
    "accession",
    "entry",
    "name",
    "primary_accession",
    "uniref_id",
    "cluster id",
    "cluster_id",
];

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Whether a name was given that is not there; otherwise the file may be no table at all.
    pub(super) named: bool,
    expected: String,
    found: String,
}

impl Missing {
    pub(super) fn of(self, path: &Path) -> Error {
        Error::NoColumn {
            path: path.to_path_buf(),
            expected: self.expected,
            found: self.found,
        }
    }
}

impl Columns {
    /// The columns to read of these.
    pub(super) fn find(
        names: &ColumnNames,
        columns: &[Column<'_>],
    ) -> std::result::Result<Columns, Missing> {
        let (text, numbers) = (
            |column: &Column<'_>| column.holds == Holds::Text,
            |column: &Column<'_>| column.holds == Holds::Numbers,
        );
        let any = |_: &Column<'_>| true;
        let sequence = match &names.sequence {
            Some(name) => named(columns, name, &text).ok_or_else(|| Missing {
                named: true,
                expected: match named(columns, name, &any) {
                    None => format!("a column `{name}`"),
                    Some(place) => format!("text in the column `{}`", columns[place].name),
                },
                found: listed(columns),
            })?,
            None => usual(columns, &SEQUENCE, &text).ok_or_else(|| Missing {
                named: false,
                expected: match usual(columns, &SEQUENCE, &any) {
                    None => "a text column `sequence` (or `seq`, or `text`)".into(),
                    Some(place) => format!("text in the column `{}`", columns[place].name),
                },
                found: listed(columns),
            })?,
        };
        let id = match &names.id {
            Some(name) => {
                let id = named(columns, name, &text).or_else(|| named(columns, name, &numbers));
                Some(id.ok_or_else(|| Missing {
                    named: true,
                    expected: match named(columns, name, &any) {
                        None => format!("a column `{name}` of ids"),
                        Some(place) => {
                            format!("text or numbers in the column `{}`", columns[place].name)
                        }
                    },
                    found: listed(columns),
                })?)
            }
            None => {
                // A sequence column that was named may have one of the usual names of ids.
                let others = |usable: fn(&Column<'_>) -> bool| {
                    ID.iter().find_map(|name| {
                        let places = columns.iter().enumerate();
                        let mut usable = places
                            .filter(|(place, column)| *place != sequence && usable(column))
                            .filter(|(_, column)| is_called(column, name));
                        usable.next().map(|(place, _)| place)
                    })
                };
                others(text).or_else(|| others(numbers))
            }
        };
        Ok(Columns { sequence, id })
    }
}

fn is_called(column: &Column<'_>, name: &str) -> bool {
    column.name.trim().eq_ignore_ascii_case(name.trim())
}

/// The first usable column with one of these names.
fn usual(
    columns: &[Column<'_>],
    names: &[&str],
    usable: &dyn Fn(&Column<'_>) -> bool,
) -> Option<usize> {
    let first = |name: &&str| columns.iter().position(|c| is_called(c, name) && usable(c));
    names.iter().find_map(first)
}

/// The first usable column of this name: as it is written, or else but for case.
fn named(
    columns: &[Column<'_>],
    name: &str,
    usable: &dyn Fn(&Column<'_>) -> bool,
) -> Option<usize> {
    let exact = columns.iter().position(|c| c.name == name && usable(c));
    exact.or_else(|| usual(columns, &[name], usable))
}

/// The columns in words.
fn listed(columns: &[Column<'_>]) -> String {
    let words = columns.iter().take(SHOWN).map(|column| {
        let name = column.name.trim();
        match column.kind.as_str() {
            "" => name.to_string(),
            kind => format!("{name} ({kind})"),
        }
    });
    let mut words = words.collect::<Vec<_>>().join(", ");
    if columns.len() > SHOWN {
        words += &format!(" and {} more", columns.len() - SHOWN);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(names: &[&'a str]) -> Vec<Column<'a>> {
        names.iter().map(|name| column(name, Holds::Text)).collect()
    }

    fn column(name: &str, holds: Holds) -> Column<'_> {
        Column {
            name,
            holds,
            kind: String::new(),
        }
    }

    fn columns(sequence: usize, id: Option<usize>) -> Option<Columns> {
        Some(Columns { sequence, id })
    }

    #[test]
    fn columns_are_found_in_the_order_of_their_names() {
        let find = |names| Columns::find(&ColumnNames::default(), &text(names)).ok();
        assert_eq!(find(&["id", "name", "text"]), columns(2, Some(0)));
        assert_eq!(find(&["text", "Sequence"]), columns(1, None));
        // The tables of UniRef50 on the hub; a table that describes its sequences; UniProt's own.
        assert_eq!(
            find(&["Cluster ID", "Cluster Name", "Reference sequence"]),
            columns(2, Some(0))
        );
        assert_eq!(
            find(&["Entry", "Entry Name", "Sequence"]),
            columns(2, Some(0))
        );
        assert_eq!(find(&["id", "residues"]), None);
    }

    #[test]
    fn ids_that_are_text_come_before_numbers_and_others_are_passed_over() {
        let find = |columns: &[Column<'_>]| Columns::find(&ColumnNames::default(), columns).ok();
        let sequence = || column("sequence", Holds::Text);
        let of = |id, name| find(&[sequence(), column("id", id), column("name", name)]);
        assert_eq!(of(Holds::Text, Holds::Text), columns(0, Some(1)));
        assert_eq!(of(Holds::Numbers, Holds::Text), columns(0, Some(2)));
        assert_eq!(of(Holds::Numbers, Holds::Other), columns(0, Some(1)));
        assert_eq!(of(Holds::Other, Holds::Numbers), columns(0, Some(2)));
        assert_eq!(of(Holds::Other, Holds::Other), columns(0, None));
        let numbers = [
            column("sequence", Holds::Numbers),
            column("text", Holds::Text),
        ];
        assert_eq!(find(&numbers), columns(1, None));
    }

    #[test]
    fn a_column_that_is_named_is_taken_as_written_or_but_for_case() {
        let find = |sequence: &str, id: Option<&str>, names: &[&'static str]| {
            let names_given = ColumnNames {
                sequence: Some(sequence.into()),
                id: id.map(String::from),
            };
            Columns::find(&names_given, &text(names))
        };
        let names = ["id", "sequence", "Peptide", "peptide"];
        assert_eq!(find("peptide", None, &names).ok(), columns(3, Some(0)));
        assert_eq!(find("PEPTIDE", None, &names).ok(), columns(2, Some(0)));
        // It may have the name of another role, which it then has no more.
        assert_eq!(find("name", None, &["name", "x"]).ok(), columns(0, None));
        let both = find("peptide", Some("sequence"), &names);
        assert_eq!(both.ok(), columns(3, Some(1)));
        let missing = find("peptid", None, &names).unwrap_err();
        assert_eq!(missing.expected, "a column `peptid`");
        assert_eq!(missing.found, "id, sequence, Peptide, peptide");
        let missing = find("peptide", Some("key"), &names).unwrap_err();
        assert_eq!(missing.expected, "a column `key` of ids");
    }
}
