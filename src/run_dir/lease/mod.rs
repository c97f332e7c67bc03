//! At most one process owns a run directory, from before it writes anything there until it ends.
//!
//! Two mechanisms keep others out, because neither is enough alone. A file lock (`flock`) is
//! released by the system however a process ends, and refuses others at once. But some shared file
//! systems do not pass locks to other machines, so there is also a lease: a numbered file that its
//! holder rewrites every few seconds. A process that finds the lease of a holder that it cannot
//! look up watches the file. If it changes, the directory is held. If it does not, the lease is
//! stale and may be taken by creating the file with the next number, which succeeds for one process
//! alone. The number is a fencing token: a holder that was only paused finds a higher number before
//! it commits anything, and gives up. The argument is in `docs/design/checkpoints.md`. This module
//! does not know what a run is.

mod holder;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use holder::Holder;
pub(crate) use holder::machine;

/// Where the lock and the lease are in the directory they protect.
pub(super) const DIRECTORY: &str = ".lease";
const LOCK: &str = "lock";

/// How often a lease is renewed, and how long one that does not change is watched.
#[derive(Clone, Copy, Debug)]
struct Timing {
    renewal: Duration,
    /// Many renewals: a busy disk or a slow network must not make a lease look stale.
    patience: Duration,
}

const TIMING: Timing = Timing {
    renewal: Duration::from_secs(2),
    patience: Duration::from_secs(30),
};

/// Why a directory cannot be taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another process has it; not named if it has only just begun.
    Held(Option<Holder>),
    /// A file of the lease cannot be read or written.
    Io(PathBuf, io::Error),
}

/// The directory is another process's now: the lease was not renewed for long, or was removed.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{} is not this process's any more: its lease in {DIRECTORY}/ was taken over or removed",
    directory.display()
)]
pub struct Lost {
    directory: PathBuf,
}

/// The right to write in a directory. Given back when dropped, and by the process's end.
#[derive(Debug)]
pub(super) struct Lease {
    state: Arc<State>,
    /// Dropped to end the renewals.
    stop: Option<Sender<()>>,
    renewals: Option<JoinHandle<()>>,
    /// Released by the system when the process ends, however it ends.
    _lock: Option<File>,
}

#[derive(Debug)]
struct State {
    directory: PathBuf,
    number: u64,
    holder: Holder,
    lost: AtomicBool,
}

/// What a lease's file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    holder: Holder,
    /// Renewals so far: what makes the file change.
    renewals: u64,
    /// Whether the holder gave it back.
    ended: bool,
}

/// A claim on the lease that can be asked at any time, from any thread.
#[derive(Clone, Debug)]
pub struct Fence(Arc<State>);

impl Fence {
    /// Whether the directory is still this process's, by the file system itself: to be asked before
    /// what others would see is changed.
    pub fn check(&self) -> Result<(), Lost> {
        self.0.check()
    }

    /// The same as far as the last renewal knows: cheap enough to be asked at every step.
    pub fn known(&self) -> Result<(), Lost> {
        self.0.known()
    }

    /// The number of the lease, which no other process that records anything has had or will have.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Removes the lease of a holder that has written nothing, as if there had been none. Only the
    /// first that the directory has had: a later one's number shows earlier holders that they are
    /// none any more.
    pub(super) fn withdraw(&self) {
        if self.number() != 1 || self.check().is_err() {
            return;
        }
        let leases = self.0.directory.join(DIRECTORY);
        for path in [path_of(&leases, 1), leases.join(LOCK)] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(leases);
    }
}

impl Lease {
    /// Takes `directory`, which exists, or reports its holder.
    pub(super) fn take(directory: &Path) -> Result<Lease, Refusal> {
        let mut tries = 1..=3;
        loop {
            match Self::take_as(directory, Holder::this_process(), TIMING) {
                // Its holder has withdrawn it just now, and the directories that it made.
                Err(Refusal::Io(_, error))
                    if error.kind() == ErrorKind::NotFound && tries.next().is_some() => {}
                taken => return taken,
            }
        }
    }

