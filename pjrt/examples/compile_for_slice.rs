//! Compiles the sum of a sharded vector for a TPU slice, with libtpu and without a TPU:
//!
//! ```text
//! TPU_SKIP_MDS_QUERY=1 cargo run -p ankh-pjrt --example compile_for_slice -- libtpu.so v4:2x4x4
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ankh_pjrt::{CompileOptions, NamedValue, Partitioner, Platform, Plugin, Program};
use ankh_proto::xla::{HloInstructionProto, HloModuleProto};

fn main() -> Result<(), Box<dyn Error>> {
    ankh_pjrt::quiet_logs();
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: compile_for_slice LIBTPU TOPOLOGY, such as libtpu.so v4:2x4x4".into());
    };
    let plugin = Plugin::find(Platform::Tpu, Some(Path::new(&path)))?;
    let (major, minor) = plugin.api_version();
    println!(
        "{} speaks PJRT C API {major}.{minor}",
        plugin.path().display()
    );

    let topology = plugin.topology(
        &name,
        &[
            NamedValue::string("chip_config_name", "megacore"),
            NamedValue::int_list("chips_per_host_bounds", [2, 2, 1]),
            NamedValue::int("num_slices", 1),
        ],
    )?;
    let devices = topology.devices()?;
    println!(
        "{} {}: {} devices",
        topology.platform_name()?,
        name,
        devices.len()
    );
    for device in [devices.first(), devices.last()].into_iter().flatten() {
        println!(
            "  {} at {:?}, host {}",
            device.text,
            device.coords(),
            device.process_index
        );
    }

    let count = devices.len() as i64;
    let module = common::sum(1024 * count, Some(common::split_over("data", count)));
    let options =
        CompileOptions::new().partitions(Partitioner::Shardy, devices.iter().map(|d| d.id.into()));
    let start = Instant::now();
    let program = topology.compile(&Program::hlo_module(&module), &options)?;
    println!(
        "compiled in {:.2?}: {:?}",
        start.elapsed(),
        program.memory_stats()?
    );
    println!(
        "fingerprint {}",
        program
            .fingerprint()
            .unwrap_or_else(|error| error.to_string())
    );
    match program.cost_analysis() {
        Ok(properties) => println!("{} cost properties", properties.len()),
        Err(error) => println!("{error}"),
    }
    println!("serialized {} bytes", program.serialize()?.len());
    let optimized = program.optimized_program()?;
    let cycles: u64 = instructions(&optimized.module()?)
        .filter_map(estimated_cycles)
        .sum();
    println!(
        "optimized {} ({} bytes), {cycles} estimated cycles",
        optimized.format,
        optimized.code.len()
    );
    Ok(())
}

fn instructions(module: &HloModuleProto) -> impl Iterator<Item = &HloInstructionProto> {
    module
        .computations
        .iter()
        .flat_map(|computation| &computation.instructions)
}

/// The compiler's own estimate, a number in the JSON of the backend's configuration.
fn estimated_cycles(instruction: &HloInstructionProto) -> Option<u64> {
    let config = std::str::from_utf8(&instruction.backend_config).ok()?;
    let (_, after) = config.split_once("\"estimated_cycles\":\"")?;
    after.split('"').next()?.parse().ok()
}
