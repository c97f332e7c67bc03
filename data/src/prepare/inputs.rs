//! The inputs before they are read: what they are called, how large they are, when they changed.
//!
//! An input is a file, a directory that stands for the sequence files in it, or `-` for standard
//! input. What a file is, its bytes say; but which files of a directory are sequences, only their
//! names can say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ankh_storage::{Location, Storage, StorageOptions};

use super::PrepareOptions;
use super::collect::is_chunk_file;
use super::input::Input;
use super::progress::InputStamp;
use crate::error::{Error, Result, Setting};
use crate::format::{ColumnNames, MANIFEST};

/// How the names of sequence files end, before what compresses them adds to it.
const ENDINGS: [&str; 16] = [
    "fasta", "fa", "faa", "fas", "fsa", "mfa", "afa", "pep", "aa", "a3m", "a2m", "csv", "tsv",
    "tab", "parquet", "pq",
];
/// What compresses adds. Those that are not read are known as well, so that no file is passed over
/// silently.
const COMPRESSED: [&str; 8] = ["gz", "bgz", "bgzf", "zst", "zstd", "xz", "bz2", "zip"];
/// What stands for standard input; `./-` is a file of that name.
const STANDARD_INPUT: &str = "-";

/// An input that is there.
#[derive(Clone)]
pub(super) struct NamedInput {
    /// Its name, without the directory; with the way from there, if the directory was given.
    pub(super) name: String,
    bytes: u64,
    modified: Option<u64>,
    kind: InputKind,
    columns: ColumnNames,
}

#[derive(Clone)]
enum InputKind {
    File(Location, StorageOptions),
    /// A file that is gone once it was read: a pipe.
    Pipe(PathBuf),
    StandardInput,
}

impl NamedInput {
    /// Finds out what the inputs are, and how large.
    pub(super) fn look_at_all(
        locations: &[Location],
        options: &PrepareOptions,
    ) -> Result<Vec<NamedInput>> {
        let mut inputs = Vec::new();
        for location in locations {
            inputs.extend(NamedInput::look(location, options)?);
        }
        let streams = inputs
            .iter()
            .filter(|input| matches!(input.kind, InputKind::StandardInput));
        if streams.count() > 1 {
            return Err(Error::setting(
                Setting::Prepare("inputs"),
                "must name standard input (-) once only",
            ));
        }
        Ok(inputs)
    }

    fn look(location: &Location, options: &PrepareOptions) -> Result<Vec<NamedInput>> {
        let Some(path) = location.local() else {
            return NamedInput::look_afar(location, options);
        };
        if path == Path::new(STANDARD_INPUT) {
            return Ok(vec![NamedInput {
                name: "stdin".into(),
                bytes: 0,
                modified: Some(now()),
                kind: InputKind::StandardInput,
                columns: options.columns.clone(),
            }]);
        }
        let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
        if metadata.is_dir() {
            let mut found = BTreeSet::new();
            gather(path, Path::new(""), &mut BTreeSet::new(), &mut found)?;
            let of_directory = |way: PathBuf| {
                let input = NamedInput::local(&path.join(&way), options)?;
                let name = way.to_string_lossy().into_owned();
                Ok(NamedInput { name, ..input })
            };
            let inputs: Vec<NamedInput> =
                found.into_iter().map(of_directory).collect::<Result<_>>()?;
            return some(inputs, location);
        }
        Ok(vec![NamedInput::local(path, options)?])
    }

    fn local(path: &Path, options: &PrepareOptions) -> Result<NamedInput> {
        let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
        let modified = metadata.modified().ok();
        Ok(match metadata.is_file() {
            true => NamedInput {
                name: name_of(path),
                bytes: metadata.len(),
                modified: modified.and_then(nanoseconds),
                kind: InputKind::File(path.into(), options.storage.clone()),
                columns: options.columns.clone(),
            },
            false => NamedInput {
                name: name_of(path),
                bytes: 0,
                modified: Some(now()),
                kind: InputKind::Pipe(path.to_path_buf()),
                columns: options.columns.clone(),
            },
        })
    }

