//! What holds in a bucket alone: a server that fails, and writers that are cut off anywhere.

use std::collections::BTreeMap;

use super::places::in_bucket;
use super::servers::{Fault, Faults};
use super::*;

/// Two small tensors, all of this value.
fn small(value: f32) -> Vec<(&'static str, HostTensor)> {
    let tensor = HostTensor::new::<f32>([3], &[value; 3]);
    vec![("a", tensor.clone()), ("v/a", tensor)]
}

fn value_of(store: &Store, step: u64) -> f32 {
    let tensors = store.load(step).unwrap().tensors;
    let values: Vec<f32> = tensors
        .iter()
        .flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap())
        .collect();
    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    values[0]
}

#[test]
fn a_bucket_holds_the_bytes_that_a_disk_would() {
    let contents = places().map(|place| {
        place.store.save(7, &metadata(), example(3)).unwrap();
        // A replaced step too.
        place.store.save(8, &metadata(), example(1)).unwrap();
        place.store.save(8, &metadata(), example(2)).unwrap();
        let names = place.names().into_iter();
        let files = names.map(|name| (place.read(&name), name));
        files
            .map(|(bytes, name)| (name, bytes))
            .collect::<BTreeMap<_, _>>()
    });
    let [on_disk, in_bucket] = contents;
    assert!(on_disk.len() > 30);
    assert!(on_disk.keys().eq(in_bucket.keys()));
    for (name, bytes) in &on_disk {
        assert!(*bytes == in_bucket[name], "{name}");
    }
}

#[test]
fn a_large_tensor_goes_up_in_parts_and_comes_back() {
    let place = in_bucket(Faults::of(5, 0.1), 30);
    let large = tensor(ElementType::F32, &[3, 1024, 6 * 1024], 3);
    place
        .store
        .save(1, &json!({}), [("large", &large)])
        .unwrap();
    let loaded = place.directly().load(1).unwrap();
    assert!(loaded.tensors[0].1 == large);
}

#[test]
fn saves_through_a_failing_server_succeed_and_are_whole() {
    let place = in_bucket(Faults::of(11, 0.3), 30);
    for step in 1..=4 {
        place
            .store
            .save(step, &metadata(), example(step as u8))
            .unwrap();
        place.store.keep(&Retention::last(2)).unwrap();
    }
    assert_eq!(place.store.list().unwrap(), [3, 4]);
    assert_eq!(place.store.load(4).unwrap().tensors, example(4));
    assert_eq!(place.directly().load(3).unwrap().tensors, example(3));
    place.expect_nothing_but(&[3, 4]);
    let proxy = place.proxy.as_ref().unwrap();
    for fault in Fault::PASSING {
        assert!(proxy.met(fault) > 0, "{fault:?}");
    }
}

#[test]
fn saves_that_a_failing_server_ends_leave_no_step_and_say_where() {
    // Two attempts at each request are too few.
    let place = in_bucket(Faults::of(12, 0.3), 2);
    let directly = place.directly();
    let mut ended = [0, 0];
    let mut saved = BTreeSet::new();
    for step in 1..=12 {
        match place.store.save(step, &metadata(), small(step as f32)) {
            Ok(_) => {
                ended[0] += 1;
                saved.insert(step);
            }
            Err(error) => {
                ended[1] += 1;
                assert!(error.may_pass(), "{error}");
                let message = error.to_string();
                for words in [
                    &place.store.directory().to_string(),
                    "given up after 2 attempts",
                ] {
                    assert!(message.contains(words), "{message}");
                }
            }
        }
        let listed: BTreeSet<u64> = directly.list().unwrap().into_iter().collect();
        // An answer that was lost may be that to the marker.
        assert!(listed.is_superset(&saved), "{listed:?} {saved:?}");
        for step in listed {
            assert_eq!(value_of(&directly, step), step as f32);
        }
    }
    assert!(ended.iter().all(|count| *count > 0), "{ended:?}");
    // What was left is removed when a save succeeds, or at the next start.
    place.proxy.as_ref().unwrap().set(Faults::none());
    place.store.save(13, &metadata(), small(13.0)).unwrap();
    place.expect_nothing_but(&directly.list().unwrap());
    assert!(directly.clean().unwrap().is_empty());
}

/// A save whose process ends after this many requests: no later one arrives.
fn save_cut_off(place: &places::Place, after: u64, step: u64, value: f32) -> Result<Location> {
    let proxy = place.proxy.as_ref().unwrap();
    let sent = proxy.requests().len() as u64;
    proxy.set(Faults::always(Fault::Forbidden).from(sent + after));
    let saved = place.store.save(step, &json!({}), small(value));
    proxy.set(Faults::none());
    saved
}

#[test]
fn a_save_that_is_cut_off_anywhere_shows_no_step() {
    let place = in_bucket(Faults::none(), 3);
    let directly = place.directly();
    directly.save(1, &json!({}), small(1.0)).unwrap();
    let cuts = (0..).take_while(|after| save_cut_off(&place, *after, 2, 2.0).is_err());
    let cuts = cuts.inspect(|after| {
        assert_eq!(directly.list().unwrap(), [1], "cut after {after} requests");
        assert!(matches!(
            directly.load(2),
            Err(Error::Damaged(_) | Error::NoStep { .. })
        ));
        directly.clean().unwrap();
        place.expect_nothing_but(&[1]);
    });
    assert!(cuts.count() > 6);
    assert_eq!(directly.list().unwrap(), [1, 2]);
    assert_eq!(value_of(&directly, 2), 2.0);
}

