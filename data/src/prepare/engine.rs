//! Blocks of records through all cores, and back in order.
//!
//! One thread reads the inputs and cuts them into blocks of whole records. Workers take blocks, and
//! row groups to encode, from one queue. The caller's thread puts what comes back in order again:
//! it alone decides what goes where, so the result does not depend on the number of workers. A
//! block is cut only when there is a permit for it, and permits come back when the caller has taken
//! the block's result; so memory is bounded however fast the reader is. Whoever ends early ends the
//! others by dropping its ends of the channels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use parquet::errors::ParquetError;

use super::groups::{Encoded, Encoder, Gathered};
use super::input::Block;
use super::inputs::NamedInput;
use crate::error::{Error, Result};
use crate::format::SourceInfo;

/// A block of records, and what is known of it before it is parsed.
pub(super) struct SequencedBlock {
    /// The number of its first record, counted over all inputs.
    pub(super) first: u64,
    /// The name of its input.
    pub(super) file: Arc<str>,
    /// The numbers of those of its records that are duplicates, ascending.
    pub(super) duplicates: Vec<u64>,
    pub(super) block: Block,
}

/// What the reader does with a block.
pub(super) enum Choice {
    /// None of its records is needed.
    Skip,
    /// It goes to the workers, with those of its records that are duplicates.
    Read(Vec<u64>),
}

/// How far the reader has come.
#[derive(Default)]
pub(super) struct ReadProgress {
    /// Bytes read of all inputs, as stored.
    pub(super) bytes: AtomicU64,
    /// Records read.
    pub(super) records: AtomicU64,
    /// The input that is being read.
    pub(super) input: AtomicUsize,
    stopped: AtomicBool,
}

enum Work {
    Parse(u64, SequencedBlock),
    Encode(u64, Gathered),
}

enum Done<T> {
    Block(u64, Result<T>),
    End(u64, Result<Vec<SourceInfo>>),
    Group(u64, std::result::Result<Encoded, ParquetError>),
    Died,
}

/// The caller's end of the engine.
pub(super) struct Engine<'a, T> {
    work: Sender<Work>,
    done: Receiver<Done<T>>,
    permits: Sender<()>,
    blocks: BTreeMap<u64, Result<T>>,
    end: Option<(u64, Result<Vec<SourceInfo>>)>,
    groups: BTreeMap<u64, std::result::Result<Encoded, ParquetError>>,
    next_block: u64,
    next_group: u64,
    died: bool,
    progress: &'a ReadProgress,
    tick: &'a mut dyn FnMut(&ReadProgress),
}

/// Blocks that may be between the reader and the caller, for each worker.
const BLOCKS_A_WORKER: usize = 2;
/// How long the caller waits before it looks at the progress again.
const TICK: Duration = Duration::from_millis(100);

/// Runs `body` with an engine that reads `inputs`. `choose` says what to do with the records of a
/// range, in the order of the ranges; `parse` runs on the workers. `tick` is called while waiting.
pub(super) fn with_engine<T: Send, R>(
    inputs: Vec<NamedInput>,
    threads: usize,
    mut choose: impl FnMut(std::ops::Range<u64>) -> Result<Choice> + Send,
    parse: impl Fn(&SequencedBlock) -> Result<T> + Sync,
    encoder: &Encoder,
    tick: &mut dyn FnMut(&ReadProgress),
    body: impl FnOnce(&mut Engine<'_, T>) -> Result<R>,
) -> Result<R> {
    let progress = &ReadProgress::default();
    let (work, tasks) = channel();
    let (results, done) = channel();
    let (permits, permitted) = channel();
    for _ in 0..BLOCKS_A_WORKER * threads + 2 {
        // The receiving end is in scope.
        let _ = permits.send(());
    }
    let tasks = &Mutex::new(tasks);
    thread::scope(|scope| {
        let mut helpers = Vec::new();
        for _ in 0..threads {
            let (results, parse) = (results.clone(), &parse);
            helpers.push(scope.spawn(move || worker(tasks, &results, parse, encoder)));
        }
        let blocks = work.clone();
        helpers.push(scope.spawn(move || {
            let died = Died(&results);
            let mut sent = 0;
            let read = read(inputs, progress, &mut choose, |block| {
                if permitted.recv().is_err() || blocks.send(Work::Parse(sent, block)).is_err() {
                    return false;
                }
                sent += 1;
                true
            });
            let _ = died.0.send(Done::End(sent, read));
        }));
        let mut engine = Engine {
            work,
            done,
            permits,
            blocks: BTreeMap::new(),
            end: None,
            groups: BTreeMap::new(),
            next_block: 0,
            next_group: 0,
            died: false,
            progress,
            tick,
        };
        let result = body(&mut engine);
        progress.stopped.store(true, Ordering::Relaxed);
        drop(engine);
        for helper in helpers {
            // One that panicked has told the engine, and so the result.
            let _ = helper.join();
        }
        result
    })
}

/// Reads all inputs; ends early when `send` says that nobody wants more.
fn read(
    inputs: Vec<NamedInput>,
    progress: &ReadProgress,
    choose: &mut dyn FnMut(std::ops::Range<u64>) -> Result<Choice>,
    mut send: impl FnMut(SequencedBlock) -> bool,
) -> Result<Vec<SourceInfo>> {
    let mut sources: Vec<SourceInfo> = Vec::new();
    let (mut first, mut before) = (0, 0);
    for (index, named) in inputs.into_iter().enumerate() {
        progress.input.store(index, Ordering::Relaxed);
        let file: Arc<str> = named.name.as_str().into();
        let begin = first;
        let mut input = named.open()?;
        while let Some(block) = input.next_block()? {
            let records = first..first + block.records();
            first = records.end;
            if let Choice::Read(duplicates) = choose(records.clone())? {
                let sent = send(SequencedBlock {
                    first: records.start,
                    file: file.clone(),
                    duplicates,
                    block,
                });
                if !sent {
                    return Ok(sources);
                }
            } else if progress.stopped.load(Ordering::Relaxed) {
                return Ok(sources);
            }
            let bytes = before + input.bytes_read();
            progress.bytes.store(bytes, Ordering::Relaxed);
            progress.records.store(first, Ordering::Relaxed);
        }
        let bytes = input.bytes_read();
        before += bytes;
        progress.bytes.store(before, Ordering::Relaxed);
        sources.push(SourceInfo {
            name: named.name,
            bytes,
            sha256: input.sha256(),
            records: first - begin,
            warning: input.warning(),
        });
    }
    Ok(sources)
}

/// Tells the caller when its thread panics, who would wait for ever otherwise.
struct Died<'a, T>(&'a Sender<Done<T>>);

