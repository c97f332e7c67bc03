//! What can be wrong with a mesh, a sharding, or the names of axes.

use super::{AxisName, Mesh};

/// A mesh or a sharding that cannot be.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AxisError {
    /// A mesh axis needs one device at least.
    #[error("mesh axis `{axis}` has {size} devices and needs one at least")]
    EmptyMeshAxis { axis: AxisName, size: i64 },
    /// Two axes of a mesh have one name.
    #[error("two mesh axes are called `{0}`")]
    RepeatedMeshAxis(AxisName),
    /// The product of the sizes does not fit 64 bits.
    #[error("a mesh of {0:?} devices is too large to count")]
    UncountableMesh(Vec<i64>),
    /// The mesh does not have the axis.
    #[error("the mesh has no axis `{axis}`; it has {}", list(.known))]
    UnknownMeshAxis {
        axis: AxisName,
        known: Vec<AxisName>,
    },
    /// One axis would split two dimensions of an array.
    #[error("mesh axis `{0}` splits two dimensions")]
    MeshAxisUsedTwice(AxisName),
    /// All shardings of a program are over one mesh.
    #[error("a sharding over the mesh {found}, where the program's is {expected}")]
    OtherMesh { found: Mesh, expected: Mesh },
    /// No rule is for the dimension's name.
    #[error("no rule is for a logical axis `{axis}`; there are rules for {}", list(.known))]
    UnknownLogicalAxis {
        axis: AxisName,
        known: Vec<AxisName>,
    },
    /// A dimension does not divide.
    #[error(transparent)]
    IndivisibleDim(#[from] IndivisibleDim),
}

/// A dimension that cannot be split as the rules say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "dimension `{name}` of size {size} cannot be split into {shards} equal parts over mesh axis \
     `{axis}`{}",
    also(.shards, .axis_size)
)]
pub struct IndivisibleDim {
    /// The dimension's logical name, or its number where it has none.
    pub name: String,
    /// Its size.
    pub size: i64,
    /// The axis at which it no longer divides.
    pub axis: AxisName,
    /// That axis' size.
    pub axis_size: i64,
    /// The shards with all axes up to that one.
    pub shards: i64,
}

fn also(shards: &i64, axis_size: &i64) -> String {
    match shards == axis_size {
        true => String::new(),
        false => format!(" (of {axis_size}) and the axes before it"),
    }
}

fn list(names: &[AxisName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        true => "none".into(),
        false => names.join(", "),
    }
}
