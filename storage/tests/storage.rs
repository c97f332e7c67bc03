//! Storage on a real S3 server, over a way on which requests fail.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use ankh_storage::{CacheOptions, Entry, Error, Location, Storage, StorageOptions};
use support::{Fault, Faults, Proxy, Random, S3, server};

/// Some bytes, the same for the same seed.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = (0..length.div_ceil(8))
        .flat_map(|_| random.bits().to_le_bytes())
        .collect();
    bytes.truncate(length);
    bytes
}

/// A bucket behind a proxy.
struct Bench {
    proxy: Proxy,
    bucket: Location,
    options: StorageOptions,
}

impl Bench {
    fn new(faults: Faults) -> Bench {
        let s3 = S3::server();
        let proxy = Proxy::before(s3.address, faults);
        let options = StorageOptions {
            // The slow answers of the proxy take longer, those of a busy machine do not.
            timeout: Duration::from_millis(600),
            attempts: 30,
            patience: Duration::from_secs(120),
            settings: server::environment(proxy.address),
            ..StorageOptions::default()
        };
        Bench {
            bucket: s3.bucket(),
            proxy,
            options,
        }
    }

    fn open(&self) -> Storage {
        Storage::open(&self.bucket.join("some/prefix"), &self.options).unwrap()
    }

    /// The same objects, without faults on the way and without cache.
    fn directly(&self) -> Storage {
        let options = StorageOptions {
            settings: server::environment(S3::server().address),
            ..StorageOptions::default()
        };
        Storage::open(&self.bucket.join("some/prefix"), &options).unwrap()
    }

    fn cached(mut self, directory: &Path, bytes: u64) -> Bench {
        self.options.cache = Some(CacheOptions {
            directory: directory.to_owned(),
            bytes,
        });
        self
    }
}

fn local(directory: &Path) -> Storage {
    Storage::open(&Location::from(directory), &StorageOptions::default()).unwrap()
}

fn read_on(storage: &Storage, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = storage.reader(name)?.read_to_end(&mut bytes);
    read.map_err(|error| Error::reading(&storage.location(name), error))?;
    Ok(bytes)
}

/// What both storages say, or that both refuse.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(remote: Result<T, Error>, local: Result<T, Error>) {
    match (remote, local) {
        (Err(remote), Err(local)) => {
            assert_eq!(
                remote.is_missing(),
                local.is_missing(),
                "{remote} / {local}"
            )
        }
        (remote, local) => assert_eq!(remote.unwrap(), local.unwrap()),
    }
}