#[test]
fn a_replacement_that_is_cut_off_anywhere_is_finished_or_never_came() {
    let place = in_bucket(Faults::none(), 3);
    let directly = place.directly();
    directly.save(1, &json!({}), small(1.0)).unwrap();
    let (mut before, mut after) = (1.0, 2.0);
    let mut finished = 0;
    for cut in 0.. {
        let saved = save_cut_off(&place, cut, 1, after);
        // What is listed is whole, cleaned or not.
        if directly.list().unwrap() == [1] {
            let value = value_of(&directly, 1);
            assert!(
                [before, after].contains(&value),
                "{value} after {cut} requests"
            );
        }
        directly.clean().unwrap();
        assert_eq!(directly.list().unwrap(), [1], "cut after {cut} requests");
        let value = value_of(&directly, 1);
        place.expect_nothing_but(&[1]);
        if value == after {
            finished += 1;
            (before, after) = (after, after + 1.0);
        } else {
            assert_eq!(value, before);
        }
        if saved.is_ok() {
            assert_eq!(value, before);
            break;
        }
    }
    assert!(finished > 1);
}

#[test]
fn hosts_save_together_through_a_failing_server() {
    let place = in_bucket(Faults::of(3, 0.3), 30);
    let whole = tensor(ElementType::F32, &[4, 6], 1);
    let shares = shares(&whole, &[2, 3], 3);
    std::thread::scope(|scope| {
        for (host, share) in shares.iter().enumerate() {
            let store = place.store.clone();
            scope.spawn(move || {
                let team = team(host, 3, Duration::from_secs(60));
                let mut writer = store
                    .begin_share(5, Share::OfTeam(team.next_save()))
                    .unwrap();
                writer.add_parts(share).unwrap();
                writer.commit(&metadata()).unwrap();
            });
        }
    });
    let reader = place.store.reader(5).unwrap();
    assert_eq!(reader.tensor("cut").unwrap(), whole);
    // Of the chunks, those that a part lies in.
    let before = reader.bytes_read();
    reader.part("cut", &[0..1, 0..2]).unwrap();
    assert_eq!(reader.bytes_read() - before, 16 + 4);
    place.expect_nothing_but(&[5]);
}

#[test]
fn a_rejected_step_counts_no_more_and_stays_until_it_is_saved_again() {
    for place in places() {
        let store = &place.store;
        store.save(1, &json!({}), small(1.0)).unwrap();
        store.save(2, &json!({}), small(2.0)).unwrap();
        let rejected = store.fall_back_to(1).unwrap();
        assert_eq!(rejected.len(), 1);
        assert!(rejected[0].to_string().contains("rejected"), "{rejected:?}");
        assert_eq!(store.list().unwrap(), [1]);
        let before = place.names();
        assert!(store.clean().unwrap().is_empty());
        assert_eq!(place.names(), before);
        assert!(store.incomplete().unwrap().is_empty());
        store.save(2, &json!({}), small(3.0)).unwrap();
        assert_eq!(value_of(store, 2), 3.0);
    }
}

#[test]
fn lists_of_another_session_never_count() {
    for place in places() {
        let whole = tensor(ElementType::F32, &[4, 6], 1);
        let shares = shares(&whole, &[2, 3], 2);
        let write = |host: usize, launch| {
            let team = Team {
                launch,
                ..team(host, 2, Duration::ZERO)
            };
            let mut writer = place
                .store
                .begin_share(5, Share::OfTeam(team.next_save()))
                .unwrap();
            writer.add_parts(&shares[host]).unwrap();
            writer.commit(&metadata())
        };
        write(1, 3).unwrap();
        let error = write(0, 4).unwrap_err();
        assert!(matches!(error, Error::Late { host: 1, .. }), "{error}");
        place.store.clean().unwrap();
        place.expect_nothing_but(&[]);
    }
}

#[test]
fn any_object_missing_or_altered_is_damage_that_names_it() {
    let place = in_bucket(Faults::none(), 3);
    place.store.save(1, &json!({}), small(1.0)).unwrap();
    place.store.save(2, &json!({}), small(2.0)).unwrap();
    for name in place.names() {
        let Some(file) = name.strip_prefix("step_00000002/") else {
            continue;
        };
        let expect = |what: &str| match place.store.load(2) {
            Err(Error::Damaged(damage)) => {
                assert_eq!(damage.file, file, "{what}: {damage}");
                assert_eq!(damage.fallback(), Some(1), "{what}: {damage}");
            }
            other => panic!("{what} of {file}: {other:?}"),
        };
        let contents = place.read(&name);
        place.delete(&name);
        expect("removal");
        place.write(&name, &contents[..contents.len() - 1]);
        expect("cut");
        let mut altered = contents.clone();
        altered[contents.len() / 2] ^= 1;
        place.write(&name, &altered);
        expect("flip");
        place.write(&name, &contents);
    }
    assert_eq!(value_of(&place.store, 2), 2.0);
}

#[test]
fn a_server_that_is_down_is_no_damage() {
    let place = in_bucket(Faults::none(), 2);
    place.store.save(1, &json!({}), small(1.0)).unwrap();
    place.store.save(2, &json!({}), small(2.0)).unwrap();
    let reader = place.store.reader(2).unwrap();
    place
        .proxy
        .as_ref()
        .unwrap()
        .set(Faults::always(Fault::Unavailable));
    for error in [
        place.store.load(2).unwrap_err(),
        reader.load().unwrap_err(),
        place.store.list().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Storage(_)), "{error}");
        assert!(
            error.to_string().contains("the server answered 503"),
            "{error}"
        );
    }
}
