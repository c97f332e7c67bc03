//! Pre-training of the Ankh protein language models: the application on top of `hlo` (programs), `pjrt` (devices) and
//! `data` (batches).

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod hugging_face;
pub mod mesh;
pub mod mesh_shape;
pub mod model;
mod named_variants;
pub mod optim;
pub mod plan;
pub mod programs;
pub mod run_dir;
pub mod telemetry;
pub mod train;
pub mod validation;
