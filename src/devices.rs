//! Opens the devices of a run with the configured mesh.

use crate::config::Config;
use crate::mesh::slice::Slice;
use crate::mesh::{DeviceError, DeviceMesh, Hosts, MeshOptions};
use crate::programs::sharding::{ShardingError, logical_axis_rules, mesh_shape};

/// Why there is no mesh of devices.
#[derive(Debug, thiserror::Error)]
pub enum OpenMeshError {
    /// The devices.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The configured mesh or rules do not fit the devices or the arrays.
    #[error(transparent)]
    Sharding(#[from] ShardingError),
}

/// Opens the devices of a slice with the configured mesh, rules and compiler flags.
pub fn open_mesh(config: &Config, slice: Slice, hosts: Hosts) -> Result<DeviceMesh, OpenMeshError> {
    let shape = mesh_shape(config, slice.devices())?;
    let options = MeshOptions {
        shape,
        rules: logical_axis_rules(config, shape)?,
        flags: config.compiler.flags.clone(),
        hosts,
    };
    Ok(DeviceMesh::open(slice, options)?)
}
