//! Every way in which records come into the crate, and that it makes no difference.

use std::io::{self, Read, Write};
use std::sync::Arc;

use ankh_data::prepare::input::{Input, RecordRef};
use ankh_data::prepare::residues::{LengthLimits, tokenize};
use ankh_data::synthetic::Records;
use ankh_data::{Error, Tokenizer};
use ankh_storage::{Location, StorageOptions};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, LargeStringArray, RecordBatch, StringArray};
use arrow_array::{DictionaryArray, StringViewArray, types::Int32Type};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// A record, kept.
type Kept = (String, u64, Vec<u8>, usize);

fn kept(record: RecordRef<'_>) -> Kept {
    let RecordRef {
        id,
        line,
        sequence,
        length,
        fault: _,
    } = record;
    (id.to_string(), line, sequence.to_vec(), length)
}

fn drain(input: &mut Input) -> Result<Vec<Kept>, Error> {
    let mut records = vec![];
    while let Some(block) = input.next_block()? {
        let before = records.len() as u64;
        block.for_each(&mut |record| {
            records.push(kept(record));
            Ok(())
        })?;
        assert_eq!(records.len() as u64 - before, block.records());
        assert!(block.records() > 0);
    }
    Ok(records)
}

/// Gives at most `most` bytes at once.
struct Dripping(io::Cursor<Vec<u8>>, usize);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.1);
        self.0.read(&mut buffer[..count])
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Kept>, Error> {
    let reader = io::Cursor::new(bytes.to_vec());
    drain(&mut Input::from_reader("input", Box::new(reader))?)
}

fn read_in_pieces(bytes: &[u8], most: usize, block: usize) -> Result<Vec<Kept>, Error> {
    let reader = Dripping(io::Cursor::new(bytes.to_vec()), most);
    let input = Input::from_reader("input", Box::new(reader))?;
    drain(&mut input.with_block_bytes(block))
}

fn error(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn table(columns: Vec<(&str, ArrayRef)>, rows_of_a_group: usize) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_of_a_group))
        .build();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Made-up records: FASTA with all that FASTA may hold, and what is in it.
