//! Every preset, the paper's experiments among them, becomes a program.

use ankh::config::{preset_names, resolve};
use ankh::model::Weights;
use ankh::programs::{BatchShape, Programs};
use ankh_hlo::DType;

#[test]
fn every_preset_and_experiment_builds_its_programs() {
    for name in preset_names() {
        let config = resolve(Some(name), &[]).unwrap();
        let size = BatchShape::of(&config);
        for compute in [DType::F32, DType::Bf16] {
            let step = Programs::new(&config, size, compute).step();
            step.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let programs = Programs::new(&config, size, DType::F32);
        let evaluation = programs.evaluation();
        evaluation.unwrap_or_else(|error| panic!("{name}: {error}"));
        let initial = programs.initial();
        initial.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_published_models_have_as_many_parameters_as_published() {
    for (name, parameters) in [("ankh-base", 736_453_632), ("ankh-large", 1_878_705_152)] {
        let model = resolve(Some(name), &[]).unwrap().model;
        assert_eq!(model.parameters(), parameters, "{name}");
    }
}

#[test]
fn the_table_of_names_has_every_parameter_of_every_model() {
    let sorted = |mut names: Vec<(String, Vec<usize>)>| {
        names.sort();
        names
    };
    for name in preset_names() {
        let model = resolve(Some(name), &[]).unwrap().model;
        let table = ankh::hugging_face::parameters(&model).into_iter();
        let table = table.map(|(name, dims)| (name.to_owned(), dims));
        let ours = Weights::of(&model).leaves().into_iter();
        let ours = ours.map(|p| (p.name, p.dims.iter().map(|&d| d as usize).collect()));
        assert_eq!(sorted(table.collect()), sorted(ours.collect()), "{name}");
    }
}

#[test]
fn every_experiment_of_the_paper_is_a_preset() {
    let names: Vec<&str> = preset_names().collect();
    for experiment in 0..=23 {
        let name = format!("experiments/{experiment:02}");
        assert!(names.contains(&name.as_str()), "{name}");
    }
}