#[test]
fn every_operation_through_faults_does_what_it_does_locally() {
    for (seed, share) in [(1, 0.05), (2, 0.3)] {
        let bench = Bench::new(Faults::of(seed, share));
        let (directory, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (remote, local) = (bench.open(), local(directory.path()));
        let mut random = Random::new(seed);
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for turn in 0..80 {
            let name = ["a", "b.parquet", "dir/c", "dir/deeper/d e", "ü%20"][random.below(5)];
            let size = sizes.get(name).copied().unwrap_or(0);
            let mut range = || {
                let start = random.below(size as usize + 1) as u64;
                start..start + random.below((size - start) as usize + 1) as u64
            };
            match turn % 10 {
                0 | 5 => {
                    let bytes = content(turn, random.below(1 << 18));
                    remote.write(name, &bytes).unwrap();
                    local.write(name, &bytes).unwrap();
                    sizes.insert(name.to_owned(), bytes.len() as u64);
                }
                1 => {
                    let file = files.path().join(turn.to_string());
                    let bytes = content(turn, random.below(100));
                    fs::write(&file, &bytes).unwrap();
                    remote.upload(name, &file).unwrap();
                    local.upload(name, &file).unwrap();
                    sizes.insert(name.to_owned(), bytes.len() as u64);
                }
                2 => same(remote.read(name), local.read(name)),
                3 => same(read_on(&remote, name), read_on(&local, name)),
                4 => same(remote.size(name), local.size(name)),
                6 => {
                    let ranges: Vec<Range<u64>> = (0..5).map(|_| range()).collect();
                    same(
                        remote.read_ranges(name, &ranges),
                        local.read_ranges(name, &ranges),
                    );
                }
                7 => {
                    let range = range();
                    same(
                        remote.read_range(name, range.clone()),
                        local.read_range(name, range),
                    );
                }
                8 => {
                    let prefix = ["", "dir/", "di", "b", "nothing"][random.below(5)];
                    same(remote.list(prefix), local.list(prefix));
                }
                _ if turn % 20 == 19 => {
                    remote.delete(name).unwrap();
                    local.delete(name).unwrap();
                    sizes.remove(name);
                }
                _ => {
                    let beyond = size..size + 1;
                    same(
                        remote.read_range(name, beyond.clone()),
                        local.read_range(name, beyond),
                    );
                }
            }
        }
        let faults: usize = Fault::PASSING
            .map(|fault| bench.proxy.met(fault))
            .iter()
            .sum();
        assert!(
            remote.retries() > 0 && faults >= remote.retries() as usize,
            "{faults} faults"
        );
        if share > 0.1 {
            for fault in Fault::PASSING {
                assert!(bench.proxy.met(fault) > 0, "{fault:?} did not come up");
            }
        }
    }
}

#[test]
fn directories_are_listed_and_objects_copied_as_on_a_disk() {
    let bench = Bench::new(Faults::of(9, 0.3));
    let directory = tempfile::tempdir().unwrap();
    let (remote, local) = (bench.open(), local(directory.path()));
    same(remote.directories(), local.directories());
    for storage in [&remote, &local] {
        // More than a page of names, below one directory.
        for i in 0..60 {
            storage.write(&format!("many/deep/{i}"), &[i]).unwrap();
        }
        storage.write("file", b"abc").unwrap();
        storage.write("other dir/x", b"d").unwrap();
        storage.copy("file", "many/copy").unwrap();
        storage.copy("file", "other dir/x").unwrap();
        let error = storage.copy("missing", "x").unwrap_err();
        assert!(error.is_missing(), "{error}");
    }
    assert_eq!(remote.directories().unwrap(), ["many", "other dir"]);
    same(remote.directories(), local.directories());
    same(remote.list(""), local.list(""));
    for storage in [remote, local] {
        let below = storage.location("other dir");
        let below = storage.beside(&below).unwrap();
        assert_eq!(&below.read("x").unwrap()[..], b"abc");
        assert_eq!(below.directories().unwrap(), [""; 0]);
    }
    let elsewhere = Location::parse("s3://another/bucket").unwrap();
    assert!(bench.open().beside(&elsewhere).is_none());
}

#[test]
fn big_objects_go_in_parts_and_come_in_pieces() {
    let mut bench = Bench::new(Faults {
        seed: 3,
        share: 0.3,
        kinds: vec![Fault::Unavailable, Fault::Reset, Fault::Short],
        first: 0,
    });
    bench.options.timeout = Duration::from_secs(20);
    let storage = bench.open();
    let bytes = content(3, (37 << 20) + 12345);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    storage.upload("uploaded", file.path()).unwrap();
    storage.write("written", &bytes).unwrap();
    assert!(storage.read("uploaded").unwrap() == bytes);
    assert!(read_on(&storage, "written").unwrap() == bytes);
    let ranges = [
        30 << 20..37 << 20,
        5..6,
        1 << 20..(20 << 20) + 1,
        5..400_000,
        0..0,
    ];
    let read = storage.read_ranges("written", &ranges).unwrap();
    for (range, read) in ranges.into_iter().zip(read) {
        assert!(
            read == bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    assert!(storage.retries() > 0);
}

#[test]
fn near_ranges_are_read_with_one_request() {
    let bench = Bench::new(Faults::none());
    let storage = bench.open();
    let bytes = content(4, 3 << 20);
    storage.write("file", &bytes).unwrap();
    let before = bench.proxy.requests().len();
    let ranges: Vec<Range<u64>> = (0..100)
        .rev()
        .map(|i| i * 20_000..i * 20_000 + 15_000)
        .collect();
    let read = storage.read_ranges("file", &ranges).unwrap();
    for (range, read) in ranges.iter().zip(read) {
        assert!(read == bytes[range.start as usize..range.end as usize]);
    }
    // One asks for the version.
    assert_eq!(bench.proxy.requests().len() - before, 2);
}

#[test]
fn long_lists_are_complete_and_sorted() {
    let bench = Bench::new(Faults::of(5, 0.2));
    let direct = bench.directly();
    let mut expected = Vec::new();
    for i in 0..330 {
        let (name, size) = (format!("list/{:05}", (i * 7919) % 330), i % 5);
        direct.write(&name, &content(0, size)).unwrap();
        expected.push(Entry {
            name,
            size: size as u64,
        });
    }
    direct.write("listed", b"").unwrap();
    expected.sort();
    for _ in 0..5 {
        assert_eq!(bench.open().list("list/").unwrap(), expected);
    }
    assert_eq!(bench.open().list("lis").unwrap().len(), 331);
}

#[test]
fn what_cannot_get_better_fails_at_once_and_says_why() {
    let bench = Bench::new(Faults::none());
    let storage = bench.open();
    storage.write("there", b"bytes").unwrap();
    let one = |error: Error, words: &[&str]| {
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "expected {word:?} in {message:?}");
        }
        error
    };
    let missing = format!("{}/some/prefix/missing", bench.bucket);
    for error in [
        storage.read("missing").unwrap_err(),
        storage.size("missing").unwrap_err(),
        storage.reader("missing").err().unwrap(),
        storage.read_range("missing", 0..1).unwrap_err(),
    ] {
        assert!(one(error, &[&missing, "does not exist"]).is_missing());
    }
    let nowhere = Location::parse("s3://no-such-bucket").unwrap();
    let nowhere = Storage::open(&nowhere, &bench.options).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for error in [
        nowhere.read("x").unwrap_err(),
        nowhere.list("").unwrap_err(),
        nowhere.write("x", b"").unwrap_err(),
        nowhere.upload("x", file.path()).unwrap_err(),
    ] {
        assert!(one(error, &["s3://no-such-bucket", "no such bucket"]).is_missing());
    }
    one(
        storage.read_range("there", 3..9).unwrap_err(),
        &["bytes 3 to 9", "there", "has 5"],
    );
    bench.proxy.set(Faults::always(Fault::Forbidden));
    for error in [
        storage.read("there").unwrap_err(),
        storage.write("there", b"").unwrap_err(),
        storage.list("").unwrap_err(),
        storage.delete("there").unwrap_err(),
        storage.read_range("there", 0..1).unwrap_err(),
    ] {
        one(error, &["not allowed to", "403"]);
    }
    assert_eq!(storage.retries(), 0);
}

#[test]
fn patience_ends_with_the_name_and_the_last_reason() {
    for (fault, reason) in [
        (Fault::Unavailable, "503 Service Unavailable"),
        (Fault::Slow, "no complete answer in"),
    ] {
        let mut bench = Bench::new(Faults::none());
        bench.options.attempts = 3;
        bench.options.timeout = Duration::from_millis(200);
        let storage = bench.open();
        bench.directly().write("file", b"bytes").unwrap();
        bench.proxy.set(Faults::always(fault));
        let message = storage.read("file").unwrap_err().to_string();
        for word in [
            &format!("{}/some/prefix/file", bench.bucket),
            reason,
            "after 3 attempts",
        ] {
            assert!(message.contains(word), "expected {word:?} in {message:?}");
        }
        assert_eq!(storage.retries(), 2);
        // Time runs out before attempts do.
        bench.options.attempts = 1000;
        bench.options.patience = Duration::from_millis(500);
        assert!(bench.open().size("file").is_err());
        assert!(bench.proxy.requests().len() < 20);
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut bench = Bench::new(Faults::none());
    bench.options.attempts = 2;
    let address = bench.proxy.address;
    drop(bench.proxy);
    let storage = Storage::open(&bench.bucket, &bench.options).unwrap();
    let message = storage.read("file").unwrap_err().to_string();
    assert!(
        message.contains("refused") && message.contains("file"),
        "{address}: {message}"
    );
}

#[test]
fn a_server_without_tls_has_to_be_allowed() {
    let mut bench = Bench::new(Faults::none());
    bench.options.settings.remove("AWS_ALLOW_HTTP");
    let storage = bench.open();
    let message = storage.read("file").unwrap_err().to_string();
    assert!(message.contains("AWS_ALLOW_HTTP"), "{message}");
    assert_eq!(storage.retries(), 0);
}

#[test]
fn a_settings_name_that_is_not_known_is_refused() {
    let mut bench = Bench::new(Faults::none());
    bench
        .options
        .settings
        .insert("AWS_ENDPOINT_URI".to_owned(), "x".to_owned());
    let message = Storage::open(&bench.bucket, &bench.options)
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("AWS_ENDPOINT_URI"), "{message}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_mixed() {
    let bench = Bench::new(Faults::none());
    let storage = bench.open();
    let (old, new) = (content(6, 50_000), content(7, 50_000));
    bench.directly().write("file", &old).unwrap();
    assert!(storage.read_range("file", 0..10).unwrap() == old[..10]);
    bench.directly().write("file", &new).unwrap();
    let error = storage.read_range("file", 10..20).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(storage.read("file").unwrap() == new);
    assert!(storage.read_range("file", 10..20).unwrap() == new[10..20]);
}

#[test]
fn what_is_cached_needs_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Faults::none()).cached(directory.path(), 64 << 20);
    let bytes = content(8, 10 << 20);
    bench.directly().write("file", &bytes).unwrap();
    let ranges = [0..100_000, 5 << 20..6 << 20, 200_000..300_000];
    let storage = bench.open();
    let first = storage.read_ranges("file", &ranges).unwrap();
    let before = bench.proxy.requests().len();
    assert_eq!(storage.read_ranges("file", &ranges).unwrap(), first);
    assert_eq!(
        storage.read_range("file", ranges[1].clone()).unwrap(),
        first[1]
    );
    assert_eq!(bench.proxy.requests().len(), before);
    // Another process has to ask for the version, and for nothing else.
    assert_eq!(bench.open().read_ranges("file", &ranges).unwrap(), first);
    assert_eq!(bench.proxy.requests().len(), before + 1);
    // A whole file is kept too.
    assert!(read_on(&storage, "file").unwrap() == bytes);
    let before = bench.proxy.requests().len();
    assert!(read_on(&storage, "file").unwrap() == bytes);
    assert!(bench.open().read("file").unwrap() == bytes);
    let asked = bench.proxy.requests().split_off(before);
    assert!(
        asked.iter().all(|request| request.starts_with("HEAD")),
        "{asked:?}"
    );
}