fn hostile_fasta() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[A-Z]{0,70}".prop_map(String::into_bytes),
        2 => "[A-Z >;.*\t-]{0,20}".prop_map(String::into_bytes),
        3 => ">[a-zA-Z0-9|_> \u{e9}\u{a0}]{0,30}".prop_map(String::into_bytes),
        1 => ";[ -~]{0,10}".prop_map(String::into_bytes),
        1 => prop::collection::vec(1u8.., 0..12),
        1 => "[A-Z]{2000,9000}".prop_map(String::into_bytes),
    ];
    let end = prop_oneof![5 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\n\n"), 1 => Just("")];
    prop::collection::vec((line, end), 0..40).prop_map(|lines| {
        let mut text = b">first\n".to_vec();
        for (line, end) in lines {
            text.extend(line);
            text.extend(end.as_bytes());
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Neither how bytes arrive nor where blocks are cut is seen in the records and their lines.
    #[test]
    fn records_are_independent_of_blocks_and_arrival(
        text in hostile_fasta(), most in 1usize..300, block in 1usize..5000,
    ) {
        let whole = read(&text).unwrap();
        prop_assert_eq!(&read_in_pieces(&text, most, block).unwrap(), &whole);
        prop_assert_eq!(&read_in_pieces(&gzip(&text), most, block).unwrap(), &whole);
        // Each line that begins with '>' is a record, at that line. There may be others.
        let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
        let lines = text.split(['\n', '\r']).zip(1u64..);
        for (_, number) in lines.filter(|(line, _)| line.starts_with('>')) {
            prop_assert_eq!(whole.iter().filter(|record| record.1 == number).count(), 1);
        }
        for (_, _, sequence, length) in &whole {
            prop_assert_eq!(sequence.len(), *length);
            prop_assert!(!sequence.iter().any(u8::is_ascii_whitespace));
        }
    }

    /// Whatever the bytes are: records or an error, the same for all blocks, and each record
    /// becomes tokens or is rejected with a reason.
    #[test]
    fn any_bytes_give_records_or_an_error(
        kind in 0usize..6, bytes in prop::collection::vec(any::<u8>(), 0..300), block in 1usize..300,
    ) {
        let beginnings: [&[u8]; 6] =
            [b"", b">id\n", b"id,sequence\n", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"PAR1", b"seq\tid\n"];
        let bytes = [beginnings[kind], &bytes].concat();
        let whole = read(&bytes);
        let pieces = read_in_pieces(&bytes, 7, block);
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => {
                prop_assert_eq!(&whole, &pieces);
                for (_, _, sequence, length) in whole {
                    let (any, mut tokens) = (LengthLimits { min: 1, max: None }, vec![]);
                    match tokenize(Tokenizer::ankh(), any, &sequence, length, &mut tokens) {
                        Ok(_) => prop_assert!(!tokens.is_empty()),
                        Err(rejection) => prop_assert!(!rejection.detail.is_empty()),
                    }
                }
            }
            // What a decompressor gave before it failed depends on how it was fed.
            (Err(_), Err(_)) if kind == 3 => {}
            (Err(whole), Err(pieces)) => prop_assert_eq!(whole.to_string(), pieces.to_string()),
            (whole, pieces) => prop_assert!(false, "{whole:?} {pieces:?}"),
        }
    }

    #[test]
    fn a_table_as_text_reads_as_it_was_written(
        rows in prop::collection::vec(("[a-zA-Z0-9_|]{1,12}", "([ -~\r\"\u{e9}]{0,20}|[ -+.-:<-~\"\u{e9}]{0,9}\n[ -+.-:<-~\"]{0,9})", "[A-Z*-]{1,100}"), 1..30),
        delimiter in prop::sample::select(vec![b',', b'\t', b';']),
        crlf: bool, most in 1usize..100, block in 1usize..500,
    ) {
        // As RFC 4180 has it.
        let special = [char::from(delimiter), '"', '\r', '\n'];
        let quoted = |column: &str| match column.contains(special) {
            true => format!("\"{}\"", column.replace('"', "\"\"")),
            false => column.to_owned(),
        };
        let mut text = String::new();
        let mut write = |row: [&str; 3]| {
            text += &row.map(quoted).join(&char::from(delimiter).to_string());
            text += if crlf { "\r\n" } else { "\n" };
        };
        write(["Entry", "Protein names", "Sequence"]);
        let (mut expected, mut line) = (vec![], 2);
        for (id, name, sequence) in rows {
            write([&id, &name, &sequence]);
            let length = sequence.len();
            expected.push((id, line, sequence.into_bytes(), length));
            line += 1 + name.matches('\n').count() as u64;
        }
        let text = text.into_bytes();
        prop_assert_eq!(read(&text).unwrap(), expected.clone());
        prop_assert_eq!(read_in_pieces(&gzip(&text), most, block).unwrap(), expected);
    }
}

#[test]
fn all_formats_hold_the_same_records() {
    let records = Records::new(1);
    let (mut fasta, mut ids, mut sequences) = (vec![], vec![], vec![]);
    for number in 0..6000 {
        records.fasta(number, &mut fasta);
        let mut sequence = vec![];
        records.sequence(number, &mut sequence);
        sequences.push(String::from_utf8(sequence).unwrap());
    }
    let from_fasta = read(&fasta).unwrap();
    ids.extend(from_fasta.iter().map(|record| record.0.clone()));
    let written: Vec<&[u8]> = sequences.iter().map(String::as_bytes).collect();
    let of = |records: &[Kept]| -> Vec<(String, Vec<u8>)> {
        let records = records.iter();
        records.map(|r| (r.0.clone(), r.2.clone())).collect()
    };
    let expected = of(&from_fasta);
    assert!(expected.iter().map(|r| r.1.as_slice()).eq(written));

    let header = "id\tname\ttext\n".to_string();
    let rows = ids.iter().zip(&sequences);
    let text = rows.fold(header, |text, (id, sequence)| {
        text + &format!("{id}\tx\t{sequence}\n")
    });
    let zstd = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
    for text in [gzip(text.as_bytes()), zstd, text.into_bytes()] {
        let found = read(&text).unwrap();
        assert_eq!(of(&found), expected);
        assert!(found.iter().map(|record| record.1).eq(2..6002));
    }

    let strings = || -> Vec<&str> { sequences.iter().map(String::as_str).collect() };
    let kinds: [ArrayRef; 5] = [
        Arc::new(StringArray::from(strings())),
        Arc::new(LargeStringArray::from(strings())),
        Arc::new(StringViewArray::from(strings())),
        Arc::new(
            strings()
                .into_iter()
                .collect::<DictionaryArray<Int32Type>>(),
        ),
        Arc::new(BinaryArray::from_iter_values(&sequences)),
    ];
    for sequences in kinds {
        let kind = sequences.data_type().clone();
        let ids: ArrayRef = Arc::new(StringArray::from(ids.clone()));
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6000));
        let columns = vec![("text", sequences), ("number", number), ("id", ids)];
        let found = read(&table(columns, 2500)).unwrap();
        assert_eq!(of(&found), expected, "{kind}");
        assert!(found.iter().map(|record| record.1).eq(1..6001));
    }
}

