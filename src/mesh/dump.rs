//! Writes programs to files, for people and tools to inspect.

use std::fs;
use std::path::Path;

use ankh_hlo::Module;
use ankh_proto::xla::HloModuleProto;
use prost::Message;

use super::DeviceError;

/// Writes a program before optimization: `NAME.txt` and `NAME.pb`, an `HloModuleProto`.
pub fn before_optimizations(module: &Module, directory: &Path) -> Result<(), DeviceError> {
    let name = &module.proto().name;
    write(directory, &format!("{name}.txt"), module.text().as_bytes())?;
    write(directory, &format!("{name}.pb"), &module.to_bytes())
}

/// Writes the optimized program: `NAME.optimized.txt` and `NAME.optimized.pb`.
pub fn after_optimizations(
    module: &Module,
    optimized: &HloModuleProto,
    directory: &Path,
) -> Result<(), DeviceError> {
    let name = &module.proto().name;
    let text = ankh_hlo::text(optimized);
    write(directory, &format!("{name}.optimized.txt"), text.as_bytes())?;
    let proto = optimized.encode_to_vec();
    write(directory, &format!("{name}.optimized.pb"), &proto)
}

fn write(directory: &Path, name: &str, contents: &[u8]) -> Result<(), DeviceError> {
    let path = directory.join(name);
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, contents));
    written.map_err(|source| DeviceError::Dump { path, source })
}
