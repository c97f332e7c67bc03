//! Formats that are known and not read: what a file is, and what to do with it.
//!
//! A file is what its first bytes say. They are looked at as stored and, where they were
//! compressed, once more behind that. A mark of a few letters only counts where binary data
//! follows, so that no header of a table is taken for one.
//!
//! Arrow's own files are among them, though the library that reads them is here: it takes the sizes
//! that a file claims for its memory, and a damaged file would end the process.

use std::path::Path;

use crate::error::Error;

/// A format that is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// Where its mark stands, and the mark; `?` is any byte.
    mark: (usize, &'static [u8]),
    /// What it is.
    name: &'static str,
    /// What to do with it.
    advice: &'static str,
}

impl Unread {
    pub(super) fn error(&self, path: &Path) -> Error {
        Error::UnsupportedFormat {
            path: path.to_path_buf(),
            format: self.name,
            advice: self.advice,
        }
    }

    fn is(&self, text: &[u8]) -> bool {
        let (place, mark) = self.mark;
        let found = text.get(place..).unwrap_or_default();
        found.len() >= mark.len()
            && mark
                .iter()
                .zip(found)
                .all(|(mark, found)| *mark == b'?' || mark == found)
    }
}

const UNPACK: &str = "unpack it, and give the files of sequences in it";
const DECOMPRESS: &str = "decompress it first";
const TO_PARQUET: &str = "write the table as Parquet, as `pyarrow.parquet.write_table` does";
const TO_TABLE: &str = "write the sequences as FASTA, CSV or Parquet";
const TO_FASTA: &str = "get the sequences as FASTA";
const TO_UTF_8: &str = "turn it into UTF-8, as `iconv -f UTF-16 -t UTF-8` does";

const fn unread(
    place: usize,
    mark: &'static [u8],
    name: &'static str,
    advice: &'static str,
) -> Unread {
    Unread {
        mark: (place, mark),
        name,
        advice,
    }
}

/// Binary formats.
const BINARY: &[Unread] = &[
    // Archives, and what is one inside.
    unread(
        0,
        b"PK\x03\x04",
        "a zip archive (as .xlsx and .npz are, too)",
        UNPACK,
    ),
    unread(0, b"PK\x05\x06", "an empty zip archive", UNPACK),
    unread(257, b"ustar", "a tar archive", UNPACK),
    unread(0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    unread(0, b"Rar!\x1a\x07", "a rar archive", UNPACK),
    // Compression. The first three are read, but not inside of one another.
    unread(
        0,
        b"\x1f\x8b",
        "compressed by gzip inside of another compression",
        DECOMPRESS,
    ),
    unread(
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed by zstd inside of another compression",
        DECOMPRESS,
    ),
    unread(
        0,
        b"\xfd7zXZ\0",
        "compressed by xz inside of another compression",
        DECOMPRESS,
    ),
    unread(0, b"BZh?1AY", "compressed by bzip2", DECOMPRESS),
    unread(0, b"BZh?\x17\x72\x45", "compressed by bzip2", DECOMPRESS),
    unread(0, b"\x04\x22\x4d\x18", "compressed by lz4", DECOMPRESS),
    unread(0, b"\xff\x06\0\0sNaPpY", "compressed by snappy", DECOMPRESS),
    unread(0, b"LZIP\x01", "compressed by lzip", DECOMPRESS),
    unread(0, b"\x5d\0\0", "compressed by lzma", DECOMPRESS),
    unread(0, b"\x1f\x9d", "compressed by compress", DECOMPRESS),
    // Tables.
    unread(0, b"PAR1", "a compressed Parquet table", DECOMPRESS),
    unread(
        0,
        b"PARE",
        "an encrypted Parquet table",
        "write it without encryption",
    ),
    unread(0, b"ARROW1\0\0", "an Arrow file (Feather)", TO_PARQUET),
    unread(0, b"FEA1", "a Feather file", TO_PARQUET),
    unread(0, b"\xff\xff\xff\xff??\0\0", "an Arrow stream", TO_PARQUET),
    unread(0, b"ORC", "an ORC table", TO_PARQUET),
    unread(0, b"Obj\x01", "an Avro file", TO_PARQUET),
    unread(0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", TO_TABLE),
    unread(0, b"CDF\x01", "a NetCDF file", TO_TABLE),
    unread(0, b"CDF\x02", "a NetCDF file", TO_TABLE),
    unread(0, b"SQLite format 3\0", "an SQLite database", TO_TABLE),
    unread(8, b"DUCK", "a DuckDB database", TO_PARQUET),
    unread(16, b"\xde\xc0\xef\xbe", "an LMDB database", TO_TABLE),
    unread(0, b"\x93NUMPY", "a NumPy array", TO_TABLE),
    unread(0, b"\x80\x02", "a Python pickle", TO_TABLE),
    unread(0, b"\x80\x03", "a Python pickle", TO_TABLE),
    unread(0, b"\x80\x04\x95", "a Python pickle", TO_TABLE),
    unread(0, b"\x80\x05\x95", "a Python pickle", TO_TABLE),
    unread(
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Excel file",
        "save it as CSV",
    ),
    // Alignments of reads.
    unread(
        0,
        b"BAM\x01",
        "a BAM file, which holds nucleotides",
        TO_FASTA,
    ),
    unread(0, b"CRAM", "a CRAM file, which holds nucleotides", TO_FASTA),
    // Text of two bytes a letter.
    unread(0, b"\xff\xfe", "UTF-16 text", TO_UTF_8),
    unread(0, b"\xfe\xff", "UTF-16 text", TO_UTF_8),
];

/// Formats of text. That a file is none of those that are read must be known already.
const WORDS: &[Unread] = &[
    unread(
        0,
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer to a file elsewhere",
        "get the file itself with `git lfs pull`",
    ),
    unread(
        0,
        b"<",
        "XML or HTML",
        "look at what it says: it may be a failed download",
    ),
    unread(0, b"{", "JSON", TO_TABLE),
    unread(0, b"[", "JSON", TO_TABLE),
    unread(0, b"%PDF-", "a PDF document", TO_FASTA),
    unread(0, b"LOCUS ", "a GenBank file", TO_FASTA),
    unread(0, b"ID   ", "a flat file of UniProt or EMBL", TO_FASTA),
    unread(0, b"CLUSTAL", "a Clustal alignment", TO_FASTA),
    unread(0, b"HEADER ", "a PDB file", TO_FASTA),
    unread(0, b"data_", "an mmCIF file", TO_FASTA),
    unread(0, b"@", "FASTQ or SAM, which hold nucleotides", TO_FASTA),
];

/// The binary format that some first bytes are.
pub(super) fn by_magic(text: &[u8]) -> Option<&'static Unread> {
    // Bytes of 128 and more are letters of other alphabets.
    let binary = |&byte: &u8| byte < b' ' && !byte.is_ascii_whitespace();
    let has_binary = text.iter().take(512).any(binary);
    let clear = |unread: &Unread| {
        let mark = unread.mark.1;
        mark.len() > 6 || mark.iter().any(|byte| !byte.is_ascii())
    };
    let found = BINARY.iter().filter(|unread| unread.is(text));
    let mut found = found.filter(|unread| has_binary || clear(unread));
    found.next()
}

/// The text format that a text is, which must be none that is read.
pub(super) fn by_words(text: &[u8]) -> Option<&'static Unread> {
    WORDS.iter().find(|unread| unread.is(text))
}
