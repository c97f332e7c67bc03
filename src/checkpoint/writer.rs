//! Writes one checkpoint: first where nobody takes it for one, until its marker makes it visible.
//!
//! Several processes can write one together, each the parts of tensors that it has. Each leaves a
//! list of what it wrote; the one that leads waits for all lists and makes the marker of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ankh_pjrt::HostTensor;
use ankh_storage::{Location, StorageOptions};
use serde_json::Value;

use super::array::{self, WrittenArray};
use super::commit::{ArrayRecord, Commit};
use super::directory::{self, Directory};
use super::error::{Error, Result};
use super::guard::Guard;
use super::parallel::in_parallel;
use super::parts::TensorParts;
use super::team::{POLL, Share, TeamSave};

/// The longest pause between two looks for what others have written; it begins with [`POLL`] and
/// doubles while there is nothing.
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// A checkpoint being written, one tensor at a time, so that only one has to be in memory. Dropped
/// without [`Writer::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    share: Share<TeamSave>,
    target: Directory,
    unfinished: Directory,
    step: u64,
    guard: Guard,
    arrays: Vec<WrittenArray>,
    bytes: u64,
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
    published: bool,
    /// A service did not answer.
    unreached: bool,
}

impl Writer {
    /// Starts a checkpoint that will be the directory `target`, which must not exist yet or be
    /// empty.
    pub fn create(target: impl Into<Location>, step: u64) -> Result<Writer> {
        let target = directory::open(&target.into(), &StorageOptions::default())?;
        match target.is_vacant()? {
            true => Writer::begin(target, step, Guard::default(), Share::Whole),
            false => Err(Error::Occupied(target.location().clone())),
        }
    }

    /// Like [`Writer::create`], but takes the place of what is there.
    pub(super) fn begin(
        target: Directory,
        step: u64,
        guard: Guard,
        share: Share<TeamSave>,
    ) -> Result<Writer> {
        let (writer, is_alone) = match &share {
            Share::OfTeam(team) => (Some(team.writer()), false),
            Share::Whole | Share::Part => (guard.writer(), true),
        };
        Ok(Writer {
            unfinished: target.begin(writer, is_alone)?,
            share,
            target,
            step,
            guard,
            arrays: Vec::new(),
            bytes: 0,
            names: BTreeSet::new(),
            // The root group's path is empty.
            groups: BTreeSet::from([String::new()]),
            published: false,
            unreached: false,
        })
    }

    /// Writes one tensor. Its name may hold `.` and `/`; each `/` opens a Zarr group.
    pub fn add(&mut self, name: &str, tensor: &HostTensor) -> Result<()> {
        self.add_parts(&TensorParts::whole(name, tensor))
    }

    /// Writes the parts of a tensor that this process has. Every process adds every tensor, also
    /// one that it has no part of.
    pub fn add_parts(&mut self, tensor: &TensorParts<'_>) -> Result<()> {
        self.add_all(std::slice::from_ref(tensor))
    }

