//! The processes of a run: one on each host, or one alone.
//!
//! What one process alone decides as it goes, several decide together: where to resume, when to
//! save, when to stop. The trainer asks this module in either case.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use ankh_cluster::{Copies, Leaving, Member, Next, Request};

use super::TrainError;
use crate::checkpoint::{Messenger, Report, Reports, Share, Team};
use crate::run_dir::Requests;

/// Signals are passed on to the other hosts within this time.
const POLL: Duration = Duration::from_millis(20);

/// How long the hosts wait for the slowest of them to compile and to load its state.
const STARTING: Duration = Duration::from_secs(2 * 3600);

/// How long they wait for each other elsewhere, as where one of them has to finish a save.
const COMING: Duration = Duration::from_secs(3600);

/// The processes of a run, as one of them sees them.
pub struct Processes {
    requests: Requests,
    together: Option<Together>,
}

/// One of several processes.
struct Together {
    member: Arc<Member>,
    session: u64,
    /// It has been told to stop.
    stopping: Cell<bool>,
    /// It has been told to save, and has not saved yet.
    saving: Cell<bool>,
    /// It has asked all to save, and they have not yet.
    asked: Cell<bool>,
    /// The same for local saves.
    saving_locally: Cell<bool>,
    asked_locally: Cell<bool>,
    copies: Option<Copies>,
}

/// The coordinator carries what the hosts report of saves.
impl Messenger for Member {
    fn report(&self, save: u64, failure: Option<&str>) {
        self.report_save(save, failure);
    }

    fn reported(&self, save: u64) -> Result<Option<Report>, String> {
        let report = self.save_report(save).map_err(|ended| ended.to_string())?;
        Ok(report.map(|report| Report {
            host: report.host,
            failure: report.failure,
        }))
    }
}

impl Processes {
    /// A run of one process, which these requests reach.
    pub fn alone(requests: Requests) -> Processes {
        Processes {
            requests,
            together: None,
        }
    }

    /// One of several processes, whose hosts have met in this session. The requests that reach it
    /// are passed on to all.
    pub fn together(
        requests: Requests,
        member: Arc<Member>,
        session: u64,
        copies: Option<Copies>,
    ) -> Processes {
        let (own, weak) = (requests.clone(), Arc::downgrade(&member));
        std::thread::spawn(move || {
            let mut stop = false;
            while let Some(member) = weak.upgrade() {
                if own.stop() && !std::mem::replace(&mut stop, true) {
                    member.request(Request::Stop, "it was asked to stop");
                }
                if own.take_save() {
                    member.request(Request::Save, "it was asked to save");
                }
                drop(member);
                std::thread::sleep(POLL);
            }
        });
        Processes {
            requests,
            together: Some(Together {
                member,
                session,
                stopping: Cell::new(false),
                saving: Cell::new(false),
                asked: Cell::new(false),
                saving_locally: Cell::new(false),
                asked_locally: Cell::new(false),
                copies,
            }),
        }
    }

    /// Whether there is but one process.
    pub(super) fn is_alone(&self) -> bool {
        self.together.is_none()
    }

    /// Whether this process acts for all where one has to.
    pub(super) fn leads(&self) -> bool {
        self.together
            .as_ref()
            .is_none_or(|all| all.member.host() == 0)
    }

    /// This process's number, and how many there are.
    pub(super) fn place(&self) -> (usize, usize) {
        match &self.together {
            None => (0, 1),
            Some(all) => (all.member.host(), all.member.hosts()),
        }
    }

    /// What this process saves of a state. Of several, the one that leads waits so long for the
    /// others.
    pub(super) fn share(&self, patience: Duration) -> Share {
        match &self.together {
            None => Share::Whole,
            Some(all) => Share::OfTeam(Team {
                launch: all.session,
                host: all.member.host(),
                hosts: all.member.hosts(),
                patience,
                reports: Some(Reports::by(all.member.clone())),
            }),
        }
    }

