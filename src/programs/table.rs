//! Where every array of a training step lies, for people to read.

use std::collections::HashSet;

use ankh_hlo::{ArraySpec, Module, Sharding};
use ankh_proto::xla;

/// Where one array lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// A parameter's name, or the layer that an activation belongs to.
    pub name: String,
    /// Its dimensions with its element type, of all devices together: `f32[48,1536,3840]`.
    pub whole: String,
    /// For each dimension the axes that split it, the slowest first.
    pub axes: Vec<Vec<String>>,
    /// What one device has: `f32[48,384,3840]`.
    pub part: String,
}

/// The arrays that a step takes: its state and its batch.
pub fn arrays(module: &Module) -> Vec<Row> {
    let row = |spec: &ArraySpec| {
        let rank = spec.shape.rank();
        let sharding = spec.sharding.as_ref();
        let axes = |dim| sharding.map_or(vec![], |s| s.axes(dim).map(str::to_owned).collect());
        let dims = &spec.shape.dims;
        let part = sharding.map_or(dims.clone(), |s: &Sharding| s.shard_dims(dims));
        let name = spec.shape.dtype.name();
        Row {
            name: spec.name.clone(),
            whole: shape(name, dims),
            axes: (0..rank).map(axes).collect(),
            part: shape(name, &part),
        }
    };
    module.parameters().iter().map(row).collect()
}

/// The values inside a step whose place is laid down, each once, in the order of the program.
pub fn activations(module: &Module) -> Vec<Row> {
    let mut seen = HashSet::new();
    let computations = module.proto().computations.iter().rev();
    computations
        .flat_map(|computation| &computation.instructions)
        .filter(|i| i.custom_call_target == "Sharding")
        .filter_map(activation)
        .filter(|row| seen.insert(row.clone()))
        .collect()
}

fn activation(i: &xla::HloInstructionProto) -> Option<Row> {
    let array = i.shape.as_ref()?;
    let named = i.sharding.as_ref()?.named_sharding.as_ref()?;
    let mesh = &named.mesh.as_ref()?.axes;
    let axis = |reference: &xla::AxisRefProto| mesh.get(reference.mesh_axis_index as usize);
    let split: Vec<Vec<&xla::mesh_proto::MeshAxis>> = named
        .dim_shardings
        .iter()
        .map(|dim| dim.axes.iter().filter_map(axis).collect())
        .collect();
    let parts = array.dimensions.iter().zip(&split);
    let parts: Vec<i64> = parts
        .map(|(size, axes)| size / axes.iter().map(|axis| axis.size).product::<i64>())
        .collect();
    let scope = &i.metadata.as_ref()?.op_name;
    let element = array.element_type().as_str_name().to_ascii_lowercase();
    Some(Row {
        name: scope.rsplit_once('/').map_or("", |(scope, _)| scope).into(),
        whole: shape(&element, &array.dimensions),
        axes: split
            .iter()
            .map(|axes| axes.iter().map(|axis| axis.name.clone()).collect())
            .collect(),
        part: shape(&element, &parts),
    })
}

fn shape(element: &str, dims: &[i64]) -> String {
    let dims: Vec<String> = dims.iter().map(|d| d.to_string()).collect();
    format!("{element}[{}]", dims.join(","))
}

/// Rows under a title, in columns: name, whole shape, the axes of each dimension, and what one device has.
pub fn table(title: &str, rows: &[Row]) -> String {
    let axes = |row: &Row| {
        let dims = row.axes.iter().map(|axes| match axes.as_slice() {
            [] => "-".to_string(),
            axes => axes.join("+"),
        });
        dims.collect::<Vec<_>>().join(", ")
    };
    let columns: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let part = match row.part == row.whole {
                true => "whole".into(),
                false => row.part.clone(),
            };
            [row.name.clone(), row.whole.clone(), axes(row), part]
        })
        .collect();
    let width = |column: usize| columns.iter().map(|c| c[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut out = format!("{title}\n");
    for [name, whole, axes, part] in &columns {
        let [a, b, c] = widths;
        out += &format!("  {name:a$}  {whole:b$}  {axes:c$}  {part}\n");
    }
    out
}
