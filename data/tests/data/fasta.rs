use std::fs;
use std::io::Write;
use std::path::PathBuf;

use ankh_data::Error;
use ankh_data::prepare::input::Input;
use ankh_data::prepare::residues::LONGEST_SEQUENCE;
use ankh_storage::{Location, StorageOptions};
use proptest::prelude::*;

fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    // The name says nothing: what a file is, its bytes tell.
    let path = directory.path().join("sequences");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn open(path: &str) -> Result<Input, Error> {
    Input::open(&Location::parse(path).unwrap(), &StorageOptions::default())
}

/// Id, line and sequence of each record.
fn read(bytes: &[u8]) -> Result<Vec<(String, u64, String)>, Error> {
    let (_directory, path) = file(bytes);
    let (mut input, mut records) = (open(path.to_str().unwrap())?, vec![]);
    while let Some(block) = input.next_block()? {
        block.for_each(&mut |record| {
            let sequence = String::from_utf8_lossy(record.sequence).into_owned();
            assert_eq!(record.length, record.sequence.len());
            records.push((record.id.to_string(), record.line, sequence));
            Ok(())
        })?;
    }
    Ok(records)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(vec![], 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Text that does not compress well, so that its middle lies in the middle.
fn large() -> Vec<u8> {
    let sequences = crate::random_sequences(1, 2000, 100..200);
    let mut text = String::new();
    for (i, sequence) in sequences.iter().enumerate() {
        text += &format!(">id{i}\n{sequence}\n");
    }
    text.into_bytes()
}

#[test]
fn all_ways_of_writing_fasta_read_the_same() {
    let expected = vec![
        ("sp|P1|ONE_HUMAN".to_string(), 1, "MKLVAC".to_string()),
        ("two".to_string(), 4, "acde-*".to_string()),
    ];
    let unix = b">sp|P1|ONE_HUMAN the first\nMKL\nVAC\n>two\nacde-*\n";
    assert_eq!(read(unix).unwrap(), expected);
    let dos = b">sp|P1|ONE_HUMAN the first\r\nMKL\r\nVAC\r\n>two\r\nacde-*\r\n";
    assert_eq!(read(dos).unwrap(), expected);
    let open_end = b">sp|P1|ONE_HUMAN the first\nMKL\nVAC\n>two\nacde-*";
    assert_eq!(read(open_end).unwrap(), expected);
    let spaced = b">sp|P1|ONE_HUMAN the first\nMKL VAC\n\n>two\n acde-*  \n\n";
    assert_eq!(read(spaced).unwrap(), expected);
    let marked = b"\xef\xbb\xbf>sp|P1|ONE_HUMAN the first\n;a > b\nMKLVAC\n>two\nacde-*\n";
    assert_eq!(read(marked).unwrap(), expected);
    for compressed in [gzip(unix), zstd(unix), xz(unix)] {
        assert_eq!(read(&compressed).unwrap(), expected);
    }
    // Members and frames may follow one another, as `cat` and bgzip write them.
    let (one, two) = unix.split_at(20);
    assert_eq!(read(&[gzip(one), gzip(two)].concat()).unwrap(), expected);
    assert_eq!(read(&[zstd(one), zstd(two)].concat()).unwrap(), expected);
    assert_eq!(read(&[xz(one), xz(two)].concat()).unwrap(), expected);
}

#[test]
fn headers_without_id_or_sequence_are_records_too() {
    let records = read(b">\nMK\n>  text\nMK\n>empty\n>last\n").unwrap();
    let found: Vec<_> = records
        .iter()
        .map(|r| (r.0.as_str(), r.2.as_str()))
        .collect();
    let expected = [
        ("line1", "MK"),
        ("line3", "MK"),
        ("empty", ""),
        ("last", ""),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_empty_file_is_named() {
    let empties: [&[u8]; 3] = [b"", b"\n\r\n  \n", b"; only a comment\n"];
    for bytes in empties
        .iter()
        .map(|b| b.to_vec())
        .chain([gzip(b""), zstd(b""), xz(b"")])
    {
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, Error::EmptyFile { .. }), "{error}");
        assert!(error.to_string().contains("sequences is empty"), "{error}");
    }
}

#[test]
fn a_binary_file_is_named() {
    for bytes in [
        &b"\x7fELF\x02\x01\x01\0\0\0"[..],
        &[0; 100],
        b">id\nMKL\nMK\0L\n",
    ] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error, Error::Binary { .. }), "{error}");
    }
    let error = read(b">id\nMKL\nMK\0L\n").unwrap_err();
    assert!(error.to_string().contains("line 3: binary data"), "{error}");
}