    fn take_as(directory: &Path, holder: Holder, timing: Timing) -> Result<Lease, Refusal> {
        let leases = directory.join(DIRECTORY);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| Refusal::Io(path, error)
        };
        fs::create_dir_all(&leases).map_err(failed(&leases))?;
        let path = leases.join(LOCK);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(failed(&path))?;
        let lock = match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => return Err(Refusal::Held(name_holder(&leases))),
            // Not every shared file system has locks; there the lease has to be enough.
            Err(TryLockError::Error(_)) => None,
        };
        let number = loop {
            let newest = newest(&leases).map_err(failed(&leases))?;
            if let Some(number) = newest {
                await_end(&leases, number, timing)?;
            }
            let number = newest.unwrap_or(0) + 1;
            let record = Record {
                holder: holder.clone(),
                renewals: 0,
                ended: false,
            };
            let path = path_of(&leases, number);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    write(&file, &record).map_err(failed(&path))?;
                    break number;
                }
                // Somebody was quicker: look at whom.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Refusal::Io(path, error)),
            }
        };
        // Only the highest number counts, so that an older one that stays does no harm.
        let older = numbers(&leases).map_err(failed(&leases))?;
        for older in older.into_iter().filter(|older| *older < number) {
            let _ = fs::remove_file(path_of(&leases, older));
        }
        let state = Arc::new(State {
            directory: directory.to_owned(),
            number,
            holder,
            lost: AtomicBool::new(false),
        });
        let (stop, stopped) = channel();
        let renewing = state.clone();
        let renewals = std::thread::spawn(move || renewing.renew_until(&stopped, timing.renewal));
        Ok(Lease {
            state,
            stop: Some(stop),
            renewals: Some(renewals),
            _lock: lock,
        })
    }

    pub(super) fn fence(&self) -> Fence {
        Fence(self.state.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(renewals) = self.renewals.take() {
            let _ = renewals.join();
        }
        if self.state.check().is_ok() {
            // Where this fails, whoever comes next finds out by watching, only later.
            let _ = self.state.write(u64::MAX, true);
        }
    }
}

/// Who holds a directory, without taking it; nobody if the answer would need watching.
pub(super) fn holder(directory: &Path) -> Option<Holder> {
    let leases = directory.join(DIRECTORY);
    let lock = File::open(leases.join(LOCK)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => name_holder(&leases),
        _ => None,
    }
}

/// What a directory's lease tells of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// There is no lease, or its holder gave it back.
    Free,
    /// The holder lives, as far as can be told.
    Held(Holder),
    /// The holder ended without giving it back, or has not renewed it for long.
    Abandoned(Holder),
}

/// What the lease of `directory` tells, by its file alone. Unlike [`holder`] it takes no lock, so
/// whoever asks again and again is never in a trainer's way.
pub fn tenancy(directory: &Path) -> Tenancy {
    let leases = directory.join(DIRECTORY);
    let read = || {
        let path = path_of(&leases, newest(&leases).ok()??);
        let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let renewed = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
        Some((record, renewed))
    };
    let Some((record, renewed)) = read() else {
        return Tenancy::Free;
    };
    let (holder, ended) = (record.holder, record.ended);
    // A clock that is behind the file system's has just seen it renewed.
    let age = renewed.elapsed().unwrap_or_default();
    let lives = holder.is_alive().unwrap_or(age < TIMING.patience);
    match (ended, lives) {
        (true, _) => Tenancy::Free,
        (false, true) => Tenancy::Held(holder),
        (false, false) => Tenancy::Abandoned(holder),
    }
}

