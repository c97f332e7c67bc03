//! The launcher: starts the child, watches it, and starts it again where it crashes or hangs.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::low_level::signal_name;

use super::back_off::BackOff;
use super::hang::{Hang, Patience, Watch};
use super::libtpu_lock::{self, Cleared};
use super::pulse::{RESTART, Restart, SUPERVISOR};
use super::relay::Relay;
use super::socket::Socket;
use super::thread_dump;

/// A program to keep running, until it ends as it should.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// What it is called, first among its arguments.
    pub name: OsString,
    /// Its arguments when it is started first.
    pub arguments: Vec<OsString>,
    /// Its arguments when it is started again.
    pub restart_arguments: Vec<OsString>,
    /// The exit codes after which it is not started again.
    pub final_codes: Vec<i32>,
    /// The exit code of these for a run that was stopped on request.
    pub stopped: i32,
    /// How many restarts in a row may bring no new step.
    pub max_restarts: u32,
    /// How long it may be silent.
    pub patience: Patience,
    /// Where the threads of a process that hangs are written down.
    pub hangs: PathBuf,
    /// The lock that a killed process leaves behind, on machines with TPUs.
    pub libtpu_lock: Option<PathBuf>,
}

/// How a launch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code.
    Code(i32),
    /// By this signal, after a request to stop.
    Signal(i32),
}

/// Why a launch ended without an end of its program.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program failed too often.
    #[error(
        "training failed {} times in a row without a new step ({}); the last time {reason}",
        restarts + 1,
        furthest(*step)
    )]
    Limit {
        /// The restarts since there was one.
        restarts: u32,
        /// The furthest step that was done.
        step: Option<u64>,
        reason: String,
    },
    /// It hung while somebody waited for its end.
    #[error("training was asked to stop and did not end in order: {reason}")]
    Stopping { reason: String },
    /// The system refused something.
    #[error("the launcher cannot {action}")]
    System {
        action: &'static str,
        source: io::Error,
    },
}

fn furthest(step: Option<u64>) -> String {
    match step {
        Some(step) => format!("the furthest is step {step}"),
        None => "there was none".into(),
    }
}

/// How often the child is looked at.
const TICK: Duration = Duration::from_millis(50);

/// The most that may count as passed between two looks: while this process is stopped, or the
/// machine is, the child may be too.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// How a child ended.
enum End {
    Exited(ExitStatus),
    Hung(Hang, Option<PathBuf>),
    NotStarted(io::Error),
    /// Nothing was begun, since somebody has asked to stop.
    NotBegun,
}

impl Launch {
    /// Runs the program until it ends as it should, somebody asks to stop, or it fails too often.
    pub fn run(&self) -> Result<Ended, LaunchError> {
        let relay = Relay::start().map_err(failed("listen to signals"))?;
        self.run_with(&relay)
    }

    fn run_with(&self, relay: &Relay) -> Result<Ended, LaunchError> {
        let directory = tempfile::Builder::new().prefix("pretrain-").tempdir();
        let directory = directory.map_err(failed("make a temporary directory"))?;
        let mut watch = Watch::new(self.patience);
        let mut back_off = BackOff::new(self.max_restarts);
        let mut restart = None;
        loop {
            let path = directory.path().join(back_off.restarts().to_string());
            let mut socket = Socket::at(&path).map_err(failed("make a socket"))?;
            let end = match relay.begin(|| self.command(&path, restart.as_ref()).spawn()) {
                Ok(Some(process)) => {
                    tracing::info!("training runs in process {process}");
                    self.attend(process, relay, &mut socket, &mut watch, &mut back_off)?
                }
                Ok(None) => End::NotBegun,
                Err(error) => End::NotStarted(error),
            };
            let ended = Instant::now();
            if let Some(code) = end.code().filter(|code| self.final_codes.contains(code)) {
                return Ok(Ended::Code(code));
            }
            if let Some(stop) = relay.stop() {
                return self.stopped(&end, stop, relay);
            }
            let reason = end.to_string();
            let in_vain = back_off.in_vain();
            let Some(pause) = back_off.pause() else {
                return Err(LaunchError::Limit {
                    restarts: in_vain,
                    step: back_off.furthest(),
                    reason,
                });
            };
            tracing::error!(
                "training failed: {reason}; it is started again in {} s (restart {} of {} without a new step)",
                pause.as_secs(),
                back_off.in_vain(),
                self.max_restarts,
            );
            self.clear_lock();
            while ended.elapsed() < pause {
                if relay.stop().is_some() {
                    tracing::info!("asked to stop: training is not started again");
                    return Ok(Ended::Code(self.stopped));
                }
                thread::sleep(TICK);
            }
            restart = Some(Restart {
                number: back_off.restarts(),
                in_vain: back_off.in_vain(),
                reason,
                seconds_lost: (watch.silent() + ended.elapsed()).as_secs_f64(),
            });
        }
    }

