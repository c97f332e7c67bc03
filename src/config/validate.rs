//! Checks what types cannot express: values that make no sense, alone or together.

use std::path::PathBuf;

use ankh_data::{BatchConfig, Objective, ReadOptions, Tokenizer};
use ankh_storage::{CacheOptions, StorageOptions};

use super::objective::setting_name;
use super::{BatchSize, Config, ConfigError, Problem, ScheduleKind};
use crate::validation::Problems;

/// The most units that a dimension of a model may have.
const WIDEST: usize = 1 << 20;
/// The most layers that a stack may have.
const DEEPEST: usize = 1 << 12;
/// The most threads that read and mask: each takes memory, used or not.
const THREADS: usize = 1 << 12;
/// The most batches that may be made ahead.
const AHEAD: usize = 1 << 16;

impl Config {
    /// Checks the whole configuration and reports all that is wrong with it, not just the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut found = Problems::default();
        self.check_model(&mut found);
        self.check_data(&mut found);
        self.check_optimizer(&mut found);
        self.check_loop(&mut found);
        self.check_sharding(&mut found);
        match found.0 {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ConfigError::Invalid { problems }),
        }
    }

    /// What is allowed and probably not meant.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        let residues = self
            .objective
            .window(self.data.input_length, self.target_length());
        let sentinels = self.tokenizer().sentinels();
        if let Some(masks) = self.objective.masks(residues) {
            found.unless(
                masks.masks <= sentinels,
                "objective.masking_rate",
                format!(
                    "is {}: {} of {residues} residues, but the vocabulary has {sentinels} sentinels",
                    masks.rate, masks.residues
                ),
                "long sequences are masked less".into(),
            );
        }
        let (schedule, steps) = (&self.schedule, self.train.steps);
        let horizon = schedule.horizon(steps);
        found.unless(
            schedule.decay_steps(steps) > 0,
            "schedule.warmup_steps",
            match schedule.start_step {
                0 => format!("is {} in a run of {horizon}", schedule.warmup_steps),
                start => format!(
                    "is {} from step {start} of {horizon} on",
                    schedule.warmup_steps
                ),
            },
            "the learning rate never comes down from its peak".into(),
        );
        found.unless(
            horizon >= steps || schedule.kind == ScheduleKind::Constant,
            "schedule.steps",
            format!("is {horizon} in a run of {steps}"),
            format!("the learning rate is 0 after step {horizon}"),
        );
        found.0
    }

    /// The tokenizer the data was prepared with.
    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::of(self.data.tokenizer)
    }

    /// The shape and order of the batches.
    pub fn batch_config(&self) -> BatchConfig {
        BatchConfig {
            seed: self.data.seed,
            global_batch: self.batch_rows(),
            input_length: self.data.input_length,
            target_length: self.target_length(),
            long_sequences: self.data.long_sequences,
            packing: self.data.packing,
        }
    }

    /// How the data is read.
    pub fn read_options(&self) -> ReadOptions {
        let cache = |directory: &PathBuf| CacheOptions {
            directory: directory.clone(),
            bytes: self.data.cache_size.0,
        };
        ReadOptions {
            memory: self.data.memory.0,
            storage: StorageOptions {
                cache: self.data.cache.as_ref().map(cache),
                ..StorageOptions::default()
            },
        }
    }

    fn check_model(&self, found: &mut Problems) {
        let model = &self.model;
        let tokens = self.tokenizer().vocabulary_size();
        found.positive("model.d_model", model.d_model);
        found.positive("model.d_ff", model.d_ff);
        found.positive("model.heads", model.heads);
        found.positive("model.d_kv", model.d_kv);
        found.positive("model.encoder_layers", model.encoder_layers);
        found.positive("model.decoder_layers", model.decoder_layers);
        // Far beyond any model, and near enough that no product of them overflows.
        for (key, size, most) in [
            ("model.vocabulary", model.vocabulary, WIDEST),
            ("model.d_model", model.d_model, WIDEST),
            ("model.d_ff", model.d_ff, WIDEST),
            ("model.heads", model.heads, WIDEST),
            ("model.d_kv", model.d_kv, WIDEST),
            ("model.encoder_layers", model.encoder_layers, DEEPEST),
            ("model.decoder_layers", model.decoder_layers, DEEPEST),
            ("model.relative_buckets", model.relative_buckets, WIDEST),
        ] {
            found.at_most(key, size, most);
        }
        found.positive_number("model.norm_epsilon", model.norm_epsilon);
        found.unless(
            model.vocabulary >= tokens,
            "model.vocabulary",
            format!(
                "is {}, fewer than the {tokens} tokens of data.tokenizer",
                model.vocabulary
            ),
            format!("set it to {tokens} or more"),
        );
        let buckets = model.relative_buckets;
        found.unless(
            buckets >= 4 && buckets.is_multiple_of(4),
            "model.relative_buckets",
            format!(
                "is {buckets}, which two directions of exact and logarithmic buckets cannot share"
            ),
            "set it to a multiple of 4".into(),
        );
        // The decoder's first half of the buckets stands for exact distances; the logarithmic ones
        // begin there.
        found.unless(
            model.relative_max_distance > buckets / 2,
            "model.relative_max_distance",
            format!(
                "is {}, no more than the {} distances with a bucket of their own",
                model.relative_max_distance,
                buckets / 2
            ),
            format!(
                "set it above {}, or lower model.relative_buckets",
                buckets / 2
            ),
        );
    }

    fn check_data(&self, found: &mut Problems) {
        found.at_most("data.threads", self.data.threads, THREADS);
        found.at_most("data.prefetch", self.data.prefetch, AHEAD);
        let data = &self.data;
        found.unless(
            data.input_length >= 2,
            "data.input_length",
            format!(
                "is {}, too short for one residue and the closing </s>",
                data.input_length
            ),
            "set it to 2 or more".into(),
        );
        found.unless(
            self.target_length() >= 2,
            "data.target_length",
            format!(
                "is {}, too short for one token and the closing </s>",
                self.target_length()
            ),
            "set it to 2 or more".into(),
        );
        found.positive("data.memory", data.memory.0);
        self.check_objective(&self.objective, found);
        for (name, part) in &self.mixture {
            found.unless(
                part.weight.is_finite() && part.weight > 0.0,
                "mixture",
                format!("`{name}` has the weight {}", part.weight),
                "set it to a number above 0".into(),
            );
        }
        for component in self.components() {
            let mut own = Problems::default();
            self.check_objective(&component.objective, &mut own);
            // What is wrong with the objective that all share was found above.
            own.0.retain(|problem| !found.0.contains(problem));
            found.0.extend(own.0.into_iter().map(|problem| Problem {
                key: "mixture".into(),
                message: format!("`{}`: {} {}", component.name, problem.key, problem.message),
                advice: problem.advice,
            }));
        }
    }

    fn check_objective(&self, objective: &Objective, found: &mut Problems) {
        let data = &self.data;
        if let Err(error) = objective.validate_for(self.tokenizer()) {
            found.0.push(objective_problem(error));
            return;
        }
        let target_length = self.target_length();
        let residues = objective.window(data.input_length, target_length);
        let needed = self.target_room(objective, residues);
        found.unless(
            needed <= target_length,
            "data.target_length",
            format!(
                "is {target_length}, but the target of {residues} residues (data.input_length {}) can take {needed} positions",
                data.input_length
            ),
            format!("set it to auto, or to {needed} or more, or lower data.input_length or objective.masking_rate"),
        );
    }

    fn check_optimizer(&self, found: &mut Problems) {
        self.optimizer.check(found);
        found.positive_number(
            "schedule.peak_learning_rate",
            self.schedule.peak_learning_rate,
        );
        let schedule = &self.schedule;
        if let Some(steps) = schedule.steps {
            found.positive("schedule.steps", steps);
        }
        let horizon = schedule.horizon(self.train.steps);
        found.unless(
            schedule.start_step == 0 || schedule.start_step < horizon,
            "schedule.start_step",
            format!(
                "is {}, and the schedule ends at step {horizon}",
                schedule.start_step
            ),
            "set it to an earlier step, or raise schedule.steps or train.steps".into(),
        );
        found.not_negative("loss.z_loss", self.loss.z_loss);
        found.share("loss.label_smoothing", self.loss.label_smoothing);
    }

    fn check_loop(&self, found: &mut Problems) {
        let train = &self.train;
        found.positive("train.steps", train.steps);
        found.positive("train.batch_size", self.batch_rows());
        found.positive("train.gradient_accumulation", train.gradient_accumulation);
        found.positive("train.log_every", train.log_every);
        let checkpoint = &self.checkpoint;
        found.not_negative("checkpoint.minutes", checkpoint.minutes);
        found.not_negative("checkpoint.local_minutes", checkpoint.local_minutes);
        if checkpoint.minutes == 0.0 {
            found.positive("checkpoint.every", checkpoint.every);
        }
        let cluster = &self.cluster;
        found.positive_number("cluster.rendezvous_seconds", cluster.rendezvous_seconds);
        found.positive_number("cluster.lost_after_seconds", cluster.lost_after_seconds);
        let recovery = &self.recovery;
        found.positive("recovery.skipped_updates", recovery.skipped_updates);
        found.not_negative("recovery.loss_spike", recovery.loss_spike);
        found.not_negative("recovery.grad_norm_spike", recovery.grad_norm_spike);
        // The step counter on the device is a signed 32-bit integer.
        found.unless(
            train.steps <= i32::MAX as u64,
            "train.steps",
            format!("is {}, more than a step counter holds", train.steps),
            format!("set it to {} or fewer", i32::MAX),
        );
        found.unless(
            train.gradient_accumulation == 0
                // The rows are not known yet.
                || matches!(train.batch_size, BatchSize::Sequences(_))
                || self
                    .batch_rows()
                    .is_multiple_of(train.gradient_accumulation),
            "train.batch_size",
            format!(
                "is {}, which {} equal parts (train.gradient_accumulation) cannot share",
                self.batch_rows(),
                train.gradient_accumulation
            ),
            format!("set it to a multiple of {}", train.gradient_accumulation),
        );
    }

    fn check_sharding(&self, found: &mut Problems) {
        found.positive("sharding.fsdp", self.sharding.fsdp);
        found.positive("sharding.model", self.sharding.model);
        for (axis, axes) in self.sharding.rules.table() {
            let twice = (1..axes.len()).any(|i| axes[..i].contains(&axes[i]));
            found.unless(
                !twice,
                "sharding.rules",
                format!("names an axis twice for `{}`", axis.name()),
                "name each axis once".into(),
            );
        }
        for flag in &self.compiler.flags {
            let name = flag.split_once('=').map(|(name, _)| name);
            found.unless(
                name.is_some_and(|name| name.starts_with("xla_")),
                "compiler.flags",
                format!("has {flag:?}"),
                "write each flag as xla_NAME=VALUE".into(),
            );
        }
    }
}

/// What an objective found wrong with itself.
fn objective_problem(error: ankh_data::Error) -> Problem {
    let (key, message) = match error {
        ankh_data::Error::Setting { setting, reason } => (setting_name(setting), reason),
        other => ("objective".into(), other.to_string()),
    };
    Problem {
        key,
        message,
        advice: None,
    }
}
