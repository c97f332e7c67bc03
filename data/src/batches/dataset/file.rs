//! One Parquet file of prepared data: read whole, or a few pages of it. Nothing is given out that
//! was not verified against the manifest.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

use ankh_storage::Storage;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, BinaryArray, RecordBatch};
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::row_decoder::RowDecoder;
use crate::error::{Error, ManifestFault, Result, StructureFault};
use crate::format::{Amount, COLUMNS, FileInfo, FileOffsets, sha256, with_pages};
use crate::tokenizer::Tokenizer;

/// A file that the manifest lists.
pub(super) struct ListedFile<'a> {
    pub storage: &'a Storage,
    pub info: &'a FileInfo,
    pub tokenizer: Tokenizer,
}

impl ListedFile<'_> {
    /// Reads the whole file into `tokens`, which has room for exactly its residues, and gives the
    /// length of each row. The bytes are read once, so what is decoded is what was verified.
    pub fn read(&self, tokens: &mut [u8]) -> Result<Vec<u32>> {
        let bytes = self.storage.read(&self.info.path)?;
        let found = sha256(&bytes);
        if found != self.info.sha256 {
            return Err(Error::Checksum {
                path: self.path(),
                part: self.damaged_part(&bytes),
                expected: self.info.sha256.clone(),
                found,
            });
        }
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(self.not_parquet())?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), COLUMNS[1..].to_vec());
        let reader = builder.with_projection(columns).build();
        let mut rows = RowDecoder::new(self.path(), self.tokenizer, tokens);
        for batch in reader.map_err(self.not_parquet())? {
            let batch = batch.map_err(|error| Error::parquet(&self.path())(error.into()))?;
            rows.append(&batch)?;
        }
        let (lengths, found) = rows.finish();
        self.check(found)?;
        Ok(lengths)
    }

    /// Opens the file for reading parts of it, and reads the length of each row.
    pub fn open(&self) -> Result<(PagedFile, Vec<u32>)> {
        let FileInfo {
            path,
            bytes,
            checksums,
            ..
        } = self.info;
        let tail = bytes - checksums.footer.bytes..*bytes; // checked when the manifest was read
        let footer = self.storage.read_range(path, tail.clone())?;
        if crc32c::crc32c(&footer) != checksums.footer.crc32c {
            return Err(self.damaged("its footer does not fit its checksum"));
        }
        let mut parts = FileParts::new(*bytes);
        parts.add(tail.start, footer);
        let metadata =
            ArrowReaderMetadata::load(&parts, with_pages()).map_err(self.not_parquet())?;
        let offsets = self.offsets(&metadata)?;
        let ranges: Vec<Range<u64>> = offsets.groups.iter().map(|g| g.lengths.clone()).collect();
        let chunks = self.storage.read_ranges(path, &ranges)?;
        for (i, (chunk, group)) in chunks.into_iter().zip(&checksums.groups).enumerate() {
            if crc32c::crc32c(&chunk) != group.lengths {
                return Err(self.damaged(format!(
                    "row group {i}, the column `length`, does not fit its checksum"
                )));
            }
            parts.add(ranges[i].start, chunk);
        }
        let file = PagedFile {
            storage: self.storage.clone(),
            info: self.info.clone(),
            metadata,
            offsets,
            tokenizer: self.tokenizer,
        };
        let lengths = self.lengths(&file.metadata, parts)?;
        Ok((file, lengths))
    }

    fn lengths(&self, metadata: &ArrowReaderMetadata, parts: FileParts) -> Result<Vec<u32>> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata.clone());
        let columns = ProjectionMask::columns(builder.parquet_schema(), [COLUMNS[2]]);
        let reader = builder.with_projection(columns).build();
        let mut lengths = Vec::new();
        for batch in reader.map_err(self.not_parquet())? {
            let batch = batch.map_err(|error| Error::parquet(&self.path())(error.into()))?;
            let column = batch.column(0).as_primitive_opt::<UInt32Type>();
            let column = column.filter(|column| column.null_count() == 0);
            let column = column
                .ok_or_else(|| Error::wrong_structure(&self.path())(StructureFault::NoLengths))?;
            lengths.extend_from_slice(column.values());
        }
        self.check(Amount {
            rows: lengths.len() as u64,
            residues: lengths.iter().map(|&length| u64::from(length)).sum(),
        })?;
        Ok(lengths)
    }

    /// Where the parts lie, if they are those that the manifest has checksums of.
    fn offsets(&self, metadata: &ArrowReaderMetadata) -> Result<FileOffsets> {
        let offsets = FileOffsets::of(metadata.metadata(), self.info.bytes)
            .map_err(Error::wrong_structure(&self.path()))?;
        let groups = &self.info.checksums.groups;
        let same = offsets.groups.len() == groups.len()
            && offsets.groups.iter().zip(groups).all(|(place, listed)| {
                let rows = place.pages.iter().map(|page| page.rows);
                place.rows == listed.rows && rows.eq(listed.pages.iter().map(|page| page.rows))
            });
        match same {
            true => Ok(offsets),
            false => Err(self.contradicts(ManifestFault::OtherParts)),
        }
    }

    fn check(&self, found: Amount) -> Result<()> {
        let said = self.info;
        match found.rows == said.rows && found.residues == said.residues {
            true => Ok(()),
            false => Err(self.contradicts(ManifestFault::OtherAmount {
                rows: found.rows,
                residues: found.residues,
                listed_rows: said.rows,
                listed_residues: said.residues,
            })),
        }
    }

    /// Which part of a damaged file its checksums do not fit.
    fn damaged_part(&self, bytes: &Bytes) -> String {
        let FileInfo {
            bytes: size,
            checksums,
            ..
        } = self.info;
        if bytes.len() as u64 != *size {
            return format!("it has {} bytes of {size}", bytes.len());
        }
        let part =
            |range: &Range<u64>| crc32c::crc32c(&bytes[range.start as usize..range.end as usize]);
        if part(&(size - checksums.footer.bytes..*size)) != checksums.footer.crc32c {
            return "in its footer".into();
        }
        let metadata = ArrowReaderMetadata::load(bytes, with_pages());
        let offsets = metadata
            .ok()
            .and_then(|metadata| self.offsets(&metadata).ok());
        for (i, (place, listed)) in offsets
            .iter()
            .flat_map(|p| p.groups.iter().zip(&checksums.groups))
            .enumerate()
        {
            if part(&place.lengths) != listed.lengths {
                return format!("in row group {i}, the column `length`");
            }
            let mut pages = place.pages.iter().zip(&listed.pages);
            if let Some(page) = pages.position(|(place, page)| part(&place.bytes) != page.crc32c) {
                return format!("in row group {i}, page {page} of the column `tokens`");
            }
        }
        "outside the columns that are read".into()
    }

    fn path(&self) -> PathBuf {
        path_of(self.storage, self.info)
    }

    fn not_parquet(&self) -> impl FnOnce(ParquetError) -> Error {
        let path = self.path();
        move |error| Error::parquet(&path)(error)
    }

    fn damaged(&self, part: impl Into<String>) -> Error {
        Error::Damaged {
            path: self.path(),
            part: part.into(),
        }
    }

    fn contradicts(&self, fault: ManifestFault) -> Error {
        Error::Manifest {
            path: self.path(),
            fault,
        }
    }
}

