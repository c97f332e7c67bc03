//! Training over the devices of a mesh equals training on one, and how the devices are split
//! over hosts changes nothing.

use std::fs;
use std::path::Path;

use ankh::checkpoint::{Retention, Saver, Share, Store};
use ankh::config::{Config, MeshAxis, resolve};
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{DeviceMesh, Host, Hosts, Input, WhichParts, shard_range};
use ankh::programs::{self, Array, Programs};
use ankh::run_dir::{Requests, RunDirectory, RunMode};
use ankh::train::{MissingSlots, Outcome, Processes, State, train};
use ankh_hlo::{ArraySpec, AxisName, DType, Graph, Shape, Sharding};
use ankh_pjrt::HostTensor;
use serde_json::json;

use crate::support::runs;

const STEPS: u64 = 10;

/// A model whose dimensions eight devices can split every way, with factored second moments, in
/// float32.
fn config_for(data: &Path, settings: &[&str]) -> Config {
    let mut set: Vec<String> = [
        "model.d_model=32",
        "model.d_ff=64",
        "model.heads=4",
        "model.d_kv=8",
        "train.batch_size=16",
        "train.compute=float32",
        "optimizer.min_dim_size_to_factor=16",
        "schedule.warmup_steps=2",
        "evaluation.every=0",
    ]
    .iter()
    .chain(settings)
    .map(|s| (*s).to_owned())
    .collect();
    set.push(format!("train.steps={STEPS}"));
    let mut config = resolve(Some("tiny"), &set).unwrap();
    config.data.dir = Some(data.into());
    config.validate().unwrap();
    config
}

/// Sequences of 20 to 49 residues.
fn prepare(directory: &Path) {
    let input = directory.join("proteins.fasta");
    fs::write(&input, runs::fasta((0..64).map(|i| 20 + i % 30))).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pretrain"))
        .args(["prepare", "--output"])
        .args([directory.join("data"), input])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What a run leaves behind.
#[derive(PartialEq)]
struct Run {
    losses: Vec<f64>,
    state: Vec<(String, HostTensor)>,
}

/// Trains from nothing in a run directory of its own.
fn run(config: &Config, devices: usize, hosts: Hosts) -> Run {
    run_with(config, devices, hosts, None)
}

/// The same with a step compiled before.
fn run_with(config: &Config, devices: usize, hosts: Hosts, executable: Option<&Path>) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let slice: Slice = format!("cpu-{devices}").parse().unwrap();
    let mesh = open_mesh(config, slice, hosts).unwrap();
    let run = RunDirectory::open(directory.path(), config, RunMode::New).unwrap();
    let processes = Processes::alone(Requests::default());
    let outcome = train(config, &run, &mesh, executable, &processes).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    let metrics = fs::read_to_string(run.metrics()).unwrap();
    let loss = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["loss"].as_f64().unwrap()
    };
    Run {
        losses: metrics.lines().map(loss).collect(),
        state: Store::at(run.checkpoints())
            .unwrap()
            .load(STEPS)
            .unwrap()
            .tensors,
    }
}

