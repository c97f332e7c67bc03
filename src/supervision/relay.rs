//! Passes the signals that a launcher gets on to its child, at once: a terminal sends its own to
//! both, and the child takes two of them for one request if they come close together.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::run_dir::is_ignored;

/// The child, and what was asked. One lock guards both, so that no signal goes to a process whose
/// number was another's before.
#[derive(Clone, Default)]
pub(super) struct Relay(Arc<Mutex<Passing>>);

#[derive(Default)]
struct Passing {
    child: Option<Child>,
    /// Whether the child has been heard, and so handles its signals.
    is_heard: bool,
    /// The last signal that asked to stop.
    stop: Option<i32>,
    /// SIGUSR1 came when no child handled it, whom it would have ended.
    is_save_due: bool,
}

impl Relay {
    /// Listens to signals from now on. SIGHUP stays ignored where it is.
    pub fn start() -> io::Result<Relay> {
        let mut signals = vec![SIGTERM, SIGINT, SIGUSR1, SIGUSR2];
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        let mut signals = Signals::new(signals)?;
        let relay = Relay::default();
        let passing = relay.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|signal| passing.pass_on(signal)))?;
        Ok(relay)
    }

    /// Starts a child; nothing if somebody has asked to stop.
    pub fn begin(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Option<u32>> {
        let mut passing = self.lock();
        if passing.stop.is_some() {
            return Ok(None);
        }
        let child = start()?;
        let number = child.id();
        passing.child = Some(child);
        passing.is_heard = false;
        Ok(Some(number))
    }

    /// The child was heard.
    pub fn heard(&self) {
        let mut passing = self.lock();
        passing.is_heard = true;
        if std::mem::take(&mut passing.is_save_due) {
            passing.send(SIGUSR1);
        }
    }

    /// Whether the child was heard, ever.
    pub fn is_heard(&self) -> bool {
        self.lock().is_heard
    }

    /// How the child ended, if it has.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let mut passing = self.lock();
        let Some(child) = &mut passing.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            passing.child = None;
        }
        Ok(status)
    }

    /// Ends the child, which can do nothing about it.
    pub fn kill(&self) -> io::Result<()> {
        match &mut self.lock().child {
            Some(child) => child.kill(),
            None => Ok(()),
        }
    }

    /// The last signal that asked to stop.
    pub fn stop(&self) -> Option<i32> {
        self.lock().stop
    }

    fn pass_on(&self, signal: i32) {
        let mut passing = self.lock();
        match signal {
            SIGUSR1 if !passing.is_heard || passing.child.is_none() => passing.is_save_due = true,
            SIGUSR1 => passing.send(signal),
            _ => {
                passing.stop = Some(signal);
                passing.send(signal);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Passing> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passing {
    fn send(&self, signal: i32) {
        if let (Some(child), Some(signal)) = (&self.child, Signal::from_named_raw(signal)) {
            // It fails only for a child that has just ended.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn end_of(relay: &Relay) -> ExitStatus {
        loop {
            if let Some(status) = relay.ended().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_request_to_stop_reaches_the_child_and_no_other_begins() {
        let relay = Relay::default();
        let sleep = || Command::new("sleep").arg("600").spawn();
        assert!(relay.begin(sleep).unwrap().is_some());
        assert_eq!(relay.stop(), None);
        relay.pass_on(SIGTERM);
        assert_eq!(end_of(&relay).signal(), Some(SIGTERM));
        assert_eq!(relay.stop(), Some(SIGTERM));
        assert!(relay.begin(|| unreachable!()).unwrap().is_none());
    }

    #[test]
    fn a_request_to_save_waits_for_a_child_that_handles_it() {
        let relay = Relay::default();
        relay.pass_on(SIGUSR1);
        relay
            .begin(|| Command::new("sleep").arg("600").spawn())
            .unwrap();
        relay.pass_on(SIGUSR1);
        assert!(relay.ended().unwrap().is_none() && !relay.is_heard());
        // `sleep` does not handle it.
        relay.heard();
        assert_eq!(end_of(&relay).signal(), Some(SIGUSR1));
        assert_eq!(relay.stop(), None);
    }
}
