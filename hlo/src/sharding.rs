//! How arrays lie on a device mesh: named axes, and for each dimension of an array the axes that split it.
//!
//! The model never sees a mesh. It names the dimensions of its activations; [`LogicalAxisRules`] given to the graph map those
//! names to mesh axes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::shape::Size;

/// A logical grid of devices with named axes; the first axis is the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    axes: Vec<(String, i64)>,
}

impl Mesh {
    /// A mesh of `(name, size)` axes; device `i` of the executable sits at position `i` in row-major order.
    ///
    /// # Errors
    /// The first axis that has no devices or another one's name, or a product of axes that 64 bits do not count.
    pub fn new(axes: impl IntoIterator<Item = (impl Into<String>, i64)>) -> Result<Mesh, String> {
        let axes: Vec<(String, i64)> = axes.into_iter().map(|(n, s)| (n.into(), s)).collect();
        for (i, (name, size)) in axes.iter().enumerate() {
            if *size < 1 {
                return Err(format!(
                    "mesh axis `{name}` has {size} devices and needs one at least"
                ));
            }
            if axes[..i].iter().any(|(other, _)| other == name) {
                return Err(format!("two mesh axes are called `{name}`"));
            }
        }
        let sizes: Vec<i64> = axes.iter().map(|a| a.1).collect();
        match Size::product(&sizes).get() {
            Some(_) => Ok(Mesh { axes }),
            None => Err(format!("a mesh of {sizes:?} devices is too large to count")),
        }
    }

    /// The axes with their sizes.
    pub fn axes(&self) -> &[(String, i64)] {
        &self.axes
    }

    /// The number of devices.
    pub fn devices(&self) -> i64 {
        // `new` has counted them; so products of some of the axes, each taken once, can be counted too.
        self.axes.iter().map(|a| a.1).product()
    }

    fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|a| a.0 == name)
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.axes.iter().map(|(n, s)| format!("{n} {s}")).collect();
        f.write_str(&axes.join(" x "))
    }
}

/// For each dimension of an array, the mesh axes (by index) that split it, major first; none means replicated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sharding {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) dims: Vec<Vec<usize>>,
}

