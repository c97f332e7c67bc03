//! Which records are held out, and what is said where none is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ankh_data::format::SplitBy;
use ankh_data::prepare::{Part, Pass, Shares, merge, prepare_part};
use ankh_data::{
    Dataset, Error, Existing, Manifest, PrepareOptions, ReadOptions, Split, Vocabulary, prepare,
};
use ankh_storage::{Location, StorageOptions};

use crate::random_sequences;

const SHARES: Shares = Shares {
    validation: 0.2,
    test: 0.1,
};

fn options() -> PrepareOptions {
    PrepareOptions {
        validation_fraction: SHARES.validation,
        test_fraction: SHARES.test,
        chunk_records: 100,
        ..PrepareOptions::default()
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> Location {
        fs::write(self.at(name), content).unwrap();
        self.at(name).into()
    }

    fn prepare(
        &self,
        inputs: &[Location],
        name: &str,
        options: &PrepareOptions,
    ) -> Result<Manifest, Error> {
        prepare(inputs, &self.at(name).into(), options, &mut |_| {})
    }

    fn bytes(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.at(name)).unwrap();
        let files = entries.map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, fs::read(path).unwrap())
        });
        files.collect()
    }
}

/// The sequences of a split.
fn of(directory: &Path, split: Split) -> Vec<String> {
    let data = Dataset::open(directory, split, &ReadOptions::default()).unwrap();
    let tokenizer = data.tokenizer();
    let rows = (0..data.rows()).map(|row| tokenizer.decode(&data.tokens(row).unwrap()));
    rows.collect()
}

fn fasta(sequences: &[String], id: impl Fn(usize) -> String) -> String {
    let records = sequences.iter().enumerate();
    records.map(|(i, s)| format!(">{}\n{s}\n", id(i))).collect()
}

/// `>protein` everywhere: by that id all would be in one split.
#[test]
fn where_all_ids_are_alike_the_letters_choose_the_split() {
    let place = Place::new();
    let sequences = random_sequences(41, 450, 1..80);
    let (one, two) = sequences.split_at(333);
    let inputs = [
        place.write("a.fasta", &fasta(one, |_| "protein".into())),
        place.write("b.fasta", &fasta(two, |_| "protein".into())),
    ];
    let mut passes = vec![];
    let manifest = prepare(&inputs, &place.at("whole").into(), &options(), &mut |p| {
        assert!(p.bytes <= p.total_bytes && p.records <= 450);
        passes.push(p.pass);
    });
    let manifest = manifest.unwrap();
    assert_eq!(manifest.settings.split_by, SplitBy::Sequence);
    assert!(passes.contains(&Pass::CompareIds) && passes.is_sorted());
    for split in Split::ALL {
        let expected = sequences.iter().filter(|s| SHARES.split_of(s) == split);
        let expected: Vec<&String> = expected.collect();
        assert!(expected.len() > 20, "{split}");
        assert!(of(&place.at("whole"), split).iter().eq(expected), "{split}");
    }
    // The same on several machines, wherever the second id might have been looked for.
    for part in ["0/2", "1/2"].map(|part| part.parse::<Part>().unwrap()) {
        let parts = place.at("parts").into();
        prepare_part(&inputs, &parts, part, &options(), &mut |_| {}).unwrap();
    }
    let (parts, storage) = (place.at("parts").into(), StorageOptions::default());
    merge(&parts, &[], Existing::Keep, &storage).unwrap();
    assert!(place.bytes("whole") == place.bytes("parts"));
    // And for another tokenizer.
    let ankh3 = PrepareOptions {
        tokenizer: Vocabulary::Ankh3,
        ..options()
    };
    place.prepare(&inputs, "ankh3", &ankh3).unwrap();
    for split in Split::ALL {
        assert_eq!(of(&place.at("ankh3"), split), of(&place.at("whole"), split));
    }
}