#[test]
fn a_changed_object_is_never_served_from_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Faults::none()).cached(directory.path(), 1 << 20);
    for seed in 0..4 {
        // The same name and size.
        let bytes = content(seed, 5000);
        bench.directly().write("file", &bytes).unwrap();
        let storage = bench.open();
        assert!(storage.read_range("file", 0..5000).unwrap() == bytes);
        assert!(storage.read("file").unwrap() == bytes);
        let own = content(seed + 100, 5000);
        storage.write("file", &own).unwrap();
        assert!(storage.read_range("file", 0..5000).unwrap() == own);
    }
}

/// The files of a cache.
fn entries(directory: &Path) -> Vec<fs::DirEntry> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(fs::read_dir(entry.path()).unwrap().map(Result::unwrap)),
            false if entry.file_name() == "total" => (),
            false => found.push(entry),
        }
    }
    found
}

#[test]
fn whatever_happens_to_its_files_the_cache_gives_the_right_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Faults::none()).cached(directory.path(), 1 << 20);
    let bytes = content(9, 40_000);
    bench.directly().write("file", &bytes).unwrap();
    let mut random = Random::new(9);
    let storage = bench.open();
    for turn in 0..60 {
        let range = (turn % 4) * 10_000..(turn % 4) * 10_000 + 10_000;
        let read = storage.read_range("file", range.clone()).unwrap();
        assert!(read == bytes[range.start as usize..range.end as usize]);
        for entry in entries(directory.path()) {
            let path = entry.path();
            let mut damaged = fs::read(&path).unwrap();
            let place = random.below(damaged.len());
            match random.below(6) {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, &damaged[..place]).unwrap(),
                2 => fs::write(path, [damaged, vec![0]].concat()).unwrap(),
                3 => {
                    damaged[place] ^= 1 << random.below(8);
                    fs::write(path, damaged).unwrap();
                }
                _ => (),
            }
        }
    }
    fs::remove_dir_all(directory.path()).unwrap();
    assert!(storage.read("file").unwrap() == bytes);
}