impl Sharding {
    /// A sharding of an array over `mesh`, one list of axis names a dimension.
    ///
    /// # Errors
    /// The name of the first axis that the mesh does not have, or that is used twice.
    pub fn new(mesh: &Arc<Mesh>, dims: &[&[&str]]) -> Result<Sharding, String> {
        let mut used = vec![false; mesh.axes.len()];
        let mut out = Vec::with_capacity(dims.len());
        for names in dims {
            let mut axes = Vec::with_capacity(names.len());
            for name in *names {
                let axis = mesh
                    .axis(name)
                    .ok_or_else(|| format!("the mesh has no axis `{name}`"))?;
                if std::mem::replace(&mut used[axis], true) {
                    return Err(format!("mesh axis `{name}` splits two dimensions"));
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

    /// How many parts dimension `dim` is cut into: one, where there is no such dimension.
    pub fn shards(&self, dim: usize) -> i64 {
        let axes = self.splits(dim).iter();
        axes.map(|&a| self.mesh.axes[a].1).product()
    }

    /// The mesh axes that split dimension `dim`, major first.
    pub fn axes(&self, dim: usize) -> impl Iterator<Item = &str> {
        self.splits(dim).iter().map(|&a| &*self.mesh.axes[a].0)
    }

    fn splits(&self, dim: usize) -> &[usize] {
        self.dims.get(dim).map_or(&[], |axes| axes)
    }

    /// Fails at the first dimension of an array of `dims` that the axes do not cut into equal parts.
    pub(crate) fn divides(&self, dims: &[i64]) -> Result<(), IndivisibleDim> {
        for (dim, (&size, axes)) in dims.iter().zip(&self.dims).enumerate() {
            let mut parts = 1;
            for &axis in axes {
                let (name, axis_size) = &self.mesh.axes[axis];
                parts *= axis_size;
                if size % parts != 0 {
                    return Err(IndivisibleDim {
                        name: dim.to_string(),
                        size,
                        axis: name.clone(),
                        axis_size: *axis_size,
                        parts,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether both put every element of an array on the same devices. An axis of one device splits nothing.
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

    /// Splits dimension `dim` further, over an axis that splits nothing yet. `None` where the axis is taken or unknown, or the
    /// dimension (of size `size`) is not there or does not divide.
    pub fn split_further(&self, dim: usize, size: i64, axis: &str) -> Option<Sharding> {
        let axis = self.mesh.axis(axis).filter(|_| dim < self.rank())?;
        let free = !self.dims.iter().flatten().any(|&a| a == axis);
        (free && size % (self.shards(dim) * self.mesh.axes[axis].1) == 0).then(|| {
            let mut further = self.clone();
            further.dims[dim].push(axis);
            further
        })
    }

    /// The part of an array of `dims` that the device at `position` of the mesh (row-major) holds: a range for each dimension.
    ///
    /// The parts hold every element. They are equal for what a program takes and gives; elsewhere, where a dimension does not
    /// divide, the last ones are shorter or empty, as XLA has it.
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

    /// The dimensions of one device's part, the largest where they are not equal.
    pub fn shard_dims(&self, dims: &[i64]) -> Vec<i64> {
        let dims = dims.iter().enumerate();
        dims.map(|(dim, &size)| self.shard_length(dim, size))
            .collect()
    }

    fn shard_length(&self, dim: usize, size: i64) -> i64 {
        let (size, parts) = (size.max(0), self.shards(dim));
        size / parts + i64::from(size % parts > 0)
    }
}

/// A mesh and the table that maps logical dimension names to its axes.
#[derive(Clone, Debug)]
pub struct LogicalAxisRules {
    mesh: Arc<Mesh>,
    rules: Vec<(String, Vec<String>)>,
    form: ShardingForm,
}

/// How shardings are written into the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardingForm {
    /// By the names of mesh axes, for the Shardy partitioner.
    #[default]
    Shardy,
    /// As a grid of tiles over the devices in mesh order, for the GSPMD partitioner, which is all that older plugins have.
    Gspmd,
}

/// A dimension that cannot be split as the rules say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "dimension `{name}` of size {size} cannot be split into {parts} equal parts over mesh axis `{axis}`{}",
    also(.parts, .axis_size)
)]
pub struct IndivisibleDim {
    /// The dimension's logical name, or its number where it has none.
    pub name: String,
    /// Its size.
    pub size: i64,
    /// The axis at which it no longer divides.
    pub axis: String,
    /// That axis' size.
    pub axis_size: i64,
    /// The parts with all axes up to that one.
    pub parts: i64,
}

fn also(parts: &i64, axis_size: &i64) -> String {
    match parts == axis_size {
        true => String::new(),
        false => format!(" (of {axis_size}) and the axes before it"),
    }
}

impl LogicalAxisRules {
    /// Rules on `mesh`: logical dimension name to mesh axes, major first. Axes of size 1 and axes that the mesh does not
    /// have split nothing.
    pub fn new(
        mesh: Mesh,
        rules: impl IntoIterator<Item = (impl Into<String>, Vec<String>)>,
    ) -> LogicalAxisRules {
        LogicalAxisRules {
            mesh: Arc::new(mesh),
            rules: rules.into_iter().map(|(n, a)| (n.into(), a)).collect(),
            form: ShardingForm::Shardy,
        }
    }

    /// The same rules, written in another form.
    pub fn with_form(self, form: ShardingForm) -> LogicalAxisRules {
        LogicalAxisRules { form, ..self }
    }

    /// The mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// The form its shardings are written in.
    pub fn form(&self) -> ShardingForm {
        self.form
    }

    /// The sharding of an array of `dims` whose dimensions are called `names`. Each dimension is split over the axes of its
    /// rule that no earlier dimension of the array has taken.
    ///
    /// # Errors
    /// The first dimension that the axes of its rule do not divide.
    pub fn sharding(&self, names: &[&str], dims: &[i64]) -> Result<Sharding, IndivisibleDim> {
        self.sharding_except(&[], names, dims)
    }

    /// The same for an array that is used together with one whose dimensions are called `beside`: their axes are taken.
    ///
    /// # Errors
    /// The first dimension that the axes of its rule do not divide.
    pub fn sharding_except(
        &self,
        beside: &[&str],
        names: &[&str],
        dims: &[i64],
    ) -> Result<Sharding, IndivisibleDim> {
        let taken = |axis: &String| {
            let mut rules = self.rules.iter().filter(|r| beside.contains(&&*r.0));
            rules.any(|r| r.1.contains(axis))
        };
        let mut used: Vec<bool> = self.mesh.axes.iter().map(|a| taken(&a.0)).collect();
        let dims = names.iter().zip(dims).map(|(name, &size)| {
            let mut parts = 1;
            let mut axes = Vec::new();
            let rule = self.rules.iter().filter(|r| r.0 == **name);
            for axis in rule.flat_map(|r| &r.1) {
                let Some(axis) = self.mesh.axis(axis) else {
                    continue;
                };
                let axis_size = self.mesh.axes[axis].1;
                if used[axis] || axis_size == 1 {
                    continue;
                }
                parts *= axis_size;
                if size % parts != 0 {
                    return Err(IndivisibleDim {
                        name: (*name).into(),
                        size,
                        axis: self.mesh.axes[axis].0.clone(),
                        axis_size,
                        parts,
                    });
                }
                used[axis] = true;
                axes.push(axis);
            }
            Ok(axes)
        });
        Ok(Sharding {
            dims: dims.collect::<Result<_, _>>()?,
            mesh: self.mesh.clone(),
        })
    }
}