/// Whoever has a second id, be it the last, is split by ids, and the manifest is as it always was.
#[test]
fn ids_that_differ_choose_the_split() {
    let place = Place::new();
    let sequences = random_sequences(42, 300, 1..80);
    let ids: [&dyn Fn(usize) -> String; 2] = [&|i| format!("id{i}"), &|i| {
        let id = if i == 299 { "other" } else { "protein" };
        id.to_string()
    }];
    for (case, id) in ids.into_iter().enumerate() {
        let name = format!("out{case}");
        let input = place.write("a.fasta", &fasta(&sequences, id));
        let manifest = place.prepare(&[input], &name, &options()).unwrap();
        let numbered = sequences.iter().enumerate();
        let expected = numbered.filter(|(i, _)| SHARES.split_of(&id(*i)) == Split::Train);
        assert_eq!(
            of(&place.at(&name), Split::Train),
            expected.map(|(_, s)| s.clone()).collect::<Vec<_>>()
        );
        assert_eq!(manifest.settings.split_by, SplitBy::Id);
        let text = fs::read_to_string(place.at(&name).join("manifest.json")).unwrap();
        assert!(
            !text.contains("split_by") && !text.contains("columns"),
            "{text}"
        );
    }
    // One record has an id of its own.
    let one = place.write("one.fasta", ">protein\nMKL\n");
    let manifest = place.prepare(&[one], "one", &options()).unwrap();
    assert_eq!(manifest.settings.split_by, SplitBy::Id);
}

/// It is not looked at beforehand, which would take its first records away.
#[cfg(unix)]
#[test]
fn a_pipe_is_read_once() {
    let place = Place::new();
    let sequences = random_sequences(44, 300, 1..80);
    let text = fasta(&sequences, |_| "protein".into());
    let pipe = place.at("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, text).unwrap()
    });
    let by = PrepareOptions {
        validation_fraction: 0.0,
        test_fraction: 1e-9,
        ..options()
    };
    let manifest = place.prepare(&[pipe.into()], "out", &by).unwrap();
    writer.join().unwrap();
    assert_eq!(manifest.report.records, 300);
    assert_eq!(manifest.settings.split_by, SplitBy::Id);
}

#[test]
fn what_chooses_the_split_can_be_said() {
    let place = Place::new();
    let sequences = random_sequences(43, 200, 1..80);
    // A few ids, as classes have.
    let text = fasta(&sequences, |i| format!("class{}", i % 2));
    let input = [place.write("a.fasta", &text)];
    let by = |split_by| PrepareOptions {
        split_by,
        ..options()
    };
    for (name, split_by) in [("id", SplitBy::Id), ("sequence", SplitBy::Sequence)] {
        let manifest = place.prepare(&input, name, &by(Some(split_by))).unwrap();
        assert_eq!(manifest.settings.split_by, split_by);
    }
    place.prepare(&input, "not_said", &by(None)).unwrap();
    assert!(place.bytes("not_said") == place.bytes("id"));
    let held_out = sequences
        .iter()
        .filter(|s| SHARES.split_of(s) == Split::Validation);
    assert!(
        of(&place.at("sequence"), Split::Validation)
            .iter()
            .eq(held_out)
    );
}

#[test]
fn a_split_without_rows_says_how_that_came() {
    let place = Place::new();
    let input = [place.write("a.fasta", ">a\nMKL\n>b\nMKV\n")];
    let error = |name: &str, share: f64, split| {
        let options = PrepareOptions {
            validation_fraction: share,
            ..PrepareOptions::default()
        };
        place.prepare(&input, name, &options).unwrap();
        let opened = Dataset::open(place.at(name), split, &ReadOptions::default());
        opened.map(|_| ()).unwrap_err().to_string()
    };
    let message = error("small", 1e-9, Split::Validation);
    let words = "has no validation rows: none of its 2 sequences fell into the share of 0.000000001 that is held out by id";
    assert!(message.ends_with(words), "{message}");
    let message = error("none", 0.0, Split::Validation);
    assert!(
        message.ends_with("no validation rows: it was prepared with a validation fraction of 0"),
        "{message}"
    );
    let message = error("all", 0.999_999, Split::Train);
    assert!(
        message.ends_with("no train rows: all of its 2 sequences are held out"),
        "{message}"
    );
}

#[test]
fn inputs_without_a_record_are_named() {
    let place = Place::new();
    let inputs = [
        place.write("header_only.csv", "id,sequence\n"),
        place.write("also.tsv", "seq\tid\n\n"),
    ];
    let error = place.prepare(&inputs, "out", &options()).unwrap_err();
    let expected =
        "there is no record in header_only.csv, also.tsv: expected at least one sequence";
    assert_eq!(error.to_string(), expected);
    // Also where it is found only when parts are put together.
    let out = place.at("parts").into();
    let part = "0/1".parse::<Part>().unwrap();
    prepare_part(&inputs, &out, part, &options(), &mut |_| {}).unwrap();
    let error = merge(&out, &[], Existing::Keep, &StorageOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), expected);
}
