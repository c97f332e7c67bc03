//! Jobs on machines that are not here: Cloud TPU slices, hosts reached by ssh, GKE clusters.
//!
//! A [`Job`] is a program, its configuration and the place where they should run. It is brought
//! there, started, watched, and started again where its machine is taken away, until it has ended.
//! Everything is done through the tools that people use by hand (`gcloud`, `ssh`, `kubectl`), so
//! that their sign-in is used and no secret passes through here, and so that a dry run can print
//! each [`Call`] as it would be made.
//!
//! What is true is asked of the tools each time. The [`Records`] on this machine only say which
//! jobs there are, and how each was asked for. So a process that is killed at any moment leaves
//! nothing that the next one does not find again. The crate knows commands, machines, scripts and
//! the state of a job. It does not know what the program does.

mod accelerator;
mod bundle;
mod call;
mod cloud;
mod digest;
mod error;
mod gke;
mod hosts;
mod job;
mod logs;
mod place;
mod record;
mod shell;
mod status;

use std::time::Duration;

pub use call::{Answer, Call};
pub use error::Error;
pub use job::{Job, Name, Program, Slice};
pub use logs::{Following, Line, LogOptions};
pub use place::{CloudTpu, Gke, Hosts, Place, Pricing};
pub use record::{Lock, Record, Records};
pub use shell::{Dry, Live, Shell};
pub use status::{End, HostState, State, Status};

use cloud::Cloud;
use gke::OnGke;
use hosts::OnHosts;
use logs::{Look, Shown};

/// Where one works on jobs from.
pub struct Desk<'a> {
    /// Runs commands and writes files, or writes down what would be.
    pub shell: &'a dyn Shell,
    /// Which jobs there are.
    pub records: &'a Records,
    /// How often one looks.
    pub pace: Pace,
}

/// How often and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at a job.
    pub poll: Duration,
    /// The longest pause after a failure.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(30),
            longest: Duration::from_secs(600),
        }
    }
}

/// What a place has to be like.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Prepared data in buckets that has to be there.
    pub data: Vec<String>,
    /// Where buckets may be.
    pub region: Region,
    /// Whether the job may differ from an earlier one of its name.
    pub changes: Changes,
}

/// Where the buckets of a job may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// In the region of its slice.
    Same,
    /// Anywhere.
    Any,
}

/// Whether a job may differ from an earlier one of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// It may not.
    Refused,
    /// It takes the place of one that does not run.
    Accepted,
}

impl Pace {
    /// Between two looks at logs, which somebody reads.
    fn of_logs(self) -> Duration {
        self.poll.min(Duration::from_secs(5))
    }
}

/// Whether a job is watched after it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// Until it has ended.
    UntilTheEnd,
    /// Not at all.
    Not,
}

/// How a watch came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The program has ended.
    Ended(End),
    /// Somebody has asked it to stop.
    Stopped,
    /// Nobody watches any more.
    Left,
}

/// What becomes of the state of a program that is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// It is saved first.
    First,
    /// Nobody waits for that.
    Not,
}

impl Desk<'_> {
    /// Checks what a job needs, without changing anything anywhere.
    ///
    /// # Errors
    /// The first thing that is not as it has to be, and another job of that name.
    pub fn check(&self, job: &Job, wanted: &Wanted) -> Result<(), Error> {
        if let Ok(there) = self.records.read(&job.name)
            && wanted.changes == Changes::Refused
        {
            let differences = job.differences(&there.job);
            if !differences.is_empty() {
                return Err(Error::Differs {
                    name: job.name.to_string(),
                    differences,
                });
            }
        }
        self.shell.say("checks");
        match &job.place {
            Place::CloudTpu(place) => {
                let cloud = Cloud::new(job, place, self.shell, self.records);
                cloud.check(wanted)
            }
            Place::Hosts(place) => self.on_hosts(job, place).check(),
            Place::Gke(place) => self.on_gke(job, place).check(),
        }
    }

    /// Brings a job to its place and starts it, from wherever an earlier attempt was stopped, and
    /// watches it.
    ///
    /// # Errors
    /// Another job of that name, a machine that fails again and again.
    pub fn submit(
        &self,
        job: &Job,
        changes: Changes,
        watching: Watching,
    ) -> Result<Watched, Error> {
        let _lock = self.records.lock(self.shell, &job.name)?;
        match &job.place {
            Place::CloudTpu(place) => {
                let cloud = Cloud::new(job, place, self.shell, self.records);
                cloud.submit(changes, watching, self.pace)
            }
            Place::Hosts(place) => self
                .on_hosts(job, place)
                .submit(changes, watching, self.pace),
            Place::Gke(place) => self.on_gke(job, place).submit(watching, self.pace),
        }
    }

    /// How a job stands. What cannot be asked is not known.
    pub fn status(&self, job: &Job) -> Status {
        match &job.place {
            Place::CloudTpu(place) => Cloud::new(job, place, self.shell, self.records).status(),
            Place::Hosts(place) => self.on_hosts(job, place).status(),
            Place::Gke(place) => self.on_gke(job, place).status(),
        }
    }

    /// Has the program end, and removes its machine if that was created for it.
    ///
    /// # Errors
    /// Where it is not known whether it has ended.
    pub fn stop(&self, job: &Job, saving: Saving) -> Result<(), Error> {
        match &job.place {
            Place::CloudTpu(place) => {
                let cloud = Cloud::new(job, place, self.shell, self.records);
                cloud.stop(saving == Saving::First, self.pace)
            }
            Place::Hosts(place) => self.on_hosts(job, place).stop(),
            Place::Gke(place) => self.on_gke(job, place).stop(),
        }
    }

    /// Gives the last lines of the logs of all hosts by time, and with `follow` those that come
    /// until the run has ended.
    ///
    /// # Errors
    /// Where they cannot be read; those of `show`.
    pub fn logs(
        &self,
        job: &Job,
        options: LogOptions,
        mut show: impl FnMut(&[Line]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut shown = Shown::default();
        loop {
            let Look { lines, is_last } = match &job.place {
                Place::CloudTpu(place) => {
                    let cloud = Cloud::new(job, place, self.shell, self.records);
                    cloud.look_at_logs(options.lines)?
                }
                Place::Hosts(place) => self.on_hosts(job, place).look_at_logs(options.lines),
                Place::Gke(place) => self.on_gke(job, place).look_at_logs(options.lines)?,
            };
            show(&shown.only_new(lines))?;
            if options.following == Following::Not || is_last || self.shell.is_dry() {
                return Ok(());
            }
            std::thread::sleep(self.pace.of_logs());
        }
    }

    fn on_hosts<'a>(&'a self, job: &'a Job, place: &'a Hosts) -> OnHosts<'a> {
        OnHosts {
            job,
            place,
            shell: self.shell,
            records: self.records,
        }
    }

    fn on_gke<'a>(&'a self, job: &'a Job, place: &'a Gke) -> OnGke<'a> {
        OnGke {
            job,
            place,
            shell: self.shell,
            records: self.records,
        }
    }
}
