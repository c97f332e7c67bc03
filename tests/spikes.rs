//! Spikes: a step whose loss, or norm of gradients, is far above those of the last good steps
//! changes nothing, by what the state has of them alone.

use std::fs;

use ankh::checkpoint::{Checkpoint, Store};
use ankh::config::{Config, Packing};
use ankh::programs::{self, BatchShape, Programs, SkipReason, StepMetrics};
use ankh_hlo::DType;
use ankh_pjrt::HostTensor;

use crate::support::runs::{Bench, expect};
use crate::support::{Random, compile, run, weights};

/// Good steps whose numbers are kept, and how many say something.
const WINDOW: usize = 100;
const ENOUGH: usize = 20;

const SIZE: BatchShape = BatchShape {
    rows: 2,
    input: 8,
    target: 8,
    packing: Packing::Padded,
};

fn config(settings: &[&str]) -> Config {
    let always = ["train.compute=float32", "schedule.warmup_steps=0"];
    let settings = always.iter().chain(settings);
    let settings: Vec<String> = settings.map(|setting| setting.to_string()).collect();
    ankh::config::resolve(Some("tiny"), &settings).unwrap()
}

fn batch() -> Vec<HostTensor> {
    let array = |values: &dyn Fn(i32) -> i32| {
        let values: Vec<i32> = (0..16).map(values).collect();
        HostTensor::new::<i32>([2, 8], &values)
    };
    let tokens = |i: i32| 3 + 5 * i % 20;
    vec![
        array(&tokens),
        array(&|_| 1),
        array(&|i| if i % 8 == 0 { 0 } else { tokens(i - 1) }),
        array(&tokens),
    ]
}

/// The numbers of good steps, the newest last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Window {
    losses: Vec<f32>,
    grad_norms: Vec<f32>,
}

impl Window {
    /// The arrays of the state.
    fn arrays(&self) -> [HostTensor; 3] {
        let numbers = |values: &[f32]| {
            // What is in the places that are free makes no difference.
            let mut all = vec![-7.0; WINDOW - values.len()];
            all.extend(values);
            HostTensor::new::<f32>([WINDOW as i64], &all)
        };
        let count = [self.losses.len() as i32];
        [
            numbers(&self.losses),
            numbers(&self.grad_norms),
            HostTensor::new::<i32>([], &count),
        ]
    }

    fn of(arrays: &[HostTensor]) -> Window {
        let count = arrays[2].to_vec::<i32>().unwrap()[0] as usize;
        let numbers = |array: &HostTensor| array.to_vec::<f32>().unwrap().split_off(WINDOW - count);
        Window {
            losses: numbers(&arrays[0]),
            grad_norms: numbers(&arrays[1]),
        }
    }

    /// Whether the numbers of a step are spikes, by a sort.
    fn skips(&self, limits: [f32; 2], numbers: [f32; 2]) -> f32 {
        let spikes = |recent: &[f32], limit: f32, value: f32| {
            let mut sorted = recent.to_vec();
            sorted.sort_by(f32::total_cmp);
            sorted.len() >= ENOUGH && limit > 0.0 && value > limit * sorted[sorted.len() / 2]
        };
        let reason = match () {
            () if spikes(&self.losses, limits[0], numbers[0]) => SkipReason::LossSpike,
            () if spikes(&self.grad_norms, limits[1], numbers[1]) => SkipReason::GradNormSpike,
            () => return 0.0,
        };
        reason.number() as f32
    }

    fn push(&mut self, numbers: [f32; 2]) {
        for (recent, value) in [&mut self.losses, &mut self.grad_norms]
            .into_iter()
            .zip(numbers)
        {
            recent.push(value);
            if recent.len() > WINDOW {
                recent.remove(0);
            }
        }
    }
}

