//! States that each host keeps for itself, in its memory or on a disk of its own, between the saves
//! to the run directory: a run that crashes goes on from there.
//!
//! Each host has what its devices hold of a state, and a copy of what the host before it has, so
//! that one that is lost gets its part back. A local state is of use only where every host has its
//! own part or the next one has the copy; the hosts agree on the newest such step.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ankh_cluster::{CopySender, SendError};
use ankh_storage::Location;
use serde_json::Value;

use super::TrainError;
use super::processes::Processes;
use crate::checkpoint::files::remove_tree;
use crate::checkpoint::{self, Reader, Retention, Saver, Share, Store, TensorParts, Verdict};
use crate::config;
use crate::mesh::DeviceMesh;
use crate::run_dir::RunDirectory;

/// The local states of a run, as one host sees them.
pub(super) struct LocalStates<'a> {
    processes: &'a Processes,
    /// Where each host has a directory of its own for each run.
    base: PathBuf,
    every: Duration,
    /// Where this host's are, once the run has a name.
    place: Option<Place>,
    saver: Option<Saver>,
    last_save: Instant,
}

/// The directories of one host of a run.
#[derive(Clone, Debug)]
struct Place {
    base: PathBuf,
    run: String,
    host: usize,
    hosts: usize,
}

/// Steps of which there may be states at once: the newest that all hosts have, and the next.
const STEPS: usize = 2;

/// In the directory of a host, what it has itself.
const OWN: &str = "own";

/// And what it has of the host before it.
const COPY: &str = "copy";

