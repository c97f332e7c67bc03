//! One tensor as one Zarr array: data types, names, chunks out and in.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ankh_pjrt::{ElementType, HostTensor};
use serde::{Deserialize, Serialize};
use zarrs::array::codec::Crc32cCodec;
use zarrs::array::{Array, ArrayBuilder, ArrayMetadataOptions, FillValue};
use zarrs::group::GroupBuilder;
use zarrs::storage::store::MemoryStore;
use zarrs::storage::{ReadableStorageTraits, StoreKey, WritableStorageTraits};

use super::commit::{ArrayRecord, Checksum, FileRecord};
use super::directory::Directory;
use super::error::{Error, Fault, Result};
use super::grid::{Grid, LIMIT};
use super::parallel::in_parallel;
use super::parts::TensorParts;

/// The element types a checkpoint can hold, with Zarr's names for them.
const DATA_TYPES: [(ElementType, &str); 13] = [
    (ElementType::Pred, "bool"),
    (ElementType::S8, "int8"),
    (ElementType::S16, "int16"),
    (ElementType::S32, "int32"),
    (ElementType::S64, "int64"),
    (ElementType::U8, "uint8"),
    (ElementType::U16, "uint16"),
    (ElementType::U32, "uint32"),
    (ElementType::U64, "uint64"),
    (ElementType::F16, "float16"),
    (ElementType::Bf16, "bfloat16"),
    (ElementType::F32, "float32"),
    (ElementType::F64, "float64"),
];

/// The element type that Zarr calls so, of those that a checkpoint can hold.
pub(super) fn element_type(data_type: &str) -> Option<ElementType> {
    let named = DATA_TYPES.iter().find(|(_, name)| *name == data_type);
    named.map(|(element, _)| *element)
}

/// Whether `name` can be the path of a Zarr array, and of files.
pub(super) fn check_name(name: &str) -> Result<()> {
    let reserved = ["", ".", "..", "zarr.json", super::commit::FILE];
    let problem = if name
        .split('/')
        .any(|part| reserved.contains(&part) || part.starts_with("__"))
    {
        "its parts between `/` may not be empty, `.`, `..`, a file name of the format, or start with `__`"
    } else if name.split('/').any(|part| part.len() > 255) {
        "its parts between `/` may not be longer than 255 bytes"
    } else if name.chars().any(|c| c.is_control() || c == '\\') {
        "it may not hold control characters or a backslash"
    } else {
        return Ok(());
    };
    Err(Error::Name {
        name: name.to_owned(),
        problem,
    })
}

/// What one process has written of an array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenArray {
    pub name: String,
    data_type: String,
    shape: Vec<u64>,
    /// How many chunks the whole array has.
    count: usize,
    /// The array's `zarr.json`, where this process wrote it.
    metadata: Option<FileRecord>,
    /// The chunks, each with its number in the grid.
    chunks: Vec<(usize, FileRecord)>,
}

impl WrittenArray {
    /// Adds what another process has written of the same array.
    pub fn merge(&mut self, other: WrittenArray) -> Result<()> {
        let same = (&self.name, &self.data_type, &self.shape, self.count)
            == (&other.name, &other.data_type, &other.shape, other.count);
        if !same {
            return Err(self.refused("another process has another array of this name"));
        }
        self.metadata = self.metadata.take().or(other.metadata);
        self.chunks.extend(other.chunks);
        Ok(())
    }

    /// The chunks this process wrote.
    pub fn chunks(&self) -> &[(usize, FileRecord)] {
        &self.chunks
    }

    /// The record of the array; an error where part of it is not written, or written twice.
    pub fn whole(self) -> Result<ArrayRecord> {
        let count = self.count;
        let part = self.part()?;
        match part.numbered().map(|(number, _)| number).eq(0..count) {
            true => Ok(ArrayRecord {
                numbers: None,
                ..part
            }),
            false => Err(Error::Tensor {
                problem: format!(
                    "{} chunks are written, and the array has {count}",
                    part.chunks.len()
                ),
                name: part.name,
            }),
        }
    }

    /// The record of what is written of the array.
    pub fn part(mut self) -> Result<ArrayRecord> {
        let Some(metadata) = self.metadata.take() else {
            return Err(self.refused("its zarr.json is not written"));
        };
        self.chunks.sort_by_key(|(number, _)| *number);
        let (numbers, chunks) = self.chunks.into_iter().unzip();
        Ok(ArrayRecord {
            name: self.name,
            data_type: self.data_type,
            shape: self.shape,
            metadata,
            numbers: Some(numbers),
            chunks,
        })
    }

