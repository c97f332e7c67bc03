//! Any bytes as a text file, compressed or not.
//!
//! Parquet is left out: how long its library takes over a damaged footer is not bounded by the
//! file's size. One of 281 bytes takes 1.4 s to be refused, and half a minute with this target's
//! instruments.
//!
//! The first byte chooses whether the rest is compressed first, the next two how it arrives and is
//! cut. What holds: nothing panics; the records and their lines are the same however the bytes
//! arrive and wherever blocks are cut; each record becomes tokens or is rejected with a reason.
//! That memory is bounded, libFuzzer's own limit sees.

#![no_main]

use std::io::{self, Cursor, Read, Write};

use ankh_data::prepare::input::Input;
use ankh_data::prepare::residues::{LONGEST_SEQUENCE, LengthLimits, tokenize};
use ankh_data::format::Reason;
use ankh_data::{Error, Tokenizer};
use libfuzzer_sys::fuzz_target;

/// An id, its line, the sequence and its length, and its fault.
type Record = (String, u64, Vec<u8>, usize, Option<Reason>);

fuzz_target!(
    // The usual hook ends the process at once; a panic that the crate catches is none here. One
    // that it does not catch still ends the process.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |data: &[u8]| any_file(data)
);

fn any_file(data: &[u8]) {
    let Some((&[how, most, block], content)) = data.split_first_chunk() else {
        return;
    };
    if content.starts_with(b"PAR1") {
        return;
    }
    let stored = match how % 8 {
        6 => gzip(content),
        7 => zstd::bulk::compress(content, 1).expect("a slice can be compressed"),
        _ => content.to_vec(),
    };
    let all = read(&stored, usize::MAX, 1 << 20);
    let pieces = read(&stored, 1 + usize::from(most), 1 + 3 * usize::from(block));
    match (all, pieces) {
        (Ok(all), Ok(pieces)) => {
            assert_eq!(all, pieces);
            check(&all);
            if how % 8 < 6 && !is_compressed(content) {
                compare(content, &all);
            }
        }
        // What a decompressor gave before it failed depends on how it was fed.
        (Err(_), Err(_)) if is_compressed(&stored) => {}
        (Err(all), Err(pieces)) => assert_eq!(all.to_string(), pieces.to_string()),
        (all, pieces) => panic!("{all:?} is not {pieces:?}"),
    }
}

fn check(records: &[Record]) {
    assert!(records.is_sorted_by_key(|record| record.1));
    for (id, line, sequence, length, _) in records {
        assert!(*line > 0 && !id.is_empty());
        assert_eq!(sequence.len(), (*length).min(LONGEST_SEQUENCE), "{id}");
        assert!(!sequence.iter().any(u8::is_ascii_whitespace), "{id}");
        let lengths = LengthLimits { min: 1, max: None };
        for tokenizer in [Tokenizer::ankh(), Tokenizer::ankh3()] {
            let mut tokens = vec![];
            match tokenize(tokenizer, lengths, sequence, *length, &mut tokens) {
                Ok(_) => {
                    assert!(!tokens.is_empty() && tokens.len() <= sequence.len());
                    let letters = tokenizer.decode(&tokens);
                    assert_eq!(letters.len(), tokens.len());
                    assert!(letters.bytes().all(|letter| letter.is_ascii_uppercase()));
                }
                Err(rejection) => assert!(!rejection.detail.is_empty() && tokens.is_empty()),
            }
        }
    }
}

/// Whether each record of some text is kept or given with a fault, and none is given another's
/// residues. What the text holds is found in another way here: line by line.
fn compare(content: &[u8], records: &[Record]) {
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let lines: Vec<&[u8]> = lines(text);
    let first = lines.iter().find(|line| {
        let line = line.trim_ascii();
        !line.is_empty() && !matches!(line[0], b';' | b'#')
    });
    match first {
        Some(line) if line.trim_ascii_start().starts_with(b">") => {}
        // Of a table, each record has the residues that stand from its line on.
        Some(line)
            if line.is_ascii()
                && line.iter().any(u8::is_ascii_alphabetic)
                && !line.contains(&b'>') =>
        {
            for (id, line, sequence, _, fault) in records {
                assert!(fault.is_none(), "{id}");
                assert!(*line as usize <= lines.len(), "{id}: line {line}");
                assert!(sequence.len() <= text.len(), "{id}");
            }
            assert!(records.len() < lines.len(), "{} rows", records.len());
            return;
        }
        // It begins with what nobody sees.
        _ => return,
    }
    // Each line that begins with '>' is a record that begins on that line.
    for (line, number) in lines.iter().zip(1u64..) {
        let there = records.iter().filter(|record| record.1 == number).count();
        if line.starts_with(b">") {
            assert_eq!(there, 1, "line {number}");
        } else if !line.contains(&b'>') {
            assert_eq!(there, 0, "line {number}");
        }
    }
    // A record has the residues of the lines up to the next record's, and none with a mark in them.
    for (place, (id, line, sequence, length, fault)) in records.iter().enumerate() {
        if fault.is_some_and(|fault| fault != Reason::NucleicAcid) {
            continue;
        }
        assert!(!sequence.contains(&b'>'), "{id}");
        let next = records.get(place + 1).map_or(usize::MAX, |record| record.1 as usize - 1);
        let own = lines.iter().take(next).skip(*line as usize);
        let own = own.filter(|line| !matches!(line.first(), Some(b';' | b'#')));
        let letters: usize = own
            .map(|line| line.iter().filter(|byte| !byte.is_ascii_whitespace()).count())
            .sum();
        assert!(*length <= letters, "{id}, line {line}: {length} of {letters}");
    }
}

/// Lines end in LF, CR LF or CR.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = vec![];
    let mut rest = text;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    lines.push(rest);
    lines
}

/// Reads bytes that arrive at most `most` at once, in blocks of about `block` bytes.
fn read(stored: &[u8], most: usize, block: usize) -> Result<Vec<Record>, Error> {
    let reader = Arriving(Cursor::new(stored.to_vec()), most);
    let mut input = Input::from_reader("input", Box::new(reader))?.with_block_bytes(block);
    let mut records = vec![];
    while let Some(block) = input.next_block()? {
        let before = records.len() as u64;
        block.for_each(&mut |record| {
            let (id, sequence) = (record.id.to_string(), record.sequence.to_vec());
            records.push((id, record.line, sequence, record.length, record.fault));
            Ok(())
        })?;
        assert!(block.records() > 0);
        assert_eq!(records.len() as u64, before + block.records());
    }
    assert_eq!(input.bytes_read(), stored.len() as u64);
    Ok(records)
}

struct Arriving(Cursor<Vec<u8>>, usize);

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.1);
        self.0.read(&mut buffer[..count])
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    let written = encoder.write_all(content).and_then(|()| encoder.finish());
    written.expect("a vector takes all bytes")
}

fn is_compressed(stored: &[u8]) -> bool {
    let magics: [&[u8]; 3] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"];
    magics.iter().any(|magic| stored.starts_with(magic))
}
