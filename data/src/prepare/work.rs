//! The work itself: the chunks of one staging directory that are wanted and not yet there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::thread;

use ankh_storage::Location;

use super::collect::Collector;
use super::duplicates::Dropped;
use super::engine::{self, Choice, ReadProgress};
use super::groups::Encoder;
use super::inputs::NamedInput;
use super::progress::{ChunkProgress, Preparation};
use super::rows::{Recipe, split_by_of};
use super::staging::StagingDir;
use super::{Pass, PrepareOptions, ProgressUpdate};
use crate::error::{Error, Result};
use crate::format::{Amount, Duplicates, SourceInfo, SplitBy};

/// Inputs and what is to be made of them.
pub(super) struct Job {
    inputs: Vec<NamedInput>,
    total_bytes: u64,
    recipe: Recipe,
    duplicates: Duplicates,
    threads: usize,
    /// The job as others can compare it.
    pub(super) preparation: Preparation,
}

/// What has been made.
pub(super) struct Chunks {
    /// The inputs as they were read.
    pub(super) source: Vec<SourceInfo>,
    /// The number of chunks of all inputs, whoever makes them.
    pub(super) all_chunks: u64,
    /// The chunks that were wanted.
    pub(super) chunks: BTreeMap<u64, ChunkProgress>,
}

impl Job {
    /// Checks the options, and that the inputs are there; looks at the inputs' ids.
    pub(super) fn new(
        inputs: &[Location],
        options: &PrepareOptions,
        progress: &mut dyn FnMut(ProgressUpdate<'_>),
    ) -> Result<Job> {
        options.validate()?;
        if inputs.is_empty() {
            return Err(Error::NoInputs);
        }
        let inputs = NamedInput::look_at_all(inputs, options)?;
        if let (Some(input), Duplicates::Remove) = (passing(&inputs), options.duplicates) {
            return Err(Error::Passing {
                name: input.name.clone(),
                reason: "removing duplicates reads the inputs twice",
            });
        }
        let stamps: Vec<_> = inputs.iter().map(NamedInput::stamp).collect();
        let total_bytes = stamps.iter().map(|input| input.bytes).sum();
        let mut told = |input: usize, bytes, records| {
            progress(ProgressUpdate {
                pass: Pass::CompareIds,
                input: &inputs[input].name,
                bytes: u64::min(bytes, total_bytes),
                total_bytes,
                records,
                rows: 0,
                residues: 0,
            });
        };
        let nothing_is_held_out = options.validation_fraction + options.test_fraction == 0.0;
        let split_by = match options.split_by {
            Some(split_by) => split_by,
            None if nothing_is_held_out => SplitBy::Id,
            None => split_by_of(&inputs, &mut told)?,
        };
        Ok(Job {
            total_bytes,
            preparation: Preparation::new(stamps, options, split_by),
            recipe: Recipe::new(options, split_by),
            duplicates: options.duplicates,
            threads: match options.threads {
                0 => thread::available_parallelism().map_or(1, |cores| cores.get()),
                threads => threads,
            },
            inputs,
        })
    }

    /// Makes the chunks that `owned` says, in a staging directory.
    pub(super) fn make(
        &self,
        staging: &StagingDir,
        owned: impl Fn(u64) -> bool + Sync,
        progress: &mut dyn FnMut(ProgressUpdate<'_>),
    ) -> Result<Chunks> {
        let finished = staging.finished()?;
        let encoder = Encoder::new().map_err(Error::parquet(staging.scratch()))?;
        let mut dropped = match self.duplicates {
            Duplicates::Keep => Dropped::none(),
            Duplicates::Remove => {
                let mut tick = |read: &ReadProgress| {
                    self.tell(Pass::FindDuplicates, read, Amount::default(), progress);
                };
                let (inputs, recipe) = (self.inputs.clone(), &self.recipe);
                let scratch = staging.scratch();
                Dropped::find(inputs, recipe, self.threads, &encoder, scratch, &mut tick)?
            }
        };
        let wanted = |chunk: u64| owned(chunk) && !finished.contains_key(&chunk);
        let size = self.recipe.chunk_records;
        let choose = |records: Range<u64>| {
            let duplicates = dropped.within(&records)?;
            let mut chunks = records.start / size..=(records.end.max(1) - 1) / size;
            Ok(match chunks.any(wanted) {
                true => Choice::Read(duplicates),
                false => Choice::Skip,
            })
        };
        let before = finished.values().filter(|done| owned(done.chunk));
        let before = before.fold(Amount::default(), |sum, done| Amount {
            rows: sum.rows + done.report.rows,
            residues: sum.residues + done.report.residues,
        });
        let amount = Cell::new(before);
        let mut tick = |read: &ReadProgress| self.tell(Pass::Write, read, amount.get(), progress);
        let (source, new) = thread::scope(|scope| {
            // One chunk waits while another is made last; a third has to wait.
            let (complete, chunks) = sync_channel(1);
            let keeper = scope.spawn(move || {
                let keep = |chunk| staging.keep(chunk);
                chunks
                    .into_iter()
                    .map(keep)
                    .collect::<Result<Vec<ChunkProgress>>>()
            });
            let read = engine::with_engine(
                self.inputs.clone(),
                self.threads,
                choose,
                |block| self.recipe.rows(block, wanted),
                &encoder,
                &mut tick,
                |engine| {
                    let scratch = staging.scratch();
                    let mut collector = Collector::new(&encoder, scratch, self.threads, complete);
                    while let Some(pieces) = engine.next_block()? {
                        for piece in &pieces {
                            collector.add(piece, engine)?;
                            amount.set(Amount {
                                rows: amount.get().rows + piece.report.rows,
                                residues: amount.get().residues + piece.report.residues,
                            });
                        }
                        engine.tick();
                    }
                    let sources = engine.sources()?;
                    collector.finish(engine)?;
                    engine.tick();
                    Ok(sources)
                },
            );
            // The keeper's error comes first: with it the collector cannot go on.
            let kept = keeper.join().unwrap_or(Err(Error::WorkerDied))?;
            Ok::<_, Error>((read?, kept))
        })?;
        let records: u64 = source
            .iter()
            .map(|source: &SourceInfo| source.records)
            .sum();
        let mut chunks = finished;
        chunks.retain(|&chunk, _| owned(chunk));
        chunks.extend(new.into_iter().map(|done| (done.chunk, done)));
        Ok(Chunks {
            all_chunks: records.div_ceil(size),
            source,
            chunks,
        })
    }

    /// An input that can be read only once.
    pub(super) fn passing(&self) -> Option<&NamedInput> {
        passing(&self.inputs)
    }

    fn tell(
        &self,
        pass: Pass,
        read: &ReadProgress,
        amount: Amount,
        progress: &mut dyn FnMut(ProgressUpdate<'_>),
    ) {
        let input = self.inputs.get(read.input.load(Relaxed));
        let bytes = read.bytes.load(Relaxed);
        // Of what passes by the size is not known before.
        let total_bytes = match self.passing() {
            Some(_) => self.total_bytes.max(bytes),
            None => self.total_bytes,
        };
        progress(ProgressUpdate {
            pass,
            input: input.map_or("", |input| &input.name),
            bytes: bytes.min(total_bytes),
            total_bytes,
            records: read.records.load(Relaxed),
            rows: amount.rows,
            residues: amount.residues,
        });
    }
}

fn passing(inputs: &[NamedInput]) -> Option<&NamedInput> {
    inputs.iter().find(|input| input.passes())
}
