//! Where every array of a step of Ankh lies on a v4-64, as tables: `make goldens` writes them anew.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use ankh::config::resolve;
use ankh::mesh::slice::Slice;
use ankh::programs::sharding::{logical_axis_rules, mesh_shape};
use ankh::programs::{Programs, state};
use ankh_hlo::{ArraySpec, Module, Sharding};
use ankh_proto::xla;

/// The meshes that the tables show, as settings.
const MESHES: [&[&str]; 3] = [
    &[],
    &["sharding.fsdp=8", "sharding.zero=true"],
    &["sharding.fsdp=2", "sharding.model=4"],
];

fn tables(preset: &str) -> String {
    let slice: Slice = "v4-64".parse().unwrap();
    let mut out = String::new();
    for settings in MESHES {
        let mut set: Vec<String> = settings.iter().map(|s| (*s).into()).collect();
        set.push("train.batch_size=1024".into());
        let config = resolve(Some(preset), &set).unwrap();
        let mesh = mesh_shape(&config, slice.devices()).unwrap();
        let rules = logical_axis_rules(&config, mesh).unwrap();
        let programs = Programs::of(&config, "tpu", rules.as_ref());
        let module = programs.step().unwrap();
        let arrays = arrays(&module);
        let (state, batch) = arrays.split_at(state(&config).len());
        out += &format!("{preset} on {slice}, mesh {mesh}\n\n");
        out += &table("state", state);
        out += "\n";
        out += &table("batch", batch);
        out += "\n";
        out += &table("inside the step", &activations(&module));
        out += "\n\n";
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn every_array_lies_where_the_tables_say() {
    for preset in ["ankh-base", "ankh-large"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/shardings")
            .join(format!("{preset}.txt"));
        let found = tables(preset);
        if std::env::var_os("WRITE_GOLDENS").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap();
        let differs = found.lines().zip(expected.lines()).find(|(f, e)| f != e);
        assert!(
            found == expected,
            "{} says otherwise, first at (found, expected) {differs:#?}; if it should change, `make goldens`",
            file.display()
        );
    }
}

/// Where one array lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    /// A parameter's name, or the layer that an activation belongs to.
    name: String,
    /// Its dimensions with its element type, of all devices together: `f32[48,1536,3840]`.
    whole: String,
    /// For each dimension the axes that split it, the slowest first.
    axes: Vec<Vec<String>>,
    /// What one device has: `f32[48,384,3840]`.
    part: String,
}

/// The arrays that a step takes: its state and its batch.
fn arrays(module: &Module) -> Vec<Row> {
    let row = |spec: &ArraySpec| {
        let rank = spec.shape.rank();
        let sharding = spec.sharding.as_ref();
        let axes = |dim| {
            sharding.map_or(vec![], |s| {
                s.axes(dim).map(|axis| axis.to_string()).collect()
            })
        };
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
fn activations(module: &Module) -> Vec<Row> {
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

/// Rows under a title, in columns: name, whole shape, the axes of each dimension, and what one
/// device has.
fn table(title: &str, rows: &[Row]) -> String {
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
