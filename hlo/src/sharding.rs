//! How arrays lie on a device mesh: named axes, and for each dimension of an array the axes that split it.
//!
//! The model never sees a mesh. It names the dimensions of its activations; a [`Layout`] given to the graph maps those
//! names to mesh axes.

use std::rc::Rc;

/// A logical grid of devices with named axes; the first axis is the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    axes: Vec<(String, i64)>,
}

impl Mesh {
    /// A mesh of `(name, size)` axes; device `i` of the executable sits at position `i` in row-major order.
    pub fn new(axes: impl IntoIterator<Item = (impl Into<String>, i64)>) -> Mesh {
        Mesh {
            axes: axes.into_iter().map(|(n, s)| (n.into(), s)).collect(),
        }
    }

    /// The axes with their sizes.
    pub fn axes(&self) -> &[(String, i64)] {
        &self.axes
    }

    /// The number of devices.
    pub fn devices(&self) -> i64 {
        self.axes.iter().map(|a| a.1).product()
    }

    fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|a| a.0 == name)
    }
}

/// For each dimension of an array, the mesh axes (by index) that split it, major first; none means replicated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sharding {
    pub(crate) mesh: Rc<Mesh>,
    pub(crate) dims: Vec<Vec<usize>>,
}

impl Sharding {
    /// A sharding of an array over `mesh`, one list of axis names a dimension.
    ///
    /// # Errors
    /// The name of the first axis that the mesh does not have, or that is used twice.
    pub fn new(mesh: &Rc<Mesh>, dims: &[&[&str]]) -> Result<Sharding, String> {
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
    pub fn replicated(mesh: &Rc<Mesh>, rank: usize) -> Sharding {
        Sharding {
            mesh: mesh.clone(),
            dims: vec![Vec::new(); rank],
        }
    }

    /// The mesh it refers to.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// How many parts dimension `dim` is cut into.
    pub fn parts(&self, dim: usize) -> i64 {
        self.dims[dim]
            .iter()
            .map(|&a| self.mesh.axes[a].1)
            .product()
    }
}

/// A mesh and the table that maps logical dimension names to its axes.
#[derive(Clone, Debug)]
pub struct Layout {
    mesh: Rc<Mesh>,
    rules: Vec<(String, Vec<String>)>,
}

impl Layout {
    /// A layout of `rules`: logical dimension name to mesh axes.
    pub fn new(
        mesh: Mesh,
        rules: impl IntoIterator<Item = (impl Into<String>, Vec<String>)>,
    ) -> Layout {
        Layout {
            mesh: Rc::new(mesh),
            rules: rules.into_iter().map(|(n, a)| (n.into(), a)).collect(),
        }
    }

    /// The sharding of an array of `dims` whose dimensions are called `names`. An axis is used where its rule names it, it
    /// is still free and the dimension divides; otherwise the dimension stays whole.
    pub fn sharding(&self, names: &[&str], dims: &[i64]) -> Sharding {
        let mut used = vec![false; self.mesh.axes.len()];
        let dims = names.iter().zip(dims).map(|(name, &size)| {
            let mut parts = 1;
            let mut axes = Vec::new();
            for axis in self
                .rules
                .iter()
                .filter(|r| r.0 == **name)
                .flat_map(|r| &r.1)
            {
                let Some(axis) = self.mesh.axis(axis) else {
                    continue;
                };
                let next = parts * self.mesh.axes[axis].1;
                if !used[axis] && size.checked_rem(next) == Some(0) {
                    used[axis] = true;
                    parts = next;
                    axes.push(axis);
                }
            }
            axes
        });
        Sharding {
            mesh: self.mesh.clone(),
            dims: dims.collect(),
        }
    }
}
