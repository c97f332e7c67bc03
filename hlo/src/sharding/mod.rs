//! How arrays lie on a mesh of devices: named axes, and for each dimension of an array the axes
//! that split it.
//!
//! A model never sees a mesh. It gives the dimensions of its arrays names (logical axes). The
//! [`LogicalAxisRules`] of the graph map these to mesh axes.

mod axis;
mod error;
mod rules;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::shape::Size;

pub use axis::AxisName;
pub use error::{AxisError, IndivisibleDim};
pub use rules::{LogicalAxisRules, ShardingForm};

/// A logical grid of devices with named axes; the first axis is the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    axes: Vec<(AxisName, i64)>,
}

impl Mesh {
    /// A mesh of `(name, size)` axes; device `i` of the executable sits at position `i` in
    /// row-major order.
    ///
    /// # Errors
    /// The first axis that has no devices or another one's name, or a product of axes that 64 bits
    /// do not count.
    pub fn new(
        axes: impl IntoIterator<Item = (impl Into<AxisName>, i64)>,
    ) -> Result<Mesh, AxisError> {
        let axes: Vec<(AxisName, i64)> = axes.into_iter().map(|(n, s)| (n.into(), s)).collect();
        for (i, &(axis, size)) in axes.iter().enumerate() {
            if size < 1 {
                return Err(AxisError::EmptyMeshAxis { axis, size });
            }
            if axes[..i].iter().any(|(other, _)| *other == axis) {
                return Err(AxisError::RepeatedMeshAxis(axis));
            }
        }
        let sizes: Vec<i64> = axes.iter().map(|a| a.1).collect();
        match Size::product(&sizes).get() {
            Some(_) => Ok(Mesh { axes }),
            None => Err(AxisError::UncountableMesh(sizes)),
        }
    }

    /// The axes with their sizes.
    pub fn axes(&self) -> &[(AxisName, i64)] {
        &self.axes
    }

    /// The number of devices.
    pub fn devices(&self) -> i64 {
        // `new` has counted them; so products of some of the axes, each taken once, can be counted
        // too.
        self.axes.iter().map(|a| a.1).product()
    }

    fn axis(&self, axis: AxisName) -> Result<usize, AxisError> {
        let found = self.axes.iter().position(|a| a.0 == axis);
        found.ok_or_else(|| AxisError::UnknownMeshAxis {
            axis,
            known: self.axes.iter().map(|a| a.0).collect(),
        })
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.axes.iter().map(|(n, s)| format!("{n} {s}")).collect();
        f.write_str(&axes.join(" x "))
    }
}

/// For each dimension of an array, the mesh axes (by index) that split it, major first; none means
/// replicated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sharding {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) dims: Vec<Vec<usize>>,
}

impl Sharding {
    /// A sharding of an array over `mesh`, one list of axes a dimension.
    ///
    /// # Errors
    /// The first axis that the mesh does not have, or that is used twice.
    pub fn new(mesh: &Arc<Mesh>, dims: &[&[AxisName]]) -> Result<Sharding, AxisError> {
        let mut used = vec![false; mesh.axes.len()];
        let mut out = Vec::with_capacity(dims.len());
        for names in dims {
            let mut axes = Vec::with_capacity(names.len());
            for &name in *names {
                let axis = mesh.axis(name)?;
                if std::mem::replace(&mut used[axis], true) {
                    return Err(AxisError::MeshAxisUsedTwice(name));
                }
                axes.push(axis);
            }
            out.push(axes);
        }
        Ok(Sharding {
            mesh: mesh.clone(),
            dims: out,
        })
    }

    /// A full copy on each device.
    pub fn replicated(mesh: &Arc<Mesh>, rank: usize) -> Sharding {
        Sharding {
            mesh: mesh.clone(),
            dims: vec![Vec::new(); rank],
        }
    }

    /// The mesh it refers to.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// How many shards dimension `dim` is cut into: one, where there is no such dimension.
    pub fn shards(&self, dim: usize) -> i64 {
        let axes = self.splits(dim).iter();
        axes.map(|&a| self.mesh.axes[a].1).product()
    }

