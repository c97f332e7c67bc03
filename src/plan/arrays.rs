//! The arrays that a step takes, and where each lies on the mesh.

use ankh_hlo::{ArraySpec, Module, Shape};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::model::Weights;
use crate::optim;

/// What an array is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A weight.
    Parameter,
    /// What the optimizer keeps.
    Optimizer,
    /// The batch, or the number of steps done.
    Batch,
}

/// An array and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its element type.
    pub dtype: String,
    /// Its dimensions, of all devices together.
    pub dims: Vec<i64>,
    /// For each dimension the mesh axes that split it.
    pub split: Vec<Vec<String>>,
    /// The dimensions of one device's part.
    pub part: Vec<i64>,
    /// The bytes of one device's part.
    pub bytes: u64,
}

impl Placed {
    /// The arrays that a step of this configuration takes.
    pub(super) fn all(config: &Config, step: &Module) -> Vec<Placed> {
        let parameters = Weights::of(&config.model).leaves();
        let slots = |p| optim::slots(&config.optimizer, p).len();
        let optimizer: usize = parameters.iter().map(slots).sum();
        let role = |i: usize| match i {
            i if i < parameters.len() => Role::Parameter,
            i if i < parameters.len() + optimizer => Role::Optimizer,
            _ => Role::Batch,
        };
        let specs = step.parameters().iter().enumerate();
        specs.map(|(i, spec)| place(spec, role(i))).collect()
    }
}

fn place(spec: &ArraySpec, role: Role) -> Placed {
    let Shape { dtype, dims } = &spec.shape;
    let (split, part) = match &spec.sharding {
        Some(sharding) => {
            let axes = |dim| sharding.axes(dim).map(str::to_owned).collect();
            let split = (0..dims.len()).map(axes).collect();
            (split, sharding.shard_dims(dims))
        }
        None => (vec![vec![]; dims.len()], dims.clone()),
    };
    Placed {
        name: spec.name.clone(),
        role,
        dtype: dtype.name().into(),
        dims: dims.clone(),
        split,
        bytes: Shape::new(*dtype, part.clone()).bytes(),
        part,
    }
}
