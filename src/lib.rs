//! Pre-training of the Ankh protein language models: the application on top of `hlo` (programs), `pjrt` (devices) and
//! `data` (batches).

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod layout;
pub mod model;
pub mod optim;
pub mod plan;
pub mod run;
pub mod slice;
pub mod telemetry;
pub mod tpu_vm;
pub mod train;
pub mod weights;