/// A file's name for messages.
fn path_of(storage: &Storage, info: &FileInfo) -> PathBuf {
    PathBuf::from(storage.location(&info.path).to_string())
}

/// A file that is read page by page.
pub(super) struct PagedFile {
    storage: Storage,
    info: FileInfo,
    metadata: ArrowReaderMetadata,
    offsets: FileOffsets,
    tokenizer: Tokenizer,
}

/// A page of a file: number `page` of the tokens of row group `group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageId {
    pub group: u32,
    pub page: u32,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageId { group, page } = self;
        write!(f, "row group {group}, page {page} of the column `tokens`")
    }
}

impl PagedFile {
    /// The pages and their numbers of rows, in order.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, u64)> {
        let groups = (0u32..).zip(&self.offsets.groups);
        groups.flat_map(|(group, offsets)| {
            let pages = (0u32..).zip(&offsets.pages);
            pages.map(move |(page, place)| (PageId { group, page }, place.rows))
        })
    }

    /// The rows of some pages, page by page. `lengths` says for each page how long its rows are.
    pub fn read(&self, pages: &[PageId], lengths: &[&[u32]]) -> Result<Vec<BinaryArray>> {
        let place =
            |page: &PageId| &self.offsets.groups[page.group as usize].pages[page.page as usize];
        let ranges: Vec<Range<u64>> = pages.iter().map(|page| place(page).bytes.clone()).collect();
        let chunks = self.storage.read_ranges(&self.info.path, &ranges)?;
        let parts = pages.iter().zip(chunks).zip(lengths);
        parts
            .map(|((&page, bytes), lengths)| self.decode(page, bytes, lengths))
            .collect()
    }

    /// The rows of a page, given its bytes and how long its rows are.
    fn decode(&self, page: PageId, bytes: Bytes, lengths: &[u32]) -> Result<BinaryArray> {
        let damaged = |what: &str| Error::Damaged {
            path: path_of(&self.storage, &self.info),
            part: format!("{page}{what}"),
        };
        let (group, number) = (page.group as usize, page.page as usize);
        let listed = &self.info.checksums.groups[group].pages[number];
        if crc32c::crc32c(&bytes) != listed.crc32c {
            return Err(damaged(" does not fit its checksum"));
        }
        let offsets = &self.offsets.groups[group];
        let before: u64 = offsets.pages[..number].iter().map(|page| page.rows).sum();
        let mut parts = FileParts::new(self.info.bytes);
        parts.add(offsets.pages[number].bytes.start, bytes);
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(parts, self.metadata.clone());
        let columns = ProjectionMask::columns(builder.parquet_schema(), [COLUMNS[1]]);
        // Row numbers of one file fit a machine word.
        let selection = RowSelection::from(vec![
            RowSelector::skip(before as usize),
            RowSelector::select(listed.rows as usize),
        ]);
        let mut reader = builder
            .with_row_groups(vec![group])
            .with_projection(columns)
            .with_row_selection(selection)
            .with_batch_size(listed.rows as usize)
            .build()
            .map_err(|error| damaged(&format!(": {error}")))?;
        let batch: RecordBatch = match reader.next() {
            Some(batch) => batch.map_err(|error| damaged(&format!(": {error}")))?,
            None => return Err(damaged(": it has no rows")),
        };
        let column = batch.column(0).as_binary_opt::<i32>();
        let column = column.filter(|column| column.null_count() == 0);
        let column = column.ok_or_else(|| damaged(": its rows are not bytes"))?;
        let found = column.offsets().lengths();
        if !found.eq(lengths.iter().map(|&length| length as usize)) {
            return Err(damaged(
                ": its rows have other lengths than the column `length` says",
            ));
        }
        let residues = column.value_data();
        match residues
            .iter()
            .find(|&&id| self.tokenizer.residue(id).is_none())
        {
            Some(id) => Err(damaged(&format!(
                ": it holds the token {id}, which is no residue"
            ))),
            None => Ok(column.clone()),
        }
    }
}

/// Some parts of a file, each where it lies: what a Parquet reader may ask for.
struct FileParts {
    size: u64,
    parts: Vec<(u64, Bytes)>,
}

impl FileParts {
    fn new(size: u64) -> FileParts {
        let parts = Vec::new();
        FileParts { size, parts }
    }

    fn add(&mut self, start: u64, bytes: Bytes) {
        self.parts.push((start, bytes));
    }

    /// What is there from a place on.
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let found = self.parts.iter().find_map(|(first, bytes)| {
            let skip = usize::try_from(start.checked_sub(*first)?).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        });
        found.ok_or_else(|| {
            let reason = format!("byte {start} is outside the parts that were read");
            ParquetError::External(Box::new(io::Error::other(reason)))
        })
    }
}

impl Length for FileParts {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for FileParts {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(Box::new(self.from(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF(format!(
                "expected {length} bytes from {start} on"
            ))),
        }
    }
}
