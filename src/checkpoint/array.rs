//! One tensor as one Zarr array: data types, names, chunks out and in.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use ankh_pjrt::{ElementType, HostTensor};
use zarrs::array::codec::{CodecOptions, Crc32cCodec};
use zarrs::array::{Array, ArrayBuilder, ArrayMetadataOptions, FillValue};
use zarrs::filesystem::FilesystemStore;

use super::commit::{ArrayRecord, Checksum, FileRecord};
use super::error::{Error, Fault, Result};
use super::grid::{Grid, LIMIT};
use super::parallel::in_parallel;

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

/// Writes `tensor` as the array `name` of the checkpoint being written in `directory`.
pub(super) fn write(
    storage: &Arc<FilesystemStore>,
    directory: &Path,
    name: &str,
    tensor: &HostTensor,
) -> Result<ArrayRecord> {
    let failed = |problem: String| Error::Zarr {
        action: "write",
        name: name.to_owned(),
        checkpoint: directory.to_path_buf(),
        problem,
    };
    let refused = |problem: String| Error::Tensor {
        name: name.to_owned(),
        problem,
    };
    let data_type = DATA_TYPES
        .iter()
        .find_map(|(element, data_type)| (*element == tensor.element_type).then_some(*data_type))
        .ok_or_else(|| {
            refused(format!(
                "element type {:?} cannot be stored",
                tensor.element_type
            ))
        })?;
    let shape = tensor
        .dims
        .iter()
        .map(|&size| {
            u64::try_from(size).map_err(|_| refused(format!("dimension {size} is negative")))
        })
        .collect::<Result<Vec<u64>>>()?;
    let grid = Grid::leading(&shape, tensor.element_type.byte_width() as u64, LIMIT);
    if tensor.bytes.len() != grid.array_bytes() {
        return Err(refused(format!(
            "shape {shape:?} of {data_type} takes {} bytes, found {}",
            grid.array_bytes(),
            tensor.bytes.len()
        )));
    }

    let fill = FillValue::new(vec![0; grid.width as usize]);
    let array = ArrayBuilder::new(shape.clone(), grid.chunk.clone(), data_type, fill)
        .bytes_to_bytes_codecs(vec![Arc::new(Crc32cCodec::new())])
        .build(storage.clone(), &format!("/{name}"))
        .map_err(|e| failed(e.to_string()))?;
    array
        .store_metadata_opt(&ArrayMetadataOptions::default().with_include_zarrs_metadata(false))
        .map_err(|e| failed(e.to_string()))?;
    let file = format!("{name}/zarr.json");
    let text =
        std::fs::read(directory.join(&file)).map_err(Error::io("read", &directory.join(&file)))?;
    let metadata = FileRecord::of(file, &text);

    // A chunk of zeros is written like any other, so that a missing file is always a fault.
    let options = CodecOptions::builder().store_empty_chunks(true).build();
    let chunks = in_parallel(grid.len(), |number| {
        let index = grid.index(number);
        let elements = elements(&grid, &index, &tensor.bytes);
        let crc32c = Checksum::of(&elements);
        array
            .store_chunk_opt(&index, elements, &options)
            .map_err(|e| failed(e.to_string()))?;
        Ok(FileRecord {
            file: chunk_file(&array, &index),
            bytes: grid.chunk_bytes() as u64 + CRC_BYTES,
            crc32c,
        })
    })?;
    Ok(ArrayRecord {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        shape,
        metadata,
        chunks,
    })
}

/// Reads an array back, every byte checked.
pub(super) fn read(
    storage: &Arc<FilesystemStore>,
    directory: &Path,
    record: &ArrayRecord,
) -> Result<HostTensor, Fault> {
    let (array, grid, element_type) = open(storage, directory, record)?;
    let mut bytes = vec![0; grid.array_bytes()];
    for (number, chunk) in record.chunks.iter().enumerate() {
        let index = grid.index(number);
        let elements = read_chunk(&array, directory, &grid, &index, chunk)?;
        grid.runs(&index, |in_array, in_chunk, length| {
            bytes[in_array..in_array + length]
                .copy_from_slice(&elements[in_chunk..in_chunk + length]);
        });
    }
    let dims = record.shape.iter().map(|&size| size as i64).collect();
    Ok(HostTensor {
        element_type,
        dims,
        bytes,
    })
}

/// Reads every byte of an array and keeps none.
pub(super) fn verify(
    storage: &Arc<FilesystemStore>,
    directory: &Path,
    record: &ArrayRecord,
) -> Result<(), Fault> {
    let (array, grid, _) = open(storage, directory, record)?;
    record
        .chunks
        .iter()
        .enumerate()
        .try_for_each(|(number, chunk)| {
            read_chunk(&array, directory, &grid, &grid.index(number), chunk).map(drop)
        })
}

/// The bytes the codec appends to a chunk.
const CRC_BYTES: u64 = 4;

type OpenArray = Array<FilesystemStore>;

fn open(
    storage: &Arc<FilesystemStore>,
    directory: &Path,
    record: &ArrayRecord,
) -> Result<(OpenArray, Grid, ElementType), Fault> {
    let file = &record.metadata.file;
    // The file's own checksum comes first: what passes it is what was written, so the checks below
    // are for a foreign writer's mistakes.
    record.metadata.read(directory)?;
    let array = Array::open(storage.clone(), &format!("/{}", record.name))
        .map_err(|e| Fault::new(file, e.to_string()))?;
    let element_type = DATA_TYPES
        .iter()
        .find_map(|(element, data_type)| (*data_type == record.data_type).then_some(*element))
        .ok_or_else(|| {
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
    if record.chunks.len() != grid.len() {
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

fn read_chunk(
    array: &OpenArray,
    directory: &Path,
    grid: &Grid,
    index: &[u64],
    record: &FileRecord,
) -> Result<Vec<u8>, Fault> {
    let fault = |problem: String| Fault::new(&record.file, problem);
    if record.file != chunk_file(array, index) {
        return Err(Fault::new(
            super::commit::FILE,
            format!("it lists `{}` in the place of chunk {index:?}", record.file),
        ));
    }
    record.check_length(directory)?;
    let elements = array
        .retrieve_chunk_if_exists(index)
        .map_err(|e| fault(e.to_string()))?
        .ok_or_else(|| fault("it is missing".to_owned()))?
        .into_fixed()
        .map_err(|e| fault(e.to_string()))?
        .into_owned();
    if elements.len() != grid.chunk_bytes() {
        return Err(fault(format!(
            "expected {} bytes of elements, found {}",
            grid.chunk_bytes(),
            elements.len()
        )));
    }
    match Checksum::of(&elements) == record.crc32c {
        true => Ok(elements),
        false => Err(fault(
            "its contents do not match the checksum in commit.json".to_owned(),
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
