mod bucket;
mod places;
#[path = "../../../storage/tests/support/mod.rs"]
mod servers;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ankh_pjrt::{ElementType, HostTensor};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::*;
use places::{Place, place, places};

fn tensor(element_type: ElementType, dims: &[i64], seed: u8) -> HostTensor {
    let count = dims.iter().product::<i64>() as usize * element_type.byte_width();
    let byte = |i: usize| match element_type {
        ElementType::Pred => (i % 2) as u8,
        _ => (i as u8).wrapping_mul(31).wrapping_add(seed),
    };
    HostTensor {
        element_type,
        dims: dims.to_vec(),
        bytes: (0..count).map(byte).collect(),
    }
}

/// A little of everything: stacked, flat, scalar, empty, all zeros, grouped.
fn example(seed: u8) -> Vec<(String, HostTensor)> {
    let zeros = HostTensor {
        bytes: vec![0; 24],
        ..tensor(ElementType::F32, &[2, 3], 0)
    };
    [
        ("shared", tensor(ElementType::F32, &[5, 4], seed)),
        (
            "encoder.layers.mlp.wo",
            tensor(ElementType::F32, &[3, 4, 2], seed.wrapping_add(1)),
        ),
        ("v_row/encoder.layers.mlp.wo", zeros),
        (
            "v_col/encoder.layers.mlp.wo",
            tensor(ElementType::Bf16, &[7], seed),
        ),
        ("nothing", tensor(ElementType::U32, &[0, 3], seed)),
        ("mask", tensor(ElementType::Pred, &[3], seed)),
        (
            "step",
            HostTensor {
                element_type: ElementType::S32,
                dims: vec![],
                bytes: vec![seed, 0, 0, 0],
            },
        ),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

/// The same, to be saved in the background.
fn parts(seed: u8) -> Vec<TensorParts<'static>> {
    example(seed).into_iter().map(TensorParts::from).collect()
}

/// What each of some hosts has of a tensor of these dimensions, cut as often in each.
fn shares(tensor: &HostTensor, cuts: &[i64], hosts: usize) -> Vec<TensorParts<'static>> {
    let sizes = tensor.dims.iter().zip(cuts);
    let part_dims: Vec<i64> = sizes.map(|(size, cut)| size / cut).collect();
    let mut shares: Vec<_> = (0..hosts)
        .map(|_| TensorParts {
            name: "cut".into(),
            element_type: tensor.element_type,
            dims: tensor.dims.clone(),
            part_dims: part_dims.clone(),
            parts: Vec::new(),
        })
        .collect();
    for number in 0..cuts.iter().product() {
        let mut rest = number;
        let ranges = cuts.iter().zip(&part_dims).map(|(cut, size)| {
            let place = rest % cut;
            rest /= cut;
            place * size..(place + 1) * size
        });
        let range: Vec<_> = ranges.collect();
        let part = tensor.part(&range).unwrap();
        let share = &mut shares[number as usize % hosts];
        share.parts.push((range, Cow::Owned(part)));
    }
    shares
}

fn team(host: usize, hosts: usize, patience: Duration) -> Team {
    Team {
        launch: 3,
        host,
        hosts,
        patience,
        reports: None,
    }
}

/// Reports between processes that are threads of this one.
#[derive(Default)]
struct Board {
    /// Of each save, what those that do not lead report, and the one that leads.
    reports: Mutex<BTreeMap<u64, [Option<Report>; 2]>>,
}

/// A process's side of a board.
struct OnBoard {
    board: Arc<Board>,
    host: usize,
}

impl Messenger for OnBoard {
    fn report(&self, save: u64, failure: Option<&str>) {
        let failure = failure.map(str::to_owned);
        let host = self.host;
        let mut reports = self.board.reports.lock().unwrap();
        let place = &mut reports.entry(save).or_default()[usize::from(host == 0)];
        place.get_or_insert(Report { host, failure });
    }

    fn reported(&self, save: u64) -> Result<Option<Report>, String> {
        let reports = self.board.reports.lock().unwrap();
        let of_save = reports.get(&save);
        Ok(of_save.and_then(|both| both[usize::from(self.host != 0)].clone()))
    }
}