#[test]
fn a_cache_holds_no_more_than_it_may_and_forgets_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let limit = 200_000;
    let bench = Bench::new(Faults::none()).cached(directory.path(), limit);
    let bytes = content(10, 2_000_000);
    bench.directly().write("file", &bytes).unwrap();
    let held = || {
        let entries = entries(directory.path());
        // One may have gone since it was listed.
        let sizes = entries
            .iter()
            .filter_map(|entry| Some(entry.metadata().ok()?.len()));
        sizes.sum::<u64>()
    };
    // Two that know nothing of one another, on several threads.
    let storages = [bench.open(), bench.open()];
    std::thread::scope(|scope| {
        for (i, storage) in storages.iter().cycle().take(4).enumerate() {
            let bytes = &bytes;
            let held = &held;
            scope.spawn(move || {
                for turn in 0..40 {
                    let start = ((turn * 7 + i * 11) % 150) * 10_000;
                    // One that is used again and again.
                    for start in [start, 1_900_000] {
                        let read = storage.read_range("file", start as u64..start as u64 + 9_000);
                        assert!(read.unwrap() == bytes[start..start + 9_000]);
                    }
                    // Sizes are looked at one after the other, while files come and go.
                    assert!(held() <= 2 * limit);
                }
            });
        }
    });
    assert!(held() <= limit && held() > limit / 2, "{}", held());
    let before = bench.proxy.requests().len();
    storages[0]
        .read_range("file", 1_900_000..1_909_000)
        .unwrap();
    assert_eq!(bench.proxy.requests().len(), before, "what is used stays");
    // With less room, less is kept.
    let smaller = bench.cached(directory.path(), 50_000);
    smaller.open().read_range("file", 0..9_000).unwrap();
    assert!(held() <= 50_000);
}

#[test]
fn a_cache_that_cannot_be_written_fails_no_read() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Faults::none()).cached(&directory.path().join("cache"), 1 << 20);
    let bytes = content(11, 5000);
    bench.directly().write("file", &bytes).unwrap();
    let storage = bench.open();
    fs::remove_dir_all(directory.path()).unwrap();
    fs::write(directory.path(), b"a file where the cache was").unwrap();
    assert!(storage.read("file").unwrap() == bytes);
    let message = Storage::open(&bench.bucket, &bench.options)
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("cache"), "{message}");
    fs::remove_file(directory.path()).unwrap();
    fs::create_dir(directory.path()).unwrap();
}

#[test]
fn any_thread_may_call() {
    let bench = Bench::new(Faults::of(12, 0.1));
    let storage = bench.open();
    let bytes = content(12, 300_000);
    storage.write("file", &bytes).unwrap();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (storage, bytes) = (storage.clone(), &bytes);
            scope.spawn(move || {
                let range = i * 30_000..i * 30_000 + 60_000;
                let read = storage.read_range("file", range.start..range.end).unwrap();
                assert!(read == bytes[range.start as usize..range.end as usize]);
            });
        }
    });
}