    /// The same of several tensors at once.
    pub fn add_all(&mut self, tensors: &[TensorParts<'_>]) -> Result<()> {
        for tensor in tensors {
            self.check_name(&tensor.name)?;
        }
        let written = array::write(&self.unfinished, tensors, self.leads());
        let written = written.inspect_err(|error| self.unreached |= error.is_unreached())?;
        self.bytes += tensors.iter().map(TensorParts::bytes).sum::<u64>();
        self.arrays.extend(written);
        Ok(())
    }

    /// Takes note of a tensor's name, if it is new and fits the others.
    fn check_name(&mut self, name: &str) -> Result<()> {
        array::check_name(name)?;
        let clash = |problem| Error::Name {
            name: name.to_owned(),
            problem,
        };
        if !self.names.insert(name.to_owned()) {
            return Err(clash("it is given twice"));
        }
        let ancestors: Vec<&str> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
        if self.groups.contains(name) || ancestors.iter().any(|group| self.names.contains(*group)) {
            return Err(clash("a tensor cannot also be the group of others"));
        }
        self.groups.extend(ancestors.into_iter().map(str::to_owned));
        Ok(())
    }

    fn leads(&self) -> bool {
        self.share.leads()
    }

    /// Where the processes of a team list what they wrote, until it is in the marker: those of this
    /// save alone, since a list that an earlier one left is of no use.
    fn lists(&self, team: &TeamSave) -> Directory {
        self.unfinished.child(&format!("lists.{}", team.writer()))
    }

    /// Makes what this process wrote durable and lists it for the one that leads.
    fn hand_in(&self, team: &TeamSave) -> Result<()> {
        let chunks = self.arrays.iter().flat_map(WrittenArray::chunks);
        let files: Vec<&str> = chunks.map(|(_, chunk)| chunk.file.as_str()).collect();
        self.unfinished.keep(&files)?;
        // A tree of strings and numbers: serde_json has no way to fail on it.
        let list = serde_json::to_vec(&self.arrays).expect("a list is plain JSON");
        self.lists(team).hand_over(&list_of(team.team.host), &list)
    }

    /// Adds what the other processes of a team list, waiting for each.
    fn collect(&mut self, team: &TeamSave) -> Result<()> {
        let lists = self.lists(team);
        let patience = team.team.patience;
        let deadline = Instant::now() + patience;
        for host in 1..team.team.hosts {
            let file = list_of(host);
            let mut pause = POLL;
            let list = loop {
                if let Some(list) = lists.read_if_there(&file)? {
                    break list;
                }
                team.check_parts(self.step)?;
                if Instant::now() >= deadline {
                    return Err(Error::Late {
                        step: self.step,
                        host,
                        seconds: patience.as_secs(),
                    });
                }
                std::thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_POLL);
            };
            let unusable = |problem: String| Error::List {
                list: lists.location().join(&file),
                problem,
            };
            let list: Vec<WrittenArray> =
                serde_json::from_slice(&list).map_err(|e| unusable(e.to_string()))?;
            if list.len() != self.arrays.len() {
                return Err(unusable(format!("it lists {} tensors", list.len())));
            }
            for (array, other) in self.arrays.iter_mut().zip(list) {
                array.merge(other)?;
            }
        }
        lists.remove_all()
    }

    /// Makes the checkpoint exist, with `metadata` for whoever reads it, and returns its directory.
    /// When this returns, the checkpoint survives a power failure; until then, it does not exist.
    ///
    /// Of several processes, the one that leads waits for what the others wrote; the others wait
    /// until it tells them that it has committed the checkpoint, where their team has reports.
    pub fn commit(mut self, metadata: &Value) -> Result<Location> {
        let committed = self.commit_plainly(metadata);
        self.published = committed.is_ok();
        self.unreached |= committed.as_ref().is_err_and(Error::is_unreached);
        committed
    }

    fn commit_plainly(&mut self, metadata: &Value) -> Result<Location> {
        if let Share::OfTeam(team) = self.share.clone() {
            if !team.leads() {
                let committed = match self.hand_in(&team) {
                    Ok(()) => team.await_commit(self.step),
                    Err(error) => team.await_end(error, self.step),
                };
                if committed.is_err() {
                    // The one that leads may have removed it before this process wrote the rest.
                    let _ = self.unfinished.leave();
                }
                return committed.map(|()| self.target.location().clone());
            }
            self.collect(&team)?;
        }
        let arrays = std::mem::take(&mut self.arrays);
        let record = match self.share {
            Share::Whole | Share::OfTeam(_) => WrittenArray::whole,
            Share::Part => WrittenArray::part,
        };
        let arrays = arrays.into_iter().map(record);
        let arrays: Vec<ArrayRecord> = arrays.collect::<Result<_>>()?;
        let groups: Vec<&String> = self.groups.iter().collect();
        let write_group = |i: usize| array::write_group(&self.unfinished, groups[i]);
        let groups = in_parallel(groups.len(), write_group)?;
        let marker = Commit::new(self.step, self.bytes, metadata.clone(), groups, arrays);
        self.target
            .publish(&self.unfinished, &marker, &self.guard)?;
        Ok(self.target.location().clone())
    }
}

/// The file in which a process lists what it wrote.
fn list_of(host: usize) -> String {
    format!("{host}.json")
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a failure, the failure is reported.
        if self.leads() && !self.published {
            let _ = self.unfinished.discard(self.unreached);
        }
    }
}
