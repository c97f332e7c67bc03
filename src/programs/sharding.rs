//! How the arrays of a run are split over the devices: the mesh shape and the rules that the
//! configuration asks for, and a check, before anything is built, that every array can be split so.

use ankh_hlo::{AxisError, AxisName, LogicalAxisRules, Mesh, Shape, Sharding};
use serde::Serialize;

use super::{Array, BatchShape, Programs, batch, state};
use crate::config::{Config, LogicalAxis, MeshAxis};
use crate::mesh_shape::MeshShape;
use crate::model::{Parameter, Weights};

/// A mesh, or rules, that the devices or the arrays do not fit.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardingError {
    /// The axes do not divide the devices.
    #[error(
        "sharding.fsdp {fsdp} times sharding.model {model} is {}, which does not divide the {devices} devices",
        fsdp.saturating_mul(*model)
    )]
    Devices {
        /// `sharding.fsdp`
        fsdp: usize,
        /// `sharding.model`
        model: usize,
        devices: usize,
    },
    /// The axes multiply to another number of devices.
    #[error("the mesh {mesh} has {} devices, and there are {devices}", mesh.devices())]
    Mesh { mesh: MeshShape, devices: usize },
    /// An array cannot be split.
    #[error("{array}: {error}")]
    Axes { array: String, error: AxisError },
}

impl From<MeshAxis> for AxisName {
    fn from(axis: MeshAxis) -> AxisName {
        AxisName::new(axis.name())
    }
}

/// The mesh that the configuration makes of `devices`.
pub fn mesh_shape(config: &Config, devices: usize) -> Result<MeshShape, ShardingError> {
    let (data, fsdp, model) = (
        config.sharding.data,
        config.sharding.fsdp,
        config.sharding.model,
    );
    let split = fsdp.saturating_mul(model);
    if !devices.is_multiple_of(split) {
        return Err(ShardingError::Devices {
            fsdp,
            model,
            devices,
        });
    }
    let data = match data {
        0 => devices / split,
        data => data,
    };
    let mesh = MeshShape { data, fsdp, model };
    match mesh.devices() == devices {
        true => Ok(mesh),
        false => Err(ShardingError::Mesh { mesh, devices }),
    }
}

/// A mesh of this shape, its axes named.
pub fn mesh(shape: MeshShape) -> Mesh {
    let sizes = [shape.data, shape.fsdp, shape.model];
    let axes = MeshAxis::ALL.iter().zip(sizes);
    let mesh = Mesh::new(axes.map(|(&axis, size)| (axis, size as i64)));
    mesh.expect("the axes have names of their own and multiply to the devices that there are")
}

/// The configured rules on a mesh; `None` on a single device. Every array of the run can be split
/// by it.
pub fn logical_axis_rules(
    config: &Config,
    mesh: MeshShape,
) -> Result<Option<LogicalAxisRules>, ShardingError> {
    if mesh.devices() == 1 {
        return Ok(None);
    }
    let mesh = self::mesh(mesh);
    let rules = config.sharding.rules.table();
    let rules = rules.map(|(axis, axes)| (axis, axes.to_vec()));
    let rules = LogicalAxisRules::new(mesh, rules).expect("the mesh has every axis that there is");
    for array in arrays(config) {
        sharding(&rules, &array)?;
    }
    Ok(Some(rules))
}

/// The sharding of an array.
pub fn sharding(rules: &LogicalAxisRules, array: &Array) -> Result<Sharding, ShardingError> {
    by_rules(rules, array).map_err(|error| ShardingError::Axes {
        array: format!("`{}` {}", array.name, array.shape),
        error,
    })
}

fn by_rules(rules: &LogicalAxisRules, array: &Array) -> Result<Sharding, AxisError> {
    match array.logical_axes.is_empty() {
        true => Ok(Sharding::replicated(rules.mesh(), array.shape.rank())),
        false => rules.sharding(&array.logical_axes, &array.shape.dims),
    }
}

