//! What a training process says to its launcher: what it is doing, and each step it has done, one
//! JSON object a line.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Names the launcher's socket to its child.
pub(super) const SUPERVISOR: &str = "ANKH_SUPERVISOR";

/// Tells a child that it is not the first: a [`Restart`] as JSON.
pub(super) const RESTART: &str = "ANKH_RESTART";

/// What a training process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading its configuration, opening data and devices.
    #[default]
    Starting,
    /// Compiling its programs.
    Compiling,
    /// Loading a state onto the devices.
    Loading,
    /// Training steps.
    Training,
    /// Waiting for data, while the devices have nothing to do.
    Waiting,
    /// Measuring the held-out loss.
    Evaluating,
    /// Copying the state to be saved, after an earlier save.
    Saving,
    /// Saving its last state, and summing up. No other phase follows.
    Ending,
}

/// One sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    pub phase: Phase,
    /// The step that was done, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
}

/// This process's signs of life. Without a launcher none of its functions do anything.
pub struct Pulse;

/// To the launcher, if there is one.
static LINK: OnceLock<Mutex<UnixStream>> = OnceLock::new();

/// How long a sign of life may hold training up: a launcher that does not read is left alone.
const SENDING: Duration = Duration::from_millis(1);

impl Pulse {
    /// Connects to the launcher, if there is one. `alone` is called when it is gone, from a thread
    /// of its own.
    pub fn start(alone: impl FnOnce() + Send + 'static) {
        let Some(path) = std::env::var_os(SUPERVISOR).map(PathBuf::from) else {
            return;
        };
        let watched = UnixStream::connect(path).and_then(|link| {
            link.set_write_timeout(Some(SENDING))?;
            let watched = link.try_clone()?;
            LINK.get_or_init(|| Mutex::new(link));
            Ok(watched)
        });
        Self::phase(Phase::Starting);
        let watch = move || {
            // It sends nothing, so whatever ends the reading is its end.
            let _ = watched.and_then(|mut launcher| launcher.read(&mut [0]));
            alone();
        };
        let thread = thread::Builder::new().name("launcher".into()).spawn(watch);
        if let Err(error) = thread {
            tracing::warn!("the launcher's end would not be noticed: {error}");
        }
    }

    /// Says what the process does from now on, or that it still does.
    pub fn phase(phase: Phase) {
        send(Beat { phase, step: None });
    }

    /// Says that a step was done.
    pub fn step(step: u64) {
        send(Beat {
            phase: Phase::Training,
            step: Some(step),
        });
    }
}

fn send(beat: Beat) {
    if let Some(link) = LINK.get() {
        let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
        // A launcher that is gone or does not read is noticed by other means.
        let _ = link.write_all(&line(beat));
    }
}

fn line(beat: Beat) -> Vec<u8> {
    let mut line = serde_json::to_vec(&beat).expect("names and a number are JSON");
    line.push(b'\n');
    line
}

/// Why a process was started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// How often its launcher has started one again.
    pub number: u64,
    /// How many of these have followed each other without a step that was new.
    pub in_vain: u32,
    /// How the one before ended.
    pub reason: String,
    /// Seconds from the last sign of life of the one before to the start of this one.
    pub seconds_lost: f64,
}

impl Restart {
    /// Why this process was started again, if it was.
    pub fn of_this_process() -> Option<Restart> {
        let restart = std::env::var(RESTART).ok()?;
        serde_json::from_str(&restart).ok()
    }

    /// How long nothing ran before this process was started again; nothing if it was not.
    pub fn time_lost() -> Duration {
        let restart = Self::of_this_process();
        let seconds = restart.map_or(0.0, |restart| restart.seconds_lost);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_one_line() {
        let step = Beat {
            phase: Phase::Training,
            step: Some(7),
        };
        assert_eq!(line(step), b"{\"phase\":\"training\",\"step\":7}\n");
        let saving = Beat {
            phase: Phase::Saving,
            step: None,
        };
        assert_eq!(line(saving), b"{\"phase\":\"saving\"}\n");
    }

    #[test]
    fn without_a_launcher_nothing_is_sent_and_nothing_called() {
        Pulse::start(|| unreachable!());
        Pulse::step(1);
        assert!(LINK.get().is_none());
        assert_eq!(Restart::time_lost(), Duration::ZERO);
    }
}
