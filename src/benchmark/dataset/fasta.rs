//! FASTA with biotrainer's attributes: `>id SET=train TARGET=H MASK=110`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Place;
use super::error::{Error, Fault};

/// A record as it is written.
pub(super) struct Record {
    pub id: String,
    attributes: Vec<(String, String)>,
    /// The lines below the header, joined, without the white space in them.
    pub text: String,
    pub place: Place,
}

impl Record {
    /// The value of an attribute; `None` where it is missing or empty.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut values = self.attributes.iter().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Reads all records of a file, at least one.
pub(super) fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let text = fs::read(path).map_err(Error::read(path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let file = Arc::new(PathBuf::from(path));
    let mut records: Vec<Record> = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let place = Place {
            file: file.clone(),
            line: index + 1,
        };
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if let Some(header) = line.strip_prefix('>') {
            records.push(record(header, place)?);
        } else if !line.is_empty() {
            let Some(record) = records.last_mut() else {
                let found = line.chars().take(40).collect();
                return Err(Error::at(&place, Fault::NoHeader { found }));
            };
            let seen = line.chars().filter(|letter| !letter.is_whitespace());
            record.text.extend(seen);
        }
    }
    match records.is_empty() {
        true => Err(Error::Empty {
            path: path.into(),
            expected: "headers such as `>id SET=train TARGET=H`, each above a sequence",
        }),
        false => Ok(records),
    }
}

fn record(header: &str, place: Place) -> Result<Record, Error> {
    let mut words = header.split_whitespace();
    let id = match words.next() {
        Some(id) if !header.starts_with(char::is_whitespace) => id.to_owned(),
        _ => return Err(Error::at(&place, Fault::NoId)),
    };
    let pairs = words.filter_map(|word| word.split_once('='));
    let attributes = pairs.map(|(key, value)| (key.to_ascii_uppercase(), value.to_owned()));
    Ok(Record {
        id,
        attributes: attributes.collect(),
        text: String::new(),
        place,
    })
}