    fn refused(&self, problem: &str) -> Error {
        Error::Tensor {
            name: self.name.clone(),
            problem: problem.to_owned(),
        }
    }
}

/// Writes the parts of tensors that there are to arrays of their names in `directory`, and the
/// arrays' own files if `lead`.
pub(super) fn write(
    directory: &Directory,
    tensors: &[TensorParts<'_>],
    lead: bool,
) -> Result<Vec<WrittenArray>> {
    let plans = tensors.iter().map(|tensor| Plan::of(directory, tensor));
    let plans = plans.collect::<Result<Vec<_>>>()?;
    let files = plans.iter().enumerate().flat_map(|(number, plan)| {
        let metadata = lead.then_some((number, None));
        let chunks = (0..plan.chunks.len()).map(move |chunk| (number, Some(chunk)));
        metadata.into_iter().chain(chunks)
    });
    let files: Vec<(usize, Option<usize>)> = files.collect();
    let written = in_parallel(files.len(), |i| {
        let (number, chunk) = files[i];
        plans[number].write(directory, chunk)
    })?;
    let mut arrays: Vec<WrittenArray> = plans.into_iter().map(|plan| plan.array).collect();
    for ((number, _), (place, record)) in files.into_iter().zip(written) {
        match place {
            Some(place) => arrays[number].chunks.push((place, record)),
            None => arrays[number].metadata = Some(record),
        }
    }
    Ok(arrays)
}

/// What is to be written of an array.
struct Plan<'t> {
    array: WrittenArray,
    grid: Grid,
    /// The text of the array's own file.
    metadata: Vec<u8>,
    /// The chunks of all parts.
    chunks: Vec<Chunk<'t>>,
}

/// A chunk of a part of an array.
struct Chunk<'t> {
    part: &'t HostTensor,
    /// The grid of the part, and the chunk's place in it.
    own: Arc<Grid>,
    inner: Vec<u64>,
    /// Its place in the grid of the whole.
    index: Vec<u64>,
    file: String,
}

impl<'t> Plan<'t> {
    fn of(directory: &Directory, tensor: &'t TensorParts<'_>) -> Result<Plan<'t>> {
        let name: &str = &tensor.name;
        let failed = |problem: String| Error::Zarr {
            action: "write array",
            node: directory.location().join(name),
            problem,
        };
        let (grid, data_type) = grid_of(tensor)?;
        let (array, metadata) = described(name, &grid, data_type).map_err(failed)?;
        let mut chunks = Vec::new();
        for (range, part) in &tensor.parts {
            let (own, first) = grid.of_part(&unsigned(range));
            let own = Arc::new(own);
            for number in 0..own.len() {
                let inner = own.index(number);
                let index: Vec<u64> = inner.iter().zip(&first).map(|(i, f)| i + f).collect();
                chunks.push(Chunk {
                    part,
                    own: own.clone(),
                    file: chunk_file(&array, &index),
                    inner,
                    index,
                });
            }
        }
        Ok(Plan {
            array: WrittenArray {
                name: name.to_owned(),
                data_type: data_type.to_owned(),
                shape: grid.shape.clone(),
                count: grid.len(),
                metadata: None,
                chunks: Vec::new(),
            },
            grid,
            metadata,
            chunks,
        })
    }

    /// Writes a chunk, and says where in the grid it is; or the array's own file.
    fn write(
        &self,
        directory: &Directory,
        chunk: Option<usize>,
    ) -> Result<(Option<usize>, FileRecord)> {
        let Some(chunk) = chunk.map(|chunk| &self.chunks[chunk]) else {
            let record = FileRecord::of(file_of(&self.array.name), &self.metadata);
            directory.write(&record.file, &[&self.metadata])?;
            return Ok((None, record));
        };
        // As the codecs `bytes` and `crc32c` of Zarr do: the elements, little-endian, and their
        // checksum. A chunk of zeros is written like any other, so that a missing file is always a
        // fault.
        let elements = elements(&chunk.own, &chunk.inner, &chunk.part.bytes);
        let record = FileRecord {
            file: chunk.file.clone(),
            bytes: elements.len() as u64 + CRC_BYTES as u64,
            crc32c: Checksum::of(&elements),
        };
        directory.write(&record.file, &[&elements, &record.crc32c.to_le_bytes()])?;
        Ok((Some(self.grid.number(&chunk.index)), record))
    }
}

