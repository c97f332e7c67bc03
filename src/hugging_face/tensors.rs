//! The tensors of a model's weights files, whatever their format, read one at a time, so that a
//! model never has to be in memory twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::error::{Error, Result};
use super::pytorch_file::{self, Storage};
use super::{file_kind, layout, safetensors_file};

/// How a weights file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// By `safetensors`.
    Safetensors,
    /// By `torch.save`.
    PyTorch,
}

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
    tensor: StoredTensor,
}

/// What a file has.
pub(super) struct Contents {
    /// The tensors by name.
    pub tensors: Vec<(String, StoredTensor)>,
    /// The JSON text of its metadata.
    pub metadata: Option<String>,
}

/// A tensor as a file has it.
#[derive(Debug)]
pub(super) struct StoredTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub elements: Elements,
}

/// Where the elements of a tensor are in its file.
#[derive(Debug)]
pub(super) enum Elements {
    /// In row-major order, so many bytes from this one on.
    InOrder { offset: u64, length: usize },
    /// In a storage, from the element `first` on, neighbours along each dimension as far apart as
    /// `strides` say. All of them lie in it.
    InStorage {
        storage: Arc<Storage>,
        first: u64,
        strides: Vec<u64>,
    },
}

/// What `transformers` expects in the metadata of a safetensors file, and other files do not have.
const METADATA: &str = r#"{"format":"pt"}"#;

impl Tensors {
    /// Opens one file.
    pub fn open(path: &Path, format: Format) -> Result<Tensors> {
        let mut tensors = Tensors::none();
        tensors.metadata = tensors.add(path, format)?;
        Ok(tensors)
    }

    /// Opens the files that the index at `path` lists.
    pub fn open_index(path: &Path, format: Format) -> Result<Tensors> {
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
        let mut tensors = Tensors::none();
        for name in names {
            if name.contains(['/', '\\']) {
                return Err(malformed(format!("`{name}` is not a file name")));
            }
            let metadata = tensors.add(&path.with_file_name(name), format)?;
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

    fn none() -> Tensors {
        Tensors {
            files: Vec::new(),
            places: BTreeMap::new(),
            metadata: None,
        }
    }

    /// Adds a file's tensors and returns its metadata.
    fn add(&mut self, path: &Path, format: Format) -> Result<Option<String>> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut start = vec![0; length.min(file_kind::START as u64) as usize];
        file.read_exact_at(&mut start, 0)
            .map_err(Error::io("read", path))?;
        let Contents { tensors, metadata } = match format {
            Format::Safetensors => safetensors_file::contents(path, &file, &start, length)?,
            Format::PyTorch => Contents {
                tensors: pytorch_file::tensors(path, &file, &start, length)?,
                metadata: Some(METADATA.to_owned()),
            },
        };
        for (name, tensor) in tensors {
            let place = Place {
                file: self.files.len(),
                tensor,
            };
            if let Some(other) = self.places.insert(name.clone(), place) {
                let problem = match other.file == self.files.len() {
                    true => format!("`{name}` is in it twice"),
                    false => format!("`{name}` is in another file too"),
                };
                return Err(Error::Malformed {
                    file: path.to_path_buf(),
                    problem,
                });
            }
        }
        self.files.push((path.to_path_buf(), file));
        Ok(metadata)
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
            .map(|place| (place.tensor.dtype, place.tensor.shape.as_slice()))
    }

    /// A tensor's elements as float32, all of them finite; `name` must be a tensor of a type that
    /// [`is_readable`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<u8>> {
        let Place { file, tensor } = &self.places[name];
        let (path, file) = &self.files[*file];
        let bytes = match &tensor.elements {
            Elements::InOrder { offset, length } => {
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *offset)
                    .map_err(Error::io("read", path))?;
                bytes
            }
            Elements::InStorage {
                storage,
                first,
                strides,
            } => {
                let width = tensor.dtype.bitsize() / 8;
                let span = layout::span(&tensor.shape, strides);
                let start = first * width as u64;
                let bytes = storage.read(path, file, start, (span * width) as u64)?;
                layout::in_order(bytes, width, &tensor.shape, strides)
            }
        };
        let bytes = match tensor.dtype {
            Dtype::BF16 => layout::bf16_to_f32(&bytes),
            Dtype::F16 => layout::f16_to_f32(&bytes),
            _ => bytes,
        };
        let (elements, _) = bytes.as_chunks::<4>();
        let mut elements = elements.iter().map(|&element| f32::from_le_bytes(element));
        match elements.position(|element| !element.is_finite()) {
            None => Ok(bytes),
            Some(place) => Err(Error::Malformed {
                file: path.clone(),
                problem: format!("element {place} of `{name}` is not a finite number"),
            }),
        }
    }
}

/// The element types that are read, each of them exact in float32.
pub(super) fn is_readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}
