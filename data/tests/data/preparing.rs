use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankh_data::format::Reason;
use ankh_data::prepare::Shares;
use ankh_data::{
    BatchConfig, Batches, Dataset, Error, Existing, HostShard, LongSequences, Manifest, Objective,
    PrepareOptions, ReadOptions, Split, Tokenizer, Vocabulary, prepare,
};
use ankh_storage::{Location, Storage};
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::random_sequences;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.at(name), content).unwrap();
        self.at(name)
    }

    fn prepare(&self, input: &Path, options: &PrepareOptions) -> Result<Manifest, Error> {
        prepared(&[input], self.at("out"), options)
    }

    fn names(&self) -> Vec<String> {
        names(self.directory.path())
    }
}

fn prepared(
    inputs: &[&Path],
    output: PathBuf,
    options: &PrepareOptions,
) -> Result<Manifest, Error> {
    let inputs: Vec<Location> = inputs.iter().map(|&input| input.into()).collect();
    prepare(&inputs, &output.into(), options, &mut |_| {})
}

fn validation(share: f64) -> Shares {
    Shares {
        validation: share,
        test: 0.0,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fasta(sequences: &[String]) -> String {
    let records = sequences.iter().enumerate();
    records
        .map(|(i, s)| format!(">id{i} text\n{s}\n"))
        .collect()
}

fn options() -> PrepareOptions {
    PrepareOptions {
        validation_fraction: 0.2,
        chunk_records: 100,
        ..PrepareOptions::default()
    }
}

#[test]
fn what_is_prepared_is_what_was_written() {
    let place = Place::new();
    let sequences = random_sequences(1, 500, 1..200);
    let input = place.write("a.fasta", fasta(&sequences));
    let manifest = place.prepare(&input, &options()).unwrap();
    assert_eq!(place.names(), ["a.fasta", "out"]);
    assert_eq!(
        manifest,
        Manifest::read(&Storage::local(place.at("out"))).unwrap()
    );
    assert_eq!(manifest.rows, 500);
    assert!(manifest.files.len() > 3, "{:?}", manifest.files);
    let residues: usize = sequences.iter().map(String::len).sum();
    assert_eq!(manifest.residues, residues as u64);
    assert_eq!(
        manifest.report.residue_counts.values().sum::<u64>(),
        residues as u64
    );
    let in_bins: u64 = manifest
        .report
        .lengths
        .histogram
        .iter()
        .map(|b| b.rows)
        .sum();
    assert_eq!(in_bins, 500);

    for split in [Split::Train, Split::Validation] {
        let expected: Vec<&String> = (0..500)
            .filter(|i| validation(0.2).split_of(&format!("id{i}")) == split)
            .map(|i| &sequences[i])
            .collect();
        let data = Dataset::open(place.at("out"), split, &ReadOptions::default()).unwrap();
        assert_eq!(data.rows(), expected.len() as u64);
        assert_eq!(manifest.amount(split).rows, data.rows());
        for (row, sequence) in expected.iter().enumerate() {
            let tokens = data.tokens(row as u64).unwrap();
            assert_eq!(&Tokenizer::ankh().decode(&tokens), *sequence);
            assert_eq!(data.length(row as u64).unwrap(), sequence.len());
        }
        let beyond = data.tokens(data.rows()).unwrap_err();
        assert!(matches!(beyond, Error::NoSuchRow { .. }));
    }
}

#[test]
fn files_follow_the_contract() {
    let place = Place::new();
    let input = place.write("a.fasta", fasta(&random_sequences(2, 300, 1..200)));
    let manifest = place.prepare(&input, &PrepareOptions::default()).unwrap();
    let path = place.at("out").join(&manifest.files[0].path);
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let columns: Vec<String> = schema
        .columns()
        .iter()
        .map(|c| {
            format!(
                "{} {:?} {}",
                c.name(),
                c.logical_type_ref(),
                c.physical_type()
            )
        })
        .collect();
    assert!(columns[0].starts_with("id Some(String)"), "{columns:?}");
    assert!(
        columns[1].starts_with("tokens None BYTE_ARRAY"),
        "{columns:?}"
    );
    assert!(columns[2].starts_with("length Some(Integer"), "{columns:?}");
    for group in metadata.row_groups() {
        for column in group.columns() {
            assert!(format!("{:?}", column.compression()).starts_with("ZSTD"));
            assert!(column.column_index_offset().is_some(), "page index");
            assert!(column.offset_index_offset().is_some(), "page index");
        }
    }
    let text = fs::read_to_string(place.at("out/manifest.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["rows"], 300);
    assert_eq!(value["tokenizer"]["name"], "ankh");
    assert_eq!(value["tokenizer"]["vocabulary_size"], 144);
    assert_eq!(value["source"][0]["name"], "a.fasta");
    assert_eq!(value["files"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, two) = (Place::new(), Place::new());
    let text = fasta(&random_sequences(3, 500, 1..200));
    for place in [&one, &two] {
        let input = place.write("a.fasta", &text);
        place.prepare(&input, &options()).unwrap();
    }
    let files = names(&one.at("out"));
    assert_eq!(files, names(&two.at("out")));
    for file in files {
        let read = |place: &Place| fs::read(place.at("out").join(&file)).unwrap();
        assert_eq!(read(&one), read(&two), "{file}");
    }
}

#[test]
fn a_flipped_byte_is_detected_and_named() {
    let place = Place::new();
    let input = place.write("a.fasta", fasta(&random_sequences(4, 200, 1..200)));
    let manifest = place.prepare(&input, &options()).unwrap();
    for file in &manifest.files {
        let path = place.at("out").join(&file.path);
        let good = fs::read(&path).unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let error =
                Dataset::open(place.at("out"), file.split, &ReadOptions::default()).unwrap_err();
            assert!(matches!(error, Error::Checksum { .. }), "{error}");
            assert!(error.to_string().contains(&file.path), "{error}");
        }
        fs::remove_file(&path).unwrap();
        let error = Dataset::open(place.at("out"), file.split, &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot read") && error.contains(&file.path),
            "{error}"
        );
        fs::write(&path, &good).unwrap();
    }
    Dataset::open(place.at("out"), Split::Train, &ReadOptions::default()).unwrap();
}

#[test]
fn a_manifest_that_is_not_ours_is_refused() {
    let place = Place::new();
    let error = |place: &Place| {
        let result = Dataset::open(
            place.directory.path(),
            Split::Train,
            &ReadOptions::default(),
        );
        result.unwrap_err().to_string()
    };
    assert!(error(&place).contains("has no manifest.json"));
    for (text, expected) in [
        ("{}", "is not a manifest"),
        (
            r#"{"format": "other", "format_version": 1}"#,
            "expected the format",
        ),
        (
            r#"{"format": "ankh prepared data", "format_version": 99}"#,
            "format version 99",
        ),
        (
            r#"{"format": "ankh prepared data", "format_version": 2}"#,
            "missing field",
        ),
    ] {
        place.write("manifest.json", text);
        let error = error(&place);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("manifest.json"), "{error}");
    }
}

#[test]
fn another_tokenizer_is_refused() {
    let place = Place::new();
    let input = place.write("a.fasta", fasta(&random_sequences(5, 50, 1..20)));
    let options = PrepareOptions {
        tokenizer: Vocabulary::Ankh3,
        ..PrepareOptions::default()
    };
    place.prepare(&input, &options).unwrap();
    let open = |tokenizer| {
        Dataset::open(place.at("out"), Split::Train, &ReadOptions::default())?.expecting(tokenizer)
    };
    assert!(open(Tokenizer::ankh3()).is_ok());
    let error = open(Tokenizer::ankh()).unwrap_err().to_string();
    assert!(
        error.contains("the tokenizer ankh3, but ankh is needed"),
        "{error}"
    );
}

#[test]
fn rejected_records_are_counted_with_file_and_line() {
    let place = Place::new();
    let input = place.write(
        "a.fasta",
        ">good\nMKLV\n>none\n>stop\nMK*LV\n>digit\nMK1\n> no id\nMKL\n>short\nMK\n>long\nMKLVMKLVMK\n\
         >changed\nmk-J*\n",
    );
    let options = PrepareOptions {
        min_length: 3,
        max_length: Some(8),
        validation_fraction: 0.0,
        ..PrepareOptions::default()
    };
    let report = place.prepare(&input, &options).unwrap().report;
    assert_eq!((report.records, report.rows, report.rejected), (8, 3, 5));
    let found: Vec<_> = report
        .rejects
        .iter()
        .map(|r| {
            (
                r.reason,
                r.count,
                r.examples[0].line,
                r.examples[0].id.as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (Reason::NoSequence, 1, 3, "none"),
            (Reason::InnerStop, 1, 4, "stop"),
            (Reason::NotAResidue, 1, 6, "digit"),
            (Reason::TooShort, 1, 10, "short"),
            (Reason::TooLong, 1, 12, "long"),
        ]
    );
    assert_eq!(report.rejects[1].examples[0].file, "a.fasta");
    assert_eq!(report.rejects[1].examples[0].detail, "'*' at place 3");
    let changes = (
        report.replaced_by_x,
        report.gaps_removed,
        report.stops_removed,
    );
    assert_eq!((changes, report.lower_case), ((1, 1, 1), 2));
    let data = Dataset::open(place.at("out"), Split::Train, &ReadOptions::default()).unwrap();
    assert_eq!(Tokenizer::ankh().decode(&data.tokens(2).unwrap()), "MKX");
}

#[test]
fn nothing_usable_is_an_error_that_says_why() {
    let place = Place::new();
    let input = place.write("a.fasta", ">one\n>two\nM*K\n");
    let error = place.prepare(&input, &options()).unwrap_err().to_string();
    assert!(error.contains("none of the 2 records"), "{error}");
    assert!(
        error.contains("1 no sequence (first: a.fasta, line 1, one"),
        "{error}"
    );
    assert_eq!(place.names(), ["a.fasta"], "nothing is left behind");
    let error = prepared(&[], place.at("out"), &options()).unwrap_err();
    assert!(matches!(error, Error::NoInputs));
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let place = Place::new();
    let good = place.write("good.fasta", fasta(&random_sequences(6, 100, 1..50)));
    let bad = place.write("bad.fasta", b">a\nMK\0\n");
    let error = prepared(&[&good, &bad], place.at("out"), &options()).unwrap_err();
    assert!(error.to_string().contains("bad.fasta, line 2"), "{error}");
    assert_eq!(place.names(), ["bad.fasta", "good.fasta"]);
}

#[test]
fn only_prepared_data_is_replaced_and_only_when_asked() {
    let place = Place::new();
    let first = place.write("a.fasta", fasta(&random_sequences(7, 30, 1..50)));
    let second = place.write("b.fasta", fasta(&random_sequences(8, 40, 1..50)));
    let replace = PrepareOptions {
        existing: Existing::Replace,
        ..options()
    };
    // Something else: never.
    fs::create_dir(place.at("out")).unwrap();
    place.write("out/thesis.tex", "years of work");
    for options in [&options(), &replace] {
        let error = place.prepare(&first, options).unwrap_err();
        assert!(matches!(error, Error::ForeignOutput { .. }), "{error}");
    }
    fs::remove_file(place.at("out/thesis.tex")).unwrap();
    // An empty directory will do.
    assert_eq!(place.prepare(&first, &options()).unwrap().rows, 30);
    let error = place.prepare(&second, &options()).unwrap_err();
    assert!(error.to_string().contains("(30 rows)"), "{error}");
    assert_eq!(place.prepare(&second, &replace).unwrap().rows, 40);
    assert_eq!(
        Manifest::read(&Storage::local(place.at("out")))
            .unwrap()
            .rows,
        40
    );
    assert_eq!(place.names(), ["a.fasta", "b.fasta", "out"]);
    // A file in the way.
    let error = prepared(&[&first], place.at("b.fasta"), &replace).unwrap_err();
    assert!(matches!(error, Error::ForeignOutput { .. }), "{error}");
}

#[test]
fn a_parquet_table_with_a_sequence_column_is_read() {
    let place = Place::new();
    let sequences = random_sequences(9, 3000, 1..50);
    let ids: Vec<String> = (0..3000).map(|i| format!("id{i}")).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("Accession", Arc::new(StringArray::from(ids))),
        ("Sequence", Arc::new(StringArray::from(sequences.clone()))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let write = |name: &str, batch: &RecordBatch| {
        let file = fs::File::create(place.at(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        place.at(name)
    };
    let table = write("table.parquet", &batch);
    let from_table = place.prepare(&table, &options()).unwrap();
    let input = place.write("a.fasta", fasta(&sequences));
    let from_fasta = prepared(&[&input], place.at("other"), &options()).unwrap();
    assert_eq!(from_table.files, from_fasta.files);
    assert_eq!(
        from_table.source[0].bytes,
        fs::metadata(&table).unwrap().len()
    );

    let without = RecordBatch::try_from_iter(vec![(
        "residues",
        Arc::new(StringArray::from(vec!["MK"])) as ArrayRef,
    )]);
    let without = write("without.parquet", &without.unwrap());
    let error = prepared(&[&without], place.at("none"), &options()).unwrap_err();
    assert!(
        error.to_string().contains("found the columns residues"),
        "{error}"
    );
}

#[test]
fn progress_reaches_the_end() {
    let place = Place::new();
    let inputs = [
        place.write("a.fasta", fasta(&random_sequences(10, 3000, 1..50))),
        place.write("b.fasta", fasta(&random_sequences(11, 10, 1..50))),
    ];
    let mut told = vec![];
    let inputs = inputs.map(Location::from);
    prepare(
        &inputs,
        &place.at("out").into(),
        &options(),
        &mut |progress| {
            assert!(progress.bytes <= progress.total_bytes);
            told.push((progress.bytes, progress.total_bytes, progress.records));
        },
    )
    .unwrap();
    assert!(told.len() > 3 && told.is_sorted());
    let (bytes, total, records) = *told.last().unwrap();
    assert_eq!((bytes, records), (total, 3010));
}

/// The share that is held out is the share asked for, and an id's split is a contract: it must be
/// the same in every version.
#[test]
fn the_split_is_a_stable_function_of_the_id() {
    let held_out = (0..10_000)
        .filter(|i| validation(0.05).split_of(&format!("UniRef50_{i}")) == Split::Validation)
        .count();
    assert!((400..600).contains(&held_out), "{held_out}");
    let split = |id: &str| validation(0.5).split_of(id);
    let found = ["", "P12345", "UniRef50_A0A024", "sp|P69905|HBA_HUMAN"].map(split);
    assert_eq!(found, PINNED_SPLITS);
    // Raising the share moves ids one way only.
    for i in 0..1000 {
        let id = format!("x{i}");
        if validation(0.1).split_of(&id) == Split::Validation {
            assert_eq!(validation(0.3).split_of(&id), Split::Validation);
        }
    }
}

const PINNED_SPLITS: [Split; 4] = [
    Split::Validation,
    Split::Validation,
    Split::Train,
    Split::Validation,
];

#[test]
fn a_sequence_of_100_000_residues_becomes_batches() {
    let place = Place::new();
    let input = place.write("a.fasta", fasta(&random_sequences(12, 1, 100_000..100_001)));
    let options = PrepareOptions {
        validation_fraction: 0.0,
        ..PrepareOptions::default()
    };
    assert_eq!(
        place.prepare(&input, &options).unwrap().report.lengths.max,
        100_000
    );
    let data = Dataset::open(place.at("out"), Split::Train, &ReadOptions::default()).unwrap();
    for (long_sequences, examples) in [
        (LongSequences::Crop, 1),
        (LongSequences::Truncate, 1),
        (LongSequences::Split, 196),
    ] {
        let plan = BatchConfig {
            long_sequences,
            ..BatchConfig::default()
        };
        let batches = Batches::new(
            ankh_data::Mixture::one(data.clone(), Objective::default()),
            plan,
            HostShard::all(),
            1,
        )
        .unwrap();
        assert_eq!(batches.examples_per_epoch(), examples);
        let batch = batches.batch(0).unwrap();
        assert!(batch.residues > 8 * 500 && batch.residues <= 8 * 511);
        assert_eq!(batch.truncated_targets, 0);
        assert!(batches.longest_target() <= 256);
    }
    let error =
        Dataset::open(place.at("out"), Split::Validation, &ReadOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("has no validation rows"),
        "{error}"
    );
}

#[test]
fn ids_are_kept() {
    let place = Place::new();
    let input = place.write("a.fasta", ">sp|P1|X text\nMK\n");
    let options = PrepareOptions {
        validation_fraction: 0.0,
        ..options()
    };
    let manifest = place.prepare(&input, &options).unwrap();
    let file = fs::File::open(place.at("out").join(&manifest.files[0].path)).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
    let batch = reader.map(Result::unwrap).next().unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "sp|P1|X");
}