/// The array of a tensor, and the text of its own file.
fn described(name: &str, grid: &Grid, data_type: &str) -> Result<(OpenArray, Vec<u8>), String> {
    let storage = Arc::new(MemoryStore::new());
    let fill = FillValue::new(vec![0; grid.width as usize]);
    let array = ArrayBuilder::new(grid.shape.clone(), grid.chunk.clone(), data_type, fill)
        .bytes_to_bytes_codecs(vec![Arc::new(Crc32cCodec::new())])
        .build(storage.clone(), &format!("/{name}"))
        .map_err(|e| e.to_string())?;
    array
        .store_metadata_opt(&ArrayMetadataOptions::default().with_include_zarrs_metadata(false))
        .map_err(|e| e.to_string())?;
    let metadata = stored(&storage, &file_of(name))?;
    Ok((array, metadata))
}

/// Writes the own file of a group.
pub(super) fn write_group(directory: &Directory, group: &str) -> Result<FileRecord> {
    let text = || {
        let storage = Arc::new(MemoryStore::new());
        let node = GroupBuilder::new()
            .build(storage.clone(), &format!("/{group}"))
            .map_err(|e| e.to_string())?;
        node.store_metadata().map_err(|e| e.to_string())?;
        stored(&storage, &file_of(group))
    };
    let text = text().map_err(|problem| Error::Zarr {
        action: "write group",
        node: directory.location().join(group),
        problem,
    })?;
    let record = FileRecord::of(file_of(group), &text);
    directory.write(&record.file, &[&text])?;
    Ok(record)
}

/// The own file of an array or a group.
fn file_of(name: &str) -> String {
    match name {
        "" => "zarr.json".to_owned(),
        name => format!("{name}/zarr.json"),
    }
}

/// What the Zarr library wrote to memory.
fn stored(storage: &MemoryStore, file: &str) -> Result<Vec<u8>, String> {
    let key = StoreKey::new(file).map_err(|e| e.to_string())?;
    let text = storage.get(&key).map_err(|e| e.to_string())?;
    let text = text.ok_or_else(|| format!("{file} was not written"))?;
    Ok(text.to_vec())
}

/// The grid of a tensor's array and its data type, if the parts are what they should be.
fn grid_of(tensor: &TensorParts<'_>) -> Result<(Grid, &'static str)> {
    let TensorParts {
        name,
        element_type,
        dims,
        part_dims,
        parts,
    } = tensor;
    let refused = |problem: String| Error::Tensor {
        name: name.to_string(),
        problem,
    };
    let data_type = DATA_TYPES
        .iter()
        .find_map(|(element, data_type)| (element == element_type).then_some(*data_type))
        .ok_or_else(|| refused(format!("element type {element_type:?} cannot be stored")))?;
    let sizes = |dims: &[i64]| -> Result<Vec<u64>> {
        let size = |&size: &i64| {
            u64::try_from(size).map_err(|_| refused(format!("dimension {size} is negative")))
        };
        dims.iter().map(size).collect()
    };
    let (shape, part) = (sizes(dims)?, sizes(part_dims)?);
    let grid = Grid::within(&shape, &part, element_type.byte_width() as u64, LIMIT);
    for (range, held) in parts {
        let length = part.iter().product::<u64>() * grid.width;
        let is_part = range.len() == part.len()
            && range
                .iter()
                .zip(&part)
                .zip(&shape)
                .all(|((range, &part), &size)| {
                    let (start, end) = (range.start as u64, range.end as u64);
                    end == start + part && end <= size && (part == 0 || start.is_multiple_of(part))
                });
        if !is_part {
            return Err(refused(format!(
                "{range:?} is no part of {part:?} in {shape:?}"
            )));
        }
        if held.bytes.len() as u64 != length || held.element_type != *element_type {
            return Err(refused(format!(
                "a part of {part:?} of {data_type} takes {length} bytes, found {}",
                held.bytes.len()
            )));
        }
    }
    Ok((grid, data_type))
}

/// Ranges of a part that was found to lie within its array.
fn unsigned(part: &[Range<i64>]) -> Vec<Range<u64>> {
    let range = |range: &Range<i64>| range.start as u64..range.end as u64;
    part.iter().map(range).collect()
}

