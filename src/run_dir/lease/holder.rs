//! Which process holds a directory, and whether it still runs.

use std::fs;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A process that holds a directory, as its lease describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process's number there.
    pub process: u32,
    /// When it took the directory, in seconds since 1970, by its own clock.
    pub since: u64,
    /// What tells this start of this machine, and this namespace of process numbers, from others.
    pub(super) system: String,
    /// When the process began, by the kernel's clock, since its number may be given again.
    pub(super) began: Option<u64>,
}

/// This machine's name.
pub(crate) fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let age = seconds_since_1970().saturating_sub(self.since);
        let Holder { host, process, .. } = self;
        write!(f, "process {process} on {host}, which took it {age} s ago")
    }
}

impl Holder {
    pub(super) fn this_process() -> Holder {
        Holder {
            host: machine(),
            process: process::id(),
            since: seconds_since_1970(),
            system: system(),
            began: began(process::id()),
        }
    }

    /// Whether the process runs; unknown of one on another system.
    pub(super) fn is_alive(&self) -> Option<bool> {
        let known = !self.system.is_empty() && self.system == system() && self.began.is_some();
        known.then(|| began(self.process) == self.began)
    }
}

/// What tells one start of one machine, and one namespace of process numbers on it, from all
/// others; empty where the system does not report it.
fn system() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// When a process began, in ticks since the machine started: field 22 of `/proc/PID/stat`, proc(5).
/// Nothing if there is no such process.
pub(super) fn began(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command's name in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // One that has ended and has not been waited for yet holds nothing any more.
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

pub(super) fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
