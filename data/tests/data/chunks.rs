//! Prepared data does not depend on who prepares it: how many threads, how many machines, how often
//! it was interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ankh_data::format::Reason;
use ankh_data::prepare::{Part, Shares, merge, prepare_part};
use ankh_data::{
    Dataset, Duplicates, Error, Existing, Key, Manifest, PrepareOptions, ReadOptions, Split,
    Tokenizer, Unfinished, prepare,
};
use ankh_storage::{Location, StorageOptions};

use crate::random_sequences;

/// Two inputs of 1,000 records in all, and room for outputs.
struct Bench {
    directory: tempfile::TempDir,
    inputs: Vec<Location>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let sequences = random_sequences(seed, 1000, 0..80);
        let record = |(i, s): (usize, &String)| format!(">id{i} text\n{s}\n");
        let (one, two) = sequences.split_at(613);
        let texts = [one, two].map(|part| part.iter().enumerate().map(record).collect::<String>());
        let inputs = [("a.fasta", &texts[0]), ("b.fasta", &texts[1])].map(|(name, text)| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            Location::from(path)
        });
        Bench {
            inputs: inputs.to_vec(),
            directory,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn place(&self, name: &str) -> Location {
        self.at(name).into()
    }

    fn prepare(&self, name: &str, options: &PrepareOptions) -> Result<Manifest, Error> {
        prepare(&self.inputs, &self.place(name), options, &mut |_| {})
    }

    fn part(&self, name: &str, part: &str, options: &PrepareOptions) -> Result<(), Error> {
        let (output, part) = (self.place(name), part.parse::<Part>().unwrap());
        prepare_part(&self.inputs, &output, part, options, &mut |_| {}).map(|_| ())
    }

    fn merge(&self, name: &str, parts: &[&str]) -> Result<Manifest, Error> {
        let parts: Vec<Location> = parts.iter().map(|part| self.place(part)).collect();
        let storage = StorageOptions::default();
        merge(&self.place(name), &parts, Existing::Keep, &storage)
    }
}

/// Every file of a directory, below it too.
fn bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            let below = bytes(&path).into_iter();
            found.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

fn open(directory: PathBuf, split: Split) -> Result<Dataset, Error> {
    Dataset::open(directory, split, &ReadOptions::default())
}

fn options() -> PrepareOptions {
    PrepareOptions {
        validation_fraction: 0.2,
        test_fraction: 0.1,
        chunk_records: 64,
        threads: 2,
        ..PrepareOptions::default()
    }
}

#[test]
fn threads_change_no_byte() {
    let bench = Bench::new(1);
    let expected = {
        bench
            .prepare(
                "out1",
                &PrepareOptions {
                    threads: 1,
                    ..options()
                },
            )
            .unwrap();
        bytes(&bench.at("out1"))
    };
    assert_eq!(expected.len(), 16 * 3 + 1, "{:?}", expected.keys());
    for threads in [2, 5] {
        let name = format!("out{threads}");
        bench
            .prepare(
                &name,
                &PrepareOptions {
                    threads,
                    ..options()
                },
            )
            .unwrap();
        assert!(expected == bytes(&bench.at(&name)), "{threads} threads");
    }
}

/// A chunk's files hold the rows of its records, in their order.
#[test]
fn records_are_divided_by_their_number_alone() {
    let bench = Bench::new(2);
    let manifest = bench.prepare("out", &options()).unwrap();
    let one_chunk = PrepareOptions {
        chunk_records: 1 << 20,
        ..options()
    };
    bench.prepare("whole", &one_chunk).unwrap();
    assert_eq!(manifest.report.records, 1000);
    assert!(
        manifest
            .files
            .is_sorted_by_key(|file| (file.split, file.path.clone()))
    );
    for split in Split::ALL {
        let opened = |name: &str| open(bench.at(name), split).unwrap();
        let (chunked, whole) = (opened("out"), opened("whole"));
        assert_eq!(chunked.rows(), whole.rows());
        for row in 0..whole.rows() {
            assert_eq!(chunked.tokens(row).unwrap(), whole.tokens(row).unwrap());
        }
    }
}

