//! Tables as other programs write them: pyarrow and pandas, in every form; and what is told of
//! files that are none.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use ankh_data::Error;
use ankh_data::format::ColumnNames;
use ankh_data::prepare::input::Input;
use ankh_storage::StorageOptions;

use crate::python::{python, workspace};

/// What `write_tables.py` wrote, once for all tests.
fn written() -> &'static Path {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tables");
        if directory.exists() {
            fs::remove_dir_all(&directory).unwrap();
        }
        let written = Command::new(python())
            .arg(workspace().join("tests/python/write_tables.py"))
            .arg(&directory)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&written.stderr);
        assert!(
            written.status.success(),
            "{said}\nis it the Python of `make target/servers/ready`?"
        );
        directory
    })
}

/// An id and its sequence.
type Record = (String, String);

fn read_with(path: &Path, columns: &ColumnNames) -> Result<Vec<Record>, Error> {
    let storage = StorageOptions::default();
    let mut input = Input::open_with(&path.into(), &storage, columns)?;
    let mut records = vec![];
    while let Some(block) = input.next_block()? {
        block.for_each(&mut |record| {
            assert!(!record.id.is_empty());
            let sequence = String::from_utf8(record.sequence.to_vec()).unwrap();
            records.push((record.id.to_string(), sequence));
            Ok(())
        })?;
    }
    Ok(records)
}

fn read(path: &Path) -> Result<Vec<Record>, Error> {
    read_with(path, &ColumnNames::default())
}