/// Reads a part of an array back, every byte checked, and says how many bytes of files that took.
/// `metadata` is the text of the array's own file, which was checked; `part` lies within the array.
pub(super) fn read(
    directory: &Directory,
    record: &ArrayRecord,
    metadata: &[u8],
    part: &[Range<u64>],
) -> Result<(HostTensor, u64), Fault> {
    let (array, grid, element_type) = open(record, metadata)?;
    let dims = part.iter().map(|range| (range.end - range.start) as i64);
    let mut tensor = HostTensor::zeros(element_type, dims.collect::<Vec<_>>());
    let numbers = grid.overlapping(part);
    let chunk_of = |number| {
        let absent = || Fault::new(super::commit::FILE, format!("it has no chunk {number}"));
        record.chunk(number).ok_or_else(absent)
    };
    if let Some(slices) = in_a_row(&grid, part, &mut tensor.bytes) {
        // Each chunk is read to where it belongs.
        let slices: Vec<Mutex<&mut [u8]>> = slices.map(Mutex::new).collect();
        let bytes = in_parallel(numbers.len(), |job| {
            let index = grid.index(numbers[job]);
            let chunk = chunk_of(numbers[job])?;
            let mut slice = slices[job].lock().unwrap_or_else(PoisonError::into_inner);
            read_chunk(&array, directory, &index, chunk, &mut slice)?;
            Ok(chunk.bytes)
        })?;
        return Ok((tensor, bytes.iter().sum()));
    }
    let tensor = Mutex::new(tensor);
    let bytes = in_parallel(numbers.len(), |job| {
        let index = grid.index(numbers[job]);
        let chunk = chunk_of(numbers[job])?;
        let dims = grid.chunk.iter().map(|&size| size as i64);
        let mut elements = HostTensor::zeros(element_type, dims.collect::<Vec<_>>());
        read_chunk(&array, directory, &index, chunk, &mut elements.bytes)?;
        let (in_chunk, in_part) = common(&grid.ranges(&index), part);
        let elements = elements.part(&in_chunk);
        let mut tensor = tensor.lock().unwrap_or_else(PoisonError::into_inner);
        let copied = elements.and_then(|elements| tensor.set_part(&in_part, &elements));
        copied.map_err(|e| Fault::new(&chunk.file, e.to_string()))?;
        Ok(chunk.bytes)
    })?;
    let tensor = tensor.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((tensor, bytes.iter().sum()))
}

/// What a chunk and a part of an array have in common, counted from the beginning of each.
fn common(chunk: &[Range<u64>], part: &[Range<u64>]) -> (Vec<Range<i64>>, Vec<Range<i64>>) {
    let axes = chunk.iter().zip(part).map(|(chunk, part)| {
        let (start, end) = (chunk.start.max(part.start), chunk.end.min(part.end));
        let from = |origin: u64| (start - origin) as i64..(end - origin) as i64;
        (from(chunk.start), from(part.start))
    });
    axes.unzip()
}

/// The bytes of each chunk of a part in those of the part, where the part consists of whole chunks
/// that follow each other along its first dimension.
fn in_a_row<'t>(
    grid: &Grid,
    part: &[Range<u64>],
    bytes: &'t mut [u8],
) -> Option<std::slice::ChunksExactMut<'t, u8>> {
    let axes = part.iter().zip(&grid.chunk).enumerate();
    let fits = |(axis, (range, &chunk)): (usize, (&Range<u64>, &u64))| {
        let length = range.end - range.start;
        range.start.is_multiple_of(chunk)
            && length.is_multiple_of(chunk)
            && (axis == 0 || length == chunk)
    };
    let whole = !bytes.is_empty() && axes.into_iter().all(fits);
    whole.then(|| bytes.chunks_exact_mut(grid.chunk_bytes()))
}

/// Reads every byte of an array and keeps none.
pub(super) fn verify(
    directory: &Directory,
    record: &ArrayRecord,
    metadata: &[u8],
) -> Result<(), Fault> {
    let (array, grid, _) = open(record, metadata)?;
    record.numbered().try_for_each(|(number, chunk)| {
        let mut elements = vec![0; grid.chunk_bytes()];
        read_chunk(&array, directory, &grid.index(number), chunk, &mut elements)
    })
}

