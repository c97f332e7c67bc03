//! The commit marker: one JSON file that makes a checkpoint exist. It lists every other file with
//! its length and checksum and closes with a checksum of itself, so nothing in the directory can
//! change unnoticed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::Directory;
use super::error::Fault;

/// The marker's file name.
pub(super) const FILE: &str = "commit.json";

/// The format's name in the marker.
const FORMAT: &str = "ankh checkpoint";

/// The version of the format written today.
const VERSION: u32 = 1;

/// The contents of the marker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    format: String,
    version: u32,
    /// The training step.
    pub step: u64,
    /// The bytes of all tensors together.
    pub bytes: u64,
    /// The caller's metadata.
    pub metadata: Value,
    /// The metadata files of the Zarr groups.
    pub groups: Vec<FileRecord>,
    /// The tensors, in the order they were saved.
    pub arrays: Vec<ArrayRecord>,
}

/// One tensor and its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArrayRecord {
    pub name: String,
    pub data_type: String,
    pub shape: Vec<u64>,
    /// The array's `zarr.json`.
    pub metadata: FileRecord,
    /// The numbers of the chunks in the chunk grid, ascending, where these are all that is there: a
    /// part of a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Vec<usize>>,
    /// Its chunks in row-major order of the chunk grid. The checksum is of the elements, without
    /// the four bytes the codec appends: the checksum of a text that ends with its own CRC is the
    /// same for every text.
    pub chunks: Vec<FileRecord>,
}

/// One file as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRecord {
    /// The path relative to the checkpoint, with `/`.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
    /// CRC32C of its contents.
    pub crc32c: Checksum,
}

/// A CRC32C, written as eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Checksum(u32);

impl Checksum {
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(crc32c::crc32c(bytes))
    }

    /// As the codec `crc32c` of Zarr appends it.
    pub fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> String {
        format!("{:08x}", checksum.0)
    }
}

/// A text that is no checksum.
#[derive(Debug, thiserror::Error)]
#[error("expected eight hexadecimal digits, found `{0}`")]
pub(super) struct InvalidChecksum(String);

impl TryFrom<String> for Checksum {
    type Error = InvalidChecksum;

    fn try_from(text: String) -> Result<Checksum, InvalidChecksum> {
        match u32::from_str_radix(&text, 16) {
            Ok(value) if text.len() == 8 => Ok(Checksum(value)),
            _ => Err(InvalidChecksum(text)),
        }
    }
}

impl ArrayRecord {
    /// The chunk of a number in the grid, if it is there.
    pub fn chunk(&self, number: usize) -> Option<&FileRecord> {
        let place = match &self.numbers {
            None => number,
            Some(numbers) => numbers.binary_search(&number).ok()?,
        };
        self.chunks.get(place)
    }

    /// The chunks that are there, with their numbers in the grid.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &FileRecord)> {
        let number = |place| {
            self.numbers
                .as_ref()
                .map_or(place, |numbers| numbers[place])
        };
        let chunks = self.chunks.iter().enumerate();
        chunks.map(move |(place, chunk)| (number(place), chunk))
    }

    /// Whether the chunks are those that there should be, of so many in the grid.
    pub fn fits(&self, grid: usize) -> bool {
        match &self.numbers {
            None => self.chunks.len() == grid,
            Some(numbers) => {
                numbers.len() == self.chunks.len()
                    && numbers.is_sorted_by(|a, b| a < b)
                    && numbers.last().is_none_or(|last| *last < grid)
            }
        }
    }
}

impl FileRecord {
    /// The record of a file whose whole contents are `contents`.
    pub fn of(file: String, contents: &[u8]) -> FileRecord {
        FileRecord {
            file,
            bytes: contents.len() as u64,
            crc32c: Checksum::of(contents),
        }
    }

    /// Reads the file in `directory` and compares it with this record.
    pub fn read(&self, directory: &Directory) -> Result<Vec<u8>, Fault> {
        let mut contents = vec![0; self.bytes as usize];
        directory.read_into(&self.file, &mut [&mut contents])?;
        match Checksum::of(&contents) == self.crc32c {
            true => Ok(contents),
            false => Err(Fault::new(
                &self.file,
                "its contents do not match the checksum in commit.json",
            )),
        }
    }
}

impl Commit {
    pub fn new(
        step: u64,
        bytes: u64,
        metadata: Value,
        groups: Vec<FileRecord>,
        arrays: Vec<ArrayRecord>,
    ) -> Commit {
        Commit {
            format: FORMAT.to_owned(),
            version: VERSION,
            step,
            bytes,
            metadata,
            groups,
            arrays,
        }
    }

