//! The arrays that a step takes, each with what it is for.

use ankh_hlo::{ArraySpec, Module, Shape};
use serde::{Serialize, Serializer};

use crate::config::Config;
use crate::model::Weights;
use crate::programs;

/// What an array is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A weight.
    Parameter,
    /// An optimizer slot.
    Optimizer,
    /// The batch, or the number of steps done.
    Batch,
}

/// An array that a step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepArray {
    /// What it is for.
    pub role: Role,
    /// Its name, shape and sharding.
    pub spec: ArraySpec,
}

impl StepArray {
    /// The arrays that a step of this configuration takes.
    pub(super) fn all(config: &Config, step: &Module) -> Vec<StepArray> {
        let parameters = Weights::of(&config.model).leaves();
        // The last array of the state counts its steps.
        let optimizer = programs::state(config).len() - 1;
        let role = |i: usize| match i {
            i if i < parameters.len() => Role::Parameter,
            i if i < optimizer => Role::Optimizer,
            _ => Role::Batch,
        };
        let specs = step.parameters().iter().cloned().enumerate();
        let array = |(i, spec)| StepArray {
            role: role(i),
            spec,
        };
        specs.map(array).collect()
    }

    /// For each dimension the mesh axes that split it, major first.
    pub fn split(&self) -> Vec<Vec<String>> {
        let rank = self.spec.shape.rank();
        match &self.spec.sharding {
            Some(sharding) => {
                let axes = |dim| sharding.axes(dim).map(|axis| axis.to_string()).collect();
                (0..rank).map(axes).collect()
            }
            None => vec![vec![]; rank],
        }
    }

    /// The shape of one device's shard.
    pub fn shard(&self) -> Shape {
        let Shape { dtype, dims } = &self.spec.shape;
        let dims = match &self.spec.sharding {
            Some(sharding) => sharding.shard_dims(dims),
            None => dims.clone(),
        };
        Shape::new(*dtype, dims)
    }
}

/// With what follows from its shape and sharding.
impl Serialize for StepArray {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            name: &'a str,
            role: Role,
            dtype: &'static str,
            /// Of all devices together.
            dims: &'a [i64],
            split: Vec<Vec<String>>,
            /// Of one device's shard.
            shard: Vec<i64>,
            bytes: u64,
        }
        let shard = self.shard();
        Fields {
            name: &self.spec.name,
            role: self.role,
            dtype: self.spec.shape.dtype.name(),
            dims: &self.spec.shape.dims,
            split: self.split(),
            bytes: shard.bytes(),
            shard: shard.dims,
        }
        .serialize(serializer)
    }
}