impl State {
    fn renew_until(&self, stopped: &Receiver<()>, every: Duration) {
        let mut renewals = 0;
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            renewals += 1;
            // One that fails is tried again; whoever watches has patience for many.
            if self.check().is_ok() {
                let _ = self.write(renewals, false);
            }
        }
    }

    fn check(&self) -> Result<(), Lost> {
        let leases = self.directory.join(DIRECTORY);
        // A file system that does not answer says nothing about who holds the directory.
        let overtaken = newest(&leases).is_ok_and(|newest| newest > Some(self.number));
        let replaced = match fs::read(path_of(&leases, self.number)) {
            Ok(text) => serde_json::from_slice(&text)
                .is_ok_and(|record: Record| record.holder != self.holder),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if overtaken || replaced {
            self.lost.store(true, Ordering::Relaxed);
        }
        self.known()
    }

    /// What the last check found.
    fn known(&self) -> Result<(), Lost> {
        match self.lost.load(Ordering::Relaxed) {
            true => Err(Lost {
                directory: self.directory.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Rewrites the lease's file, unless it is gone.
    fn write(&self, renewals: u64, ended: bool) -> io::Result<()> {
        let path = path_of(&self.directory.join(DIRECTORY), self.number);
        let record = Record {
            holder: self.holder.clone(),
            renewals,
            ended,
        };
        // Opened each time: on network file systems closing is what shows others the change.
        write(&OpenOptions::new().write(true).open(path)?, &record)
    }
}

fn path_of(leases: &Path, number: u64) -> PathBuf {
    leases.join(format!("{number:08}.json"))
}

/// The highest number of a lease.
fn newest(leases: &Path) -> io::Result<Option<u64>> {
    Ok(numbers(leases)?.into_iter().max())
}

fn numbers(leases: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(leases)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// In place, so that whoever watches finds the file at any time; read half-way it is no JSON, and
/// has changed all the same.
fn write(mut file: &File, record: &Record) -> io::Result<()> {
    let text = serde_json::to_string(record)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The holder of a directory whose lock is held. One that has only just locked it is given a moment
/// to say who it is.
fn name_holder(leases: &Path) -> Option<Holder> {
    let patience = Instant::now() + Duration::from_millis(300);
    loop {
        let newest = newest(leases).ok().flatten();
        let text = newest.and_then(|number| fs::read(path_of(leases, number)).ok());
        let record = text.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        match record {
            Some(record) if !record.ended && record.holder.is_alive() != Some(false) => {
                return Some(record.holder);
            }
            _ if Instant::now() > patience => return None,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Waits until the lease `number` is known to be nobody's.
fn await_end(leases: &Path, number: u64, timing: Timing) -> Result<(), Refusal> {
    let path = path_of(leases, number);
    let first = fs::read(&path).ok();
    let record = |bytes: &Option<Vec<u8>>| -> Option<Record> {
        serde_json::from_slice(bytes.as_deref()?).ok()
    };
    let found = record(&first);
    let holder = found.as_ref().map(|record| record.holder.clone());
    match (&found, holder.as_ref().and_then(Holder::is_alive)) {
        (Some(record), _) if record.ended => return Ok(()),
        (_, Some(true)) => return Err(Refusal::Held(holder)),
        (_, Some(false)) => return Ok(()),
        // Of another machine, or cut short: only time tells.
        (_, None) => {}
    }
    if let Some(holder) = &holder {
        tracing::info!(
            "{holder} did not give it back; watching for {} s whether it is still there",
            timing.patience.as_secs()
        );
    }
    let patience = Instant::now() + timing.patience;
    while Instant::now() < patience {
        std::thread::sleep(timing.renewal.min(Duration::from_millis(200)));
        let now = fs::read(&path).ok();
        if now.is_none() {
            // Given up by whoever takes it over: the next look finds the higher number.
            return Ok(());
        }
        if now != first {
            return match record(&now) {
                Some(record) if record.ended => Ok(()),
                Some(record) => Err(Refusal::Held(Some(record.holder))),
                None => Err(Refusal::Held(holder)),
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