/// Whether all chunks are there that a part of an array lies in. `part` lies within the array.
pub(super) fn holds(
    record: &ArrayRecord,
    metadata: &[u8],
    part: &[Range<u64>],
) -> Result<bool, Fault> {
    if record.numbers.is_none() {
        return Ok(true);
    }
    let (_, grid, _) = open(record, metadata)?;
    let mut numbers = grid.overlapping(part).into_iter();
    Ok(numbers.all(|number| record.chunk(number).is_some()))
}

/// The bytes the codec appends to a chunk.
const CRC_BYTES: usize = 4;

type OpenArray = Array<MemoryStore>;

/// The array that its own file describes. What passed the checksum is what was written, so the
/// checks here are for a foreign writer's mistakes.
fn open(record: &ArrayRecord, metadata: &[u8]) -> Result<(OpenArray, Grid, ElementType), Fault> {
    let file = &record.metadata.file;
    let opened = || {
        let storage = Arc::new(MemoryStore::new());
        let key = StoreKey::new(file_of(&record.name)).map_err(|e| e.to_string())?;
        let set = storage.set(&key, metadata.to_vec().into());
        set.map_err(|e| e.to_string())?;
        Array::open(storage, &format!("/{}", record.name)).map_err(|e| e.to_string())
    };
    let array = opened().map_err(|problem| Fault::new(file, problem))?;
    let element_type = element_type(&record.data_type).ok_or_else(|| {
        Fault::new(
            super::commit::FILE,
            format!("unknown data type `{}`", record.data_type),
        )
    })?;
    if array.shape() != record.shape || array.data_type().name() != record.data_type {
        let found = format!("{} {:?}", array.data_type().name(), array.shape());
        return Err(Fault::new(
            file,
            format!(
                "expected {} {:?}, found {found}",
                record.data_type, record.shape
            ),
        ));
    }
    let chunk = array
        .chunk_shape(&vec![0; record.shape.len()])
        .map_err(|e| Fault::new(file, e.to_string()))?
        .iter()
        .map(|size| size.get())
        .collect();
    let grid = Grid {
        shape: record.shape.clone(),
        chunk,
        width: element_type.byte_width() as u64,
    };
    if !record.fits(grid.len()) {
        return Err(Fault::new(
            file,
            format!(
                "expected {} chunks, commit.json lists {}",
                grid.len(),
                record.chunks.len()
            ),
        ));
    }
    Ok((array, grid, element_type))
}

/// Reads the elements of a chunk, every byte checked.
fn read_chunk(
    array: &OpenArray,
    directory: &Directory,
    index: &[u64],
    record: &FileRecord,
    elements: &mut [u8],
) -> Result<(), Fault> {
    let fault = |problem: &str| Fault::new(&record.file, problem);
    if record.file != chunk_file(array, index) {
        return Err(Fault::new(
            super::commit::FILE,
            format!("it lists `{}` in the place of chunk {index:?}", record.file),
        ));
    }
    let expected = (elements.len() + CRC_BYTES) as u64;
    if record.bytes != expected {
        return Err(fault(&format!(
            "expected {expected} bytes, and commit.json lists {}",
            record.bytes
        )));
    }
    let mut own = [0; CRC_BYTES];
    directory.read_into(&record.file, &mut [&mut *elements, &mut own])?;
    let crc32c = Checksum::of(elements);
    if own != crc32c.to_le_bytes() {
        return Err(fault("its contents do not match its own checksum"));
    }
    match crc32c == record.crc32c {
        true => Ok(()),
        false => Err(fault(
            "its contents do not match the checksum in commit.json",
        )),
    }
}

fn chunk_file(array: &OpenArray, index: &[u64]) -> String {
    array.chunk_key(index).as_str().to_owned()
}

/// The elements of one chunk: a slice of the tensor where they lie together, a padded copy where
/// not.
fn elements<'t>(grid: &Grid, index: &[u64], bytes: &'t [u8]) -> Cow<'t, [u8]> {
    let mut runs = Vec::new();
    grid.runs(index, |in_array, in_chunk, length| {
        runs.push((in_array, in_chunk, length))
    });
    match runs[..] {
        [(in_array, _, length)] if length == grid.chunk_bytes() => {
            Cow::Borrowed(&bytes[in_array..in_array + length])
        }
        _ => {
            let mut chunk = vec![0; grid.chunk_bytes()];
            for (in_array, in_chunk, length) in runs {
                chunk[in_chunk..in_chunk + length]
                    .copy_from_slice(&bytes[in_array..in_array + length]);
            }
            Cow::Owned(chunk)
        }
    }
}
