//! Preparing and reading data in a bucket, over a way on which requests fail.

#[path = "../../storage/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ankh_data::prepare::{merge, prepare_part};
use ankh_data::synthetic::Records;
use ankh_data::{Dataset, Error, Existing, PrepareOptions, ReadOptions, Split, prepare};
use ankh_storage::{Location, Storage, StorageOptions};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use support::{Faults, Proxy, S3, server};

/// A FASTA file and a Parquet table of some records each.
fn inputs(directory: &Path) -> [&'static str; 2] {
    let records = Records::new(13);
    let (mut text, mut sequence) = (Vec::new(), Vec::new());
    for number in 0..2000 {
        records.fasta(number, &mut text);
    }
    fs::write(directory.join("a.fasta"), text).unwrap();
    let (mut ids, mut sequences) = (Vec::new(), Vec::new());
    for number in 2000..3000 {
        sequence.clear();
        records.sequence(number, &mut sequence);
        ids.push(format!("table{number}"));
        sequences.push(String::from_utf8(sequence.clone()).unwrap());
    }
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(StringArray::from(ids))),
        ("sequence", Arc::new(StringArray::from(sequences))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(directory.join("b.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    ["a.fasta", "b.parquet"]
}

/// From and into a bucket, on one machine and in parts, through failing requests.
#[test]
fn preparing_in_a_bucket_gives_the_bytes_of_a_local_run() {
    let directory = tempfile::tempdir().unwrap();
    let names = inputs(directory.path());
    let s3 = S3::server();
    let proxy = Proxy::before(s3.address, Faults::of(14, 0.05));
    let storage = |address| StorageOptions {
        // The slow answers of the proxy take longer, those of a busy machine do not.
        timeout: Duration::from_millis(600),
        attempts: 30,
        patience: Duration::from_secs(120),
        settings: server::environment(address),
        ..StorageOptions::default()
    };
    let bucket = s3.bucket();
    // The same objects, with and without faults on the way.
    let (faulty, direct) = (storage(proxy.address), storage(s3.address));
    let direct = Storage::open(&bucket.join("some/prefix"), &direct).unwrap();
    for name in names {
        direct.upload(name, &directory.path().join(name)).unwrap();
    }
    let options = PrepareOptions {
        validation_fraction: 0.1,
        chunk_records: 700,
        storage: faulty.clone(),
        ..PrepareOptions::default()
    };
    let here = Location::from(directory.path());
    let local = names.map(|name| here.join(name));
    prepare(&local, &here.join("out"), &options, &mut |_| {}).unwrap();

    let there = bucket.join("some/prefix");
    let remote = names.map(|name| there.join(name));
    prepare(&remote, &there.join("whole"), &options, &mut |_| {}).unwrap();
    for part in ["0/2", "1/2"] {
        let part = part.parse().unwrap();
        prepare_part(&remote, &there.join("parts"), part, &options, &mut |_| {}).unwrap();
    }
    merge(&there.join("parts"), &[], Existing::Keep, &faulty).unwrap();

    let mut files: Vec<String> = fs::read_dir(directory.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert!(files.len() > 9, "{files:?}");
    for output in ["whole", "parts"] {
        let listed = direct.list(output).unwrap();
        let listed: Vec<&str> = (listed.iter().map(|entry| &entry.name[..]))
            .filter(|name| !name.contains("/.preparing/"))
            .map(|name| &name[output.len() + 1..])
            .collect();
        assert_eq!(listed, files);
        for file in &files {
            let bytes = direct.read(&format!("{output}/{file}")).unwrap();
            assert!(
                bytes == fs::read(directory.path().join("out").join(file)).unwrap(),
                "{file}"
            );
        }
    }
    // Prepared data is never replaced in a bucket.
    let again = prepare(&remote, &there.join("whole"), &options, &mut |_| {});
    assert!(
        matches!(again, Err(Error::AlreadyInPlace { .. })),
        "{again:?}"
    );
    let read = ReadOptions {
        memory: 1 << 16,
        storage: faulty.clone(),
    };
    let paged = Dataset::open(there.join("parts"), Split::Train, &read).unwrap();
    let whole = Dataset::open(here.join("out"), Split::Train, &ReadOptions::default()).unwrap();
    for row in 0..whole.rows() {
        assert_eq!(paged.tokens(row).unwrap(), whole.tokens(row).unwrap());
    }
}