#[test]
fn what_is_read_has_a_size_and_a_hash() {
    let directory = tempfile::tempdir().unwrap();
    let mut fasta = vec![];
    (0..5000).for_each(|number| Records::new(2).fasta(number, &mut fasta));
    let sequences: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..5000).map(|i| "MKL".repeat(i % 100)),
    ));
    let table = table(vec![("seq", sequences)], 1000);
    let xz = {
        let mut encoder = liblzma::write::XzEncoder::new(vec![], 1);
        encoder.write_all(&fasta).unwrap();
        encoder.finish().unwrap()
    };
    for (kind, bytes) in [
        ("text", fasta.clone()),
        ("gzip", gzip(&fasta)),
        ("xz", xz),
        ("table", table),
    ] {
        let path = directory.path().join(kind);
        std::fs::write(&path, &bytes).unwrap();
        let hash = Sha256::digest(&bytes);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let location = Location::from(path.as_path());
        let from_file = Input::open(&location, &StorageOptions::default()).unwrap();
        assert_eq!(from_file.total_bytes(), bytes.len() as u64);
        let from_memory =
            Input::from_reader("x", Box::new(io::Cursor::new(bytes.clone()))).unwrap();
        for mut input in [from_file, from_memory] {
            let mut read = 0;
            while input.next_block().unwrap().is_some() {
                assert!(input.bytes_read() >= read, "{kind}");
                read = input.bytes_read();
            }
            assert_eq!(input.bytes_read(), bytes.len() as u64, "{kind}");
            assert_eq!(input.total_bytes(), bytes.len() as u64, "{kind}");
            assert_eq!(input.sha256(), hash, "{kind}");
        }
    }
}

#[test]
fn blocks_are_of_bounded_size_and_can_be_parsed_elsewhere() {
    let mut fasta = vec![];
    (0..20_000).for_each(|number| Records::new(3).fasta(number, &mut fasta));
    let expected = read(&fasta).unwrap();
    let mut input = Input::from_reader("x", Box::new(io::Cursor::new(fasta.clone()))).unwrap();
    let mut threads = vec![];
    while let Some(block) = input.next_block().unwrap() {
        // A tenth more than a mebibyte of the shortest records there are.
        assert!(block.records() < 20_000, "{}", block.records());
        threads.push(std::thread::spawn(move || {
            let mut records = vec![];
            let all = block.for_each(&mut |record| {
                records.push(kept(record));
                Ok(())
            });
            all.map(|()| records)
        }));
    }
    assert!(threads.len() as u64 >= fasta.len() as u64 >> 20);
    let parsed = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap().unwrap());
    assert!(parsed.eq(expected));
}

#[test]
fn an_error_of_the_caller_ends_a_block() {
    for text in [&b">a\nM\n>b\nK\n"[..], b"id,seq\na,M\nb,K\n"] {
        let mut input = Input::from_reader("x", Box::new(io::Cursor::new(text.to_vec()))).unwrap();
        let block = input.next_block().unwrap().unwrap();
        let mut seen = 0;
        let ended = block.for_each(&mut |_| {
            seen += 1;
            Err(Error::NoInputs)
        });
        assert!(matches!(ended, Err(Error::NoInputs)) && seen == 1);
    }
}

