//! Every test that runs programs or the binary, in one crate: they share the cores while one of
//! them waits, and are linked once.

mod accuracy;
mod benchmark;
mod benchmark_during;
mod blocks;
mod cli;
mod compilation_cache;
mod continuing;
mod convbert;
mod derivatives;
mod embed;
mod evaluate;
mod examples;
mod fetch;
mod generation;
mod golden;
mod hosts;
mod inputs;
mod interruptions;
mod kernels;
mod launch;
mod local_saves;
mod lora;
mod packing;
mod plan;
mod prepare;
mod presets;
mod programs;
mod recovery;
mod reference;
mod remote;
mod remote_checkpoints;
mod resuming;
mod run;
mod run_directory;
mod score;
mod shardings;
mod slices;
mod spikes;
mod submit;
mod telemetry;
mod topology;
mod updates;
mod variants;
mod watch;

#[path = "../storage/tests/support/mod.rs"]
mod servers;
mod support;
