//! Adapters of an encoder that are trained together with a head: their derivatives against JAX's,
//! the frozen encoder where they begin, and `pretrain benchmark --lora`.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use ankh::benchmark::dataset::{self, Dataset, Files};
use ankh::benchmark::presets::Preset;
use ankh::benchmark::{
    BenchmarkOptions, Features, HeadBatch, HeadTrainer, HeadTraining, Predictor, Progress, Results,
    benchmark,
};
use ankh::config::Compute;
use ankh::hugging_face;
use ankh::inference::{LoadedModel, ModelOptions, Unfinished, input_batch};
use ankh::model::lora::{Adaptation, Adapters, Lora};
use ankh::model::{AttentionImplementation, Network, Tokens, Weights};
use ankh::programs::head::{Head, HeadKind};
use ankh::programs::{BatchShape, Pooling, Programs};
use ankh_data::Packing;
use ankh_hlo::{DType, Graph, Remat, Shape, Tensor};
use ankh_pjrt::{ElementType, HostTensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Map;

use crate::support::runs::{expect, pretrain};
use crate::support::{Random, compile, expect_close, floats, run};

/// Relative to the largest reference value of each array, or to 1 where that is less: float32 holds
/// 7 digits, and a gradient is a longer sum of terms that cancel.
const FORWARD: f64 = 1e-5;
const GRADIENT: f64 = 1e-4;

/// Sums over devices are in another order, at each of some steps.
const DEVICES: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    tests.join(name)
}

fn weights() -> PathBuf {
    golden("gated-silu/hf")
}

fn model(slice: &str) -> LoadedModel {
    let options = ModelOptions {
        slice: slice.parse().unwrap(),
        compute: Compute::Float32,
        tokenizer: None,
    };
    LoadedModel::open_encoder(hugging_face::load(weights()).unwrap(), options).unwrap()
}

