//! The shape of the device mesh: the number of devices along each of its three axes.
//!
//! It is a module of its own because both the programs, which are sharded along the axes, and the
//! devices, which are arranged along them, need it, and neither depends on the other.

use std::fmt;

/// The lengths of the axes of a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MeshShape {
    /// Devices that hold the same part of the weights and see other examples.
    pub data: usize,
    /// Devices that share the weights and see other examples.
    pub fsdp: usize,
    /// Devices that share the weights and see the same examples.
    pub model: usize,
}

impl MeshShape {
    /// The devices of the mesh; more than there can be where the axes are as long as a setting can
    /// say.
    pub fn devices(&self) -> usize {
        self.data
            .saturating_mul(self.fsdp)
            .saturating_mul(self.model)
    }
}

impl fmt::Display for MeshShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "data {} x fsdp {} x model {}",
            self.data, self.fsdp, self.model
        )
    }
}