#[test]
fn other_text_is_named_with_its_line() {
    let error = read(b"\n\nid,residues\n1,MKL\n").unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
    assert!(error.contains("found \"id,residues\""), "{error}");
    for (bytes, format) in [(&b"BZh91AY"[..], "bzip2"), (b"PK\x03\x04", "zip")] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(format), "{error}");
    }
}

#[test]
fn a_compressed_file_cut_short_is_named_with_the_last_line() {
    let text = large();
    for (compressed, format) in [
        (gzip(&text), "gzip"),
        (zstd(&text), "zstd"),
        (xz(&text), "xz"),
    ] {
        for keep in [compressed.len() / 2, compressed.len() - 1] {
            let error = read(&compressed[..keep]).unwrap_err();
            let message = error.to_string();
            match error {
                Error::Truncated { line, .. } => {
                    assert!(message.contains(format), "{message}");
                    assert!((1000..=4001).contains(&line), "{message}");
                }
                _ => panic!("{message}"),
            }
        }
    }
}

#[test]
fn no_part_of_a_compressed_file_passes_for_the_whole() {
    let text = b">one\nMKLVACDE\n>two\nACDEFGHIKL\n>three\nMNPQRSTVWY\n";
    for compressed in [gzip(text), zstd(text), xz(text)] {
        assert_eq!(read(&compressed).unwrap().len(), 3);
        for keep in 0..compressed.len() {
            assert!(read(&compressed[..keep]).is_err(), "{keep} bytes");
        }
    }
}

#[test]
fn a_sequence_without_end_takes_bounded_memory() {
    let mut text = b">bomb\n".to_vec();
    text.resize(LONGEST_SEQUENCE + 5006, b'A');
    text.extend(b"\n>next\nMKL\n");
    let (_directory, path) = file(&gzip(&text));
    let (mut input, mut records) = (open(path.to_str().unwrap()).unwrap(), vec![]);
    while let Some(block) = input.next_block().unwrap() {
        block
            .for_each(&mut |record| {
                let kept = record.sequence.len();
                records.push((record.id.to_string(), record.line, kept, record.length));
                Ok(())
            })
            .unwrap();
    }
    let expected = [
        ("bomb".into(), 1, LONGEST_SEQUENCE, LONGEST_SEQUENCE + 5000),
        ("next".into(), 3, 3, 3),
    ];
    assert_eq!(records, expected);
}

#[test]
fn a_damaged_compressed_file_is_named() {
    let text = large();
    for mut compressed in [gzip(&text), zstd(&text), xz(&text)] {
        // The checksum, or the content itself.
        let place = compressed.len() - 6;
        compressed[place] ^= 0x55;
        let error = read(&compressed).unwrap_err();
        let named = matches!(error, Error::Corrupt { .. } | Error::Truncated { .. });
        assert!(named, "{error}");
    }
}

#[test]
fn a_sequence_of_100_000_residues_is_read() {
    let sequence = crate::random_sequences(2, 1, 100_000..100_001).remove(0);
    let one_line = format!(">titin\n{sequence}\n");
    let records = read(one_line.as_bytes()).unwrap();
    assert_eq!(records, [("titin".into(), 1, sequence.clone())]);
    let mut wrapped = String::from(">titin\n");
    for line in sequence.as_bytes().chunks(60) {
        wrapped += std::str::from_utf8(line).unwrap();
        wrapped += "\n";
    }
    assert_eq!(read(wrapped.as_bytes()).unwrap(), records);
}

#[test]
fn a_missing_file_is_named() {
    let error = open("/nowhere/sequences.fasta").err().unwrap();
    let expected = "cannot open /nowhere/sequences.fasta: ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = read(&bytes);
        let _ = read(&[b">id\n", &bytes[..]].concat());
    }

    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(
        ("[a-zA-Z0-9|_]{1,12}", "[A-Z*.-]{0,200}", 1usize..80), 1..20
    )) {
        let (mut text, mut line, mut expected) = (String::new(), 1, vec![]);
        for (id, sequence, width) in records {
            text += &format!(">{id} description\n");
            expected.push((id, line, sequence.clone()));
            line += 1;
            for part in sequence.as_bytes().chunks(width) {
                text += &format!("{}\n", std::str::from_utf8(part).unwrap());
                line += 1;
            }
        }
        prop_assert_eq!(read(text.as_bytes()).unwrap(), expected);
    }
}
