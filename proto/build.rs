//! Compiles `proto/` with protox, so that no `protoc` is needed. Keeps the descriptors for tests.

use std::error::Error;
use std::path::PathBuf;

use prost_build::Config;

const FILES: [&str; 7] = [
    "xla/xla_data.proto",
    "xla/service/hlo.proto",
    "xla/xla.proto",
    "xla/pjrt/proto/compile_options.proto",
    "tensorboard/event.proto",
    "tsl/profiler/protobuf/profiler_options.proto",
    "tsl/profiler/protobuf/xplane.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    let mut config = Config::new();
    // Deterministic encodings: a map is written in the order of its keys.
    config.btree_map(["."]);
    config.compile_fds(descriptors)?;
    Ok(())
}