    /// The mesh axes that split dimension `dim`, major first.
    pub fn axes(&self, dim: usize) -> impl Iterator<Item = AxisName> {
        self.splits(dim).iter().map(|&a| self.mesh.axes[a].0)
    }

    fn splits(&self, dim: usize) -> &[usize] {
        self.dims.get(dim).map_or(&[], |axes| axes)
    }

    /// Fails at the first dimension of an array of `dims` that the axes do not cut into equal
    /// parts.
    pub(crate) fn divides(&self, dims: &[i64]) -> Result<(), IndivisibleDim> {
        for (dim, (&size, axes)) in dims.iter().zip(&self.dims).enumerate() {
            let mut shards = 1;
            for &index in axes {
                let (axis, axis_size) = self.mesh.axes[index];
                shards *= axis_size;
                if size % shards != 0 {
                    return Err(IndivisibleDim {
                        name: dim.to_string(),
                        size,
                        axis,
                        axis_size,
                        shards,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether both put every element of an array on the same devices. An axis of one device splits
    /// nothing.
    pub(crate) fn is_equivalent_to(&self, other: &Sharding) -> bool {
        self.mesh == other.mesh
            && self.rank() == other.rank()
            && (0..self.rank()).all(|dim| self.nontrivial_axes(dim).eq(other.nontrivial_axes(dim)))
    }

    /// The axes of more than one device that split dimension `dim`.
    pub(crate) fn nontrivial_axes(&self, dim: usize) -> impl Iterator<Item = usize> {
        let axes = self.splits(dim).iter().copied();
        axes.filter(|&axis| self.mesh.axes[axis].1 > 1)
    }

    /// Whether every device has the whole array.
    pub fn is_replicated(&self) -> bool {
        (0..self.dims.len()).all(|dim| self.shards(dim) == 1)
    }

    /// Splits dimension `dim` further, over an axis that splits nothing yet. `None` where the axis
    /// is taken or the dimension (of size `size`) is not there or does not divide.
    ///
    /// # Errors
    /// An axis that the mesh does not have.
    pub fn split_further(
        &self,
        dim: usize,
        size: i64,
        axis: impl Into<AxisName>,
    ) -> Result<Option<Sharding>, AxisError> {
        let axis = self.mesh.axis(axis.into())?;
        let free = dim < self.rank() && !self.dims.iter().flatten().any(|&a| a == axis);
        let divides = || size % (self.shards(dim) * self.mesh.axes[axis].1) == 0;
        Ok((free && divides()).then(|| {
            let mut further = self.clone();
            further.dims[dim].push(axis);
            further
        }))
    }

    /// The shard of an array of `dims` that the device at `position` of the mesh (row-major) holds:
    /// a range for each dimension.
    ///
    /// The shards hold every element. Those of a program's parameters and results are of equal
    /// size. Elsewhere, where a dimension does not divide, the last ones are shorter or empty, as
    /// in XLA.
    pub fn shard_ranges(&self, position: i64, dims: &[i64]) -> Vec<Range<i64>> {
        let axes = &self.mesh.axes;
        let mut coordinates = vec![0; axes.len()];
        let mut rest = position.rem_euclid(self.mesh.devices());
        for (coordinate, (_, size)) in coordinates.iter_mut().zip(axes).rev() {
            *coordinate = rest % size;
            rest /= size;
        }
        let ranges = dims.iter().enumerate().map(|(dim, &size)| {
            let index = self
                .splits(dim)
                .iter()
                .fold(0, |index, &axis| index * axes[axis].1 + coordinates[axis]);
            let length = self.shard_length(dim, size);
            let bound = |index: i64| index.saturating_mul(length).min(size.max(0));
            bound(index)..bound(index + 1)
        });
        ranges.collect()
    }

    /// The dimensions of one device's shard, the largest where they are not equal.
    pub fn shard_dims(&self, dims: &[i64]) -> Vec<i64> {
        let dims = dims.iter().enumerate();
        dims.map(|(dim, &size)| self.shard_length(dim, size))
            .collect()
    }

    fn shard_length(&self, dim: usize, size: i64) -> i64 {
        let (size, shards) = (size.max(0), self.shards(dim));
        size / shards + i64::from(size % shards > 0)
    }
}