impl<'a> LocalStates<'a> {
    /// Those of a run, if it keeps any.
    pub fn open(
        config: &config::Checkpoint,
        run: &RunDirectory,
        processes: &'a Processes,
    ) -> Option<LocalStates<'a>> {
        let every = Duration::try_from_secs_f64(60.0 * config.local_minutes).ok()?;
        if every.is_zero() {
            return None;
        }
        let mut states = LocalStates {
            processes,
            base: config.local_directory.clone(),
            every,
            place: None,
            saver: None,
            last_save: Instant::now(),
        };
        states.settle(run.earlier_name());
        Some(states)
    }

    /// Looks for states of the run of this name, and takes in copies from here on.
    fn settle(&mut self, run: Option<&str>) {
        let (host, hosts) = self.processes.place();
        self.place = run.map(|run| Place {
            base: self.base.clone(),
            run: run.to_owned(),
            host,
            hosts,
        });
        if let (Some(place), Some(copies)) = (&self.place, self.processes.copies()) {
            match place.create() {
                Ok(()) => copies.keep_in(place.directory()),
                Err(error) => tracing::error!("no copies can be kept here: {error}"),
            }
        }
    }

    /// The parts that this process's devices need of the newest step after this one of which all
    /// hosts have theirs, once those that have lost them have got them back. All hosts have to ask.
    pub fn newest(&self, after: u64, mesh: &DeviceMesh) -> Result<Option<Vec<Reader>>, TrainError> {
        let steps = |store: fn(&Place) -> Store| {
            let steps = self.place.as_ref().map(|place| steps_of(&store(place)));
            let mut steps = steps.unwrap_or_default().into_iter().rev();
            std::array::from_fn::<u64, STEPS, _>(|_| steps.next().unwrap_or(0))
        };
        // Of each host, the steps of its own parts and of its copies; 0 stands for none.
        let [own, copies] = [steps(Place::own), steps(Place::copies)].map(|steps| {
            let gather = |step| self.processes.all_gather("the local states", step);
            let all: Result<Vec<Vec<u64>>, TrainError> = steps.into_iter().map(gather).collect();
            all
        });
        let (own, copies) = (own?, copies?);
        let has = |all: &[Vec<u64>], host: usize, step| all.iter().any(|of| of[host] == step);
        let mut found: Vec<u64> = own.iter().chain(&copies).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        for step in found.into_iter().rev().filter(|&step| step > after) {
            let hosts = own[0].len();
            let lost: Vec<usize> = (0..hosts).filter(|&host| !has(&own, host, step)).collect();
            let is_kept = |&host: &usize| hosts > 1 && has(&copies, (host + 1) % hosts, step);
            if lost.iter().all(is_kept) {
                self.bring_back(&lost, step)?;
                let opened = self.open_parts(step, mesh);
                if let Some(parts) = self.agree(opened)? {
                    return Ok(Some(parts));
                }
            }
        }
        Ok(None)
    }

    /// What this host found of a local state, if all hosts found what they need.
    pub fn agree<T, E>(&self, found: Result<T, E>) -> Result<Option<T>, TrainError>
    where
        TrainError: From<E>,
    {
        let found = found.map_err(TrainError::from);
        match &found {
            Ok(_) => {}
            Err(TrainError::Checkpoint(checkpoint::Error::Damaged(damage))) => {
                tracing::error!("{}", damage.finding());
            }
            Err(error) => tracing::error!("the local state cannot be used: {error}"),
        }
        let own = found.is_ok().into();
        let all = self.processes.all_gather("the local state is read", own)?;
        Ok(found.ok().filter(|_| all.into_iter().all(|read| read == 1)))
    }

    /// Sends the parts of a step to the hosts that have lost them, from the copies.
    fn bring_back(&self, lost: &[usize], step: u64) -> Result<(), TrainError> {
        if let (Some(place), Some(copies)) = (&self.place, self.processes.copies())
            && lost.contains(&place.before())
        {
            let before = place.before();
            let from = place.copies().directory_of(step);
            match send(copies.sender(before), &from, OWN) {
                Ok(()) => tracing::info!("host {before} has its part of step {step} back"),
                Err(error) => {
                    tracing::error!("host {before} does not get its part back: {error}");
                }
            }
        }
        let topic = "lost parts are back";
        self.processes.all_gather(topic, step).map(drop)
    }

    /// Opens the parts of a step that this process's devices need.
    fn open_parts(&self, step: u64, mesh: &DeviceMesh) -> checkpoint::Result<Vec<Reader>> {
        let Some(place) = &self.place else {
            return Ok(Vec::new());
        };
        // A process that simulates a larger slice has the devices of other hosts too.
        let hosts: Vec<usize> = match place.hosts {
            1 => vec![0],
            _ => mesh.hosts().iter().map(|host| host.index).collect(),
        };
        let open = |host| {
            Place {
                host,
                ..place.clone()
            }
            .own()
            .reader(step)
        };
        hosts.into_iter().map(open).collect()
    }

    /// Removes what there is. All hosts have to do the same, and to have read what they read.
    pub fn discard(&mut self) {
        self.wait();
        if let Some(place) = &self.place {
            place.keep_only(None);
        }
    }

    /// The run has its name, and goes on from a local step or from another: removes all others.
    pub fn begin(&mut self, run: &RunDirectory, from: Option<u64>) {
        let name = run.name();
        if name.is_none() {
            tracing::error!("the run has no name here: no local states are kept");
        }
        self.settle(name.as_deref());
        self.last_save = Instant::now();
        let Some(place) = self.place.clone() else {
            return;
        };
        place.keep_only(from);
        let saver = Saver::new(place.own(), Retention::last(0), Share::Part);
        self.saver = Some(match self.processes.copies() {
            None => saver,
            Some(copies) => {
                let to = copies.sender(place.after()).clone();
                saver.then(move |step, directory| send_to(&to, step, directory))
            }
        });
    }

    /// Whether to save locally at this step: all hosts are told the same at the same step.
    pub fn is_due(&mut self) -> bool {
        self.poll();
        if self.processes.take_local_save() {
            return true;
        }
        let is_time = self.saver.is_some() && self.last_save.elapsed() >= self.every;
        // One clock is enough.
        is_time && self.processes.leads() && self.processes.ask_to_save_locally()
    }

    /// Waits for the save under way, then fetches this host's parts of the state and starts saving
    /// them. All hosts have to do the same.
    pub fn save(
        &mut self,
        step: u64,
        metadata: Value,
        fetch: impl FnOnce() -> Result<Vec<TensorParts<'static>>, TrainError>,
    ) -> Result<(), TrainError> {
        self.wait();
        self.last_save = Instant::now();
        let newest = self
            .place
            .as_ref()
            .and_then(|place| steps_of(&place.own()).pop());
        let newest = newest.unwrap_or(0);
        let all = self
            .processes
            .all_gather("the newest local state", newest)?;
        let common = all.into_iter().min().filter(|step| *step > 0);
        let (Some(place), Some(saver)) = (&self.place, &mut self.saver) else {
            return Ok(());
        };
        place.keep_only(common);
        if let Err(error) = place.create() {
            tracing::error!("step {step} is not saved locally: {error}");
            return Ok(());
        }
        saver.save(step, metadata, fetch)
    }

    /// Says whether the state of `step` turned out to be good.
    pub fn judge(&mut self, step: u64, is_good: bool) {
        if let Some(saver) = &mut self.saver {
            saver.judge(step, Verdict::on(is_good));
        }
    }

    /// Reports saves that ended.
    fn poll(&mut self) {
        while let Some(ended) = self.saver.as_mut().and_then(Saver::poll) {
            report(ended);
        }
    }

    /// Waits for the save under way.
    pub fn wait(&mut self) {
        while let Some(ended) = self.saver.as_mut().and_then(Saver::wait) {
            report(ended);
        }
    }

    /// The run needs none any more.
    pub fn end(mut self) {
        self.wait();
        if let Some(place) = &self.place
            && let Err(error) = remove_tree(&place.directory())
        {
            tracing::warn!("{error}");
        }
    }
}

