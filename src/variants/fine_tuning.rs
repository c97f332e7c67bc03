//! Fine-tuning of the decoder on a family, with the encoder frozen: a run like any other.

use std::path::{Path, PathBuf};

use ankh_data::batches::objective::Completion;
use ankh_data::tokenizer::Task;
use ankh_data::{LongSequences, Manifest, Objective, PrepareOptions, Split, Tokenizer, prepare};
use ankh_storage::{Location, Storage};

use super::Error;
use crate::checkpoint::Store;
use crate::config::{
    AdamW, BatchSize, Compute, Config, Freeze, Model, Optimizer, ScheduleKind, TargetLength,
};
use crate::devices::open_mesh;
use crate::mesh::slice::Slice;
use crate::mesh::{Entries, Hosts, ProgramCache};
use crate::run_dir::{Requests, RunDirectory, RunMode};
use crate::train::{Outcome, Processes, train};

/// How a family is learned.
#[derive(Clone, Debug, PartialEq)]
pub struct FineTuning {
    /// How often each sequence is seen.
    pub epochs: u64,
    /// Adam's learning rate, the same in all steps.
    pub learning_rate: f64,
    /// Sequences in an update.
    pub batch_size: usize,
    /// The longest target, in tokens; longer sequences are cut.
    pub length: usize,
    /// The most residues that are given. The rest of a sequence is the target.
    pub prompt: usize,
    /// What the order of sequences follows from.
    pub seed: u64,
}

impl Default for FineTuning {
    /// The settings of the paper's High-N.
    fn default() -> FineTuning {
        FineTuning {
            epochs: 2,
            learning_rate: 3e-4,
            batch_size: 4,
            length: 256,
            prompt: 20,
            seed: 0,
        }
    }
}

/// What it begins with, and where it runs.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The weights.
    pub weights: Location,
    /// Their model.
    pub model: Model,
    /// Their tokenizer.
    pub tokenizer: Tokenizer,
    /// On what.
    pub slice: Slice,
    /// In which type.
    pub compute: Compute,
}

/// Decoder positions are a multiple of this.
const POSITIONS: usize = 16;

impl FineTuning {
    /// The tokens that the longest of some sequences has behind its prompt, with `</s>`, as far as
    /// they are learned.
    pub fn target_tokens(&self, longest: usize) -> usize {
        let prompt = self.prompt.min(longest.div_ceil(2));
        (longest - prompt + 1).min(self.length)
    }

    /// The configuration of a run on so many `sequences`, the longest of so many residues.
    fn config(&self, origin: &Origin, data: &Path, sequences: u64, longest: usize) -> Config {
        let mut config = Config {
            model: origin.model.clone(),
            objective: Objective::Completion(Completion {
                task: origin.tokenizer.task(Task::S2s).map(|_| Task::S2s),
                prompt: Some(self.prompt),
            }),
            optimizer: Optimizer::Adamw(AdamW {
                epsilon: 1e-8,
                weight_decay: 0.0,
                ..AdamW::default()
            }),
            ..Config::default()
        };
        config.data.dir = Some(data.into());
        config.data.tokenizer = origin.tokenizer.vocabulary();
        // A prompt, a task mark and `</s>`.
        config.data.input_length = self.prompt + 2;
        let target = self.target_tokens(longest).next_multiple_of(POSITIONS);
        config.data.target_length = TargetLength::Tokens(target);
        // The beginning of a sequence is what a prompt is.
        config.data.long_sequences = LongSequences::Truncate;
        config.data.seed = self.seed;
        config.schedule.kind = ScheduleKind::Constant;
        config.schedule.peak_learning_rate = self.learning_rate;
        config.schedule.warmup_steps = 0;
        config.train.batch_size = BatchSize::Rows(self.batch_size);
        let steps = (self.epochs * sequences).div_ceil(self.batch_size as u64);
        config.train.steps = steps.max(1);
        config.train.initialize_from = Some(origin.weights.clone());
        config.train.freeze = Freeze::Encoder;
        config.train.compute = origin.compute;
        config.train.log_every = steps.div_ceil(20).max(1);
        config.evaluation.every = 0;
        config.checkpoint.every = steps.div_ceil(4).max(1);
        config.checkpoint.minutes = 5.0;
        config.checkpoint.keep = 1;
        config
    }

    /// Fine-tunes on the sequences of a FASTA file, in the directories `data` and `run` beside each
    /// other. Returns where the weights are, or nothing where somebody asked to stop. What is done
    /// already is not done again; `begins` is called where there is something to do.
    pub fn run(
        &self,
        origin: &Origin,
        family: &Path,
        longest: usize,
        directory: &Path,
        requests: &Requests,
        begins: impl FnOnce(),
    ) -> Result<Option<PathBuf>, Error> {
        let data = directory.join("data");
        let sequences = prepared(family, &data, origin.tokenizer)?;
        let mut config = self.config(origin, &data, sequences, longest);
        config.make_paths_absolute()?;
        config.validate()?;
        let path = directory.join("run");
        let checkpoints = path.join("checkpoints");
        let latest = Store::at(&(&checkpoints).into()).and_then(|store| store.latest());
        if matches!(latest, Ok(Some(step)) if step >= config.train.steps) {
            return Ok(Some(path));
        }
        begins();
        let run = RunDirectory::open_for(0, &path, &config, RunMode::Resume)?;
        let mut mesh = open_mesh(&config, origin.slice, Hosts::Real)?;
        if let Some(directory) = config.compiler.cache.directory() {
            mesh.keep_programs_in(ProgramCache::at(&directory, Entries::Used));
        }
        let processes = Processes::alone(requests.clone());
        match train(&config, &run, &mesh, None, &processes)? {
            Outcome::Finished(_) => Ok(Some(path)),
            Outcome::Stopped(_) => Ok(None),
        }
    }
}

/// Prepares a family, unless that is done, and counts its sequences.
fn prepared(family: &Path, data: &Path, tokenizer: Tokenizer) -> Result<u64, Error> {
    let options = PrepareOptions {
        tokenizer: tokenizer.vocabulary(),
        validation_fraction: 0.0,
        ..PrepareOptions::default()
    };
    let location = Location::from(data);
    let manifest = match data.join("manifest.json").exists() {
        true => {
            let storage = Storage::open(&location, &options.storage);
            Manifest::read(&storage.map_err(ankh_data::Error::from)?)?
        }
        false => prepare(&[family.into()], &location, &options, &mut |_| {})?,
    };
    Ok(manifest.amount(Split::Train).rows)
}