#[test]
fn a_saved_program_trains_as_one_compiled_anew_and_no_other_run_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let data = directory.path().join("data");
    let open = |settings: &[&str], devices: usize| {
        let config = config_for(&data, settings);
        let slice: Slice = format!("cpu-{devices}").parse().unwrap();
        (open_mesh(&config, slice, Hosts::Real).unwrap(), config)
    };
    let step = |mesh: &DeviceMesh, config: &Config| {
        let programs = Programs::of(config, mesh.platform(), mesh.rules());
        programs.step().unwrap()
    };
    let file = directory.path().join("step.executable");
    let (mesh, config) = open(&[], 1);
    let program = mesh.compile(&step(&mesh, &config)).unwrap();
    mesh.save(&program, &file).unwrap();
    assert!(run_with(&config, 1, Hosts::Real, Some(&file)) == run(&config, 1, Hosts::Real));

    let refused = |settings: &[&str], devices: usize, file: &Path| {
        let (mesh, config) = open(settings, devices);
        let loaded = mesh.load(&step(&mesh, &config), file);
        loaded.err().expect("a refusal").to_string()
    };
    let cases: [(&[&str], usize, &str); 3] = [
        (&["loss.z_loss=0.1"], 1, "from the program"),
        (
            &["compiler.flags=[\"xla_cpu_enable_fast_math=true\"]"],
            1,
            "=false, and this run has xla_cpu_enable_concurrency_optimized_scheduler=false xla_cpu_enable_fast_math=true",
        ),
        (&[], 2, "for cpu-1, and this run has cpu-2"),
    ];
    for (settings, devices, reason) in cases {
        let message = refused(settings, devices, &file);
        assert!(message.contains(reason), "{message}");
    }

    let whole = fs::read(&file).unwrap();
    let damaged = directory.path().join("damaged");
    let mut other_plugin = whole.clone();
    let place = whole.windows(4).position(|w| w == b"API ").unwrap();
    other_plugin[place + 4] = b'9';
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let files: [(&[u8], &str); 4] = [
        (&other_plugin, "by the plugin API 9"),
        (&flipped, "another checksum"),
        (&whole[..40], "it ends early"),
        (b"ELF", "does not begin as one"),
    ];
    for (bytes, reason) in files {
        fs::write(&damaged, bytes).unwrap();
        let message = refused(&[], 1, &damaged);
        assert!(message.contains(reason), "{message}");
    }

    let (mesh, config) = open(&[], 2);
    let program = mesh.compile(&step(&mesh, &config)).unwrap();
    let several = mesh.save(&program, &damaged).unwrap_err().to_string();
    assert!(several.contains("several devices"), "{several}");
}

/// By how much two runs differ: the losses at most, and the weights at the 99.9th percentile, both
/// relative (a weight to the largest of its array).
fn difference(found: &Run, expected: &Run) -> (f64, f64) {
    assert_eq!(found.losses.len() as u64, STEPS);
    let losses = found.losses.iter().zip(&expected.losses);
    let losses = losses.map(|(f, e)| ((f - e) / e).abs()).fold(0.0, f64::max);
    let mut weights = Vec::new();
    for ((name, found), (other, expected)) in found.state.iter().zip(&expected.state) {
        assert_eq!((name, &found.dims), (other, &expected.dims));
        if name == "step" || name.contains('/') {
            continue;
        }
        let (found, expected) = (
            found.to_vec::<f32>().unwrap(),
            expected.to_vec::<f32>().unwrap(),
        );
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let relative = |(f, e): (&f32, &f32)| f64::from((f - e).abs() / largest);
        weights.extend(found.iter().zip(&expected).map(relative));
    }
    weights.sort_by(f64::total_cmp);
    (losses, weights[(weights.len() - 1) * 999 / 1000])
}

const MESHES: [(&str, &[&str]); 4] = [
    ("data 8", &[]),
    ("fsdp 8", &["sharding.fsdp=8"]),
    ("data 2 x model 4", &["sharding.model=4"]),
    (
        "data 2 x fsdp 2 x model 2",
        &["sharding.fsdp=2", "sharding.model=2"],
    ),
];

#[test]
fn eight_devices_train_as_one_does_whoever_hosts_them() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let data = directory.path().join("data");
    let alone = run(&config_for(&data, &[]), 1, Hosts::Real);
    assert!(
        alone.losses[STEPS as usize - 1] < alone.losses[0],
        "{:?}",
        alone.losses
    );
    for (mesh, settings) in MESHES {
        let config = config_for(&data, settings);
        let together = run(&config, 8, Hosts::Simulated(1));
        let (losses, weights) = difference(&together, &alone);
        println!("{mesh}: losses {losses:.1e}, weights {weights:.1e}");
        assert!(losses <= 1e-5, "{mesh}: losses differ by {losses:.1e}");
        assert!(weights <= 1e-5, "{mesh}: weights differ by {weights:.1e}");
        for hosts in [2, 4, 8] {
            let shared = run(&config, 8, Hosts::Simulated(hosts));
            assert!(shared == together, "{mesh}: {hosts} hosts change the run");
        }
    }
}

