//! Where a run resumes: the newest checkpoint, and whether this run can continue from it.
//!
//! Everything that can be wrong is found from the checkpoint's metadata, before anything is
//! compiled. The run directory has already checked which settings may differ; this module applies
//! the differences: with another batch size the data continues after the rows already seen, and
//! another optimizer starts from the weights alone.

use serde::Deserialize as _;

use super::TrainError;
use super::data_loader::DataLoader;
use super::data_order::DataOrder;
use super::processes::Processes;
use super::rate_change::RateChange;
use super::state::State;
use crate::checkpoint::{Reader, Store};
use crate::config::Config;
use crate::mesh::DeviceMesh;
use crate::programs::{Programs, is_of_spikes};
use crate::run_dir::{RunDirectory, saved_config};

/// Where a run resumes, or starts.
#[derive(Debug, Default)]
pub(super) struct ResumePoint {
    /// The steps done.
    pub step: u64,
    /// The rows that they took.
    pub rows: u64,
    /// The residues that these showed.
    pub residues: u64,
    /// The step at which the optimizer's slots start.
    pub optimizer_start: u64,
    saved: Option<Saved>,
    /// The newest step in the run directory.
    checkpoint: Option<u64>,
}

/// A state to resume from.
#[derive(Debug)]
struct Saved {
    /// Its checkpoint, or those that hold its parts.
    readers: Vec<Reader>,
    optimizer: Kept,
}

/// What happens to the optimizer's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    All,
    Nothing,
}

impl ResumePoint {
    /// Where the run in a directory resumes. All hosts of a run must agree on it.
    pub fn of(
        config: &Config,
        run: &RunDirectory,
        store: &Store,
        processes: &Processes,
        training: &DataLoader,
    ) -> Result<ResumePoint, TrainError> {
        let latest = store.latest()?;
        let begins = latest.unwrap_or(0);
        let all = processes.all_gather("where to resume", begins)?;
        let first = all.iter().copied().min().unwrap_or(begins);
        let last = all.iter().copied().max().unwrap_or(begins);
        if first != last {
            processes.part();
            return Err(TrainError::OtherStep {
                checkpoints: run.checkpoints().clone(),
                begins,
                first,
                last,
            });
        }
        let start = config.schedule.start_step;
        if begins < start {
            tracing::warn!(
                "schedule.start_step is {start}, and the run begins after step {begins}: until then the learning rate stays where the schedule begins"
            );
        }
        match latest {
            None => Ok(ResumePoint::default()),
            Some(step) => {
                let point = ResumePoint::after(config, store.reader(step)?, training)?;
                if step >= config.train.steps {
                    tracing::info!(
                        "the run has done {step} steps, and train.steps is {}: nothing is left to do",
                        config.train.steps
                    );
                }
                Ok(point)
            }
        }
    }

    /// From a local state that is newer than all in the run directory.
    pub fn of_local(
        self,
        config: &Config,
        parts: Vec<Reader>,
        training: &DataLoader,
    ) -> Result<ResumePoint, TrainError> {
        let checkpoint = self.checkpoint;
        let point = ResumePoint::after_parts(config, parts, training)?;
        Ok(ResumePoint {
            checkpoint,
            ..point
        })
    }

    /// After a checkpoint, made by a run on the same data in the same order.
    pub fn after(
        config: &Config,
        reader: Reader,
        training: &DataLoader,
    ) -> Result<ResumePoint, TrainError> {
        let checkpoint = Some(reader.step());
        let point = ResumePoint::after_parts(config, vec![reader], training)?;
        Ok(ResumePoint {
            checkpoint,
            ..point
        })
    }