/// Why a file of this content is refused.
fn refusal(content: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    read(file.path()).unwrap_err().to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn expected() -> Vec<Record> {
    let text = fs::read_to_string(written().join("expected.tsv")).unwrap();
    let lines = text.lines().map(|line| line.split_once('\t').unwrap());
    lines.map(|(id, s)| (id.into(), s.into())).collect()
}

#[test]
fn tables_of_pyarrow_and_pandas_are_read_in_every_codec_and_type() {
    let expected = expected();
    assert_eq!(expected.len(), 1500);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(written().join("tables")).unwrap() {
        let path = entry.unwrap().path();
        let found = read(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(found == expected, "{}", path.display());
        names.insert(path.file_name().unwrap().to_str().unwrap().to_string());
    }
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"] {
        assert!(names.contains(&format!("{codec}.parquet")), "{names:?}");
        assert!(names.contains(&format!("{codec}_v2.parquet")), "{names:?}");
    }
    assert!(names.len() >= 36, "{names:?}");
}

#[test]
fn ids_may_be_numbers_and_what_has_none_is_named_by_its_row() {
    let ids = |name: &str| -> Vec<String> {
        let path = written().join("ids").join(format!("{name}.parquet"));
        let records = read(&path).unwrap_or_else(|error| panic!("{error}"));
        let (ids, sequences): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        assert_eq!(sequences, ["MKL", "MKV", "MKA", "MKC"], "{name}");
        ids
    };
    for signed in ["int8", "int16", "int32"] {
        assert_eq!(ids(signed), ["7", "row2", "-3", "99"], "{signed}");
    }
    for unsigned in ["uint8", "uint16", "uint32", "uint64"] {
        assert_eq!(ids(unsigned), ["7", "row2", "99", "99"], "{unsigned}");
    }
    assert_eq!(ids("int64"), ["7", "row2", "-3", "99"]);
    for wide in ["decimal", "pandas_float"] {
        assert_eq!(ids(wide), ["7", "row2", "-3", "12345678"], "{wide}");
    }
    for text in ["text", "blank", "category", "large"] {
        assert_eq!(ids(text), ["a", "row2", "row3", "d"], "{text}");
    }
    // Nothing that could be an id.
    for other in ["nulls", "dates", "lists"] {
        assert_eq!(ids(other), ["row1", "row2", "row3", "row4"], "{other}");
    }
    assert_eq!(ids("number_and_text"), ["P1", "P2", "P3", "P4"]);
    let hex = ids("fixed");
    assert_eq!((hex[0].as_str(), hex[3].len()), (&*"c8".repeat(16), 32));
}

#[test]
fn a_column_of_another_name_is_read_where_it_is_named() {
    let names = |sequence: Option<&str>, id: Option<&str>| ColumnNames {
        sequence: sequence.map(String::from),
        id: id.map(String::from),
    };
    let table = written().join("refused/peptide.parquet");
    let message = read(&table).unwrap_err().to_string();
    for words in [
        "expected a text column `sequence`",
        "found the columns id (Utf8), peptide (Utf8)",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let peptide = names(Some("Peptide"), None);
    assert_eq!(read_with(&table, &peptide).unwrap(), expected());
    let message = read_with(&table, &names(Some("peptid"), None))
        .unwrap_err()
        .to_string();
    let words = "expected a column `peptid`, found the columns id (Utf8), peptide (Utf8)";
    assert!(message.ends_with(words), "{message}");

    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = directory.path().join("table");
        fs::write(&path, text).unwrap();
        path
    };
    let records = |rows: &[(&str, &str)]| -> Vec<Record> {
        rows.iter()
            .map(|(id, s)| (id.to_string(), s.to_string()))
            .collect()
    };
    for delimiter in [",", "\t", ";"] {
        let text = "key,sequence,peptide\na,wrong,MKL\nb,wrong,MKV\n".replace(',', delimiter);
        let path = write(&text);
        let both = names(Some("peptide"), Some("key"));
        let found = read_with(&path, &both).unwrap();
        assert_eq!(found, records(&[("a", "MKL"), ("b", "MKV")]));
        let message = read_with(&path, &names(Some("pep"), None))
            .unwrap_err()
            .to_string();
        let words = "expected a column `pep`, found the columns key, sequence, peptide";
        assert!(message.ends_with(words), "{message}");
        let message = read_with(&path, &names(None, Some("ky")))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("expected a column `ky` of ids"),
            "{message}"
        );
    }
    // A column alone, and one whose name is a word of the other role.
    let alone = write("peptide\nMKL\n");
    assert_eq!(
        read_with(&alone, &peptide).unwrap(),
        records(&[("row1", "MKL")])
    );
    let name = write("name,label\nMKL,x\n");
    let found = read_with(&name, &names(Some("name"), None)).unwrap();
    assert_eq!(found, records(&[("row1", "MKL")]));
    let given = std::io::Cursor::new("peptide\nMKL\n");
    let mut given = Input::from_reader_with("given", Box::new(given), &peptide).unwrap();
    assert_eq!(given.next_block().unwrap().unwrap().records(), 1);
    // FASTA has no columns, and is read beside tables all the same.
    let fasta = write(">a peptide\nMKL\n");
    assert_eq!(
        read_with(&fasta, &peptide).unwrap(),
        records(&[("a", "MKL")])
    );
}

#[test]
fn a_column_of_another_type_is_told_with_its_type() {
    for (name, kind) in [
        ("numbers", "sequence (Int64)"),
        ("lists", "sequence (List("),
    ] {
        let table = written().join(format!("refused/{name}.parquet"));
        let message = read(&table).unwrap_err().to_string();
        for words in [
            "expected text in the column `sequence`",
            "columns id (Utf8), ",
            kind,
        ] {
            assert!(message.contains(words), "{message}");
        }
        let id = ColumnNames {
            sequence: Some("id".into()),
            id: Some("sequence".into()),
        };
        match name {
            // Integers are ids, lists are not.
            "numbers" => assert_eq!(read_with(&table, &id).unwrap()[7].0, "7"),
            _ => {
                let message = read_with(&table, &id).unwrap_err().to_string();
                let words = "expected text or numbers in the column `sequence`";
                assert!(message.contains(words), "{message}");
            }
        }
    }
}

