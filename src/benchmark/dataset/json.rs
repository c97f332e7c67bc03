//! JSON records in an array or one after another, each with the line it begins on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Deserializer;

use super::Place;
use super::error::{Error, Fault};

/// Gives each record of a file to `each`, in order; at least one.
pub(super) fn for_each<Item: DeserializeOwned>(
    path: &Path,
    each: &mut dyn FnMut(Item, Place) -> Result<(), Error>,
) -> Result<(), Error> {
    let text = fs::read(path).map_err(Error::read(path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let file = Arc::new(PathBuf::from(path));
    let mut cursor = Cursor {
        text,
        at: 0,
        line: 1,
    };
    let array = cursor.next() == Some(b'[');
    cursor.skip(usize::from(array));
    let mut found = 0;
    loop {
        let next = cursor.next();
        let place = Place {
            file: file.clone(),
            line: cursor.line,
        };
        let malformed = |line: usize, problem: String| {
            let place = Place {
                line,
                ..place.clone()
            };
            Err(Error::at(&place, Fault::Malformed { problem }))
        };
        match next {
            Some(b']') if array => {
                cursor.skip(1);
                if cursor.next().is_some() {
                    let line = cursor.line;
                    return malformed(line, "there is more after the end of the array".into());
                }
                break;
            }
            None if array => {
                return malformed(
                    place.line,
                    "the array does not end: the file is cut off".into(),
                );
            }
            None => break,
            Some(b',') if array && found > 0 => {
                cursor.skip(1);
                continue;
            }
            Some(_) => {}
        }
        let rest = &text[cursor.at..];
        let mut items = Deserializer::from_slice(rest).into_iter::<Item>();
        let item = match items.next() {
            Some(Ok(item)) => item,
            Some(Err(error)) => {
                let line = cursor.line + error.line().saturating_sub(1);
                let text = error.to_string();
                // Its own place counts from the record.
                let problem = text.split(" at line ").next().unwrap_or(&text);
                return malformed(line, format!("the record is malformed: {problem}"));
            }
            None => break,
        };
        cursor.skip(items.byte_offset());
        found += 1;
        each(item, place)?;
    }
    match found {
        0 => Err(Error::Empty {
            path: path.into(),
            expected: "an array of JSON objects, or one on each line",
        }),
        _ => Ok(()),
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Cursor<'_> {
    /// The byte after white space.
    fn next(&mut self) -> Option<u8> {
        let rest = self.text[self.at..].iter();
        let space = rest.take_while(|byte| byte.is_ascii_whitespace()).count();
        self.skip(space);
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, bytes: usize) {
        let passed = &self.text[self.at..self.at + bytes];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.at += bytes;
    }
}
