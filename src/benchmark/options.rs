//! What a benchmark is asked for, and what is heard of it meanwhile.

use std::path::PathBuf;

use serde::Serialize;

use super::training::HeadTraining;
use crate::inference::Unfinished;
use crate::model::lora::Lora;

/// What a head sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Features {
    /// The states of the model's encoder.
    States,
    /// The same, of an encoder with adapters that are trained together with the head.
    Adapted(Lora),
    /// Which residue is where, and no more.
    Letters,
}

/// What makes predictions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predictor {
    /// A ConvBERT layer and a linear one, trained.
    ConvBert,
    /// What is known of the nearest neighbour.
    Nearest,
}

/// How a benchmark is run.
#[derive(Clone, Debug)]
pub struct BenchmarkOptions {
    /// Where the figures go.
    pub output: PathBuf,
    /// What a head sees.
    pub features: Features,
    /// What predicts.
    pub predictor: Predictor,
    /// The training of heads.
    pub training: HeadTraining,
    /// One training for each.
    pub seeds: Vec<u64>,
    /// Parts of the examples that are tested in turn, where the data have no test set.
    pub folds: usize,
    /// What is done with work that another command began.
    pub unfinished: Unfinished,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Examples whose states are known, of all.
    States(usize, usize),
    /// Steps of trainings, of all.
    Steps(u64, u64),
}