#[test]
fn other_formats_are_named_and_what_to_do_with_them() {
    let refused = |name: &str| {
        let path = written().join("refused").join(name);
        read(&path).unwrap_err().to_string()
    };
    let told = |message: String, words: &[&str]| {
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
        assert!(!message.contains("binary data"), "{message}");
    };
    told(
        refused("lz4.feather"),
        &["an Arrow file (Feather)", "write the table as Parquet"],
    );
    told(
        refused("stream.arrow"),
        &["an Arrow stream", "write the table as Parquet"],
    );
    told(
        refused("table.orc"),
        &["an ORC table", "write the table as Parquet"],
    );
    told(
        refused("encrypted.parquet"),
        &["an encrypted Parquet table", "without encryption"],
    );
    told(
        refused("encrypted_column.parquet"),
        &["what follows row 0 cannot be decoded", "or encrypted"],
    );

    // A tar archive has its mark behind the name of its first file.
    let mut tar = [&b"proteins.fasta"[..], &[0; 243], b"ustar\x0000"].concat();
    tar.resize(1024, 0);
    let unpack = "unpack it, and give the files of sequences in it";
    told(
        refusal(&tar),
        &["is a tar archive, which is not read", unpack, "FASTA"],
    );
    told(
        refusal(&gzip(&tar)),
        &["is a tar archive, which is not read", unpack],
    );
    let parquet = fs::read(written().join("tables/default.parquet")).unwrap();
    let marks: [(&[u8], &str, &str); 16] = [
        (b"PK\x03\x04\x14\0\0\0\x08\0", "a zip archive", unpack),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive", unpack),
        (b"Rar!\x1a\x07\x01\0", "a rar archive", unpack),
        (
            b"BZh91AY&SY\0\0",
            "compressed by bzip2",
            "decompress it first",
        ),
        (
            &gzip(&gzip(b">a\nMKL\n")),
            "gzip inside of another",
            "decompress it first",
        ),
        (
            &gzip(&parquet),
            "a compressed Parquet table",
            "decompress it first",
        ),
        (
            b"\x04\x22\x4d\x18\x64\x40\xa7",
            "compressed by lz4",
            "decompress it first",
        ),
        (
            b"\xff\x06\0\0sNaPpY\x01",
            "compressed by snappy",
            "decompress it first",
        ),
        (b"FEA1\0\0\0\0", "a Feather file", "as Parquet"),
        (b"Obj\x01\x04\x14avro.codec", "an Avro file", "as Parquet"),
        (
            b"\x89HDF\r\n\x1a\n\0\0",
            "an HDF5 file",
            "write the sequences as",
        ),
        (
            b"SQLite format 3\0\x10\0",
            "an SQLite database",
            "write the sequences as",
        ),
        (
            b"\x93NUMPY\x01\0v\0",
            "a NumPy array",
            "write the sequences as",
        ),
        (
            b"\x80\x04\x95\x10\0\0",
            "a Python pickle",
            "write the sequences as",
        ),
        (
            b"\xff\xfe>\0a\0\n\0M\0",
            "UTF-16 text",
            "iconv -f UTF-16 -t UTF-8",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "an old Excel file",
            "save it as CSV",
        ),
    ];
    for (content, name, advice) in marks {
        told(refusal(content), &[name, advice]);
    }
    let texts = [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer",
        ),
        (
            "<!DOCTYPE html>\n<html><body>404</body></html>\n",
            "a failed download",
        ),
        ("{\"id\": \"a\", \"sequence\": \"MKL\"}\n", "is JSON"),
        (
            "ID   1A1_HUMAN\nSQ   SEQUENCE   3 AA;\n",
            "a flat file of UniProt",
        ),
        ("LOCUS       AAA 3 aa\n", "a GenBank file"),
    ];
    for (content, name) in texts {
        told(refusal(content.as_bytes()), &[name]);
        told(refusal(&gzip(content.as_bytes())), &[name]);
    }
}

/// A mark made of letters is none where text follows.
#[test]
fn a_table_may_begin_with_the_letters_of_a_format() {
    let directory = tempfile::tempdir().unwrap();
    for mark in [
        "ORC",
        "CRAM",
        "FEA1",
        "ARROW1",
        "DUCKDUCKDUCK",
        "ID   ",
        "data_",
        "@",
    ] {
        let path = directory.path().join("table.csv");
        fs::write(&path, format!("{mark},sequence\nx,MKL\n")).unwrap();
        assert_eq!(read(&path).unwrap()[0].1, "MKL");
    }
}