#[test]
fn parts_of_many_machines_equal_one_machines_work() {
    let bench = Bench::new(3);
    for duplicates in [Duplicates::Keep, Duplicates::Remove] {
        let options = PrepareOptions {
            duplicates,
            ..options()
        };
        bench.prepare("one", &options).unwrap();
        let expected = bytes(&bench.at("one"));
        for part in ["2/3", "0/3", "1/3"] {
            bench.part("shared", part, &options).unwrap();
            bench
                .part(&format!("own{}", &part[..1]), part, &options)
                .unwrap();
        }
        let refused = open(bench.at("shared"), Split::Train).unwrap_err();
        assert!(matches!(refused, Error::NotMerged { .. }), "{refused}");
        bench.merge("shared", &[]).unwrap();
        assert!(expected == bytes(&bench.at("shared")));
        bench.merge("merged", &["own0", "own1", "own2"]).unwrap();
        assert!(expected == bytes(&bench.at("merged")));
        for name in ["one", "shared", "own0", "own1", "own2", "merged"] {
            fs::remove_dir_all(bench.at(name)).unwrap();
        }
        assert_eq!(
            bytes(bench.directory.path()).len(),
            2,
            "nothing is left behind"
        );
    }
}

#[test]
fn what_is_missing_or_contradicts_is_listed() {
    let bench = Bench::new(4);
    let problems = |name: &str, parts: &[&str]| bench.merge(name, parts).unwrap_err().to_string();
    let wanted = |text: String, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "expected {word:?} in {text}");
        }
    };
    fs::create_dir(bench.at("empty")).unwrap();
    wanted(problems("out", &["empty"]), &["empty holds no parts"]);
    bench.part("parts", "0/3", &options()).unwrap();
    bench.part("parts", "2/3", &options()).unwrap();
    let missing = "part 1/3 is not done: chunks 1, 4, 7, 10, 13 are missing";
    wanted(problems("parts", &[]), &[missing]);

    let other = PrepareOptions {
        min_length: 5,
        ..options()
    };
    bench.part("other", "1/3", &other).unwrap();
    let text = problems("out", &["parts", "other"]);
    wanted(text, &[missing, "settings.min_length is 5, but was 1"]);
    // In one place the other part is refused before any work.
    let error = bench.part("parts", "1/3", &other).unwrap_err();
    assert!(matches!(error, Error::OtherPreparation { .. }), "{error}");

    bench.part("parts", "1/3", &options()).unwrap();
    let file = bench.at("parts/train-00004.parquet");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[1..]).unwrap();
    wanted(
        problems("parts", &[]),
        &["part 1/3 is not done: chunks 4 are missing"],
    );
    let mut bad = good.clone();
    bad[100] ^= 1;
    fs::write(&file, &bad).unwrap();
    wanted(
        problems("out", &["parts"]),
        &["train-00004.parquet was changed or damaged"],
    );
    fs::write(&file, &good).unwrap();

    // An input that differs on one machine, its size the same.
    let text = fs::read_to_string(bench.at("b.fasta")).unwrap();
    fs::write(bench.at("b.fasta"), text.replacen('A', "C", 1)).unwrap();
    bench.part("changed", "0/3", &options()).unwrap();
    let text = problems("out", &["parts", "changed"]);
    wanted(text, &["another b.fasta", "sha256"]);
    assert!(!bench.at("out").exists());

    bench.merge("parts", &[]).unwrap();
    let error = bench.merge("parts", &[]).unwrap_err();
    assert!(matches!(error, Error::AlreadyInPlace { .. }), "{error}");
    let error = bench.part("parts", "0/3", &options()).unwrap_err();
    assert!(matches!(error, Error::AlreadyInPlace { .. }), "{error}");
}

