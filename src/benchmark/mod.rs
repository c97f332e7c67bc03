//! The paper's benchmarks: what weights are worth for predicting structure and function.

pub mod dataset;
pub mod presets;