fn metadata() -> Value {
    json!({ "config": { "model": { "d_model": 64 } }, "note": "exactly \"this\"\n" })
}

/// Where a local checkpoint is.
fn path_of(store: &Store, step: u64) -> PathBuf {
    path(&store.directory_of(step))
}

fn path(location: &Location) -> PathBuf {
    location.local().unwrap().to_owned()
}

fn all_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(all_files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

#[test]
fn what_was_saved_is_loaded() {
    for place in places() {
        let store = &place.store;
        assert!(store.list().unwrap().is_empty());
        assert_eq!(store.latest().unwrap(), None);
        store.save(10, &metadata(), example(1)).unwrap();
        store
            .save(
                9,
                &json!(null),
                example(2)
                    .iter()
                    .map(|(name, tensor)| (name.as_str(), tensor)),
            )
            .unwrap();
        assert_eq!(store.list().unwrap(), [9, 10]);
        assert_eq!(store.latest().unwrap(), Some(10));
        assert_eq!(
            store.load(10).unwrap(),
            Checkpoint {
                step: 10,
                metadata: metadata(),
                tensors: example(1)
            }
        );
        assert_eq!(store.load(9).unwrap().tensors, example(2));

        let reader = store.reader(10).unwrap();
        assert_eq!(reader.tensor("step").unwrap(), example(1)[6].1);
        assert_eq!(reader.shape("shared").unwrap(), [5, 4]);
        assert!(
            matches!(reader.tensor("other"), Err(Error::NoTensor { name, .. }) if name == "other")
        );
        assert!(
            matches!(store.load(11), Err(Error::NoStep { step: 11, available, .. }) if available == [9, 10])
        );
    }
}

#[test]
fn a_tensor_larger_than_a_chunk_comes_back() {
    let Place { store, .. } = &place();
    // Five layers of 24 MiB: two to a chunk, so that the last chunk is half empty.
    let large = tensor(ElementType::F32, &[5, 1024, 6 * 1024], 3);
    store.save(1, &json!({}), [("large", &large)]).unwrap();
    assert_eq!(all_files(&path_of(store, 1).join("large/c")).len(), 5);
    assert!(store.load(1).unwrap().tensors[0].1 == large);
}

#[test]
fn saving_a_step_again_replaces_it() {
    for place in places() {
        let store = &place.store;
        store.save(3, &metadata(), example(1)).unwrap();
        store.save(3, &metadata(), example(2)).unwrap();
        assert_eq!(store.load(3).unwrap().tensors, example(2));
        place.expect_nothing_but(&[3]);
    }
}

#[test]
fn an_abandoned_save_leaves_nothing_and_a_killed_one_is_cleaned_away() {
    let Place { store, .. } = &place();
    store.save(1, &metadata(), example(1)).unwrap();
    let mut writer = store.begin(2).unwrap();
    writer.add("shared", &example(1)[0].1).unwrap();
    assert_eq!(
        store.list().unwrap(),
        [1],
        "a step without its marker does not exist"
    );
    drop(writer);
    assert_eq!(fs::read_dir(path(store.directory())).unwrap().count(), 1);

    // Killed while writing step 2, while removing step 0, and between the two renames of a
    // replacement of step 1.
    let mut writer = store.begin(2).unwrap();
    writer.add("shared", &example(1)[0].1).unwrap();
    std::mem::forget(writer);
    fs::create_dir(path(store.directory()).join(".step_00000000.removed")).unwrap();
    fs::rename(
        path_of(store, 1),
        path(store.directory()).join(".step_00000001.replaced"),
    )
    .unwrap();
    fs::create_dir(path(store.directory()).join(".mine.partial")).unwrap();
    let mut removed = store.clean().unwrap();
    removed.sort();
    assert_eq!(
        removed,
        [".step_00000000.removed", ".step_00000002.partial"]
            .map(|name| store.directory().join(name))
    );
    assert_eq!(store.load(1).unwrap().tensors, example(1));
    assert!(
        path(store.directory()).join(".mine.partial").exists(),
        "other names are not ours to remove"
    );
}

#[test]
fn retention_never_removes_the_newest_complete_step() {
    for place in places() {
        let store = &place.store;
        for step in [1, 2, 30, 4] {
            store.save(step, &json!({}), example(0)).unwrap();
        }
        place.write("step_00000099/zarr.json", b"{}");
        assert_eq!(store.keep(&Retention::last(3)).unwrap(), [1]);
        assert_eq!(store.keep(&Retention::last(1)).unwrap(), [2, 4]);
        assert_eq!(store.list().unwrap(), [30]);
        assert_eq!(
            store.incomplete().unwrap(),
            [store.directory_of(99)],
            "a directory without marker is no checkpoint, and not ours to remove"
        );
        assert!(store.keep(&Retention::last(1)).unwrap().is_empty());
        assert_eq!(store.load(30).unwrap().tensors, example(0));
    }
}

#[test]
fn a_saver_saves_in_the_background_and_tells_how_each_save_ended() {
    for place in places() {
        let store = &place.store;
        let mut saver = Saver::new(store.clone(), Retention::last(2), Share::Whole);
        for step in 1..=4 {
            let state = || Ok::<_, Error>(parts(step as u8));
            saver.save(step, metadata(), state).unwrap();
        }
        let ended: Vec<u64> = std::iter::from_fn(|| saver.wait())
            .map(|end| end.saved.map(|()| end.step).unwrap())
            .collect();
        assert_eq!(ended, [1, 2, 3, 4]);
        assert_eq!(store.list().unwrap(), [3, 4]);
        let unnamed = || Ok::<_, Error>(vec![("..".to_owned(), example(1)[0].1.clone()).into()]);
        saver.save(5, metadata(), unnamed).unwrap();
        let ended = saver.wait().unwrap();
        assert_eq!(ended.step, 5);
        assert!(matches!(ended.saved, Err(Error::Name { .. })));
        assert!(!ended.saved.unwrap_err().may_pass());
        assert!(saver.poll().is_none() && saver.wait().is_none());
        assert_eq!(store.list().unwrap(), [3, 4]);
    }
}

#[test]
fn a_failed_save_is_told_without_another_save_and_the_next_may_succeed() {
    let Place { store, .. } = &place();
    let mut saver = Saver::new(store.clone(), Retention::last(2), Share::Whole);
    // Where directories belong there is a file: neither root nor time can write below it.
    let directory = path(store.directory());
    fs::create_dir_all(directory.parent().unwrap()).unwrap();
    fs::write(&directory, "in the way").unwrap();
    saver
        .save(1, metadata(), || Ok::<_, Error>(parts(1)))
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        match saver.poll() {
            Some(ended) => break ended,
            None => assert!(Instant::now() < patience, "no end was told in a minute"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(ended.step, 1);
    assert!(ended.saved.unwrap_err().may_pass());
    fs::remove_file(&directory).unwrap();
    saver
        .save(2, metadata(), || Ok::<_, Error>(parts(2)))
        .unwrap();
    saver.wait().unwrap().saved.unwrap();
    assert_eq!(store.list().unwrap(), [2]);
}

#[test]
fn no_state_is_fetched_while_another_is_being_saved() {
    let Place { store, .. } = &place();
    let mut saver = Saver::new(store.clone(), Retention::last(0), Share::Whole);
    for step in 1..=4 {
        // The save before has not only been waited for: its state is gone, since what held it has
        // ended.
        let before: Vec<u64> = (1..step).collect();
        let fetch = || {
            assert_eq!(
                store.list().unwrap(),
                before,
                "fetching the state of step {step}"
            );
            Ok::<_, Error>(parts(step as u8))
        };
        saver.save(step, metadata(), fetch).unwrap();
        assert_eq!(saver.under_way().map(|save| save.0), Some(step));
    }
}

#[test]
fn what_one_host_cannot_write_fails_the_save_on_all_at_once_and_the_next_one_is_there() {
    let Place { store, .. } = &place();
    let whole = tensor(ElementType::F32, &[4, 6], 1);
    let shares = shares(&whole, &[2, 3], 3);
    let board = Arc::new(Board::default());
    let savers = (0..3).map(|host| {
        let messenger = Arc::new(OnBoard {
            board: board.clone(),
            host,
        });
        let team = Team {
            reports: Some(Reports::by(messenger)),
            ..team(host, 3, Duration::from_secs(600))
        };
        Saver::new(store.clone(), Retention::last(1), Share::OfTeam(team))
    });
    let mut savers: Vec<Saver> = savers.collect();
    // A file of host 1's part is a directory: neither root nor time can write it.
    let (launch, first) = (3, 1);
    let partial = format!(".step_00000005.{}.partial", launch + first);
    let checkpoints = path(store.directory());
    let chunk = checkpoints.join(partial).join("cut/c/1/0");
    fs::create_dir_all(chunk.join("x")).unwrap();
    for (step, fails) in [(5, true), (5, false), (6, false)] {
        let start = Instant::now();
        for (saver, share) in savers.iter_mut().zip(&shares) {
            let fetch = || Ok::<_, Error>(vec![share.clone()]);
            saver.save(step, metadata(), fetch).unwrap();
        }
        for saver in &mut savers {
            saver.judge(step, Verdict::Accepted);
        }
        let ends = savers.iter_mut().map(|saver| saver.wait().unwrap().saved);
        let ends: Vec<Result<()>> = ends.collect();
        assert!(start.elapsed() < Duration::from_secs(30));
        match fails {
            true => {
                let [first, second, third] = &ends[..] else {
                    panic!("{ends:?}");
                };
                assert!(
                    matches!(first, Err(Error::Part { host: 1, .. })),
                    "{first:?}"
                );
                assert!(second.as_ref().is_err_and(Error::may_pass), "{second:?}");
                let third = third.as_ref().unwrap_err();
                let words = "host 0 has not committed step 5: host 1 cannot write its part: ";
                assert!(third.to_string().starts_with(words), "{third}");
                assert!(third.may_pass());
                assert_eq!(store.list().unwrap(), Vec::<u64>::new());
            }
            false => {
                assert!(ends.iter().all(Result::is_ok), "{ends:?}");
                assert_eq!(store.list().unwrap(), [step]);
                assert_eq!(store.load(step).unwrap().tensors[0].1, whole);
            }
        }
    }
    assert_eq!(fs::read_dir(checkpoints).unwrap().count(), 1);
    // One that ends with an error waits for nobody.
    let fetch = || Ok::<_, Error>(vec![shares[1].clone()]);
    savers[1].save(7, metadata(), fetch).unwrap();
    let start = Instant::now();
    drop(savers);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn nothing_is_committed_before_every_host_has_written_its_part() {
    for place in places() {
        let store = &place.store;
        let whole = tensor(ElementType::F32, &[4, 6], 1);
        let shares = shares(&whole, &[2, 3], 3);
        let write = |host: usize, patience| {
            let mut writer = store
                .begin_share(5, Share::OfTeam(team(host, 3, patience).next_save()))
                .unwrap();
            writer.add_parts(&shares[host]).unwrap();
            writer.commit(&metadata())
        };
        write(1, Duration::ZERO).unwrap();
        assert_eq!(store.list().unwrap(), Vec::<u64>::new());
        let error = write(0, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Late { host: 2, .. }), "{error}");
        assert!(error.may_pass());
        // Nothing of it is left, so that the next try begins anew.
        place.expect_nothing_but(&[]);
        for host in [2, 1, 0] {
            write(host, Duration::ZERO).unwrap();
        }
        assert_eq!(store.reader(5).unwrap().tensor("cut").unwrap(), whole);
        place.expect_nothing_but(&[5]);
    }
}

#[test]
fn a_part_of_a_state_has_what_was_written_and_misses_the_rest() {
    let place = place();
    let store = &place.store;
    let whole = tensor(ElementType::F32, &[4, 6], 1);
    let shares = shares(&whole, &[2, 3], 2);
    let mut writer = store.begin_share(5, Share::Part).unwrap();
    writer.add_parts(&shares[1]).unwrap();
    writer.commit(&metadata()).unwrap();
    let reader = store.reader(5).unwrap();
    reader.verify().unwrap();
    let mut held = 0;
    for (host, share) in shares.iter().enumerate() {
        for (range, part) in &share.parts {
            assert_eq!(reader.holds("cut", range).unwrap(), host == 1);
            match reader.part("cut", range) {
                Ok(read) => {
                    assert_eq!(read, part.clone().into_owned());
                    held += 1;
                }
                Err(error) => {
                    assert!(host == 0, "{error}");
                    assert!(error.to_string().contains("it has no chunk"), "{error}");
                }
            }
        }
    }
    assert_eq!(held, shares[1].parts.len());
    assert!(reader.tensor("cut").is_err());
    // What is damaged is found here as elsewhere.
    let number: Vec<i64> = shares[1].parts[0].0.iter().map(|r| r.start / 2).collect();
    let chunk = format!("step_00000005/cut/c/{}/{}", number[0], number[1]);
    let mut bytes = place.read(&chunk);
    bytes[0] ^= 1;
    place.write(&chunk, &bytes);
    assert!(matches!(reader.verify(), Err(Error::Damaged(_))));
}

#[test]
fn parts_that_are_missing_or_do_not_fit_are_refused() {
    let Place { store, .. } = &place();
    let whole = tensor(ElementType::F32, &[4, 6], 1);
    let mut share = shares(&whole, &[2, 3], 1).remove(0);
    let (range, part) = share.parts.pop().unwrap();
    let error = |share: &TensorParts<'_>| {
        let mut writer = store.begin(5).unwrap();
        let added = writer.add_parts(share);
        added
            .and_then(|()| writer.commit(&metadata()))
            .unwrap_err()
            .to_string()
    };
    let message = error(&share);
    assert!(
        message.contains("5 chunks are written, and the array has 6"),
        "{message}"
    );
    let shifted = range.iter().map(|r| r.start - 1..r.end - 1).collect();
    share.parts.push((shifted, part.clone()));
    assert!(error(&share).contains("is no part of [2, 2] in [4, 6]"));
    share.parts.pop();
    share.parts.push((range, Cow::Owned(whole)));
    assert!(error(&share).contains("takes 16 bytes, found 96"));
    assert_eq!(store.list().unwrap(), Vec::<u64>::new());
}

#[test]
fn a_state_that_cannot_be_fetched_is_the_callers_error() {
    let Place { store, .. } = &place();
    let mut saver = Saver::new(store.clone(), Retention::last(2), Share::Whole);
    saver
        .save(1, metadata(), || Ok::<_, &str>(parts(1)))
        .unwrap();
    assert_eq!(
        saver.save(2, metadata(), || Err("no device")),
        Err("no device")
    );
    assert_eq!(saver.wait().unwrap().step, 1);
    assert!(saver.wait().is_none());
    assert_eq!(store.list().unwrap(), [1]);
}

#[test]
fn names_that_cannot_be_paths_are_refused() {
    let Place { store, .. } = &place();
    let shared = &example(0)[0].1;
    for name in [
        "",
        "/a",
        "a//b",
        "a/",
        "..",
        "a/../b",
        "__a",
        "a/zarr.json",
        "commit.json",
        "a\nb",
        &"x".repeat(300),
    ] {
        let error = store.save(1, &json!({}), [(name, shared)]).unwrap_err();
        assert!(
            matches!(&error, Error::Name { name: named, .. } if named == name),
            "{name:?}: {error}"
        );
    }
    for names in [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"]] {
        assert!(
            matches!(
                store.save(1, &json!({}), names.map(|n| (n, shared))),
                Err(Error::Name { .. })
            ),
            "{names:?}"
        );
    }
    let short = HostTensor {
        bytes: vec![0; 3],
        ..shared.clone()
    };
    assert!(matches!(
        store.save(1, &json!({}), [("a", short)]),
        Err(Error::Tensor { .. })
    ));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn an_existing_directory_is_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("notes.txt"), "mine").unwrap();
    assert!(matches!(
        Writer::create(root.path(), 0),
        Err(Error::Occupied(_))
    ));
    assert!(matches!(
        Writer::create(root.path().join("notes.txt"), 0),
        Err(Error::Occupied(_))
    ));
    let free = root.path().join("a/b");
    let mut writer = Writer::create(free.clone(), 0).unwrap();
    writer.add("x", &example(0)[0].1).unwrap();
    assert_eq!(path(&writer.commit(&json!({})).unwrap()), free);
    let free = free.into();
    assert_eq!(locate(&free).unwrap(), free);
}

#[test]
fn an_unwritable_place_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(file.join("checkpoints"))
        .save(1, &json!({}), example(0))
        .unwrap_err();
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_checkpoint_is_found_from_its_run_its_directory_or_itself() {
    let Place { store, .. } = &place();
    let run = store.directory().parent().unwrap();
    assert!(matches!(locate(&run), Err(Error::NotACheckpoint(_))));
    store.save(1, &json!({}), example(0)).unwrap();
    store.save(2, &json!({}), example(0)).unwrap();
    let newest = store.directory_of(2);
    assert_eq!(locate(&run).unwrap(), newest);
    assert_eq!(locate(store.directory()).unwrap(), newest);
    assert_eq!(locate(&newest).unwrap(), newest);
    assert_eq!(
        locate(&store.directory_of(1)).unwrap(),
        store.directory_of(1)
    );
}

#[test]
fn a_renamed_step_is_not_taken_for_another() {
    let Place { store, .. } = &place();
    store.save(1, &json!({}), example(0)).unwrap();
    fs::rename(path_of(store, 1), path_of(store, 2)).unwrap();
    let error = store.load(2).unwrap_err().to_string();
    assert!(error.contains("marker of step 1"), "{error}");
}

#[test]
fn chunks_of_two_arrays_exchanged_are_found() {
    for place in places() {
        let store = &place.store;
        let both = [
            ("a", tensor(ElementType::F32, &[4], 1)),
            ("b", tensor(ElementType::F32, &[4], 2)),
        ];
        store.save(1, &json!({}), both).unwrap();
        let [a, b] = ["a/c/0", "b/c/0"].map(|file| format!("step_00000001/{file}"));
        let [in_a, in_b] = [&a, &b].map(|file| place.read(file));
        place.write(&a, &in_b);
        place.write(&b, &in_a);
        assert!(
            matches!(store.load(1), Err(Error::Damaged(damage)) if damage.array.as_deref() == Some("a"))
        );
    }
}

#[test]
fn the_error_for_a_damaged_step_names_the_newest_intact_one() {
    for place in places() {
        let store = &place.store;
        for step in 1..=4 {
            store.save(step, &json!({}), example(step as u8)).unwrap();
        }
        place.delete("step_00000003/shared/c/0/0");
        let chunk = "step_00000004/encoder.layers.mlp.wo/c/0/0/0";
        let mut contents = place.read(chunk);
        contents[17] ^= 4;
        place.write(chunk, &contents);
        let error = store.load(4).unwrap_err();
        let message = error.to_string();
        for part in [
            "step_00000004",
            "`encoder.layers.mlp.wo`",
            "encoder.layers.mlp.wo/c/0/0/0",
            "step 2 is intact",
        ] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        // What is not damaged can still be read, and another step is not affected.
        assert_eq!(
            store.reader(4).unwrap().tensor("shared").unwrap(),
            example(4)[0].1
        );
        assert!(store.reader(4).unwrap().verify().is_err());
        assert!(store.reader(2).unwrap().verify().is_ok());
    }
}

/// Loads a damaged step 2 and expects an error that names the file and the intact step 1.
/// Something that becomes of a file.
#[derive(Clone, Copy, Debug)]
enum Corruption {
    Flip { byte: prop::sample::Index, bit: u8 },
    Cut { to: prop::sample::Index },
    Longer { by: u8 },
    Zeroed,
    Removed,
}

impl Corruption {
    /// Whether it changes the file's contents.
    fn apply(self, file: &Path) -> bool {
        let before = fs::read(file).unwrap();
        let mut after = before.clone();
        match self {
            Corruption::Flip { .. } if before.is_empty() => {}
            Corruption::Flip { byte, bit } => after[byte.index(before.len())] ^= 1 << (bit % 8),
            Corruption::Cut { to } => after.truncate(to.index(before.len() + 1)),
            Corruption::Longer { by } => after.extend(vec![0; usize::from(by)]),
            Corruption::Zeroed => after.fill(0),
            Corruption::Removed => {
                fs::remove_file(file).unwrap();
                return true;
            }
        }
        fs::write(file, &after).unwrap();
        after != before
    }
}

impl Arbitrary for Corruption {
    type Parameters = ();
    type Strategy = BoxedStrategy<Corruption>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            (index(), any::<u8>()).prop_map(|(byte, bit)| Corruption::Flip { byte, bit }),
            index().prop_map(|to| Corruption::Cut { to }),
            (1u8..).prop_map(|by| Corruption::Longer { by }),
            Just(Corruption::Zeroed),
            Just(Corruption::Removed),
        ]
        .boxed()
    }
}