#[test]
fn states_and_derivatives_are_those_of_flax_and_jax() {
    let bytes = fs::read(golden("lora.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> HostTensor {
        let view = file.tensor(name).unwrap();
        HostTensor {
            element_type: match view.dtype() {
                Dtype::I32 => ElementType::S32,
                _ => ElementType::F32,
            },
            dims: view.shape().iter().map(|&size| size as i64).collect(),
            bytes: view.data().to_vec(),
        }
    };
    let loaded = hugging_face::load(weights()).unwrap();
    let specs = Weights::of(&loaded.model);
    let mut inputs: Vec<HostTensor> = Vec::new();
    for leaf in specs.leaves() {
        let of = |(name, _): &&(String, HostTensor)| *name == leaf.name;
        inputs.push(loaded.tensors.iter().find(of).unwrap().1.clone());
    }
    let names = ["q.lora_a", "q.lora_b", "v.lora_a", "v.lora_b"];
    let given = names.into_iter().chain(["cotangent"]);
    inputs.extend(given.chain(["input_ids", "attention_mask"]).map(read));

    let g = Graph::new("adapted");
    let declared = inputs.iter().enumerate().map(|(i, tensor)| {
        let dtype = match tensor.element_type {
            ElementType::S32 => DType::S32,
            _ => DType::F32,
        };
        g.parameter(&format!("p{i}"), Shape::new(dtype, tensor.dims.clone()))
    });
    let declared: Vec<Tensor<'_>> = declared.collect();
    let (values, rest) = declared.split_at(declared.len() - 7);
    let [adapters, others] = [&rest[..4], &rest[4..]];
    let network = Network {
        model: &loaded.model,
        weights: specs.filled(values),
        compute: DType::F32,
        remat: Remat::SaveNothing,
        attention: AttentionImplementation::Formula,
        unroll: false,
        gradients: DType::F32,
    };
    let (cotangent, input_ids, attention_mask) = (others[0], others[1], others[2]);
    let states = network.encode_adapted(
        input_ids,
        Tokens::Padded { attention_mask },
        Adaptation {
            adapters: Adapters::of(&loaded.model, Lora::default()).filled(adapters),
            scale: floats(&read("scale"))[0].into(),
            dropout: None,
        },
    );
    let states = states * attention_mask.convert(DType::F32).expand_dims(&[2]);
    let mut results = vec![states];
    results.extend(g.gradients((states * cotangent).sum_all(), adapters));
    let found = run(&compile(&g.finish(&results, &[]).unwrap()), &inputs);
    let expect = |name: &str, found: &HostTensor, tolerance| {
        expect_close(name, &floats(found), &floats(&read(name)), tolerance);
    };
    expect("states", &found[0], FORWARD);
    for (name, found) in names.iter().zip(&found[1..]) {
        expect(&format!("gradient of {name}"), found, GRADIENT);
    }
}

/// Rows of a batch.
const ROWS: usize = 4;

/// Random proteins, as tokens that end with `</s>`; the state of a residue follows from its token.
fn tokens(seed: u64) -> Vec<Vec<u8>> {
    let random = &mut Random(seed);
    let protein = |random: &mut Random| {
        let residues = 9 + random.below(6);
        let mut tokens: Vec<u8> = (0..residues).map(|_| 3 + random.below(20) as u8).collect();
        tokens.push(1);
        tokens
    };
    (0..ROWS).map(|_| protein(random)).collect()
}

/// A batch of tokens in rows of a length. `examples` are the numbers of the proteins.
fn batch(proteins: &[Vec<u8>], examples: &[i32], length: usize) -> HeadBatch {
    let rows = proteins.len();
    let [ids, _] = input_batch(proteins, rows, length);
    let (mut mask, mut labels) = (vec![0i32; rows * length], vec![-1i32; rows * length]);
    for (row, protein) in proteins.iter().enumerate() {
        for (place, token) in protein[..protein.len() - 1].iter().enumerate() {
            mask[row * length + place] = 1;
            labels[row * length + place] = i32::from(token % 3);
        }
    }
    let of_places = |values: &[i32]| HostTensor::new([rows as i64, length as i64], values);
    HeadBatch {
        examples: HostTensor::new([rows as i64], examples),
        features: ids,
        mask: of_places(&mask),
        labels: of_places(&labels),
    }
}

const NUMBERS: [i32; ROWS] = [5, 6, 7, 8];

/// A part of a state, by its name.
fn part(trainer: &HeadTrainer<'_>, name: &str) -> Vec<f32> {
    let names = trainer.names();
    let place = names.iter().position(|found| found == name);
    let place = place.unwrap_or_else(|| panic!("{name} is none of {names:?}"));
    floats(&trainer.state().unwrap()[place])
}

#[test]
fn a_head_and_adapters_of_the_encoder_below_it() {
    let model = model("cpu-1");
    // Only the adapters drop anything, and at first they add nothing.
    let head = Head {
        width: model.model().d_model,
        kind: HeadKind::Residues { classes: 3 },
        dropout: 0.0,
    };
    let lora = Lora {
        rank: 4,
        alpha: 8.0,
        dropout: 0.3,
    };
    let trainer = &mut HeadTrainer::adapting(&model, lora, head, 3).unwrap();
    the_first_step_is_that_on_the_frozen_encoder(&model, trainer);
    dropout_follows_seed_and_example_and_not_the_order_of_rows(trainer);
}

fn the_first_step_is_that_on_the_frozen_encoder(
    model: &LoadedModel,
    adapted: &mut HeadTrainer<'_>,
) {
    let (proteins, length) = (tokens(1), 16);
    let on_tokens = batch(&proteins, &NUMBERS, length);
    let size = BatchShape {
        rows: ROWS,
        input: length,
        target: length,
        packing: Packing::Padded,
    };
    let encoder = |programs: &Programs<'_>| programs.encoder(Pooling::None);
    let encoder = model.program("states", size, encoder).unwrap();
    let states = encoder.run(&input_batch(&proteins, ROWS, length)).unwrap();
    let on_states = HeadBatch {
        features: states[0].clone(),
        ..on_tokens.clone()
    };
    let mut frozen = HeadTrainer::new(model.mesh(), *adapted.head(), 3).unwrap();
    let predict = |trainer: &HeadTrainer<'_>, batch: &HeadBatch| {
        floats(&trainer.predict(&batch.features, &batch.mask).unwrap())
    };
    let outputs = [predict(&frozen, &on_states), predict(adapted, &on_tokens)];
    // What stands at padding and at `</s>` is not read.
    let mask: Vec<i32> = on_states.mask.to_vec().unwrap();
    let [expected, found] = outputs.map(|outputs| -> Vec<f32> {
        let residues = outputs.chunks(3).zip(&mask).filter(|(_, mask)| **mask == 1);
        residues.flat_map(|(logits, _)| logits.to_vec()).collect()
    });
    expect_close("predictions", &found, &expected, FORWARD);

    let [q, v] = ["q", "v"].map(|of| format!("encoder.layers.attention.{of}"));
    let a_and_b = |trainer: &HeadTrainer<'_>| {
        [&q, &v].map(|of| ["a", "b"].map(|m| part(trainer, &format!("{of}.lora_{m}"))))
    };
    let first = a_and_b(adapted);
    for [a, b] in &first {
        // U(-d^-1/2, d^-1/2), of which d is 32; its deviation is the bound by sqrt(3).
        let bound = 32f32.powf(-0.5);
        let deviation = (a.iter().map(|x| x * x).sum::<f32>() / a.len() as f32).sqrt();
        assert!(a.iter().all(|x| x.abs() <= bound), "{a:?}");
        assert!((0.9..1.1).contains(&(deviation * 3f32.sqrt() / bound)));
        assert!(b.iter().all(|x| *x == 0.0));
    }
    let expected = frozen.step(&on_states, 1e-3).unwrap();
    let found = adapted.step(&on_tokens, 1e-3).unwrap();
    expect_close("loss", &[found], &[expected], FORWARD);
    // Where B is 0, A has no derivative, and that of the head is as it was.
    let second = a_and_b(adapted);
    for ([a, b], [later_a, later_b]) in first.iter().zip(&second) {
        assert!(a == later_a && b != later_b);
    }
    for name in frozen.names() {
        if name.ends_with("weight") {
            let [found, expected] = [part(adapted, &name), part(&frozen, &name)];
            expect_close(&name, &found, &expected, GRADIENT);
        }
    }
    let ones = adapted.step(&on_tokens, 1e-3).unwrap();
    let others = frozen.step(&on_states, 1e-3).unwrap();
    assert_ne!(ones, others);
    for ([a, _], [later, _]) in second.iter().zip(&a_and_b(adapted)) {
        assert_ne!(a, later);
    }
}

