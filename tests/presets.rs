//! Every preset, the paper's experiments among them, becomes a program.

use ankh::config::{preset_names, resolve};
use ankh::train::program::{self, BatchSize};
use ankh_hlo::DType;

#[test]
fn every_preset_and_experiment_builds_its_programs() {
    for name in preset_names() {
        let config = resolve(Some(name), &[]).unwrap();
        let size = BatchSize {
            rows: config.train.batch_size,
            input: config.data.input_length,
            target: config.data.target_length,
        };
        for compute in [DType::F32, DType::Bf16] {
            let step = program::step(&config, size, compute);
            step.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let evaluation = program::evaluation(&config, size, DType::F32);
        evaluation.unwrap_or_else(|error| panic!("{name}: {error}"));
        let initial = program::initial(&config);
        initial.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_models_parameters_are_those_its_configuration_counts() {
    for name in preset_names() {
        let config = resolve(Some(name), &[]).unwrap();
        let parameters = ankh::weights::parameters(&config.model);
        let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        let state = program::state(&config);
        let elements = state
            .iter()
            .filter(|array| names.contains(&array.name.as_str()))
            .map(|array| {
                let elements: i64 = array.shape.dims.iter().product();
                elements as u64
            });
        assert_eq!(elements.sum::<u64>(), config.model.parameters(), "{name}");
    }
}