/// The sharding of each array of the state, on a mesh: the parameters by the rules, and the
/// optimizer's slots likewise or, if so configured, split over `data` too.
pub(super) fn of_state(programs: &Programs<'_>) -> Option<Vec<Sharding>> {
    let rules = programs.rules.as_ref()?;
    let parameters = Weights::of(&programs.config.model).leaves().len();
    let of = |(i, array): (usize, &Array)| {
        let sharding = by_rules(rules, array).ok()?;
        let is_slot = i >= parameters && !array.logical_axes.is_empty();
        let spread = programs.config.sharding.zero && is_slot;
        Some(if spread {
            over_data(sharding, &array.shape.dims)
        } else {
            sharding
        })
    };
    state(programs.config).iter().enumerate().map(of).collect()
}

/// The sharding in which a parameter is updated, on a mesh: its own, or, if so configured, split
/// over `data` too.
pub(super) fn of_update(programs: &Programs<'_>, parameter: &Parameter) -> Option<Sharding> {
    let rules = programs.rules.as_ref()?;
    let sharding = rules
        .sharding(&parameter.logical_axes, &parameter.dims)
        .ok()?;
    Some(if programs.config.sharding.zero {
        over_data(sharding, &parameter.dims)
    } else {
        sharding
    })
}

/// Splits the first dimension that divides over `data` as well.
fn over_data(sharding: Sharding, dims: &[i64]) -> Sharding {
    let further = dims
        .iter()
        .enumerate()
        .find_map(|(dim, &size)| sharding.split_further(dim, size, MeshAxis::Data).ok()?);
    further.unwrap_or(sharding)
}

/// All arrays that are split: the state, the batch, and the activations whose dimensions the state
/// does not have.
fn arrays(config: &Config) -> Vec<Array> {
    let whole = BatchShape::of(config);
    let part = BatchShape {
        rows: whole.rows / config.train.gradient_accumulation,
        ..whole
    };
    let heads = Array {
        name: "attention".into(),
        shape: Shape::new(
            ankh_hlo::DType::F32,
            [
                part.rows,
                config.model.heads,
                whole.input,
                config.model.d_kv,
            ]
            .map(|n| n as i64),
        ),
        logical_axes: vec![
            LogicalAxis::Batch,
            LogicalAxis::Heads,
            LogicalAxis::Length,
            LogicalAxis::Kv,
        ],
    };
    let batches = [whole, part].into_iter().flat_map(batch);
    let state = state(config).into_iter();
    state.chain(batches).chain([heads]).collect()
}

/// A large array of the state that is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicatedArray {
    /// The array with its dimensions.
    pub array: String,
    /// Which rules do not split it.
    pub reason: String,
}

/// Replicated arrays of at least this many bytes are reported.
const LARGE: u64 = 64 << 20;

/// Large arrays of the state that every device of an `fsdp` or `model` axis keeps whole.
pub fn replicated(config: &Config, rules: &LogicalAxisRules) -> Vec<ReplicatedArray> {
    let axes = rules.mesh().axes().iter();
    let axes: Vec<String> = axes
        .filter(|(name, size)| *name != MeshAxis::Data.into() && *size > 1)
        .map(|(name, size)| format!("{name} ({size})"))
        .collect();
    if axes.is_empty() {
        return Vec::new();
    }
    let whole = |array: &Array| {
        let sharding = by_rules(rules, array).ok()?;
        let large = array.shape.bytes() >= LARGE;
        (large && sharding.is_replicated()).then(|| {
            let dims: Vec<String> = array
                .logical_axes
                .iter()
                .map(|axis| format!("sharding.rules.{}", axis.name()))
                .collect();
            ReplicatedArray {
                array: format!("`{}` {}", array.name, array.shape),
                reason: format!("none of {} names {}", dims.join(", "), axes.join(" or ")),
            }
        })
    };
    state(config).iter().filter_map(whole).collect()
}
