//! Several processes that write a checkpoint together, and what they tell each other of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::error::{Error, Result};

/// How often a process looks for what the others have written or reported.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// One of several processes that write a checkpoint together.
#[derive(Clone, Debug)]
pub struct Team {
    /// A number that the processes of this launch have and no other launch has.
    pub launch: u64,
    /// This process; 0 leads.
    pub host: usize,
    /// How many there are.
    pub hosts: usize,
    /// How long the one that leads waits for what the others write.
    pub patience: Duration,
    /// How they tell each other what became of a save. Without it, a failure is known by the time
    /// that it takes, and those that do not lead do not know whether a checkpoint was committed.
    pub reports: Option<Reports>,
}

/// What of a state one process writes to a checkpoint.
#[derive(Clone, Debug)]
pub enum Share<T = Team> {
    /// All of it, alone.
    Whole,
    /// What it has; the others of a team write the rest of the same checkpoint.
    OfTeam(T),
    /// What it has: the checkpoint holds no more.
    Part,
}

impl Share {
    /// That of the next save.
    pub(super) fn next_save(&self) -> Share<TeamSave> {
        match self {
            Share::Whole => Share::Whole,
            Share::OfTeam(team) => Share::OfTeam(team.next_save()),
            Share::Part => Share::Part,
        }
    }
}

impl Share<TeamSave> {
    /// Whether this process writes what there is once.
    pub(super) fn leads(&self) -> bool {
        self.of_team().is_none_or(TeamSave::leads)
    }

    /// See [`TeamSave::report`].
    pub(super) fn report(&self, saved: &Result<()>) {
        if let Some(team) = self.of_team() {
            team.report(saved);
        }
    }

    /// See [`TeamSave::abandon`].
    pub(super) fn abandon(&self) {
        if let Some(team) = self.of_team() {
            team.abandon();
        }
    }

    fn of_team(&self) -> Option<&TeamSave> {
        match self {
            Share::OfTeam(team) => Some(team),
            Share::Whole | Share::Part => None,
        }
    }
}

/// Carries reports between the processes of a team.
pub trait Messenger: Send + Sync {
    /// Reports of a save: how it ended, of the one that leads; that its part cannot be written, of
    /// another.
    fn report(&self, save: u64, failure: Option<&str>);

    /// What has been reported of a save: to the one that leads by the first of the others, to them
    /// by the one that leads.
    ///
    /// # Errors
    /// Why nothing more will be reported.
    fn reported(&self, save: u64) -> Result<Option<Report>, String>;
}

/// What another process has reported of a save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The process.
    pub host: usize,
    /// Why the save is not there, or cannot be; nothing where it is.
    pub failure: Option<String>,
}

/// The reports of a team's saves. Clones count the same saves.
#[derive(Clone)]
pub struct Reports {
    messenger: Arc<dyn Messenger>,
    /// Saves so far: all processes begin the same ones in the same order.
    saves: Arc<AtomicU64>,
}

impl Reports {
    /// Reports that this messenger carries.
    pub fn by(messenger: Arc<dyn Messenger>) -> Reports {
        Reports {
            messenger,
            saves: Arc::default(),
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reports({})", self.saves.load(Ordering::Relaxed))
    }
}

impl Team {
    /// The next save of the team.
    pub(super) fn next_save(&self) -> TeamSave {
        let count = |reports: &Reports| 1 + reports.saves.fetch_add(1, Ordering::Relaxed);
        TeamSave {
            number: self.reports.as_ref().map_or(0, count),
            team: self.clone(),
            abandoned: Arc::default(),
        }
    }
}

/// One save of a team.
#[derive(Clone, Debug)]
pub(super) struct TeamSave {
    pub team: Team,
    number: u64,
    abandoned: Arc<AtomicBool>,
}

impl TeamSave {
    /// Whether this process leads.
    pub fn leads(&self) -> bool {
        self.team.host == 0
    }

    /// A number for what is written: no other save has it, so that what a process writes late is
    /// not taken for a part of the next try.
    pub fn writer(&self) -> u64 {
        self.team.launch.wrapping_add(self.number)
    }

    /// From here on it waits for nobody.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Tells the others how it ended for this process, as far as they have to know.
    pub fn report(&self, saved: &Result<()>) {
        let Some(Reports { messenger, .. }) = &self.team.reports else {
            return;
        };
        match saved {
            Ok(()) if self.leads() => messenger.report(self.number, None),
            Ok(()) | Err(Error::NotCommitted { .. }) => {}
            Err(error) => messenger.report(self.number, Some(&error.to_string())),
        }
    }

    /// Fails if another process cannot write its part, or nobody is to wait for it any more.
    pub fn check_parts(&self, step: u64) -> Result<()> {
        let Some(Reports { messenger, .. }) = &self.team.reports else {
            return Ok(());
        };
        match messenger.reported(self.number) {
            Ok(Some(Report {
                host,
                failure: Some(reason),
            })) => Err(Error::Part { host, reason }),
            Ok(_) if self.abandoned.load(Ordering::Relaxed) => Err(Error::Refused { step }),
            Ok(_) => Ok(()),
            Err(reason) => Err(Error::NotCommitted { step, reason }),
        }
    }

    /// Reports that this process's part is not there, and waits until the process that leads says
    /// how the save ended: it may have given it up before and removed what there was.
    pub fn await_end(&self, error: Error, step: u64) -> Result<()> {
        if self.team.reports.is_none() {
            return Err(error);
        }
        self.report(&Err(error));
        self.await_commit(step)
    }

    /// Waits until the process that leads has committed the checkpoint, or says why it has not.
    pub fn await_commit(&self, step: u64) -> Result<()> {
        let Some(Reports { messenger, .. }) = &self.team.reports else {
            return Ok(());
        };
        loop {
            match messenger.reported(self.number) {
                Ok(Some(Report { failure: None, .. })) => return Ok(()),
                Ok(Some(Report {
                    failure: Some(reason),
                    ..
                }))
                | Err(reason) => return Err(Error::NotCommitted { step, reason }),
                Ok(None) if self.abandoned.load(Ordering::Relaxed) => {
                    return Err(Error::Refused { step });
                }
                Ok(None) => std::thread::sleep(POLL),
            }
        }
    }
}