    /// The requests that have reached this process.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The numbers with which the processes come to a place, by host.
    pub(super) fn all_gather(&self, topic: &str, own: u64) -> Result<Vec<u64>, TrainError> {
        match &self.together {
            None => Ok(vec![own]),
            Some(all) => Ok(all.member.gather(topic, own, COMING)?),
        }
    }

    /// Waits until all processes have compiled and loaded what they need. From here on they act
    /// together on requests.
    pub(super) fn begin(&self) -> Result<(), TrainError> {
        let Some(all) = &self.together else {
            return Ok(());
        };
        // A request before this ends this process, and all others with it.
        self.requests.begin();
        Ok(all.member.begin(STARTING)?)
    }

    /// All is done that the processes do together, or all of them know that they cannot go on: from
    /// here on none waits for another.
    pub(super) fn part(&self) {
        if let Some(all) = &self.together {
            all.member.leave(Leaving::Done);
        }
    }

    /// What all processes do before the next program that runs on all devices, which is counted as
    /// started where this says nothing.
    pub(super) fn pass(&self) -> Result<Option<Request>, TrainError> {
        let Some(all) = &self.together else {
            return Ok(self.requests.stop().then_some(Request::Stop));
        };
        if all.stopping.get() {
            return Ok(Some(Request::Stop));
        }
        let Next::Do(request) = all.member.pass()? else {
            return Ok(None);
        };
        match request {
            Request::Stop => all.stopping.set(true),
            Request::Save => all.saving.set(true),
            Request::SaveLocally => all.saving_locally.set(true),
        }
        Ok(Some(request))
    }

    /// Whether the run is to stop here.
    pub(super) fn stop(&self) -> bool {
        match &self.together {
            None => self.requests.stop(),
            Some(all) => all.stopping.get() || all.member.due() == Some(Request::Stop),
        }
    }

    /// Whether there is a request to save here.
    pub(super) fn save(&self) -> bool {
        match &self.together {
            None => self.requests.save(),
            Some(all) => all.saving.get() || all.member.due() == Some(Request::Save),
        }
    }

    /// Takes a request to save here.
    pub(super) fn take_save(&self) -> Result<bool, TrainError> {
        let Some(all) = &self.together else {
            return Ok(self.requests.take_save());
        };
        if !all.saving.get() && all.member.due() == Some(Request::Save) {
            self.pass()?;
        }
        let taken = all.saving.replace(false);
        if taken {
            all.asked.set(false);
            // The coordinator forgets what is asked of it meanwhile that is less.
            all.asked_locally.set(false);
        }
        Ok(taken)
    }

    /// Takes a request to save locally, which the processes have agreed on at an earlier
    /// [`Processes::pass`].
    pub(super) fn take_local_save(&self) -> bool {
        let all = self.together.as_ref();
        let taken = all.is_some_and(|all| all.saving_locally.replace(false));
        if let Some(all) = all.filter(|_| taken) {
            all.asked_locally.set(false);
        }
        taken
    }

    /// Asks all processes to save locally as soon as they can; a process alone is told whether to
    /// do so now.
    pub(super) fn ask_to_save_locally(&self) -> bool {
        let Some(all) = &self.together else {
            return true;
        };
        if !all.asked_locally.replace(true) {
            all.member.request(Request::SaveLocally, "it is time to");
        }
        false
    }

    /// What the hosts keep for each other; nothing where this process is alone.
    pub(super) fn copies(&self) -> Option<&Copies> {
        self.together.as_ref()?.copies.as_ref()
    }

    /// Asks all processes to save as soon as they can; a process alone is told whether to do so
    /// now.
    pub(super) fn ask_to_save(&self, reason: &str) -> bool {
        let Some(all) = &self.together else {
            return true;
        };
        if !all.asked.replace(true) {
            all.member.request(Request::Save, reason);
        }
        false
    }
}
