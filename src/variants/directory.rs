//! The output directory: what it was begun with, so that the same command goes on and another is
//! refused.

use std::fs;
use std::path::{Path, PathBuf};

use ankh_storage::atomic;
use serde_json::{Map, Value};

use super::Error;
use crate::inference::Unfinished;

/// The file that says what the directory was begun with.
const PLAN: &str = "plan.json";

/// The directory that a command writes to.
#[derive(Clone, Debug)]
pub(super) struct Output(PathBuf);

impl Output {
    /// Begins it, or goes on with it where it was begun with this plan. What another command left
    /// there is removed only where it is to be discarded.
    pub fn open(
        path: &Path,
        plan: &Map<String, Value>,
        unfinished: Unfinished,
    ) -> Result<Output, Error> {
        let output = Output(path.to_owned());
        let file = output.path(PLAN);
        let found: Option<Map<String, Value>> = match fs::read(&file) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file("read", &file)(error)),
        };
        let occupied = |what: String| Error::Occupied {
            path: path.to_owned(),
            what,
        };
        match (found, unfinished) {
            (Some(found), Unfinished::Continue) => {
                let keys = plan
                    .keys()
                    .chain(found.keys().filter(|k| !plan.contains_key(*k)));
                let different = keys.filter(|key| found.get(*key) != plan.get(*key));
                let different: Vec<&str> = different.map(String::as_str).collect();
                return match different.is_empty() {
                    true => Ok(output),
                    false => Err(occupied(format!(
                        "the work of another command: it differs in {}",
                        different.join(", ")
                    ))),
                };
            }
            (Some(_), Unfinished::Discard) => {
                atomic::remove_tree(path).map_err(Error::file("remove", path))?;
            }
            (None, _) => {
                let mut entries = fs::read_dir(path).into_iter().flatten();
                if path.is_file() || entries.next().is_some() {
                    return Err(occupied("something else".to_owned()));
                }
            }
        }
        fs::create_dir_all(path).map_err(Error::file("make", path))?;
        let text = serde_json::to_string_pretty(plan).expect("a JSON object");
        output.write(PLAN, &format!("{text}\n"))?;
        Ok(output)
    }

    /// A place in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        atomic::replace_file(&path, text.as_bytes()).map_err(Error::file("write", &path))
    }

    /// Writes sequences as FASTA, by id.
    pub fn write_fasta<'s>(
        &self,
        name: &str,
        sequences: impl IntoIterator<Item = (&'s str, &'s str)>,
    ) -> Result<PathBuf, Error> {
        let each = sequences.into_iter();
        let text: String = each
            .map(|(id, letters)| format!(">{id}\n{letters}\n"))
            .collect();
        self.write(name, &text)?;
        Ok(self.path(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Map<String, Value> {
        [("seed".to_owned(), Value::from(seed))]
            .into_iter()
            .collect()
    }

    #[test]
    fn a_directory_belongs_to_one_plan() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let open = |seed, unfinished| Output::open(&path, &plan(seed), unfinished);
        let output = open(1, Unfinished::Continue).unwrap();
        output.write("kept", "").unwrap();
        open(1, Unfinished::Continue).unwrap();
        assert!(output.path("kept").exists());
        let error = open(2, Unfinished::Continue).unwrap_err().to_string();
        assert!(
            error.ends_with("another command: it differs in seed"),
            "{error}"
        );
        open(2, Unfinished::Discard).unwrap();
        assert!(!output.path("kept").exists());
        fs::remove_file(output.path(PLAN)).unwrap();
        output.write("other", "").unwrap();
        for unfinished in [Unfinished::Continue, Unfinished::Discard] {
            let error = open(2, unfinished).unwrap_err().to_string();
            assert!(error.ends_with("holds something else"), "{error}");
        }
    }
}