fn expect_damage(store: &Store, path: &Path, what: &str) {
    let file = path
        .strip_prefix(path_of(store, 2))
        .unwrap()
        .to_str()
        .unwrap();
    match store.load(2) {
        Err(Error::Damaged(damage)) => {
            assert_eq!(damage.file, file, "{what}: {damage}");
            assert_eq!(damage.intact, Some(1), "{what}: {damage}");
            let in_array = file
                .strip_suffix("/zarr.json")
                .or(file.split_once("/c").map(|(array, _)| array));
            let names_array = example(0)
                .iter()
                .any(|(name, _)| Some(name.as_str()) == in_array);
            assert_eq!(
                damage.array.as_deref(),
                in_array.filter(|_| names_array),
                "{what}: {damage}"
            );
        }
        other => panic!("{what} of {file}: expected an error, found {other:?}"),
    }
}

#[test]
fn any_file_missing_or_cut_anywhere_is_an_error_that_names_it() {
    let Place { store, .. } = &place();
    store.save(1, &metadata(), example(1)).unwrap();
    store.save(2, &metadata(), example(2)).unwrap();
    for path in all_files(&path_of(store, 2)) {
        let contents = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        expect_damage(store, &path, "removal");
        for length in [0, 1, contents.len() / 2, contents.len() - 1] {
            fs::write(&path, &contents[..length]).unwrap();
            expect_damage(store, &path, "cut");
        }
        fs::write(&path, [&contents[..], &[0]].concat()).unwrap();
        expect_damage(store, &path, "growth");
        fs::write(&path, &contents).unwrap();
    }
    assert_eq!(store.load(2).unwrap().tensors, example(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_flipped_byte_in_any_file_is_an_error_that_names_it(places in prop::collection::vec(any::<prop::sample::Index>(), 1), flip in 1u8..) {
        let Place { store, .. } = &place();
        store.save(1, &metadata(), example(1)).unwrap();
        store.save(2, &metadata(), example(2)).unwrap();
        for path in all_files(&path_of(store, 2)) {
            let contents = fs::read(&path).unwrap();
            for place in &places {
                let mut altered = contents.clone();
                altered[place.index(contents.len())] ^= flip;
                fs::write(&path, altered).unwrap();
                expect_damage(store, &path, "flip");
            }
            fs::write(&path, &contents).unwrap();
        }
    }

    #[test]
    fn what_hosts_save_together_is_read_in_any_parts(
        cuts in prop::collection::vec(1i64..4, 0..4),
        sizes in prop::collection::vec(1i64..5, 3),
        hosts in 1usize..5,
        asked in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 3),
    ) {
        let dims: Vec<i64> = cuts.iter().zip(&sizes).map(|(cut, size)| cut * size).collect();
        let whole = tensor(ElementType::F32, &dims, 9);
        let place = place();
        let write = |(host, share): (usize, &TensorParts<'static>)| {
            let team = team(host, hosts, Duration::from_secs(60));
            let mut writer = place.store.begin_share(7, Share::OfTeam(team.next_save())).unwrap();
            writer.add_parts(share).unwrap();
            writer.commit(&metadata()).unwrap();
        };
        let shares = shares(&whole, &cuts, hosts);
        std::thread::scope(|scope| {
            for share in shares.iter().enumerate() {
                scope.spawn(move || write(share));
            }
        });
        let reader = place.store.reader(7).unwrap();
        reader.verify().unwrap();
        prop_assert_eq!(&reader.tensor("cut").unwrap(), &whole);
        prop_assert_eq!(reader.bytes(), whole.bytes.len() as u64);
        let part: Vec<_> = dims
            .iter()
            .zip(&asked)
            .map(|(&size, (a, b))| {
                let (a, b) = (a.index(size as usize + 1), b.index(size as usize + 1));
                a.min(b) as i64..a.max(b) as i64
            })
            .collect();
        let before = reader.bytes_read();
        prop_assert_eq!(reader.part("cut", &part).unwrap(), whole.part(&part).unwrap());
        // Of files, those of the parts it lies in.
        let touched: u64 = part
            .iter()
            .zip(dims.iter().zip(&cuts))
            .map(|(range, (size, cut))| {
                let part = size / cut;
                match range.is_empty() {
                    true => 0,
                    false => ((range.end - 1) / part - range.start / part + 1) as u64,
                }
            })
            .product();
        let chunk = whole.bytes.len() as u64 / cuts.iter().product::<i64>() as u64 + 4;
        prop_assert_eq!(reader.bytes_read() - before, touched * chunk);
    }

    #[test]
    fn tensors_of_any_shape_and_type_come_back(
        shapes in prop::collection::vec((prop::collection::vec(0i64..6, 0..5), 0usize..4), 0..6),
        seed: u8,
    ) {
        let types = [ElementType::F32, ElementType::S64, ElementType::U8, ElementType::F16];
        let tensors: Vec<_> = shapes
            .iter()
            .enumerate()
            .map(|(i, (dims, kind))| (format!("group{}/t.{i}", i % 2), tensor(types[*kind], dims, seed)))
            .collect();
        let Place { store, .. } = &place();
        store.save(5, &metadata(), tensors.clone()).unwrap();
        prop_assert_eq!(store.load(5).unwrap().tensors, tensors);
    }
}

/// A copy of a directory and all below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        match from.is_dir() {
            true => copy(&from, &to.join(name)),
            false => drop(fs::copy(&from, to.join(name)).unwrap()),
        }
    }
}