    /// The same after a state whose parts are in several checkpoints.
    ///
    /// # Panics
    /// Where there is none.
    fn after_parts(
        config: &Config,
        readers: Vec<Reader>,
        training: &DataLoader,
    ) -> Result<ResumePoint, TrainError> {
        let reader = readers.first().expect("a state has a part");
        check_data(reader, training)?;
        let before = saved_config(reader.metadata());
        let before = before.as_ref().unwrap_or(config);
        let step = reader.step();
        check_rate(before, config, step)?;
        let number = |name: &str| reader.metadata()[name].as_u64();
        let size = before.batch_rows();
        // Before rows were recorded, all batches of a run had one size.
        let rows = number("rows").unwrap_or(step * size as u64);
        if size != config.batch_rows() {
            tracing::warn!(
                "train.batch_size is {}, and was {size}: the data goes on behind the {rows} rows seen",
                config.batch_rows()
            );
        }
        let (optimizer, optimizer_start) = match config.optimizer.continues(&before.optimizer) {
            true => (Kept::All, number("optimizer_start").unwrap_or(0)),
            false => {
                tracing::warn!(
                    "the optimizer is another: the weights go on, what it keeps of them begins afresh; its learning rate is that of [schedule], as for the optimizer before"
                );
                (Kept::Nothing, step)
            }
        };
        Ok(ResumePoint {
            step,
            rows,
            residues: number("residues").unwrap_or(0),
            optimizer_start,
            saved: Some(Saved { readers, optimizer }),
            checkpoint: None,
        })
    }

    /// The newest step in the run directory, which is this point's unless it is local.
    pub fn checkpoint(&self) -> Option<u64> {
        self.checkpoint
    }

    /// Whether there is a saved state, here or in the run directory.
    pub fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// Whether the state is not in the run directory.
    pub fn is_local(&self) -> bool {
        self.saved.is_some() && self.checkpoint != Some(self.step)
    }

    /// The programs of the run from here on.
    pub fn programs<'c>(&self, programs: &Programs<'c>) -> Programs<'c> {
        Programs {
            optimizer_start: self.optimizer_start,
            ..programs.clone()
        }
    }

    /// The saved state to go on from, on the devices; nothing where none is saved.
    pub fn state(
        &self,
        programs: &Programs<'_>,
        mesh: &DeviceMesh,
    ) -> Result<Option<State>, TrainError> {
        let Some(Saved { readers, optimizer }) = &self.saved else {
            return Ok(None);
        };
        tracing::info!(step = self.step, "resuming");
        // What two rules keep may have one name and mean different things.
        let is_kept = |name: &str| *optimizer == Kept::All || !name.contains('/');
        // A run that skips no spikes saves nothing of them.
        let has = |reader: &Reader, name: &str| reader.shape(name).is_ok();
        let is_there = |name: &str| readers.iter().all(|reader| has(reader, name));
        let kept = |name: &str| is_kept(name) && (!is_of_spikes(name) || is_there(name));
        let state = State::from_checkpoints(programs, mesh, readers, kept)?;
        let bytes: u64 = readers.iter().map(Reader::bytes_read).sum();
        tracing::info!("read {} MiB", bytes >> 20);
        Ok(Some(state))
    }
}

fn check_data(reader: &Reader, training: &DataLoader) -> Result<(), TrainError> {
    let metadata = reader.metadata();
    let is = training.whole.examples_per_epoch();
    let was = metadata["examples_per_epoch"].as_u64();
    if let Some(was) = was.filter(|was| *was != is) {
        return Err(TrainError::OtherData {
            checkpoint: reader.directory().clone(),
            was,
            is,
        });
    }
    // A checkpoint that was imported has no order yet.
    if let Ok(before) = DataOrder::deserialize(&metadata["order"]) {
        let difference = DataOrder::of(&training.whole).difference(&before);
        if let Some(difference) = difference {
            return Err(TrainError::OtherOrder {
                checkpoint: reader.directory().clone(),
                difference,
            });
        }
    }
    Ok(())
}

/// Says what becomes of the learning rate where it is not what it would have been.
fn check_rate(before: &Config, now: &Config, step: u64) -> Result<(), TrainError> {
    let Some(change) = RateChange::of(before, now, step) else {
        return Ok(());
    };
    let choices = change.choices(before, now);
    if change.is_sudden(before, now) {
        return Err(TrainError::RateJump { change, choices });
    }
    tracing::warn!("{change}");
    if before.schedule == now.schedule {
        for choice in choices {
            tracing::warn!("{choice}");
        }
    }
    Ok(())
}
