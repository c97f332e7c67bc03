use std::process;

use super::holder::{began, seconds_since_1970};
use super::*;

const QUICK: Timing = Timing {
    renewal: Duration::from_millis(20),
    patience: Duration::from_millis(600),
};

/// A process on another machine: its number means nothing here.
fn elsewhere() -> Holder {
    Holder {
        host: "elsewhere".into(),
        process: process::id(),
        since: seconds_since_1970(),
        system: "another".into(),
        began: Some(1),
    }
}

/// As on a file system whose locks do not reach other machines.
fn without_lock(directory: &Path) {
    let lock = directory.join(DIRECTORY).join(LOCK);
    fs::remove_file(lock).unwrap();
}

fn refused(directory: &Path) -> Option<Holder> {
    match Lease::take_as(directory, Holder::this_process(), QUICK) {
        Err(Refusal::Held(holder)) => holder,
        other => panic!("expected a refusal that names the holder, found {other:?}"),
    }
}

#[test]
fn a_held_directory_is_refused_at_once_and_its_holder_named() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(holder(directory.path()), None);
    let lease = Lease::take(directory.path()).unwrap();
    assert_eq!(refused(directory.path()).unwrap().process, process::id());
    assert_eq!(holder(directory.path()).unwrap().process, process::id());
    drop(lease);
    assert_eq!(holder(directory.path()), None);
    Lease::take(directory.path()).unwrap();
}

#[test]
fn a_lease_that_another_machine_renews_is_held_also_without_locks() {
    let directory = tempfile::tempdir().unwrap();
    let lease = Lease::take_as(directory.path(), elsewhere(), QUICK).unwrap();
    without_lock(directory.path());
    assert_eq!(refused(directory.path()).unwrap().host, "elsewhere");
    lease.fence().check().unwrap();
}

#[test]
fn a_stale_lease_of_another_machine_is_taken_and_its_holder_fenced_off() {
    let directory = tempfile::tempdir().unwrap();
    let slow = Timing {
        renewal: Duration::from_secs(3600),
        ..QUICK
    };
    let paused = Lease::take_as(directory.path(), elsewhere(), slow).unwrap();
    without_lock(directory.path());
    let taken = Lease::take_as(directory.path(), Holder::this_process(), QUICK).unwrap();
    assert!(taken.fence().number() > paused.fence().number());
    paused.fence().check().unwrap_err();
    taken.fence().check().unwrap();
    drop(paused);
    taken.fence().check().unwrap();
}

#[test]
fn the_lease_of_a_process_that_was_killed_here_is_taken_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let leases = directory.path().join(DIRECTORY);
    fs::create_dir_all(&leases).unwrap();
    let mut ended = process::Command::new("true").spawn().unwrap();
    let holder = Holder {
        process: ended.id(),
        began: began(ended.id()).or(Some(1)),
        ..Holder::this_process()
    };
    ended.wait().unwrap();
    let record = Record {
        holder,
        renewals: 7,
        ended: false,
    };
    let text = serde_json::to_vec(&record).unwrap();
    fs::write(path_of(&leases, 41), text).unwrap();
    let lease = Lease::take(directory.path()).unwrap();
    assert_eq!(lease.fence().number(), 42);
    assert!(!path_of(&leases, 41).exists());
}

#[test]
fn a_lease_that_was_cut_short_is_watched_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let leases = directory.path().join(DIRECTORY);
    fs::create_dir_all(&leases).unwrap();
    fs::write(path_of(&leases, 3), "{\"host\":\"else").unwrap();
    let begun = Instant::now();
    let lease = Lease::take_as(directory.path(), Holder::this_process(), QUICK).unwrap();
    assert!(begun.elapsed() >= QUICK.patience);
    assert_eq!(lease.fence().number(), 4);
}

#[test]
fn of_many_that_take_a_stale_lease_at_once_one_gets_it() {
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let slow = Timing {
            renewal: Duration::from_secs(3600),
            patience: Duration::from_millis(60),
        };
        let stale = Lease::take_as(directory.path(), elsewhere(), slow).unwrap();
        let quick = Timing {
            patience: slow.patience,
            ..QUICK
        };
        let leases: Vec<_> = std::thread::scope(|scope| {
            let take = |i: usize| {
                let directory = directory.path();
                scope.spawn(move || {
                    without_lock_of(directory, i);
                    let other = Holder {
                        system: format!("machine {i}"),
                        ..elsewhere()
                    };
                    Lease::take_as(directory, other, quick)
                })
            };
            let all: Vec<_> = (0..4).map(take).collect();
            all.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        let valid = |lease: &&Lease| lease.fence().check().is_ok();
        let taken: Vec<&Lease> = leases.iter().flatten().collect();
        assert_eq!(taken.iter().copied().filter(|l| valid(l)).count(), 1);
        stale.fence().check().unwrap_err();
    }
}

/// Each taker finds no lock, as on a machine of its own.
fn without_lock_of(directory: &Path, _taker: usize) {
    let _ = fs::remove_file(directory.join(DIRECTORY).join(LOCK));
}

#[test]
fn looking_at_a_lease_tells_a_holder_that_lives_from_one_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(tenancy(directory.path()), Tenancy::Free);
    let lease = Lease::take(directory.path()).unwrap();
    let me = lease.state.holder.clone();
    assert_eq!(tenancy(directory.path()), Tenancy::Held(me.clone()));
    let path = path_of(&directory.path().join(DIRECTORY), lease.state.number);
    drop(lease);
    assert_eq!(tenancy(directory.path()), Tenancy::Free);
    let left = |holder: Holder| {
        let record = Record {
            holder,
            renewals: 3,
            ended: false,
        };
        fs::write(&path, serde_json::to_string(&record).unwrap()).unwrap();
    };
    // A process of this machine that began at another time than the one of that number now.
    let gone = Holder {
        began: Some(1),
        ..me
    };
    left(gone.clone());
    assert_eq!(tenancy(directory.path()), Tenancy::Abandoned(gone));
    // One of another machine lives as long as it renews.
    left(elsewhere());
    assert_eq!(tenancy(directory.path()), Tenancy::Held(elsewhere()));
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() - 2 * TIMING.patience)
        .unwrap();
    assert_eq!(tenancy(directory.path()), Tenancy::Abandoned(elsewhere()));
}