/// So many times one to three corruptions are tried, in memory, where files are quick.
const CORRUPTED: u32 = 500;

/// Three steps, any of whose files are changed in any way: a run falls back to the newest that is
/// as it was saved, and never reads anything else.
#[test]
fn whatever_is_corrupted_the_newest_whole_step_is_resumed_from() {
    let saved = place();
    for step in 1..=3 {
        let tensors = example(step as u8);
        saved.store.save(step, &metadata(), tensors).unwrap();
    }
    let corruption = (1u64..=3, any::<prop::sample::Index>(), any::<Corruption>());
    let corruptions = prop::collection::vec(corruption, 1..4);
    let try_one = |corruptions: Vec<(u64, prop::sample::Index, Corruption)>| {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let root = root.unwrap();
        let store = Store::open(root.path().join("checkpoints"));
        copy(&path(saved.store.directory()), &path(store.directory()));
        let steps: Vec<u64> = (1..=3).collect();
        let is_whole = |step: u64| {
            let reader = store.reader(step);
            reader.is_ok_and(|reader| reader.verify().is_ok())
        };
        let mut corrupted = BTreeSet::new();
        for (step, file, corruption) in corruptions {
            let files = all_files(&path_of(&store, step));
            if files.is_empty() {
                continue;
            }
            let file = file.get(&files);
            if corruption.apply(file) {
                corrupted.insert(step);
            }
        }
        let is_intact = |step: &u64| !corrupted.contains(step);
        let expected = steps.iter().copied().rev().find(is_intact);
        for step in steps {
            prop_assert_eq!(is_whole(step), is_intact(&step), "step {}", step);
        }
        let resumed = loop {
            let Some(step) = store.latest().unwrap() else {
                break None;
            };
            match store.load(step) {
                Ok(checkpoint) => break Some(checkpoint),
                Err(Error::Damaged(damage)) => {
                    let Some(intact) = damage.fallback() else {
                        break None;
                    };
                    store.fall_back_to(intact).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        };
        let found = resumed.as_ref().map(|checkpoint| checkpoint.step);
        prop_assert_eq!(found, expected);
        if let Some(checkpoint) = resumed {
            prop_assert_eq!(checkpoint.tensors, example(checkpoint.step as u8));
        }
        Ok(())
    };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CORRUPTED));
    runner.run(&corruptions, try_one).unwrap();
}
