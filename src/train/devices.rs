//! Opens the devices of a run with the configured mesh.

use super::TrainError;
use crate::config::Config;
use crate::mesh::slice::Slice;
use crate::mesh::{DeviceMesh, Hosts, MeshOptions};
use crate::programs::sharding::{logical_axis_rules, mesh_shape};

/// Opens the devices of a slice with the configured mesh, rules and compiler flags.
pub fn open_mesh(config: &Config, slice: Slice, hosts: Hosts) -> Result<DeviceMesh, TrainError> {
    let shape = mesh_shape(config, slice.devices())?;
    let options = MeshOptions {
        shape,
        rules: logical_axis_rules(config, shape)?,
        flags: config.compiler.flags.clone(),
        hosts,
    };
    Ok(DeviceMesh::open(slice, options)?)
}