#[test]
fn other_ways_to_split_the_work_change_no_result() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let data = directory.path().join("data");
    let adam = ["optimizer.name=adamw", "schedule.peak_learning_rate=1e-3"];
    let cases: [(&[&str], &[&str]); 4] = [
        // The optimizer's state is split over `data` too.
        (&[], &["sharding.zero=true"]),
        (&adam, &["sharding.zero=true", "sharding.fsdp=2"]),
        // Each device's rows are computed in two parts.
        (&["train.gradient_accumulation=2"], &["sharding.model=2"]),
        // Positions are split where heads are not.
        (
            &[],
            &["sharding.model=4", "sharding.rules.length=[\"model\"]"],
        ),
    ];
    for (common, split) in cases {
        let alone = run(&config_for(&data, common), 1, Hosts::Real);
        let settings = [common, split].concat();
        let together = run(&config_for(&data, &settings), 8, Hosts::Simulated(2));
        let (losses, weights) = difference(&together, &alone);
        println!("{settings:?}: losses {losses:.1e}, weights {weights:.1e}");
        assert!(
            losses <= 1e-5,
            "{settings:?}: losses differ by {losses:.1e}"
        );
        assert!(
            weights <= 1e-5,
            "{settings:?}: weights differ by {weights:.1e}"
        );
    }
}

#[test]
fn kernels_train_as_the_formula_does_on_every_mesh() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let data = directory.path().join("data");
    let kernel = "train.attention=kernel";
    for (packing, meshes) in [("padded", &MESHES[3..]), ("packed", &MESHES[..3])] {
        let packing = format!("data.packing={packing}");
        let common = [&*packing, "train.remat=named"];
        let formula = run(&config_for(&data, &common), 1, Hosts::Real);
        let alone: (usize, &str, &[&str]) = (1, "one device", &[]);
        let meshes = meshes.iter().map(|&(mesh, settings)| (8, mesh, settings));
        for (devices, mesh, settings) in [alone].into_iter().chain(meshes) {
            let settings = [&common[..], &[kernel], settings].concat();
            let found = run(&config_for(&data, &settings), devices, Hosts::Real);
            let (losses, weights) = difference(&found, &formula);
            println!("{packing}, {mesh}: losses {losses:.1e}, weights {weights:.1e}");
            assert!(losses <= 1e-5, "{mesh}: losses differ by {losses:.1e}");
            assert!(weights <= 1e-5, "{mesh}: weights differ by {weights:.1e}");
        }
    }
}

/// A state of random numbers, by name.
fn random_state(programs: &Programs) -> Vec<(String, HostTensor)> {
    let mut random = 1u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 40) as i32
    };
    let array = |array: Array| {
        let count = array.shape.elements() as usize;
        let dims = array.shape.dims.clone();
        let tensor = match array.shape.dtype {
            DType::S32 => HostTensor::new::<i32>(dims, &vec![7; count]),
            _ => {
                let values: Vec<f32> = (0..count).map(|_| next() as f32 - 8e6).collect();
                HostTensor::new::<f32>(dims, &values)
            }
        };
        (array.name, tensor)
    };
    programs::state(programs.config)
        .into_iter()
        .map(array)
        .collect()
}

/// The bytes that a host's devices hold of a state, and those of the files that it reads for them.
fn share_and_read(programs: &Programs, host: &Host, store: &Store) -> (u64, u64) {
    let reader = store.reader(7).unwrap();
    let mut share = 0;
    for spec in programs.state_specs() {
        let parts = host.positions.iter().map(|&p| shard_range(&spec, p));
        let mut parts: Vec<_> = parts.map(|part| (spec.name.as_str(), part)).collect();
        parts.sort_by_key(|(_, part)| part.iter().map(|range| range.start).collect::<Vec<_>>());
        parts.dedup();
        let read = reader.parts(&parts).unwrap();
        share += read.iter().map(|part| part.bytes.len() as u64).sum::<u64>();
    }
    (share, reader.bytes_read())
}