    /// The marker's text: readable JSON whose last member is the checksum of all that precedes it.
    pub fn to_text(&self) -> String {
        // A tree of strings, numbers and lists: serde_json has no way to fail on it.
        let body = serde_json::to_string_pretty(self).expect("a commit is plain JSON");
        let body = body
            .strip_suffix(BODY_END)
            .expect("a JSON object ends with its brace");
        format!(
            "{body}{SEAL_START}{}{SEAL_END}",
            String::from(Checksum::of(body.as_bytes()))
        )
    }

    /// Reads the marker of the checkpoint in `directory`.
    pub fn read(directory: &Directory) -> Result<Commit, Fault> {
        Commit::parse(&directory.read(FILE)?)
    }

    /// All files but the marker itself.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        let metadata = self.arrays.iter().map(|array| &array.metadata);
        let chunks = self.arrays.iter().flat_map(|array| &array.chunks);
        self.groups.iter().chain(metadata).chain(chunks)
    }

    fn parse(text: &[u8]) -> Result<Commit, Fault> {
        let fault = |problem: String| Fault::new(FILE, problem);
        let altered = || fault("its contents do not match its own checksum".into());
        let seal_length = SEAL_START.len() + 8 + SEAL_END.len();
        let (body, seal) = text
            .split_at_checked(text.len().wrapping_sub(seal_length))
            .ok_or_else(|| fault("it is cut short".into()))?;
        let expected = format!("{SEAL_START}{}{SEAL_END}", String::from(Checksum::of(body)));
        if seal != expected.as_bytes() {
            return Err(altered());
        }
        let body = std::str::from_utf8(body).map_err(|_| altered())?;
        // The version is looked at first: another version may have other members.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let body = format!("{body}{BODY_END}");
        let head: Head = serde_json::from_str(&body).map_err(|e| fault(e.to_string()))?;
        if (head.format.as_str(), head.version) != (FORMAT, VERSION) {
            return Err(fault(format!(
                "expected format `{FORMAT}` version {VERSION}, found `{}` version {}",
                head.format, head.version
            )));
        }
        serde_json::from_str(&body).map_err(|e| fault(e.to_string()))
    }
}

const BODY_END: &str = "\n}";
const SEAL_START: &str = ",\n  \"crc32c\": \"";
const SEAL_END: &str = "\"\n}\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Commit {
        let file = FileRecord::of("a/zarr.json".into(), b"{}");
        let chunk = FileRecord::of("a/c/0".into(), &[1, 2, 3, 4]);
        let array = ArrayRecord {
            name: "a".into(),
            data_type: "uint8".into(),
            shape: vec![4],
            metadata: file,
            numbers: None,
            chunks: vec![chunk],
        };
        let metadata = serde_json::json!({ "text": "\"\n}\n", "number": 1.5 });
        Commit::new(
            7,
            4,
            metadata,
            vec![FileRecord::of("zarr.json".into(), b"{ }")],
            vec![array],
        )
    }

    #[test]
    fn a_marker_reads_back_as_written() {
        let commit = example();
        assert_eq!(Commit::parse(commit.to_text().as_bytes()).unwrap(), commit);
    }

    #[test]
    fn a_marker_is_json_for_anyone_else() {
        let value: Value = serde_json::from_str(&example().to_text()).unwrap();
        assert_eq!(value["step"], 7);
        assert_eq!(value["arrays"][0]["name"], "a");
    }

    #[test]
    fn no_altered_byte_and_no_shorter_text_is_a_marker() {
        let text = example().to_text().into_bytes();
        for i in 0..text.len() {
            for flip in [1u8, 0x20, 0x80, 0xff] {
                let mut altered = text.clone();
                altered[i] ^= flip;
                assert!(
                    Commit::parse(&altered).is_err(),
                    "byte {i} flipped by {flip:#x}"
                );
            }
            assert!(Commit::parse(&text[..i]).is_err(), "cut at {i}");
        }
        assert!(
            Commit::parse(&[&text[..], b"\n"].concat()).is_err(),
            "one byte more"
        );
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let commit = Commit {
            version: VERSION + 1,
            ..example()
        };
        let error = Commit::parse(commit.to_text().as_bytes()).unwrap_err();
        assert!(error.problem.contains("version 2"), "{error:?}");
    }
}