/// A failure after some chunks leaves them for the next try, which makes only the others.
#[test]
fn unfinished_work_is_continued() {
    let bench = Bench::new(5);
    bench.prepare("whole", &options()).unwrap();
    let expected = bytes(&bench.at("whole"));
    let text = fs::read(bench.at("b.fasta")).unwrap();
    let bad = [&text[..text.len() - 1], b"\0"].concat();
    let modified = fs::metadata(bench.at("b.fasta"))
        .unwrap()
        .modified()
        .unwrap();
    let set = |content: &[u8]| {
        fs::write(bench.at("b.fasta"), content).unwrap();
        let file = fs::File::options()
            .append(true)
            .open(bench.at("b.fasta"))
            .unwrap();
        file.set_modified(modified).unwrap();
    };
    set(&bad);
    let small = PrepareOptions {
        chunk_records: 64,
        ..options()
    };
    let error = bench.prepare("out", &small).unwrap_err();
    assert!(error.to_string().contains("b.fasta"), "{error}");
    assert!(!bench.at("out").exists());
    let work = bench.at(".out.preparing");
    let done = work.join("data/train-00000.parquet");
    let made = || fs::metadata(&done).unwrap().modified().unwrap();
    let first = made();

    let refused = |options: PrepareOptions, words: &str| {
        let error = bench.prepare("out", &options).unwrap_err();
        assert!(matches!(error, Error::OtherPreparation { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(
        PrepareOptions {
            max_length: Some(70),
            ..options()
        },
        "settings.max_length is 70, but was null",
    );
    // Damage that the size shows: the chunk is made again.
    fs::write(work.join("data/train-00001.parquet"), "short").unwrap();
    set(&text);
    bench.prepare("out", &options()).unwrap();
    assert!(expected == bytes(&bench.at("out")));
    let file = bench.at("out/train-00000.parquet");
    assert_eq!(
        fs::metadata(file).unwrap().modified().unwrap(),
        first,
        "it was not made again"
    );
    assert!(!work.exists());

    // Other inputs, by their time alone; and work that is thrown away.
    set(&bad);
    bench.prepare("again", &options()).unwrap_err();
    fs::write(bench.at("b.fasta"), &text).unwrap();
    let error = bench.prepare("again", &options()).unwrap_err();
    assert!(error.to_string().contains("inputs.1.modified"), "{error}");
    let restart = PrepareOptions {
        unfinished: Unfinished::Discard,
        ..options()
    };
    bench.prepare("again", &restart).unwrap();
    assert!(expected == bytes(&bench.at("again")));
}

#[test]
fn two_processes_do_not_meet_in_one_workplace() {
    let bench = Bench::new(6);
    let directory = bench.at(".out.preparing");
    fs::create_dir(&directory).unwrap();
    let lock = fs::File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    let error = bench.prepare("out", &options()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(lock);
    bench.prepare("out", &options()).unwrap();
}

/// The first of each group of equal sequences is kept, whatever its letters' case or its input, and
/// the others are counted.
#[test]
fn duplicates_are_found_over_all_inputs_and_splits() {
    let mut random = Key::new(7).stream();
    let distinct = random_sequences(7, 40, 1..20);
    let mut seen = BTreeMap::new();
    let (mut texts, mut first, mut repeated) = ([String::new(), String::new()], vec![], 0);
    for i in 0..400 {
        let sequence = &distinct[random.below(distinct.len())];
        // What is written differently may be the same.
        let written = if random.below(2) == 0 {
            sequence.to_lowercase()
        } else {
            format!("{sequence}*")
        };
        texts[i / 250] += &format!(">id{i}\n{written}\n");
        match seen.insert(sequence.clone(), i) {
            None => first.push((i, sequence.clone())),
            Some(_) => repeated += 1,
        }
    }
    texts[0] += ">bad\nM*K\n>bad again\nM*K\n";
    let bench = Bench::new(7);
    for (input, text) in bench.inputs.iter().zip(&texts) {
        fs::write(input.local().unwrap(), text).unwrap();
    }
    let options = PrepareOptions {
        duplicates: Duplicates::Remove,
        ..options()
    };
    let manifest = bench.prepare("out", &options).unwrap();
    let counted = |reason| {
        let reject = manifest
            .report
            .rejects
            .iter()
            .find(|reject| reject.reason == reason);
        reject.map_or(0, |reject| reject.count)
    };
    assert_eq!(counted(Reason::Duplicate), repeated);
    assert_eq!(counted(Reason::InnerStop), 2);
    assert_eq!(manifest.report.records, 402);
    let shares = Shares {
        validation: 0.2,
        test: 0.1,
    };
    for split in Split::ALL {
        let of_split = first
            .iter()
            .filter(|(i, _)| shares.split_of(&format!("id{i}")) == split);
        let expected: Vec<&String> = of_split.map(|(_, sequence)| sequence).collect();
        let data = open(bench.at("out"), split).unwrap();
        let rows = (0..data.rows()).map(|row| Tokenizer::ankh().decode(&data.tokens(row).unwrap()));
        assert!(rows.eq(expected.iter().map(|s| s.to_string())), "{split}");
    }
}

/// Holding out for a test takes ids from training alone.
#[test]
fn a_test_split_moves_nothing_into_or_out_of_validation() {
    let with = |test| Shares {
        validation: 0.1,
        test,
    };
    let mut tested = 0;
    for i in 0..10_000 {
        let id = format!("UniRef50_{i}");
        let (before, after) = (with(0.0).split_of(&id), with(0.2).split_of(&id));
        match after {
            Split::Test => {
                tested += 1;
                assert_eq!(before, Split::Train);
            }
            other => assert_eq!(before, other),
        }
    }
    assert!((1800..2200).contains(&tested), "{tested}");
}
