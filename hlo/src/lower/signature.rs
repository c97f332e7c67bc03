//! What a program takes and gives: arrays, and where each of them lies on the mesh.

use std::fmt;
use std::sync::Arc;

use crate::ir::{Function, NodeId, Op};
use crate::shape::Shape;
use crate::sharding::{Mesh, Sharding};

/// How a dimension lies that is not split.
const WHOLE: &str = "whole";

/// An array that a program takes or gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ArraySpec {
    /// Its name; results have none.
    pub name: String,
    /// Its element type and dimensions, of all devices together.
    pub shape: Shape,
    /// Where it lies on the mesh, if there is one and the program says.
    pub sharding: Option<Sharding>,
}

impl ArraySpec {
    /// Whether an array of this spec may stand where one of `other` is expected: it has the same
    /// element type and dimensions, and every element is on the same devices.
    pub fn fits(&self, other: &ArraySpec) -> bool {
        self.shape == other.shape && self.is_equivalent_to(other)
    }

    /// Without a sharding an array is whole on every device.
    fn is_equivalent_to(&self, other: &ArraySpec) -> bool {
        match (&self.sharding, &other.sharding) {
            (Some(one), Some(two)) => one.is_equivalent_to(two),
            (Some(one), None) | (None, Some(one)) => one.is_replicated(),
            (None, None) => true,
        }
    }

    /// How dimension `dim` lies on the mesh, in words.
    fn lies(&self, dim: usize) -> String {
        let sharding = self.sharding.as_ref();
        let axes = sharding.into_iter().flat_map(|sharding| {
            let axes = sharding.mesh().axes();
            sharding
                .nontrivial_axes(dim)
                .map(|a| format!("`{}`", &axes[a].0))
        });
        let axes: Vec<String> = axes.collect();
        match axes.as_slice() {
            [] => WHOLE.into(),
            axes => format!("split over mesh axis {}", axes.join(" and ")),
        }
    }
}

impl fmt::Display for ArraySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shape)?;
        let split = (0..self.shape.rank()).map(|dim| (dim, self.lies(dim)));
        for (dim, lies) in split.filter(|(_, lies)| lies != WHOLE) {
            write!(f, ", dimension {dim} {lies}")?;
        }
        Ok(())
    }
}

/// All of a program's.
pub(crate) struct Signature {
    pub parameters: Vec<ArraySpec>,
    pub results: Vec<ArraySpec>,
}

impl Signature {
    /// Those of a function without mistakes.
    pub fn of(function: &Function, mesh: Option<&Arc<Mesh>>) -> Signature {
        let parameters = function.parameters.iter();
        let results = function.outputs.iter();
        Signature {
            parameters: parameters.map(|&id| parameter(function, id)).collect(),
            results: results.map(|&id| result(function, id, mesh)).collect(),
        }
    }

    /// What is wrong with the first result whose sharding does not divide it.
    pub fn indivisible_result(&self) -> Option<String> {
        self.results.iter().enumerate().find_map(|(i, spec)| {
            let indivisible = spec.sharding.as_ref()?.divides(&spec.shape.dims).err()?;
            Some(format!("result {i} {}: {indivisible}", spec.shape))
        })
    }

    /// What is wrong with the first donation that cannot be: both positions exist, the arrays agree
    /// in shape and sharding, and no result or parameter is named twice.
    pub fn misfit(&self, donations: &[(usize, usize)]) -> Option<String> {
        let misfit = |(i, &(output, input)): (usize, &(usize, usize))| {
            let (Some(result), Some(parameter)) =
                (self.results.get(output), self.parameters.get(input))
            else {
                return Some(format!("there is no result {output} or no input {input}"));
            };
            let (from, to) = (
                format!("input {input} `{}`", parameter.name),
                format!("result {output}"),
            );
            if result.shape != parameter.shape {
                return Some(format!(
                    "{to} is {} and cannot take over {from}, {}",
                    result.shape, parameter.shape
                ));
            }
            if !result.is_equivalent_to(parameter) {
                let mut dims = 0..parameter.shape.rank();
                let differs = dims.find(|&d| result.lies(d) != parameter.lies(d));
                // Both are over the program's one mesh, so that they differ in a dimension.
                let dim = differs.unwrap_or(0);
                return Some(format!(
                    "{to} lies elsewhere than {from} {} and cannot take it over: dimension {dim} is {} in the input and {} \
                     in the result",
                    parameter.shape,
                    parameter.lies(dim),
                    result.lies(dim)
                ));
            }
            let mut earlier = donations[..i].iter();
            earlier
                .any(|d| d.0 == output || d.1 == input)
                .then(|| format!("{to} or {from} is in an earlier donation too"))
        };
        donations.iter().enumerate().find_map(misfit)
    }
}

fn parameter(function: &Function, id: NodeId) -> ArraySpec {
    let node = &function.nodes[id];
    let Op::Parameter { name, sharding } = &node.op else {
        unreachable!("parameters are parameter nodes")
    };
    ArraySpec {
        name: name.to_string(),
        shape: node.ty.array(),
        sharding: sharding.clone(),
    }
}

/// A result lies as it was constrained to; on a mesh it is otherwise whole on every device.
fn result(function: &Function, id: NodeId, mesh: Option<&Arc<Mesh>>) -> ArraySpec {
    let node = &function.nodes[id];
    let shape = node.ty.array();
    let sharding = match &node.op {
        Op::ShardingConstraint { sharding } => Some(sharding.clone()),
        _ => mesh.map(|mesh| Sharding::replicated(mesh, shape.rank())),
    };
    ArraySpec {
        name: String::new(),
        shape,
        sharding,
    }
}