#[test]
fn a_state_saved_on_one_mesh_is_restored_on_any_each_host_reading_its_share() {
    let directory = tempfile::tempdir().unwrap();
    let config = |settings: &[&str]| {
        let size = [
            "model.d_model=256",
            "model.d_ff=1024",
            "model.d_kv=32",
            "model.heads=8",
            "optimizer.name=adamw",
        ];
        config_for(directory.path(), &[&size, settings].concat())
    };
    let store = Store::open(directory.path().join("checkpoints"));
    let open = |config: &Config, devices: usize, hosts: usize| {
        let slice: Slice = format!("cpu-{devices}").parse().unwrap();
        open_mesh(config, slice, Hosts::Simulated(hosts)).unwrap()
    };
    let saved = {
        let config = config(&["sharding.fsdp=8"]);
        let mesh = open(&config, 8, 4);
        let programs = Programs::of(&config, mesh.platform(), mesh.rules());
        let tensors = random_state(&programs);
        let state = State::from_tensors(&programs, &mesh, &tensors, MissingSlots::Refused);
        let state = state.unwrap();
        let before = mesh.compilations();
        let mut saver = Saver::new(store.clone(), Retention::last(1), Share::Whole);
        saver
            .save(7, json!({}), || {
                state.parts_to_host(&mesh, WhichParts::Once)
            })
            .unwrap();
        saver.wait().unwrap().saved.unwrap();
        assert_eq!(mesh.compilations(), before, "programs compiled to save");
        tensors
    };
    for (settings, devices, hosts, most) in [
        (&["sharding.fsdp=8"][..], 8, 4, 1.02),
        (&["sharding.fsdp=4"], 4, 2, 1.02),
        (&["sharding.fsdp=2"], 2, 2, 1.02),
        (&[], 1, 1, 1.02),
        // Files hold rows, of which these devices have halves.
        (&["sharding.fsdp=2", "sharding.model=2"], 8, 4, 2.02),
    ] {
        let config = config(settings);
        let mesh = open(&config, devices, hosts);
        let programs = Programs::of(&config, mesh.platform(), mesh.rules());
        let reader = store.reader(7).unwrap();
        let state =
            State::from_checkpoints(&programs, &mesh, std::slice::from_ref(&reader), |_| true)
                .unwrap();
        for (parts, (name, expected)) in state
            .parts_to_host(&mesh, WhichParts::Once)
            .unwrap()
            .into_iter()
            .zip(&saved)
        {
            assert_eq!(parts.name, *name);
            let whole = parts.joined().unwrap().parts.remove(0).1;
            assert!(*whole == *expected, "{name} on {settings:?}");
        }
        let bytes: usize = saved.iter().map(|(_, tensor)| tensor.bytes.len()).sum();
        for host in mesh.hosts() {
            let (share, read) = share_and_read(&programs, host, &store);
            println!(
                "{settings:?}, host {}: {read} bytes of {bytes} for {share}",
                host.index
            );
            assert!(
                read as f64 <= most * share as f64,
                "{settings:?}: {read} for {share}"
            );
        }
    }
}

#[test]
fn an_array_is_given_only_where_it_is_expected_to_lie() {
    let set = ["sharding.model=2", "sharding.fsdp=2", "train.batch_size=8"].map(str::to_owned);
    let config = resolve(Some("tiny"), &set).unwrap();
    let slice: Slice = "cpu-8".parse().unwrap();
    let mesh = open_mesh(&config, slice, Hosts::Real).unwrap();
    let rules = mesh.rules().unwrap();
    let spec = |axes: &[&[AxisName]]| ArraySpec {
        name: "x".into(),
        shape: Shape::new(DType::F32, [4, 2]),
        sharding: Some(Sharding::new(rules.mesh(), axes).unwrap()),
    };
    let array = |axes: &[&[AxisName]]| {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let tensor = HostTensor::new::<f32>([4, 2], &values);
        mesh.upload(&spec(axes), &tensor).unwrap()
    };
    let g = Graph::new("sums");
    g.set_logical_axis_rules(rules.clone());
    let over_model: &[&[AxisName]] = &[&[MeshAxis::Model.into()], &[]];
    let ArraySpec {
        name,
        shape,
        sharding,
    } = spec(over_model);
    let x = g.sharded_parameter(&name, shape, sharding.unwrap());
    let program = mesh
        .compile(&g.finish(&[x.sum(&[1])], &[]).unwrap())
        .unwrap();
    let sums = program
        .execute(vec![Input::Donate(array(over_model))])
        .unwrap();
    let sums = mesh.to_host(&sums[0]).unwrap();
    assert_eq!(sums.to_vec::<f32>().unwrap(), [3.0, 7.0, 11.0, 15.0]);
    // Each part is as large as the program expects, and is another one.
    let elsewhere = array(&[&[MeshAxis::Fsdp.into()], &[]]);
    let error = program
        .execute(vec![Input::Keep(&elsewhere)])
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "`x` is f32[4,2], dimension 0 split over mesh axis `fsdp` and should be f32[4,2], dimension 0 split over \
         mesh axis `model`"
    );
    assert!(
        program
            .execute(vec![Input::Donate(array(&[&[], &[]]))])
            .is_err()
    );
}
