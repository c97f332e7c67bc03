//! Pre-training of the Ankh protein language models, on top of the crates [`ankh_hlo`] (tensor
//! programs), [`ankh_pjrt`] (devices) and [`ankh_data`] (batches of masked sequences).
//!
//! # Where to begin
//! A training run is [`config`] -> [`programs`] -> [`mesh`] -> [`train`]:
//! - [`config::Config`] is what a run is, resolved from presets, files and `--set`.
//! - [`programs::Programs`] builds what runs on the devices: the initial state, the training step,
//!   the evaluation. The step calls [`model`] (the network and its loss) and [`optim`] (the
//!   update).
//! - [`mesh::DeviceMesh`] opens the devices of a slice, compiles programs for them and holds their
//!   [`mesh::ShardedArray`]s, as a `jax.sharding.Mesh` does.
//! - [`train::train`] is the loop. Read `src/train/trainer/mod.rs` and `src/programs/step.rs`: the
//!   order of things in a step, and what a step computes.
//!
//! Beside the loop stand [`checkpoint`] (named tensors, saved whole or not at all), [`run_dir`]
//! (the directory of a run, and who may write to it), [`telemetry`] (metrics and logs) and
//! [`hugging_face`] (weights in and out). [`plan`] compiles a step for a slice that need not be
//! here and reports its memory and time. [`supervision`] keeps a training process running.
//! [`inference`] puts weights to work without training: [`embed`] makes embeddings, [`evaluate`]
//! measures, [`score`] scores variants, [`generate`] writes sequences, [`variants`] writes those
//! of a family, [`benchmark`] measures what weights know of structure and function.
//! [`report`] and [`watch`] show runs in a browser. [`cli`] is the command line: arguments in, exit
//! codes and advice out.

pub mod benchmark;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod confusion;
pub mod devices;
pub mod embed;
pub mod evaluate;
pub mod generate;
pub mod huge_pages;
pub mod hugging_face;
pub mod inference;
pub mod mesh;
pub mod mesh_shape;
pub mod model;
mod named_variants;
pub mod optim;
pub mod plan;
pub mod programs;
pub mod report;
mod row_fill;
pub mod run_dir;
pub mod score;
pub mod statistics;
pub mod supervision;
pub mod telemetry;
pub mod train;
pub mod validation;
pub mod variants;
pub mod watch;
