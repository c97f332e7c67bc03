//! Safetensors files read and written piece by piece, so that a model never has to be in memory
//! twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{Error, Result};
use super::file_kind::{self, Kind};
use super::layout;

/// A header longer than this is refused by every reader.
const LARGEST_HEADER: u64 = 100_000_000;

/// The part of a header before its tensors.
const METADATA_START: &str = "{\"__metadata__\":";

/// The tensors of one file, or of the several that an index lists.
#[derive(Debug)]
pub(super) struct Tensors {
    files: Vec<(PathBuf, File)>,
    places: BTreeMap<String, Place>,
    /// The JSON text of the file's own metadata; of several files, the first's.
    pub metadata: Option<String>,
}

#[derive(Debug)]
struct Place {
    file: usize,
    offset: u64,
    info: TensorInfo,
}

impl Tensors {
    /// Opens one file.
    pub fn open(path: &Path) -> Result<Tensors> {
        let mut tensors = Tensors {
            files: Vec::new(),
            places: BTreeMap::new(),
            metadata: None,
        };
        tensors.metadata = tensors.add(path)?;
        Ok(tensors)
    }

    /// Opens the files that the index at `path` lists.
    pub fn open_index(path: &Path) -> Result<Tensors> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let malformed = |problem: String| Error::Malformed {
            file: path.to_path_buf(),
            problem,
        };
        let text = file_kind::read_json(path)?;
        let index: Index = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let mut tensors = Tensors {
            files: Vec::new(),
            places: BTreeMap::new(),
            metadata: None,
        };
        for name in names {
            if name.contains(['/', '\\']) {
                return Err(malformed(format!("`{name}` is not a file name")));
            }
            let metadata = tensors.add(&path.with_file_name(name))?;
            tensors.metadata = tensors.metadata.or(metadata);
        }
        for (tensor, file) in &index.weight_map {
            let found = tensors
                .places
                .get(tensor)
                .map(|place| &tensors.files[place.file].0);
            if found.and_then(|path| path.file_name()) != Some(file.as_ref()) {
                return Err(malformed(format!(
                    "it places `{tensor}` in {file}, which does not hold it"
                )));
            }
        }
        Ok(tensors)
    }

    /// Adds a file's tensors and returns its metadata.
    fn add(&mut self, path: &Path) -> Result<Option<String>> {
        let malformed = |problem: String| Error::Malformed {
            file: path.to_path_buf(),
            problem,
        };
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut start = vec![0; length.min(file_kind::START as u64) as usize];
        file.read_exact_at(&mut start, 0)
            .map_err(Error::io("read", path))?;
        let other = |problem: String| {
            malformed(match Kind::of(&start) {
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
        for (name, info) in parsed.tensors() {
            let offset = 8 + header_length + info.data_offsets.0 as u64;
            let place = Place {
                file: self.files.len(),
                offset,
                info: info.clone(),
            };
            if self.places.insert(name.clone(), place).is_some() {
                return Err(malformed(format!("`{name}` is in another file too")));
            }
        }
        self.files.push((path.to_path_buf(), file));
        Ok(raw_metadata(&header)
            .map(str::to_owned)
            .or_else(|| parsed.metadata().as_ref().map(sorted_json)))
    }

    /// Gives all tensors other names, in the order of [`Tensors::names`]; no two the same.
    pub fn rename(&mut self, names: Vec<String>) {
        let places = std::mem::take(&mut self.places);
        self.places = names.into_iter().zip(places.into_values()).collect();
    }

    /// Forgets a tensor. Whether there was one of this name.
    pub fn forget(&mut self, name: &str) -> bool {
        self.places.remove(name).is_some()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Element type and shape of a tensor.
    pub fn info(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.places
            .get(name)
            .map(|place| (place.info.dtype, place.info.shape.as_slice()))
    }

    /// A tensor's elements as float32; `name` must be a tensor of a type that [`is_readable`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<u8>> {
        let place = &self.places[name];
        let (path, file) = &self.files[place.file];
        let mut bytes = vec![0; place.info.data_offsets.1 - place.info.data_offsets.0];
        file.read_exact_at(&mut bytes, place.offset)
            .map_err(Error::io("read", path))?;
        Ok(match place.info.dtype {
            Dtype::BF16 => layout::bf16_to_f32(&bytes),
            Dtype::F16 => layout::f16_to_f32(&bytes),
            _ => bytes,
        })
    }
}

/// The element types that are read, each of them exact in float32.
pub(super) fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
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
