//! Sequences to a file of embeddings: the encoder's states of each residue, or their mean.
//!
//! The inputs are read twice: once to count what they hold and to find what cannot be used
//! ([`Records::survey`]), once to embed it. On the second pass sequences come in windows, so that
//! memory is bounded; in a window they are sorted into batches, the longest first. What a batch
//! holds is a function of the inputs and the options alone, and each window's values go into a part
//! of its own beside the output. So work that was killed goes on where it was, and ends in the same
//! bytes. The parts are joined in the order of the inputs, and the file appears whole.
//!
//! This module knows no command line. It does not know how the encoder computes
//! ([`crate::programs`]), nor on what ([`crate::inference`]).

mod encoder;
mod error;
mod hdf5;
mod output;
mod parquet_file;
mod parts;
mod records;

use std::path::PathBuf;

use ankh_hlo::DType;
use serde_json::{Value, json};

use crate::inference::LoadedModel;
use crate::programs::Pooling;

pub use error::Error;
pub use output::Format;
pub use records::{InputFile, Records, Survey, Unusable};

use encoder::Encoder;
use output::{Content, Output};
use parts::{Indexed, Part, Parts, State};
use records::{Flow, Sequence};

/// A window has at most so many sequences.
const WINDOW_SEQUENCES: usize = 1 << 15;
/// And about as many tokens as so many batches.
const WINDOW_BATCHES: usize = 256;

/// What is made of the sequences.
#[derive(Clone, Debug)]
pub struct EmbedOptions {
    /// The file.
    pub output: PathBuf,
    /// Of each residue, or their mean.
    pub pooling: Pooling,
    /// The type of the stored values.
    pub store: Store,
    /// What the datasets of an HDF5 file are called.
    pub names: DatasetNames,
    /// Tokens that are computed at once; without, 2048 on a CPU and 32,768 on each other device.
    pub batch_tokens: Option<usize>,
    /// What is done with a file that is there.
    pub existing: Existing,
    /// What is done with the parts of another command.
    pub foreign_parts: ForeignParts,
}

/// The type of stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// As they are computed.
    Float32,
    /// Rounded to half the size.
    Float16,
}

impl Store {
    /// Bytes of a value.
    fn width(self) -> usize {
        match self {
            Store::Float32 => 4,
            Store::Float16 => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Store::Float32 => "float32",
            Store::Float16 => "float16",
        }
    }
}

/// What the datasets of an HDF5 file are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetNames {
    /// By the sequence, as biotrainer 1.0 and later look them up. Equal sequences share one.
    SequenceHash,
    /// By the sequence's number among those that are embedded, from 0.
    Number,
}

/// What is done with a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and nothing is done.
    Keep,
    /// It is replaced, once the new one is complete.
    Replace,
}

/// What is done with the parts of another command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignParts {
    /// They are kept, and nothing is done.
    Keep,
    /// They are thrown away, as are those of the same command.
    Discard,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sequences that are embedded.
    pub sequences: u64,
    /// Residues of those.
    pub residues: u64,
    /// Residues of those that this process embedded.
    pub computed: u64,
}

/// How the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is there.
    Done {
        /// Sequences that share a dataset with an earlier one.
        repeated: u64,
    },
    /// On request: what was done is kept in parts.
    Stopped,
}

impl EmbedOptions {
    /// Checks what can be checked before any work.
    pub fn validate(&self) -> Result<Format, Error> {
        let format = Format::of(&self.output)?;
        let begun = parts::directory_of(&self.output).exists();
        match self.output.exists() && self.existing == Existing::Keep && !begun {
            true => Err(self.exists()),
            false => Ok(format),
        }
    }

    fn exists(&self) -> Error {
        let path = self.output.clone();
        Error::Exists { path }
    }
}

