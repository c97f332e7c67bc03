//! Prepared data opened in both ways: whole, and page by page.

use std::fs;
use std::path::Path;

use ankh_data::{
    Dataset, Error, Key, Manifest, PrepareOptions, ReadOptions, Result, Shuffle, Split, prepare,
};

use crate::random_sequences;

fn whole() -> ReadOptions {
    ReadOptions::default()
}

/// Less memory than any split here takes: it is read by pages.
fn by_pages() -> ReadOptions {
    ReadOptions {
        memory: 1 << 12,
        ..ReadOptions::default()
    }
}

/// Some thousand sequences, prepared: several files, row groups and pages.
fn prepared(directory: &Path) -> Manifest {
    let sequences = random_sequences(3, 5000, 1..200);
    let text: String = (sequences.iter().enumerate())
        .map(|(i, s)| format!(">id{i}\n{s}\n"))
        .collect();
    let input = directory.join("a.fasta");
    fs::write(&input, text).unwrap();
    let options = PrepareOptions {
        chunk_records: 2000,
        ..PrepareOptions::default()
    };
    prepare(
        &[input.into()],
        &directory.join("out").into(),
        &options,
        &mut |_| {},
    )
    .unwrap()
}

fn open(directory: &Path, split: Split, options: &ReadOptions) -> Result<Dataset> {
    Dataset::open(directory.join("out"), split, options)
}

/// Every row, or the first error.
fn rows(data: &Dataset) -> Result<Vec<Vec<u8>>> {
    let row = |row| Ok(data.tokens(row)?.into_owned());
    (0..data.rows()).map(row).collect()
}

#[test]
fn reading_by_pages_gives_the_same_rows() {
    let directory = tempfile::tempdir().unwrap();
    prepared(directory.path());
    let whole = open(directory.path(), Split::Train, &whole()).unwrap();
    let paged = open(directory.path(), Split::Train, &by_pages()).unwrap();
    assert_eq!(*whole.shuffle(), Shuffle::Exact);
    let Shuffle::Windows { blocks, residues } = paged.shuffle().clone() else {
        panic!("{:?}", paged.shuffle());
    };
    assert_eq!(residues, by_pages().memory / 2);
    assert!(blocks.len() > 4 && blocks.is_sorted());
    assert_eq!((blocks[0], blocks[blocks.len() - 1]), (0, whole.rows()));
    assert_eq!(whole.lengths(), paged.lengths());
    let expected = rows(&whole).unwrap();
    assert_eq!(rows(&paged).unwrap(), expected);
    // In any order, announced or not, and from several threads.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (paged, expected) = (&paged, &expected);
            let mut random = Key::new(thread).stream();
            scope.spawn(move || {
                for i in 0..2000 {
                    if i % 100 == 0 {
                        let first = random.below(blocks_of(paged)) as u32;
                        paged.prefetch_hint(&[first, 0]);
                    }
                    let row = random.below(expected.len());
                    let length = expected[row].len();
                    let start = random.below(length);
                    let window = paged.window(row as u64, start..length).unwrap();
                    assert_eq!(*window, expected[row][start..], "row {row}");
                }
            });
        }
    });
}

fn blocks_of(data: &Dataset) -> usize {
    match data.shuffle() {
        Shuffle::Windows { blocks, .. } => blocks.len() - 1,
        Shuffle::Exact => 0,
    }
}

#[test]
fn a_row_or_a_window_that_is_not_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    prepared(directory.path());
    for options in [whole(), by_pages()] {
        let data = open(directory.path(), Split::Validation, &options).unwrap();
        let rows = data.rows();
        assert!(matches!(data.tokens(rows), Err(Error::NoSuchRow { .. })));
        let length = data.length(0).unwrap();
        assert!(data.window(0, 0..length + 1).is_err());
        assert!(data.window(0, length..length).unwrap().is_empty());
    }
}

/// Of every file a byte is changed, at a hundred random places: what follows is an error that names
/// the file, or the same rows.
#[test]
fn a_changed_byte_is_named_or_changes_no_row() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = prepared(directory.path());
    let splits = [Split::Train, Split::Validation];
    let read = |options: &ReadOptions| -> Result<Vec<Vec<Vec<u8>>>> {
        splits
            .iter()
            .map(|&split| rows(&open(directory.path(), split, options)?))
            .collect()
    };
    let good = read(&whole()).unwrap();
    let mut names: Vec<&str> = manifest.files.iter().map(|file| &file.path[..]).collect();
    names.push("manifest.json");
    let mut random = Key::new(11).stream();
    let mut found = [0; 2];
    let mut pages_named = 0;
    for _ in 0..100 {
        let name = names[random.below(names.len())];
        let path = directory.path().join("out").join(name);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        fs::write(&path, &bytes).unwrap();
        for (found, options) in found.iter_mut().zip([whole(), by_pages()]) {
            match read(&options) {
                Ok(rows) => assert!(rows == good, "byte {at} of {name} changes rows"),
                Err(error) => {
                    let text = error.to_string();
                    // A manifest that lists another file leads to that file.
                    let by_another = name == "manifest.json" && text.contains("out/");
                    assert!(text.contains(name) || by_another, "{name}, {at}: {text}");
                    pages_named += usize::from(text.contains("row group") && text.contains("page"));
                    *found += 1;
                }
            }
        }
        fs::write(&path, &before).unwrap();
    }
    // All bytes of a file are verified where all are read; ids and column statistics are not read
    // by pages.
    assert!(found[0] > 80 && found[1] > 50, "{found:?}");
    assert!(pages_named > 50, "{pages_named}");
    assert_eq!(read(&by_pages()).unwrap(), good);
}