    /// An object; the objects below a prefix where there is none of that name.
    fn look_afar(location: &Location, options: &PrepareOptions) -> Result<Vec<NamedInput>> {
        let remote = |name: &str, location: Location, bytes| NamedInput {
            name: name.into(),
            bytes,
            modified: None,
            kind: InputKind::File(location, options.storage.clone()),
            columns: options.columns.clone(),
        };
        let missing: Option<Error> = match location.name() {
            "" => None,
            name => {
                let (storage, name) = (Storage::of_file(location, &options.storage)?.0, name);
                match storage.size(name) {
                    Ok(bytes) => return Ok(vec![remote(name, location.clone(), bytes)]),
                    Err(error @ ankh_storage::Error::NoSuchObject { .. }) => Some(error.into()),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let entries = Storage::open(location, &options.storage)?.list("")?;
        if let (true, Some(missing)) = (entries.is_empty(), missing) {
            return Err(missing);
        }
        let prepared: BTreeSet<&str> = entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(MANIFEST))
            .collect();
        let is_input = |name: &str| {
            let (way, name) = name
                .rsplit_once('/')
                .map_or(("", name), |(way, _)| name.split_at(way.len() + 1));
            let hidden = way.split('/').any(|part| part.starts_with('.'));
            !hidden && is_sequences(name) && !(is_chunk_file(name) && prepared.contains(way))
        };
        let inputs = entries
            .iter()
            .filter(|entry| is_input(&entry.name))
            .map(|entry| remote(&entry.name, location.join(&entry.name), entry.size))
            .collect();
        some(inputs, location)
    }

    pub(super) fn open(&self) -> Result<Input> {
        match &self.kind {
            InputKind::File(location, options) => {
                Input::open_with(location, options, &self.columns)
            }
            InputKind::Pipe(path) => {
                let file = fs::File::open(path).map_err(Error::io("open", path))?;
                let name = path.to_string_lossy();
                Input::from_reader_with(&name, Box::new(file), &self.columns)
            }
            InputKind::StandardInput => {
                let stdin = Box::new(std::io::stdin());
                Input::from_reader_with(&self.name, stdin, &self.columns)
            }
        }
    }

    /// Whether it can be read only once.
    pub(super) fn passes(&self) -> bool {
        !matches!(self.kind, InputKind::File(..))
    }

    pub(super) fn stamp(&self) -> InputStamp {
        InputStamp {
            name: self.name.clone(),
            bytes: self.bytes,
            modified: self.modified,
            passes: self.passes(),
        }
    }
}

/// The inputs in a directory, if there are any.
fn some(inputs: Vec<NamedInput>, directory: &Location) -> Result<Vec<NamedInput>> {
    match inputs.is_empty() {
        true => Err(Error::NoSequenceFiles {
            location: directory.clone(),
            endings: ENDINGS.map(|ending| format!(".{ending}")).join(", "),
        }),
        false => Ok(inputs),
    }
}

/// The sequence files below a directory, as the way from it. Hidden files are none, nor are those
/// of prepared data.
fn gather(
    root: &Path,
    way: &Path,
    entered: &mut BTreeSet<PathBuf>,
    found: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    let directory = root.join(way);
    // Links may lead back.
    let real = fs::canonicalize(&directory).map_err(Error::io("open", &directory))?;
    if !entered.insert(real) {
        return Ok(());
    }
    let prepared = directory.join(MANIFEST).exists();
    for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
        let entry = entry.map_err(Error::io("list", &directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let way = way.join(entry.file_name());
        if name.starts_with('.') {
            continue;
        }
        // Follows links.
        let is_directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if is_directory {
            gather(root, &way, entered, found)?;
        } else if is_sequences(&name) && !(prepared && is_chunk_file(&name)) {
            found.insert(way);
        }
    }
    Ok(())
}

/// Whether a file's name is that of sequences.
fn is_sequences(name: &str) -> bool {
    let ends = |name: &str, endings: &[&str]| {
        let (before, ending) = name.rsplit_once('.')?;
        let known = endings
            .iter()
            .any(|known| ending.eq_ignore_ascii_case(known));
        (known && !before.is_empty()).then(|| before.to_string())
    };
    let plain = ends(name, &COMPRESSED);
    !name.starts_with('.') && ends(plain.as_deref().unwrap_or(name), &ENDINGS).is_some()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn nanoseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// What no other content has that passes by.
fn now() -> u64 {
    nanoseconds(SystemTime::now()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_sequence_files() {
        for name in [
            "a.fasta",
            "A.FA",
            "a.b.faa.gz",
            "a.csv.xz",
            "shard-00000.parquet",
            "a.fa.bz2",
        ] {
            assert!(is_sequences(name), "{name}");
        }
        for name in [
            "README.md",
            "fasta",
            ".fasta",
            "._a.fasta",
            "a.fasta.md5",
            "a.gz",
            "a.fna",
        ] {
            assert!(!is_sequences(name), "{name}");
        }
    }
}