    fn command(&self, socket: &Path, restart: Option<&Restart>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.name).env(SUPERVISOR, socket);
        match restart {
            None => command.args(&self.arguments).env_remove(RESTART),
            Some(restart) => {
                let restart = serde_json::to_string(restart).expect("words and numbers are JSON");
                command.args(&self.restart_arguments).env(RESTART, restart)
            }
        };
        command
    }

    /// Watches a child until it has ended, by itself or because it hung.
    fn attend(
        &self,
        process: u32,
        relay: &Relay,
        socket: &mut Socket,
        watch: &mut Watch,
        back_off: &mut BackOff,
    ) -> Result<End, LaunchError> {
        watch.begin();
        let mut hung = None;
        let mut looked = Instant::now();
        loop {
            thread::sleep(TICK);
            watch.pass(looked.elapsed().min(LONGEST_TICK));
            looked = Instant::now();
            // What it said before it ended is heard all the same.
            let ended = relay.ended().map_err(failed("wait for its child"))?;
            for beat in socket.heard().map_err(failed("read its socket"))? {
                relay.heard();
                watch.hear(beat);
                if let Some(step) = beat.step {
                    back_off.reached(step);
                }
            }
            match (ended, hung.take()) {
                (Some(_), Some((hang, dump))) => return Ok(End::Hung(hang, dump)),
                (Some(status), None) => return Ok(End::Exited(status)),
                (None, Some(known)) => hung = Some(known),
                (None, None) => {
                    if let Some(hang) = watch.hang() {
                        let dump = self.dump(process, hang);
                        relay.kill().map_err(failed("kill its child"))?;
                        hung = Some((hang, dump));
                    }
                }
            }
        }
    }

    /// Writes down what the threads of a child that hangs are doing.
    fn dump(&self, process: u32, hang: Hang) -> Option<PathBuf> {
        tracing::error!("process {process} is killed: {hang}");
        match thread_dump::write(process, &hang.to_string(), &self.hangs) {
            Ok(file) => {
                tracing::error!("what its threads were doing is in {}", file.display());
                Some(file)
            }
            Err(error) => {
                let directory = self.hangs.display();
                tracing::warn!(
                    "what its threads were doing cannot be written to {directory}: {error}"
                );
                None
            }
        }
    }

    /// The end of a launch that was asked to stop.
    fn stopped(&self, end: &End, stop: i32, relay: &Relay) -> Result<Ended, LaunchError> {
        match end {
            End::NotBegun => Ok(Ended::Code(self.stopped)),
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ok(Ended::Code(code)),
                // It had not come to handle signals, and so had begun nothing.
                (_, Some(signal)) if signal == stop && !relay.is_heard() => {
                    Ok(Ended::Code(self.stopped))
                }
                (_, signal) => Ok(Ended::Signal(signal.unwrap_or(stop))),
            },
            End::Hung(..) | End::NotStarted(_) => Err(LaunchError::Stopping {
                reason: end.to_string(),
            }),
        }
    }

    /// Removes the lock of a child that has ended.
    fn clear_lock(&self) {
        let Some(lock) = &self.libtpu_lock else {
            return;
        };
        let path = lock.display();
        match libtpu_lock::clear(lock) {
            Ok(Cleared::Absent) => {}
            Ok(Cleared::Removed) => {
                tracing::info!("{path}, which training left behind, is removed");
            }
            Ok(Cleared::Held(process)) => {
                tracing::warn!("{path} is left: process {process} has it open");
            }
            Err(error) => tracing::warn!("{path} cannot be removed: {error}"),
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::System { action, source }
}

impl End {
    fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(status) => status.code(),
            _ => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "it ended with exit code {code}"),
                (None, Some(signal)) => {
                    let name = signal_name(signal).unwrap_or("a signal");
                    write!(f, "it was ended by {name}")?;
                    match name {
                        "SIGKILL" => write!(f, ", as the system does where memory runs out"),
                        _ => Ok(()),
                    }
                }
                (None, None) => write!(f, "it ended"),
            },
            Self::Hung(hang, None) => write!(f, "{hang}"),
            Self::Hung(hang, Some(dump)) => write!(f, "{hang} ({})", dump.display()),
            Self::NotStarted(error) => write!(f, "it could not be started: {error}"),
            Self::NotBegun => write!(f, "it was not begun"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // None of these listens to signals, which other tests of this process raise.

    /// Runs a shell script in place of training.
    fn launch(script: &str, directory: &Path) -> Launch {
        let arguments = |when: &str| ["-c", script, when].map(OsString::from).to_vec();
        Launch {
            program: "/bin/sh".into(),
            name: "sh".into(),
            arguments: arguments("first"),
            restart_arguments: arguments("again"),
            final_codes: vec![0, 2, 3, 75],
            stopped: 75,
            max_restarts: 1,
            patience: Patience {
                step: Duration::from_secs(60),
                start: Duration::from_secs(60),
                save: Duration::from_secs(60),
            },
            hangs: directory.join("hangs"),
            libtpu_lock: Some(directory.join("lock")),
        }
    }

    #[test]
    fn final_codes_end_a_launch_at_once() {
        let directory = tempfile::tempdir().unwrap();
        for code in [0, 2, 3, 75] {
            let launch = launch(&format!("exit {code}"), directory.path());
            assert_eq!(
                launch.run_with(&Relay::default()).unwrap(),
                Ended::Code(code)
            );
        }
    }

    #[test]
    fn a_failure_is_followed_by_a_restart_that_knows_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("lock");
        let script = format!(
            r#"[ "$0" = first ] && {{ echo > {}; kill -KILL $$; }}; printf "$0 $ANKH_RESTART" > {}; exit 0"#,
            lock.display(),
            directory.path().join("again").display()
        );
        let launch = launch(&script, directory.path());
        assert_eq!(launch.run_with(&Relay::default()).unwrap(), Ended::Code(0));
        assert!(!lock.exists());
        let told = std::fs::read_to_string(directory.path().join("again")).unwrap();
        let restart: Restart = serde_json::from_str(told.strip_prefix("again ").unwrap()).unwrap();
        assert_eq!((restart.number, restart.in_vain), (1, 1));
        assert!(restart.reason.contains("SIGKILL"), "{restart:?}");
        assert!(restart.seconds_lost >= 1.0, "{restart:?}");
    }

    #[test]
    fn what_always_fails_ends_at_the_limit_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let error = launch("exit 7", directory.path())
            .run_with(&Relay::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "training failed 2 times in a row without a new step (there was none); the last time it ended with exit code 7"
        );
    }

    #[test]
    fn what_hangs_is_written_down_and_killed() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"[ "$0" = again ] && exit 0; while :; do sleep 0.01; done"#;
        let mut launch = launch(script, directory.path());
        launch.patience.start = Duration::from_millis(300);
        assert_eq!(launch.run_with(&Relay::default()).unwrap(), Ended::Code(0));
        let dumps: Vec<_> = std::fs::read_dir(&launch.hangs).unwrap().collect();
        assert_eq!(dumps.len(), 1);
        let text = std::fs::read_to_string(dumps[0].as_ref().unwrap().path()).unwrap();
        assert!(text.contains("it hung while starting"), "{text}");
        assert!(text.contains("(sh): "), "{text}");
    }
}
