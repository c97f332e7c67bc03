//! Requests to a running process from outside: to save, or to save and stop.
//!
//! Batch systems, preempted machines, terminals and people send signals. One thread receives them
//! all. Before the first step the process has nothing to lose (it opens data, compiles, loads a
//! state), and that thread ends it at once. From the first step on it sets a flag that the training
//! loop reads between steps, between the batches of an evaluation, and while it waits for data.

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

/// What can be asked of a process from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To save.
    Save,
    /// To save and end.
    Stop,
}

/// What has been asked and not been done yet.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    save: bool,
    stop: bool,
    phase: Phase,
}

/// What the process would lose if it ended now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    #[default]
    Starting,
    /// Steps that are not saved.
    Training,
}

/// Signals that follow each other faster are one request: whoever passes a signal on to a process
/// may not be the only one who does.
const ONE_REQUEST: Duration = Duration::from_millis(200);

/// How long a message may take.
const SAYING: Duration = Duration::from_secs(1);

impl Requests {
    /// Listens to signals from now on.
    ///
    /// SIGTERM, SIGINT, SIGHUP and SIGUSR2 ask to stop, and SIGUSR1 asks what `on_sigusr1` says.
    /// After SIGTERM or SIGINT, another of the two ends the process at once, as it would have
    /// without us. SIGHUP stays ignored where it is, as under `nohup`. A process that has nothing
    /// to lose calls `goodbye` and ends with the code `stopped`.
    pub fn from_signals(
        on_sigusr1: Request,
        stopped: u8,
        goodbye: impl FnOnce() + Send + 'static,
    ) -> io::Result<Requests> {
        let mut signals = vec![SIGTERM, SIGINT, SIGUSR1, SIGUSR2];
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        let signals = Signals::new(signals)?;
        let requests = Requests::default();
        let listener = Listener {
            requests: requests.clone(),
            on_sigusr1,
            stopped,
        };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || listener.listen(signals, goodbye))?;
        Ok(requests)
    }

    /// Asks from within the process.
    pub fn ask(&self, request: Request) {
        match request {
            Request::Save => self.asked().save = true,
            Request::Stop => self.asked().stop = true,
        }
    }

    /// From now on there is something to lose: whoever calls this looks at [`Requests::stop`],
    /// saves and ends.
    pub fn begin(&self) {
        self.asked().phase = Phase::Training;
    }

    /// Whether somebody asked to stop. It stays so.
    pub fn stop(&self) -> bool {
        self.asked().stop
    }

    /// Whether somebody asked to save, and has not been heard yet.
    pub fn save(&self) -> bool {
        self.asked().save
    }

    /// Takes a request to save.
    pub fn take_save(&self) -> bool {
        std::mem::take(&mut self.asked().save)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // It is whole even if a thread died holding it, since every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that receives the signals.
struct Listener {
    requests: Requests,
    on_sigusr1: Request,
    stopped: u8,
}

impl Listener {
    fn listen(self, mut signals: Signals, goodbye: impl FnOnce() + Send + 'static) {
        let mut goodbye = Some(goodbye);
        let mut insisted: Option<Instant> = None;
        for signal in signals.forever() {
            let insists = matches!(signal, SIGTERM | SIGINT);
            if insists && insisted.is_some_and(|first| first.elapsed() > ONE_REQUEST) {
                // It ends the process. What remains, if the system refuses, is to go on listening.
                let _ = low_level::emulate_default_handler(signal);
            }
            let request = match signal {
                SIGUSR1 => self.on_sigusr1,
                _ => Request::Stop,
            };
            let name = low_level::signal_name(signal).unwrap_or("a signal");
            let mut asked = self.requests.asked();
            match (request, asked.phase) {
                (Request::Save, Phase::Starting) => {
                    drop(asked);
                    say(move || {
                        tracing::info!("{name} asks to save: there is nothing to save yet")
                    });
                }
                (Request::Save, Phase::Training) => {
                    asked.save = true;
                    drop(asked);
                    say(move || tracing::info!("{name} asks to save"));
                }
                (Request::Stop, Phase::Training) => {
                    let again = std::mem::replace(&mut asked.stop, true);
                    drop(asked);
                    if !again {
                        say(move || {
                            tracing::info!(
                                "{name} asks to stop: saving, then ending; SIGTERM or SIGINT once more ends at once, unsaved"
                            );
                        });
                    }
                }
                (Request::Stop, Phase::Starting) => {
                    // The lock is held to the end: no step begins meanwhile.
                    if let Some(goodbye) = goodbye.take() {
                        say(move || {
                            tracing::info!("{name} asks to stop: there is nothing to save yet");
                            goodbye();
                        });
                    }
                    // Not by way of destructors, which would wait for threads that wait for a
                    // compiler or for data.
                    low_level::exit(self.stopped.into());
                }
            }
            if insists {
                // What came meanwhile is the same request.
                insisted.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// Says something, and waits for it not too long: a terminal that is held up holds up no end.
fn say(words: impl FnOnce() + Send + 'static) {
    let (said, heard) = mpsc::channel();
    let thread = thread::Builder::new().spawn(move || {
        words();
        let _ = said.send(());
    });
    if thread.is_ok() {
        let _ = heard.recv_timeout(SAYING);
    }
}

/// Whether this process was started with a signal ignored. Only Linux reports it.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_ask_and_end_nothing_while_there_is_something_to_lose() {
        let requests = Requests::from_signals(Request::Save, 75, || unreachable!()).unwrap();
        requests.begin();
        let wait_for = |what: &dyn Fn() -> bool| {
            let patience = Instant::now() + Duration::from_secs(60);
            while !what() {
                assert!(Instant::now() < patience, "no signal was heard in a minute");
                thread::sleep(Duration::from_millis(1));
            }
        };
        low_level::raise(SIGUSR1).unwrap();
        wait_for(&|| requests.save());
        assert!(requests.take_save() && !requests.take_save());
        assert!(!requests.stop());
        // SIGHUP is ignored where the tests run under `nohup`. Two SIGTERMs may be one program's
        // way to make sure.
        for signal in [SIGUSR2, SIGHUP, SIGTERM, SIGTERM] {
            low_level::raise(signal).unwrap();
            wait_for(&|| requests.stop());
        }
    }
}