impl<T> Drop for Died<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Done::Died);
        }
    }
}

fn worker<T>(
    tasks: &Mutex<Receiver<Work>>,
    results: &Sender<Done<T>>,
    parse: &impl Fn(&SequencedBlock) -> Result<T>,
    encoder: &Encoder,
) {
    let _died = Died(results);
    loop {
        // The lock is held while waiting: the others would only wait beside it.
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let done = match task {
            Err(_) => return,
            Ok(Work::Parse(number, block)) => Done::Block(number, parse(&block)),
            Ok(Work::Encode(number, group)) => Done::Group(number, encoder.encode(&group)),
        };
        if results.send(done).is_err() {
            return;
        }
    }
}

impl<T> Engine<'_, T> {
    /// What became of the next block; nothing after the last.
    pub(super) fn next_block(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(parsed) = self.blocks.remove(&self.next_block) {
                self.next_block += 1;
                // The reader may have read everything.
                let _ = self.permits.send(());
                return parsed.map(Some);
            }
            if let Some((blocks, _)) = &self.end
                && *blocks == self.next_block
            {
                return Ok(None);
            }
            self.receive()?;
        }
    }

    /// What was read, after the last block.
    pub(super) fn sources(&mut self) -> Result<Vec<SourceInfo>> {
        match self.end.take() {
            Some((_, sources)) => sources,
            None => Ok(Vec::new()),
        }
    }

    /// Gives a row group to the workers. The number is that of [`Engine::encoded`].
    pub(super) fn encode(&mut self, group: Gathered) -> Result<u64> {
        let number = self.next_group;
        self.next_group += 1;
        let work = Work::Encode(number, group);
        self.work.send(work).map_err(|_| Error::WorkerDied)?;
        Ok(number)
    }

    /// A row group, encoded; nothing if it is not ready.
    pub(super) fn encoded(
        &mut self,
        number: u64,
    ) -> Option<std::result::Result<Encoded, ParquetError>> {
        while let Ok(done) = self.done.try_recv() {
            self.take(done);
        }
        self.groups.remove(&number)
    }

    /// A row group, encoded.
    pub(super) fn wait_for(
        &mut self,
        number: u64,
    ) -> Result<std::result::Result<Encoded, ParquetError>> {
        loop {
            if let Some(group) = self.groups.remove(&number) {
                return Ok(group);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<()> {
        while !self.died {
            match self.done.recv_timeout(TICK) {
                Ok(done) => {
                    self.take(done);
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => (self.tick)(self.progress),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Err(Error::WorkerDied)
    }

    fn take(&mut self, done: Done<T>) {
        match done {
            Done::Block(number, parsed) => {
                self.blocks.insert(number, parsed);
            }
            Done::Group(number, group) => {
                self.groups.insert(number, group);
            }
            Done::End(blocks, sources) => self.end = Some((blocks, sources)),
            Done::Died => self.died = true,
        }
    }

    /// Tells how far the reader has come.
    pub(super) fn tick(&mut self) {
        (self.tick)(self.progress);
    }
}
