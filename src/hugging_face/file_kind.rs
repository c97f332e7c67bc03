//! Recognizes files that are not what their names say. Downloads go wrong in a few ways, and each
//! has its own remedy.

use std::fmt;
use std::path::Path;

use super::error::{Error, Result};

/// How much of a file is looked at.
pub(super) const START: usize = 512;

/// Reads a text that should be a JSON object.
pub(super) fn read_json(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let malformed = |problem: String| Error::Malformed {
        file: path.to_path_buf(),
        problem,
    };
    match Kind::of(&bytes[..bytes.len().min(START)]) {
        Some(Kind::Text(line)) if line.starts_with('{') => {}
        Some(kind) => return Err(malformed(format!("expected JSON, found {kind}"))),
        None => {}
    }
    String::from_utf8(bytes)
        .map_err(|_| malformed("expected JSON, found bytes that are not text".to_owned()))
}

/// A kind of file that is found where weights or a configuration should be. Displayed as what it is
/// and what to do.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    Empty,
    /// The few lines that Git keeps in place of a large file, with the size of that file.
    LfsPointer(Option<String>),
    Html,
    /// Zeros: space set aside for a download.
    Zeros,
    /// A zip archive or a pickle.
    PyTorch,
    Hdf5,
    Gzip,
    Zstandard,
    Gguf,
    Numpy,
    /// Text, with its first line.
    Text(String),
}

impl Kind {
    /// The kind of a file that begins with `start`, where it can be told.
    pub fn of(start: &[u8]) -> Option<Kind> {
        let magic: [(&[u8], Kind); 10] = [
            (b"PK\x03\x04", Kind::PyTorch),
            (b"\x80\x02", Kind::PyTorch),
            (b"\x80\x03", Kind::PyTorch),
            (b"\x80\x04", Kind::PyTorch),
            (b"\x80\x05", Kind::PyTorch),
            (b"\x89HDF\r\n", Kind::Hdf5),
            (b"\x1f\x8b", Kind::Gzip),
            (b"\x28\xb5\x2f\xfd", Kind::Zstandard),
            (b"GGUF", Kind::Gguf),
            (b"\x93NUMPY", Kind::Numpy),
        ];
        // Behind these few bytes a header of safetensors may begin, which is the better reading.
        let header = start.get(8) == Some(&b'{') && start[4..8] == [0; 4];
        if let Some((_, kind)) = (magic.into_iter()).find(|(bytes, _)| start.starts_with(bytes))
            && !header
        {
            return Some(kind);
        }
        if start.is_empty() {
            return Some(Kind::Empty);
        }
        if start.iter().all(|byte| *byte == 0) {
            return Some(Kind::Zeros);
        }
        let text = text(start)?;
        let lower = text.to_ascii_lowercase();
        Some(if text.starts_with("version https://git-lfs") {
            let size = text.lines().find_map(|line| line.strip_prefix("size "));
            Kind::LfsPointer(size.map(str::to_owned))
        } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
            Kind::Html
        } else {
            let line = text.lines().next().unwrap_or_default();
            Kind::Text(line.chars().take(80).collect())
        })
    }
}

/// The bytes as text without what is blank before it, if they are text; a character may be cut at
/// the end.
fn text(start: &[u8]) -> Option<&str> {
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let control = |c: char| c.is_control() && !c.is_whitespace();
    let text = valid.trim_start_matches('\u{feff}').trim();
    (!text.is_empty() && !text.contains(control)).then_some(text)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Empty => f.write_str("an empty file: fetch it again"),
            Kind::LfsPointer(size) => {
                f.write_str("a Git LFS pointer to the file")?;
                if let Some(size) = size {
                    write!(f, " of {size} bytes")?;
                }
                f.write_str(", not the file itself: fetch it with `git lfs pull`")
            }
            Kind::Html => f.write_str(
                "an HTML page that a server sent in place of the file: fetch it again, by its \
                 download address",
            ),
            Kind::Zeros => f.write_str("zeros, as an unfinished download leaves: fetch it again"),
            Kind::PyTorch => f.write_str(
                "a zip archive or pickle, as PyTorch saves weights: rename it to pytorch_model.bin",
            ),
            Kind::Hdf5 => f.write_str(
                "an HDF5 file, as TensorFlow saves weights: rename it to tf_model.h5 and try again \
                 to read how it is converted",
            ),
            Kind::Gzip => f.write_str("compressed by gzip: decompress it"),
            Kind::Zstandard => f.write_str("compressed by zstd: decompress it"),
            Kind::Gguf => f.write_str("a GGUF file: fetch the model's safetensors file"),
            Kind::Numpy => f.write_str("a NumPy array: fetch the model's safetensors file"),
            Kind::Text(line) => write!(f, "text that begins `{line}`: fetch the file again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_download_leaves_is_recognised() {
        let pointer =
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2949838792\n";
        let error = r#"{"error":"Invalid credentials"}"#;
        for (bytes, kind) in [
            (
                pointer.as_bytes(),
                Kind::LfsPointer(Some("2949838792".into())),
            ),
            (
                b"version https://git-lfs.github.com/spec/v1",
                Kind::LfsPointer(None),
            ),
            (b"\n<!DOCTYPE html>\n<html>", Kind::Html),
            (b"\xef\xbb\xbf<html lang=en>", Kind::Html),
            (b"Entry not found", Kind::Text("Entry not found".into())),
            (error.as_bytes(), Kind::Text(error.into())),
            (b"", Kind::Empty),
            (&[0; 64], Kind::Zeros),
            (b"PK\x03\x04\0\0\x08\x08\0\0", Kind::PyTorch),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", Kind::PyTorch),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\0", Kind::Gzip),
        ] {
            assert_eq!(Kind::of(bytes), Some(kind), "{bytes:?}");
        }
    }

    #[test]
    fn a_header_of_safetensors_is_no_other_kind() {
        for length in [0x0280u64, 0x8b1f, 0x04034b50, 1000] {
            let start = [&length.to_le_bytes(), &b"{\"__meta"[..]].concat();
            assert_eq!(Kind::of(&start), None, "{length}");
        }
        assert_eq!(Kind::of(&[7, 200, 3, 0, 255, 1]), None);
    }
}
