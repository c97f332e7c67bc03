//! Keeps a machine for a job until its program has ended.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::queue::{Assumed, Machine};
use super::{Cloud, heard};
use crate::{Error, Pace, State, Watched, Watching};

/// So many machines in a row may fail.
const ATTEMPTS: u32 = 5;

/// A machine that is there starts its hosts within so many pauses between two looks.
const STARTING: u32 = 60;

/// What a watcher has seen.
struct Watch<'a> {
    cloud: &'a Cloud<'a>,
    pace: Pace,
    /// What was said last, so that it is not said again.
    said: String,
    /// Machines in a row that failed before the program ran.
    failures: u32,
    /// Since when the machine is there without all of its hosts.
    starting: Option<Instant>,
}

/// Watches until the program has ended, creating the machine where there is none. If nobody is to
/// watch, until the machine is asked for.
pub(super) fn watch(cloud: &Cloud<'_>, watching: Watching, pace: Pace) -> Result<Watched, Error> {
    if cloud.shell.is_dry() {
        return on_paper(cloud, watching, pace);
    }
    let mut watch = Watch {
        cloud,
        pace,
        said: String::new(),
        failures: 0,
        starting: None,
    };
    let mut silent = 0;
    // Until it has once been created, nobody waits for a failure to pass.
    let mut created = false;
    loop {
        let pause = match watch.look(&mut created) {
            Ok(Some(watched)) => return Ok(watched),
            Ok(None) if created && watching == Watching::Not => return Ok(Watched::Left),
            Ok(None) => {
                silent = 0;
                pace.poll
            }
            Err(error @ (Error::Tool { .. } | Error::Answer { .. })) if created => {
                silent += 1;
                watch.say(format!(
                    "it is not known how the job stands, and nothing is done: {error}"
                ));
                watch.back_off(silent)
            }
            Err(error) => return Err(error),
        };
        sleep(pause);
    }
}

impl Watch<'_> {
    /// Looks once, and does what has to be done.
    fn look(&mut self, created: &mut bool) -> Result<Option<Watched>, Error> {
        let cloud = self.cloud;
        if let Some(end) = cloud.ended()? {
            cloud.remove(&cloud.machine(Assumed::None)?)?;
            return Ok(Some(Watched::Ended(end)));
        }
        if cloud.read("job/stop", "")?.is_some() {
            return Ok(Some(Watched::Stopped));
        }
        let machine = cloud.machine(Assumed::None)?;
        if !matches!(machine, Machine::None | Machine::Gone { .. }) {
            *created = true;
        }
        if machine != Machine::Ready {
            self.starting = None;
        }
        match &machine {
            Machine::None => self.create(created)?,
            Machine::Waiting(word) => self.say(format!("waiting for the machine: {word}")),
            Machine::Leaving(word) => self.say(format!("the machine is being removed: {word}")),
            Machine::Gone { reason, refused } => {
                self.say(format!("{reason}; the queued resource is removed"));
                if *refused {
                    self.failed(reason)?;
                }
                cloud.remove(&machine)?;
            }
            Machine::Foreign => {
                return Err(Error::Foreign {
                    name: cloud.job.name.to_string(),
                    zone: cloud.place.zone.clone(),
                });
            }
            Machine::Ready => self.attend(&machine)?,
        }
        Ok(None)
    }

    fn create(&mut self, created: &mut bool) -> Result<(), Error> {
        let cloud = self.cloud;
        self.say(match *created {
            true => "the machine is created again".into(),
            false => "the machine is created".into(),
        });
        cloud.forget(&["job/hosts/*.json"])?;
        match cloud.create() {
            Ok(()) => {}
            // One that was taken away may count for a while.
            Err(Error::Tool { said, .. }) if *created => {
                self.failed(&said)?;
                self.say(format!("the machine cannot be created yet: {said}"));
                sleep(self.back_off(self.failures));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        *created = true;
        // Whoever asked it to stop meanwhile may have looked before it was there.
        if cloud.read("job/stop", "")?.is_some() {
            cloud.remove(&Machine::Waiting(String::new()))?;
        }
        Ok(())
    }

    /// Looks at the hosts of a machine that is there.
    fn attend(&mut self, machine: &Machine) -> Result<(), Error> {
        let cloud = self.cloud;
        let hosts = cloud.host_states()?;
        let expected = cloud.job.slice.hosts;
        let (state, detail) = heard(&hosts, expected, super::bucket::now());
        self.say(format!("the machine is ready; {}: {detail}", state.word()));
        if state != State::Starting {
            self.starting = None;
            self.failures = 0;
            return Ok(());
        }
        let since = *self.starting.get_or_insert_with(Instant::now);
        if since.elapsed() > self.pace.poll * STARTING {
            let missing: Vec<String> = (0..expected)
                .filter(|n| !hosts.iter().any(|host| host.host == *n))
                .map(|n| n.to_string())
                .collect();
            let reason = format!("hosts {} have not started", missing.join(", "));
            self.say(format!("{reason}; the machine is removed"));
            self.starting = None;
            self.failed(&reason)?;
            cloud.remove(machine)?;
        }
        Ok(())
    }

    fn failed(&mut self, reason: &str) -> Result<(), Error> {
        self.failures += 1;
        match self.failures < ATTEMPTS {
            true => Ok(()),
            false => Err(Error::GivenUp {
                times: self.failures,
                reason: reason.to_owned(),
            }),
        }
    }

    fn back_off(&self, times: u32) -> Duration {
        let pause = self.pace.poll * 2_u32.saturating_pow(times.min(10));
        pause.min(self.pace.longest)
    }

    fn say(&mut self, words: String) {
        if words != self.said {
            self.cloud.shell.say(&words);
            self.said = words;
        }
    }
}

/// What is done from here on, on paper.
fn on_paper(cloud: &Cloud<'_>, watching: Watching, pace: Pace) -> Result<Watched, Error> {
    let shell = cloud.shell;
    shell.say("the machine is created");
    cloud.forget(&["job/hosts/*.json"])?;
    cloud.create()?;
    if watching == Watching::UntilTheEnd {
        let seconds = pace.poll.as_secs();
        shell.say(&format!(
            "every {seconds} s, until the run has ended, it is asked how things stand"
        ));
        cloud.ended()?;
        cloud.read("job/stop", "")?;
        let ready = cloud.machine(Assumed::Ready)?;
        cloud.host_states()?;
        shell.say(
            "where the machine was taken away or has failed, it is removed, then created as above",
        );
        cloud.remove(&ready)?;
        shell.say("once the run has ended, the machine is removed");
        cloud.remove(&ready)?;
    }
    Ok(Watched::Left)
}