fn dropout_follows_seed_and_example_and_not_the_order_of_rows(trainer: &mut HeadTrainer<'_>) {
    let proteins = tokens(2);
    let here = batch(&proteins, &NUMBERS, 16);
    let reversed: Vec<Vec<u8>> = proteins.iter().rev().cloned().collect();
    let numbers: Vec<i32> = NUMBERS.into_iter().rev().collect();
    let there = batch(&reversed, &numbers, 16);
    // After some steps the adapters count.
    for _ in 0..5 {
        trainer.step(&here, 1e-2).unwrap();
    }
    let state = trainer.state().unwrap();
    let mut loss = |seed, batch: &HeadBatch| {
        trainer.restart(seed).unwrap();
        trainer.restore(&state).unwrap();
        trainer.step(batch, 0.0).unwrap()
    };
    let first = loss(3, &here);
    expect_close("reversed", &[loss(3, &there)], &[first], FORWARD);
    let renumbered = batch(&proteins, &numbers, 16);
    let others = [loss(4, &here), loss(3, &renumbered)];
    for other in others {
        assert!((other - first).abs() > 1e-4, "{other} and {first}");
    }
    assert_eq!(loss(3, &here), first);
}

/// Twelve proteins, four of them a test set. The state of a residue follows from its letter.
fn structure(directory: &Path) -> Dataset {
    let random = &mut Random(4);
    let mut text = String::new();
    for i in 0..12 {
        let letter = |_| char::from(b"AEKLVG"[random.below(6) as usize]);
        let sequence: String = (0..9 + i % 6).map(letter).collect();
        let states = sequence.chars().map(|letter| match letter {
            'A' | 'E' => 'H',
            'K' | 'L' => 'E',
            _ => 'C',
        });
        let states: String = states.collect();
        let set = if i % 3 == 0 { "test" } else { "train" };
        text += &format!(">p{i} SET={set} TARGET={states}\n{sequence}\n");
    }
    let file = directory.join("structure.fasta");
    fs::write(&file, text).unwrap();
    let files = Files {
        sequences: vec![file],
        ..Files::default()
    };
    let reading = Preset::named("q3").unwrap().reading(None);
    dataset::read(&files, &reading).unwrap().0
}

