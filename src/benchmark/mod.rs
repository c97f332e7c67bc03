//! The paper's benchmarks: what weights are worth for predicting structure and function.
//!
//! [`dataset`] reads labelled proteins. [`benchmark`] computes the states of the frozen encoder
//! once, trains a small head on them for each seed and each fold ([`HeadTrainer`]), predicts what
//! is tested, and gives figures with their intervals. Where adapters of the encoder are trained
//! with the head, the states are computed in each step instead. Each training follows from the
//! data, the options and its seed alone. What is done is kept beside the output, so that a killed
//! benchmark goes on. This module prints nothing.

mod batches;
pub mod dataset;
mod error;
mod head;
mod measures;
mod nearest;
mod options;
pub mod predictions;
pub mod presets;
mod run;
mod saved;
mod splits;
mod states;
mod states_file;
mod training;
mod trainings;
mod unfinished;

pub use error::Error;
pub use head::{HeadBatch, HeadTrainer};
pub use measures::{Figure, Measure, Prediction};
pub use options::{BenchmarkOptions, Features, Predictor, Progress};
pub use run::{Results, TestFigures, benchmark, describe};
pub use training::{Epoch, HeadTraining, Trained};
pub use trainings::Training;
pub use unfinished::{Finished, discard};