#[test]
fn a_step_is_skipped_by_the_medians_of_the_last_good_ones() {
    let random = &mut Random(3);
    let mut skipped = [0; 4];
    for limits in [[1.0, 1.0], [1.5, 0.0], [0.0, 1.25]] {
        let [loss, grad_norm] = limits;
        let settings = [
            format!("recovery.loss_spike={loss}"),
            format!("recovery.grad_norm_spike={grad_norm}"),
        ];
        let config = config(&settings.each_ref().map(String::as_str));
        let programs = Programs::new(&config, SIZE, DType::F32);
        let program = compile(&programs.step().unwrap());
        let state = programs::state(&config);
        let names: Vec<&str> = state.iter().map(|array| array.name.as_str()).collect();
        let at = names.len() - 4;
        let expected = ["recent_losses", "recent_grad_norms", "recent_steps", "step"];
        assert_eq!(names[at..], expected);
        let parameters = weights(&config);
        let slots = state[parameters.len()..at].iter();
        let slots = slots.map(|slot| {
            let count = slot.shape.elements() as usize;
            HostTensor::new::<f32>(slot.shape.dims.clone(), &vec![0.0; count])
        });
        let before: Vec<HostTensor> = parameters.iter().cloned().chain(slots).collect();
        let step = |window: &Window| {
            let count = [HostTensor::new::<i32>([], &[41])];
            let inputs = [&before[..], &window.arrays(), &count, &batch()].concat();
            let mut outputs = run(&program, &inputs);
            let metrics = outputs.pop().unwrap().to_vec::<f32>().unwrap();
            (outputs, StepMetrics::from_slice(&metrics).unwrap())
        };
        let (_, usual) = step(&Window::default());
        assert_eq!(usual.skipped, 0.0);
        let usual = [usual.loss, usual.grad_norm];
        for (case, count) in [0, 19, 20, 21, 64, 99, 100, 100, 100]
            .into_iter()
            .enumerate()
        {
            // Now and then two are equal.
            let mut near = |value: f32| {
                let draw = |_| value * (0.5 + random.below(40) as f32 / 40.0);
                (0..count).map(draw).collect::<Vec<f32>>()
            };
            let window = Window {
                losses: near(usual[0]),
                grad_norms: near(usual[1]),
            };
            let expected = window.skips(limits, usual);
            let (state, metrics) = step(&window);
            assert_eq!(metrics.skipped, expected, "case {case}, limits {limits:?}");
            skipped[expected as usize] += 1;
            let mut after = window.clone();
            match metrics.skip_reason() {
                None => after.push(usual),
                Some(_) => assert!(state[..at] == before[..]),
            }
            assert_eq!(Window::of(&state[at..]), after, "case {case}");
            assert_eq!(state[at + 3].to_vec::<i32>().unwrap(), [42]);
        }
    }
    let [none, not_finite, losses, grad_norms] = skipped;
    assert!(none > 0 && losses > 0 && grad_norms > 0, "{skipped:?}");
    assert_eq!(not_finite, 0);
}

#[test]
fn without_limits_neither_the_state_nor_the_program_knows_of_spikes() {
    let module = |settings: &[&str]| {
        let config = config(settings);
        Programs::new(&config, SIZE, DType::F32).step().unwrap()
    };
    let off = module(&[]);
    let other = ["recovery.skipped_updates=3", "recovery.rollbacks=0"];
    assert_eq!(module(&other).to_bytes(), off.to_bytes());
    for words in ["recent", "spikes"] {
        assert!(!off.text().contains(words), "{words}");
    }
    for limit in ["recovery.loss_spike=3", "recovery.grad_norm_spike=3"] {
        let on = module(&[limit]);
        assert_eq!(on.parameters().len(), off.parameters().len() + 3);
        assert!(on.text().contains("spikes"));
    }
}

/// A run that skips what is a little above the usual.
fn train(bench: &Bench, run: &str, steps: u64, arguments: &[&str]) {
    let steps = steps.to_string();
    let mut command = bench.train(run, &["--resume", "--steps", &steps]);
    let settings = [
        "recovery.loss_spike=1.02",
        "recovery.grad_norm_spike=1.06",
        "recovery.skipped_updates=1000",
        "schedule.kind=constant",
        "schedule.warmup_steps=0",
        "schedule.peak_learning_rate=0.0001",
        "evaluation.every=0",
        "checkpoint.every=1000",
        "train.log_every=1",
        "compiler.flags=[\"xla_backend_optimization_level=0\"]",
    ];
    command.args(arguments);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    expect(command.output().unwrap(), 0, &["done: step"]);
}

/// Which steps were skipped.
fn skipped(bench: &Bench, run: &str) -> Vec<u64> {
    let lines = bench.metrics(run).into_iter();
    let skipped = lines.filter(|line| line["skipped_updates"] != 0);
    skipped.map(|line| line["step"].as_u64().unwrap()).collect()
}

fn state(bench: &Bench, run: &str, step: u64) -> Checkpoint {
    let store = Store::open(bench.path(run).join("checkpoints"));
    store.load(step).unwrap()
}

#[test]
fn a_resumed_run_skips_what_it_would_have_skipped_on_any_devices() {
    let bench = Bench::in_memory();
    // A run does not end with a step that is skipped: 10, 28 and 52 are not.
    train(&bench, "whole", 52, &[]);
    let expected = skipped(&bench, "whole");
    let is_in = |range: std::ops::Range<u64>| expected.iter().any(|step| range.contains(step));
    assert!(is_in(21..29) && is_in(29..53), "{expected:?}");
    assert!(expected.len() < 30, "{expected:?}");
    for steps in [10, 28, 52] {
        train(&bench, "parts", steps, &[]);
    }
    assert_eq!(skipped(&bench, "parts"), expected);
    let whole = state(&bench, "whole", 52);
    assert!(state(&bench, "parts", 52).tensors == whole.tensors);
    let kept = whole
        .tensors
        .iter()
        .find(|(name, _)| name == "recent_steps");
    let kept = kept.unwrap().1.to_vec::<i32>().unwrap()[0];
    assert_eq!(kept as usize, 52 - expected.len());
    // Split over devices, it skips the same steps.
    for mesh in ["data=4", "fsdp=2"] {
        let setting = format!("sharding.{mesh}");
        let devices = ["--slice", "cpu-4", "--set", &setting];
        let zero = ["--set", "sharding.zero=true"];
        train(&bench, mesh, 52, &[&devices[..], &zero].concat());
        assert_eq!(skipped(&bench, mesh), expected, "{mesh}");
        fs::remove_dir_all(bench.path(mesh)).unwrap();
    }
}