/// What a benchmark with adapters finds, or nothing where it is stopped after so many steps.
fn measure(
    model: &LoadedModel,
    dataset: &Dataset,
    output: &Path,
    stop_after: u64,
) -> Option<Results> {
    let options = BenchmarkOptions {
        output: output.to_owned(),
        features: Features::Adapted(Lora::default()),
        predictor: Predictor::ConvBert,
        training: HeadTraining {
            epochs: 3,
            batch: 2,
            learning_rate: 1e-2,
            ..HeadTraining::default()
        },
        seeds: vec![7],
        folds: 1,
        unfinished: Unfinished::Continue,
    };
    let mut each = |progress| match progress {
        Progress::States(..) => panic!("no states are kept"),
        Progress::Steps(done, _) if done >= stop_after => ControlFlow::Break(()),
        Progress::Steps(..) => ControlFlow::Continue(()),
    };
    let found = benchmark(model, dataset, &options, Map::new(), &mut each).unwrap();
    let (results, finished) = found?;
    finished.remove().unwrap();
    Some(results)
}

/// Its losses, validation figures and figures.
fn numbers(results: &Results) -> Vec<f32> {
    let trainings = results.trainings.iter();
    let epochs = trainings.flat_map(|training| &training.trained.epochs);
    let numbers = epochs.flat_map(|epoch| [epoch.loss, epoch.validation.unwrap()]);
    let figures = results.tests.values().flat_map(|test| &test.figures);
    let numbers = numbers.chain(figures.map(|figure| figure.value));
    numbers.map(|number| number as f32).collect()
}

#[test]
fn stopped_benchmarks_go_on_and_eight_devices_find_what_one_finds() {
    let directory = tempfile::tempdir().unwrap();
    let dataset = structure(directory.path());
    let one = model("cpu-1");
    let output = |name: &str| directory.path().join(name);
    let whole = measure(&one, &dataset, &output("whole"), u64::MAX).unwrap();
    assert_eq!(numbers(&whole).len(), 7);

    // An epoch has seven examples and so four steps: within the second and the third.
    for stop in [6, 9] {
        assert!(measure(&one, &dataset, &output("stopped"), stop).is_none());
    }
    let stopped = measure(&one, &dataset, &output("stopped"), u64::MAX).unwrap();
    assert_eq!(numbers(&stopped), numbers(&whole));
    assert_eq!(stopped.trainings[0].trained, whole.trainings[0].trained);

    let eight = measure(&model("cpu-8"), &dataset, &output("eight"), u64::MAX).unwrap();
    expect_close("figures", &numbers(&eight), &numbers(&whole), DEVICES);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn adapters_need_an_encoder_and_a_training() {
    let directory = tempfile::tempdir().unwrap();
    structure(directory.path());
    let command = |options: &[&str]| -> Command {
        let mut command = pretrain();
        command.current_dir(directory.path());
        command.args(["benchmark", "q3", "--data", "structure.fasta", "--lora"]);
        command.args(["--output", "result.json", "--weights"]);
        command.arg(weights()).args(options);
        command
    };
    for options in [["--baseline", "composition"], ["--head", "nearest"]] {
        let output = command(&options).output().unwrap();
        expect(output, 2, &["--lora", options[0], options[1]]);
    }
    assert!(!directory.path().join("result.json").exists());
}