/// Embeds the sequences of `records`, which `survey` counted. `stop` is asked between batches.
pub fn embed(
    model: &LoadedModel,
    (records, survey): (&Records, &Survey),
    options: &EmbedOptions,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Error> {
    let format = options.validate()?;
    let (platform, devices) = model.devices();
    let batch_tokens = model.encoder_tokens(options.batch_tokens);
    let compute = match model.compute() {
        DType::Bf16 => "bfloat16",
        _ => "float32",
    };
    let pooling = match options.pooling {
        Pooling::Mean => "mean",
        Pooling::None => "none",
    };
    let layout = model.encoder_layout(&survey.lengths, batch_tokens);
    let job = json!({
        "program": concat!("ankh ", env!("CARGO_PKG_VERSION")),
        "weights": format!("{:08x}", model.checksum()),
        "model": model.model(),
        "tokenizer": records.tokenizer.vocabulary(),
        "inputs": survey.sources,
        "columns": records.columns,
        "max_length": records.max_length,
        "pooling": pooling,
        "dtype": compute,
        "store": options.store.name(),
        "format": format!("{format:?}"),
        "names": format!("{:?}", options.names),
        "rows": layout.rows(),
        "batch_tokens": batch_tokens,
        "devices": devices,
        "platform": platform,
    });
    let restart = options.foreign_parts == ForeignParts::Discard;
    let (parts, state) = Parts::open(&options.output, &job, restart)?;
    if state == State::Complete {
        parts.commit()?;
        return Ok(Outcome::Done { repeated: 0 });
    }
    if options.output.exists() && options.existing == Existing::Keep {
        return Err(options.exists());
    }
    let mut work = Work {
        encoder: Encoder::new(model, options.pooling, layout, options.store),
        parts,
        made: 0,
        stop,
        at: Progress::default(),
        progress,
    };
    let mut window = Vec::new();
    let mut tokens = 0;
    let mut flow = records.for_each(survey, &mut |sequence| {
        tokens += sequence.tokens.len();
        window.push(sequence);
        if window.len() < WINDOW_SEQUENCES && tokens < WINDOW_BATCHES * batch_tokens {
            return Ok(Flow::GoOn);
        }
        tokens = 0;
        work.part(&std::mem::take(&mut window))
    })?;
    if flow == Flow::GoOn && !window.is_empty() {
        flow = work.part(&window)?;
    }
    if flow == Flow::End {
        return Ok(Outcome::Stopped);
    }
    let metadata = metadata(&job, model.model().d_model);
    let content = Content {
        format,
        pooling: options.pooling,
        store: options.store,
        names: options.names,
        d_model: model.model().d_model,
        metadata,
    };
    work.join(content)
}

/// What a Parquet file tells of itself.
fn metadata(job: &Value, d_model: usize) -> Vec<(String, String)> {
    let kept = ["program", "weights", "pooling", "dtype"];
    let kept = kept.iter().filter_map(|&name| {
        let value = job.get(name)?.as_str()?;
        Some((format!("ankh.{name}"), value.to_owned()))
    });
    kept.chain([("ankh.d_model".to_owned(), d_model.to_string())])
        .collect()
}

/// The windows of one output, one after the other.
struct Work<'a> {
    encoder: Encoder<'a>,
    parts: Parts,
    /// Parts that are complete.
    made: usize,
    stop: &'a dyn Fn() -> bool,
    at: Progress,
    progress: &'a mut dyn FnMut(Progress),
}

impl Work<'_> {
    /// Makes the next part, of the sequences of a window, unless it is there.
    fn part(&mut self, window: &[Sequence]) -> Result<Flow, Error> {
        let lengths = window.iter().map(|sequence| sequence.tokens.len() - 1);
        if self.parts.index(self.made)?.is_some() {
            self.at.sequences += window.len() as u64;
            self.at.residues += lengths.sum::<usize>() as u64;
            self.made += 1;
            (self.progress)(self.at);
            return Ok(match (self.stop)() {
                true => Flow::End,
                false => Flow::GoOn,
            });
        }
        let bytes = lengths.clone().map(|length| self.encoder.bytes(length));
        let bytes: usize = bytes.sum();
        let mut part: Part = self.parts.part(self.made, bytes as u64)?;
        let (at, progress) = (&mut self.at, &mut self.progress);
        let mut done = |sequences: usize, residues: usize, computed: bool| {
            at.sequences += sequences as u64;
            at.residues += residues as u64;
            at.computed += if computed { residues as u64 } else { 0 };
            progress(*at);
        };
        let flow = self
            .encoder
            .window(window, &mut part, self.stop, &mut done)?;
        if flow == Flow::GoOn {
            let index = window
                .iter()
                .zip(lengths)
                .map(|(sequence, length)| Indexed {
                    id: sequence.id.clone(),
                    length,
                    hash: sequence.hash.clone(),
                });
            let index: Vec<Indexed> = index.collect();
            self.parts.complete(self.made, part, &index)?;
            self.made += 1;
        }
        Ok(flow)
    }

    /// Joins the parts.
    fn join(self, content: Content) -> Result<Outcome, Error> {
        let mut output = Output::create(self.parts.joined(), content)?;
        let mut values = Vec::new();
        for part in 0..self.made {
            let index = self.parts.index(part)?.unwrap_or_default();
            let mut stored = self.parts.values(part)?;
            for sequence in index {
                values.resize(self.encoder.bytes(sequence.length), 0);
                stored.read(&mut values)?;
                output.push(sequence, &values)?;
            }
        }
        let repeated = output.finish()?;
        self.parts.commit()?;
        Ok(Outcome::Done { repeated })
    }
}
