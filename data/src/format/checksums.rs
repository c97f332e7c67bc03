//! Checksums of the parts of a Parquet file, so that a reader of a few pages need not read the file
//! to trust them.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, PartsFault, Result, StructureFault};

/// The columns of prepared data, in order.
pub(crate) const COLUMNS: [&str; 3] = ["id", "tokens", "length"];
const TOKENS: usize = 1;
const LENGTHS: usize = 2;

/// What verifies parts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartChecksums {
    /// The end of the file: page indexes and footer.
    pub footer: Footer,
    /// The row groups, in order.
    pub groups: Vec<GroupInfo>,
}

/// The end of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Its size.
    pub bytes: u64,
    /// Its checksum.
    pub crc32c: u32,
}

/// One row group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its rows.
    pub rows: u64,
    /// The CRC-32C of all bytes of its column `length`.
    pub lengths: u32,
    /// The pages of its column `tokens`, in order.
    pub pages: Vec<PageInfo>,
}

/// One page of tokens, written as `[rows, crc32c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32)", into = "(u64, u32)")]
pub struct PageInfo {
    /// Its rows.
    pub rows: u64,
    /// The CRC-32C of its bytes, header and content.
    pub crc32c: u32,
}

impl From<(u64, u32)> for PageInfo {
    fn from((rows, crc32c): (u64, u32)) -> Self {
        PageInfo { rows, crc32c }
    }
}

impl From<PageInfo> for (u64, u32) {
    fn from(page: PageInfo) -> Self {
        (page.rows, page.crc32c)
    }
}

impl PartChecksums {
    /// The checksums of a finished file of prepared data, read from disk.
    pub fn of(path: &Path) -> Result<PartChecksums> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("look at", path))?.len();
        let metadata =
            ArrowReaderMetadata::load(&file, with_pages()).map_err(Error::parquet(path))?;
        let offsets =
            FileOffsets::of(metadata.metadata(), size).map_err(Error::wrong_structure(path))?;
        let mut buffer = Vec::new();
        let mut crc32c = |range: &Range<u64>| -> Result<u32> {
            // A range of the file that was just written, so its size fits.
            buffer.resize((range.end - range.start) as usize, 0);
            file.read_exact_at(&mut buffer, range.start)
                .map_err(Error::io("read", path))?;
            Ok(crc32c::crc32c(&buffer))
        };
        let footer = Footer {
            bytes: offsets.footer.end - offsets.footer.start,
            crc32c: crc32c(&offsets.footer)?,
        };
        let mut groups = Vec::new();
        for group in &offsets.groups {
            let lengths = crc32c(&group.lengths)?;
            let pages = group.pages.iter().map(|page| {
                Ok(PageInfo {
                    rows: page.rows,
                    crc32c: crc32c(&page.bytes)?,
                })
            });
            groups.push(GroupInfo {
                rows: group.rows,
                lengths,
                pages: pages.collect::<Result<_>>()?,
            });
        }
        Ok(PartChecksums { footer, groups })
    }

    /// Whether the pieces are those of a file of so many rows and bytes; else what is wrong.
    pub(super) fn check(&self, rows: u64, bytes: u64) -> std::result::Result<(), PartsFault> {
        let sum = |mut rows: Box<dyn Iterator<Item = u64> + '_>| {
            rows.try_fold(0u64, |sum, rows| sum.checked_add(rows))
        };
        if sum(Box::new(self.groups.iter().map(|group| group.rows))) != Some(rows) {
            return Err(PartsFault::Groups { rows });
        }
        for (i, group) in self.groups.iter().enumerate() {
            if sum(Box::new(group.pages.iter().map(|page| page.rows))) != Some(group.rows) {
                let rows = group.rows;
                return Err(PartsFault::Pages { group: i, rows });
            }
        }
        match self.footer.bytes <= bytes {
            true => Ok(()),
            false => Err(PartsFault::Footer { bytes }),
        }
    }
}

/// Asks for the places of pages along with the footer.
pub(crate) fn with_pages() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required)
}

/// Where the parts of a file lie.
pub(crate) struct FileOffsets {
    pub footer: Range<u64>,
    pub groups: Vec<GroupOffsets>,
}

/// Where the parts of a row group lie.
pub(crate) struct GroupOffsets {
    pub rows: u64,
    pub lengths: Range<u64>,
    pub pages: Vec<PageOffset>,
}

/// Where a page of tokens lies.
pub(crate) struct PageOffset {
    pub rows: u64,
    pub bytes: Range<u64>,
}

impl FileOffsets {
    /// Reads the places off a file's metadata; else says what is missing there.
    pub(crate) fn of(
        metadata: &ParquetMetaData,
        size: u64,
    ) -> std::result::Result<FileOffsets, StructureFault> {
        let mut end = 4; // behind the magic number
        let mut groups = Vec::new();
        for (i, group) in metadata.row_groups().iter().enumerate() {
            let columns = group.columns();
            let names = columns.iter().map(|column| column.column_path().string());
            if !names.eq(COLUMNS) {
                return Err(StructureFault::Columns);
            }
            for column in columns {
                end = end.max(bytes_of(column)?.end);
            }
            let rows =
                u64::try_from(group.num_rows()).map_err(|_| StructureFault::NegativeCount)?;
            let index = metadata.page_index_for_row_group(i);
            let locations = index
                .page_locations(TOKENS)
                .ok_or(StructureFault::NoPageIndex)?;
            let ends = locations.iter().skip(1).map(|next| next.first_row_index);
            let pages = locations.iter().zip(ends.chain([group.num_rows()]));
            let pages = pages.map(|(page, end)| {
                let rows = end.checked_sub(page.first_row_index);
                let rows = rows.and_then(|rows| u64::try_from(rows).ok());
                Ok(PageOffset {
                    rows: rows.ok_or(StructureFault::PageOrder)?,
                    bytes: range(page.offset, i64::from(page.compressed_page_size))?,
                })
            });
            groups.push(GroupOffsets {
                rows,
                lengths: bytes_of(&columns[LENGTHS])?,
                pages: pages.collect::<std::result::Result<_, StructureFault>>()?,
            });
        }
        let within = |range: &Range<u64>| range.end <= size;
        let all = groups.iter().all(|group| {
            within(&group.lengths) && group.pages.iter().all(|page| within(&page.bytes))
        });
        match all && end <= size {
            true => Ok(FileOffsets {
                footer: end..size,
                groups,
            }),
            false => Err(StructureFault::TooShort),
        }
    }
}

fn bytes_of(column: &ColumnChunkMetaData) -> std::result::Result<Range<u64>, StructureFault> {
    let start = column
        .dictionary_page_offset()
        .unwrap_or(column.data_page_offset());
    range(start, column.compressed_size())
}

fn range(start: i64, length: i64) -> std::result::Result<Range<u64>, StructureFault> {
    match (u64::try_from(start), u64::try_from(length)) {
        (Ok(start), Ok(length)) => Ok(start..start + length), // two positive i64 do not overflow
        _ => Err(StructureFault::NegativeOffset),
    }
}