#[test]
fn tables_without_ids_number_their_rows() {
    let rows = |bytes: &[u8]| -> Vec<(String, u64)> {
        let records = read(bytes).unwrap();
        records
            .into_iter()
            .map(|record| (record.0, record.1))
            .collect()
    };
    let expected = [("row1".to_string(), 2), ("row2".to_string(), 3)];
    assert_eq!(rows(b"sequence\nMKL\nMK\n"), expected);
    assert_eq!(
        rows(b"\xef\xbb\xbfsequence,length\r\nMKL,3\r\nMK,2\r\n"),
        expected
    );
    let sequences: ArrayRef = Arc::new(StringArray::from(vec![Some("MKL"), None]));
    let records = read(&table(vec![("Sequence", sequences)], 10)).unwrap();
    let expected = [
        ("row1".into(), 1, b"MKL".to_vec(), 3),
        ("row2".into(), 2, vec![], 0),
    ];
    assert_eq!(records, expected);
}

#[test]
fn rows_are_named_by_their_line() {
    let text = b"\n; made by hand\nid,name,sequence\r\na,\"x, \"\"y\"\"\nz\",MKL\r\n\r\nb,,M K\n";
    let records = read(text).unwrap();
    let expected = [
        ("a".into(), 4, b"MKL".to_vec(), 3),
        ("b".into(), 7, b"MK".to_vec(), 2),
    ];
    assert_eq!(records, expected);
    let message = error(b"id,sequence\na,MKL\n\nb,M,K\n");
    assert_eq!(
        message,
        "input, line 4: expected the header's 2 columns, found 3"
    );
    let message = error(b"id,sequence\r\na,MKL\r\nb,M\0K\r\n");
    assert_eq!(
        message,
        "input, line 3: binary data where text was expected"
    );
    for text in [
        &b"id,sequence\na,MKL\nb,\"MK\n\nc,M"[..],
        b"id,sequence\na,M\n\"b,MKL\n",
    ] {
        let message = error(text);
        let expected = "input, line 3: expected the end of a quoted column";
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(error(b"text,\"").starts_with("input, line 1: expected the end of"));
    let message = error(&gzip(b"id,sequence\na,MKL\nb,MK\n")[..30]);
    assert!(
        message.starts_with("input is cut short: its gzip data ends"),
        "{message}"
    );
}

#[test]
fn a_quote_that_is_never_closed_takes_bounded_memory() {
    let text = b"id,sequence\na,MKL\nb,\"".chain(io::repeat(b'A').take(1 << 40));
    let mut input = Input::from_reader("input", Box::new(text)).unwrap();
    let message = loop {
        match input.next_block() {
            Ok(block) => assert!(block.is_some()),
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        message.starts_with("input, line 3: expected a row of at most"),
        "{message}"
    );
}

#[test]
fn what_is_neither_fasta_nor_a_table_is_told_what_would_be() {
    let message = error(b"id,residues\n1,MKL\n");
    for expected in [
        "line 1",
        "starting with '>'",
        "column `sequence`",
        "found \"id,residues\"",
    ] {
        assert!(message.contains(expected), "{message}");
    }
    // Not a header without end either.
    let long = [&b"sequence,"[..], &[b'x'; 100_000]].concat();
    assert!(error(&long).contains("starting with '>'"));
    let message = error(b"BZh91AY");
    assert!(
        message.contains("bzip2") && message.contains("xz"),
        "{message}"
    );
    let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    let message = error(&table(vec![("sequence", number)], 10));
    assert!(
        message
            .contains("expected text in the column `sequence`, found the columns sequence (Int64)"),
        "{message}"
    );
}

#[test]
fn a_damaged_table_is_named() {
    let sequences: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..500).map(|i| "MKLVACDE".repeat(i % 17)),
    ));
    let good = table(vec![("sequence", sequences)], 100);
    assert_eq!(read(&good).unwrap().len(), 500);
    for keep in [4, 5, good.len() / 2, good.len() - 1] {
        let message = error(&good[..keep]);
        assert!(message.starts_with("input: "), "{message}");
    }
    // Its second group begins before the file does; found by the fuzzer, in the library.
    let message = error(include_bytes!("column_outside_the_file.parquet"));
    assert!(message.ends_with("columns outside the file"), "{message}");
}
