//! Where every array of a step of Ankh lies on a v4-64, as tables: `make goldens` writes them anew.

use std::fs;
use std::path::Path;

use ankh::config::resolve;
use ankh::mesh::slice::Slice;
use ankh::programs::sharding::{activations, logical_axis_rules, mesh_shape, rows, table};
use ankh::programs::{Programs, state};

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
        let arrays = rows(&module);
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
