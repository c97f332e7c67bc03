//! How the arrays of a run lie on the devices of a slice: the mesh that the configuration makes of them, and a check, before
//! anything is built, that every array can be split as the rules say.

mod table;

use ankh_hlo::{IndivisibleDim, LogicalAxisRules, Mesh, Shape, Sharding, ShardingForm};

use crate::config::{Config, MeshAxis};
use crate::slice::MeshShape;
use crate::train::program::{self, Array, BatchSize};

pub use table::{Row, activations, arrays as rows, table};

/// A mesh, or rules, that the devices or the arrays do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
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
        /// The devices there are.
        devices: usize,
    },
    /// The axes multiply to another number of devices.
    #[error("the mesh {mesh} has {} devices, and there are {devices}", mesh.devices())]
    Mesh {
        /// The configured mesh.
        mesh: MeshShape,
        /// The devices there are.
        devices: usize,
    },
    /// An array cannot be split.
    #[error("{array}: {indivisible}")]
    IndivisibleDim {
        /// The array with its dimensions.
        array: String,
        /// What is wrong with it.
        indivisible: IndivisibleDim,
    },
}

impl LayoutError {
    /// What to change.
    pub fn advice(&self) -> String {
        match self {
            LayoutError::Devices { devices, .. } => {
                format!(
                    "choose two that multiply to one of {}",
                    list(&divisors(*devices))
                )
            }
            LayoutError::Mesh { .. } => {
                "set sharding.data=0, which takes as many as the other axes leave".into()
            }
            LayoutError::IndivisibleDim { indivisible, .. } if indivisible.name == "batch" => {
                format!(
                    "set train.batch_size so that each of train.accumulation parts is a multiple of {}",
                    indivisible.parts
                )
            }
            LayoutError::IndivisibleDim { indivisible, .. } => format!(
                "make sharding.{} a divisor of {}, or take it out of sharding.rules.{}",
                indivisible.axis, indivisible.size, indivisible.name
            ),
        }
    }
}

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|d| n.is_multiple_of(*d)).collect()
}

fn list(numbers: &[usize]) -> String {
    let words: Vec<String> = numbers.iter().map(|n| n.to_string()).collect();
    words.join(", ")
}

/// The mesh that the configuration makes of `devices`.
pub fn mesh_shape(config: &Config, devices: usize) -> Result<MeshShape, LayoutError> {
    let (data, fsdp, model) = (
        config.sharding.data,
        config.sharding.fsdp,
        config.sharding.model,
    );
    let split = fsdp.saturating_mul(model);
    if !devices.is_multiple_of(split) {
        return Err(LayoutError::Devices {
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
        false => Err(LayoutError::Mesh { mesh, devices }),
    }
}

/// A mesh of this shape, its axes named.
pub fn mesh(shape: MeshShape) -> Mesh {
    let sizes = [shape.data, shape.fsdp, shape.model];
    let axes = MeshAxis::ALL.iter().zip(sizes);
    let mesh = Mesh::new(axes.map(|(axis, size)| (axis.name(), size as i64)));
    mesh.expect("the axes have names of their own and multiply to the devices that there are")
}

/// The configured layout on a mesh; `None` on a single device. Every array of the run can be split by it.
pub fn layout(
    config: &Config,
    mesh: MeshShape,
    form: ShardingForm,
) -> Result<Option<LogicalAxisRules>, LayoutError> {
    if mesh.devices() == 1 {
        return Ok(None);
    }
    let mesh = self::mesh(mesh);
    let rules = config.sharding.rules.table();
    let rules = rules.map(|(name, axes)| {
        let axes = axes.iter().map(|axis| axis.name().to_string());
        (name, axes.collect::<Vec<_>>())
    });
    let layout = LogicalAxisRules::new(mesh, rules).with_form(form);
    for array in arrays(config) {
        sharding(&layout, &array)?;
    }
    Ok(Some(layout))
}

/// Where an array lies.
pub fn sharding(layout: &LogicalAxisRules, array: &Array) -> Result<Sharding, LayoutError> {
    let sharding = layout.sharding(&array.logical_axes, &array.shape.dims);
    sharding.map_err(|indivisible| LayoutError::IndivisibleDim {
        array: format!("`{}` {}", array.name, array.shape),
        indivisible,
    })
}

/// All arrays that are split: the state, the batch, and the activations whose dimensions the state does not have.
fn arrays(config: &Config) -> Vec<Array> {
    let whole = BatchSize::of(config);
    let part = BatchSize {
        rows: whole.rows / config.train.accumulation,
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
        logical_axes: vec!["batch", "heads", "length", "kv"],
    };
    let batch = [whole, part].into_iter().flat_map(program::batch);
    let state = program::state(config).into_iter();
    state.chain(batch).chain([heads]).collect()
}

/// Arrays of the state of at least this many bytes are worth a word where they are whole on every device.
const LARGE: u64 = 64 << 20;

/// Large arrays that every device of an `fsdp` or `model` axis keeps whole, each with the reason.
pub fn unsplit(config: &Config, layout: &LogicalAxisRules) -> Vec<(String, String)> {
    let axes = || {
        layout
            .mesh()
            .axes()
            .iter()
            .filter(|(name, size)| name != "data" && *size > 1)
    };
    if axes().count() == 0 {
        return Vec::new();
    }
    let whole = |array: &Array| {
        let sharding = layout
            .sharding(&array.logical_axes, &array.shape.dims)
            .ok()?;
        let large = array.shape.bytes() >= LARGE;
        (large && sharding.is_replicated()).then(|| {
            let names: Vec<String> = axes()
                .map(|(name, size)| format!("{name} ({size})"))
                .collect();
            let dims: Vec<String> = array
                .logical_axes
                .iter()
                .map(|name| format!("sharding.rules.{name}"))
                .collect();
            let reason = format!("none of {} names {}", dims.join(", "), names.join(" or "));
            (format!("`{}` {}", array.name, array.shape), reason)
        })
    };
    program::state(config).iter().filter_map(whole).collect()
}
