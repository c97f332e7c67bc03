//! Safetensors files: their headers read, and files written piece by piece, so that a model never
//! has to be in memory twice.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::IgnoredAny;

use super::error::{Error, Result};
use super::file_kind::Kind;
use super::tensors::{Contents, Elements, StoredTensor};

/// A header longer than this is refused by every reader.
const LARGEST_HEADER: u64 = 100_000_000;

/// The part of a header before its tensors.
const METADATA_START: &str = "{\"__metadata__\":";

/// What the header of the file at `path` describes. `start` is the file's beginning, and `length`
/// the number of its bytes. No element is read yet.
pub(super) fn contents(path: &Path, file: &File, start: &[u8], length: u64) -> Result<Contents> {
    let malformed = |problem: String| Error::Malformed {
        file: path.to_path_buf(),
        problem,
    };
    let other = |problem: String| {
        malformed(match Kind::of(start) {
            Some(kind) => format!("expected a safetensors file, found {kind}"),
            None => problem,
        })
    };
    let Some(word) = start.first_chunk::<8>() else {
        return Err(other(format!(
            "not a safetensors file: it has {length} bytes"
        )));
    };
    let header_length = u64::from_le_bytes(*word);
    if header_length > length - 8 {
        let cut = start.get(8).is_none_or(|byte| *byte == b'{');
        return Err(other(match cut && header_length <= LARGEST_HEADER {
            true => format!(
                "cut short: it has {length} bytes and its header alone takes {header_length}; \
                 fetch it again"
            ),
            false => "not a safetensors file: no header begins it".to_owned(),
        }));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact_at(&mut header, 8)
        .map_err(Error::io("read", path))?;
    let header =
        String::from_utf8(header).map_err(|_| other("its header is not text".to_owned()))?;
    let parsed: Metadata =
        serde_json::from_str(&header).map_err(|e| other(format!("its header: {e}")))?;
    let expected = (8 + header_length).saturating_add(parsed.data_len() as u64);
    if expected != length {
        let advice = match expected > length {
            true => "cut short, as by an unfinished download: fetch it again",
            false => "something was added to it",
        };
        return Err(malformed(format!(
            "its header describes {expected} bytes and the file has {length}: {advice}"
        )));
    }
    let metadata = raw_metadata(&header)
        .map(str::to_owned)
        .or_else(|| parsed.metadata().as_ref().map(sorted_json));
    let tensors = parsed.tensors().into_iter().map(|(name, info)| {
        let tensor = StoredTensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            elements: Elements::InOrder {
                offset: 8 + header_length + info.data_offsets.0 as u64,
                length: info.data_offsets.1 - info.data_offsets.0,
            },
        };
        (name, tensor)
    });
    Ok(Contents {
        tensors: tensors.collect(),
        metadata,
    })
}

/// The text of a header's metadata object, in the writer's order.
fn raw_metadata(header: &str) -> Option<&str> {
    let rest = header.strip_prefix(METADATA_START)?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(&rest[..values.byte_offset()])
}

fn sorted_json(metadata: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = metadata.iter().collect();
    // A map of strings: serde_json has no way to fail on it.
    serde_json::to_string(&sorted).expect("strings are JSON")
}

/// A file of float32 tensors whose places are all known, filled in any order.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    file: File,
    places: HashMap<String, (u64, usize)>,
}

impl Output {
    /// Creates the file and writes its header: byte for byte what `safetensors` in Python writes
    /// for these tensors, given as name and shape, and this metadata, given as JSON text.
    pub fn create(
        path: &Path,
        metadata: Option<&str>,
        mut tensors: Vec<(String, Vec<usize>)>,
    ) -> Result<Output> {
        tensors.sort();
        let mut end = 0;
        let mut infos = Vec::with_capacity(tensors.len());
        for (name, shape) in tensors {
            let start = end;
            end += shape.iter().product::<usize>() * 4;
            infos.push((
                name,
                TensorInfo {
                    dtype: Dtype::F32,
                    shape,
                    data_offsets: (start, end),
                },
            ));
        }
        let malformed = |e: String| Error::Malformed {
            file: path.to_path_buf(),
            problem: e,
        };
        let spans: Vec<_> = infos
            .iter()
            .map(|(name, info)| (name.clone(), info.data_offsets))
            .collect();
        let header = Metadata::new(None, infos).map_err(|e| malformed(e.to_string()))?;
        let mut header = serde_json::to_string(&header).map_err(|e| malformed(e.to_string()))?;
        if let Some(metadata) = metadata {
            let separator = if spans.is_empty() { "" } else { "," };
            header = format!("{METADATA_START}{metadata}{separator}{}", &header[1..]);
        }
        header.extend(std::iter::repeat_n(
            ' ',
            header.len().next_multiple_of(8) - header.len(),
        ));

        let file = File::create(path).map_err(Error::io("create", path))?;
        let data = 8 + header.len() as u64;
        file.set_len(data + end as u64)
            .map_err(Error::io("write", path))?;
        file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)
            .map_err(Error::io("write", path))?;
        file.write_all_at(header.as_bytes(), 8)
            .map_err(Error::io("write", path))?;
        let places = spans
            .into_iter()
            .map(|(name, (start, end))| (name, (data + start as u64, end - start)))
            .collect();
        Ok(Output {
            path: path.to_path_buf(),
            file,
            places,
        })
    }

    /// Writes the elements of one of the tensors.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (offset, length) = self.places[name];
        debug_assert_eq!(bytes.len(), length, "{name}");
        self.file
            .write_all_at(bytes, offset)
            .map_err(Error::io("write", &self.path))
    }
}