impl Place {
    fn directory(&self) -> PathBuf {
        self.base.join(format!("ankh-{}-{}", self.run, self.host))
    }

    fn own(&self) -> Store {
        Store::open(self.directory().join(OWN))
    }

    fn copies(&self) -> Store {
        Store::open(self.directory().join(COPY))
    }

    /// The host whose copies this one keeps.
    fn before(&self) -> usize {
        (self.host + self.hosts - 1) % self.hosts
    }

    /// The host that keeps copies of this one's.
    fn after(&self) -> usize {
        (self.host + 1) % self.hosts
    }

    /// Removes the states of all other steps, and what is half written.
    fn keep_only(&self, step: Option<u64>) {
        for store in [self.own(), self.copies()] {
            if let Err(error) = store.clean().and_then(|_| store.keep_only(step)) {
                tracing::warn!("local states are left behind: {error}");
            }
        }
    }

    /// Weights are for their owner alone.
    fn create(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.directory())
    }
}

/// The steps of a store, ascending; none where it cannot be read.
fn steps_of(store: &Store) -> Vec<u64> {
    store.list().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    })
}

/// Sends a step to another host, of which it is its own or a copy there.
fn send(to: &CopySender, step: &Location, kind: &str) -> Result<(), SendError> {
    let directory = step.local().expect("local states are in a directory");
    to.send(directory, &format!("{kind}/{}", step.name()))
}

fn send_to(to: &CopySender, step: u64, directory: &Location) {
    if let Err(error) = send(to, directory, COPY) {
        tracing::error!("no other host has a copy of this host's part of step {step}: {error}");
    }
}

fn report(ended: checkpoint::Ended) {
    let step = ended.step;
    match ended.saved {
        Ok(()) => tracing::info!(
            seconds = ended.took.as_secs_f64(),
            "step {step} is saved locally"
        ),
        Err(checkpoint::Error::Refused { .. }) => {
            tracing::warn!("step {step} is not saved locally: the step from it was not good");
        }
        // The saves to the run directory do not depend on it.
        Err(error) => tracing::error!("step {step} is not saved locally: {error}"),
    }
}
