//! Compiled programs that are kept on disk: a run that starts again loads them, and nothing that is
//! wrong with one can fail it.

use std::fs;
use std::path::{Path, PathBuf};

use ankh::checkpoint::Store;
use ankh::config::{Config, resolve};
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{DeviceMesh, Entries, Hosts, MeshOptions, ProgramCache, executable_file};
use ankh::run_dir::{Requests, RunDirectory, RunMode};
use ankh::train::{Processes, train};
use ankh_hlo::{DType, Graph, Module, Shape};
use ankh_pjrt::HostTensor;

use crate::support::runs::{Bench, expect};

/// A device with these flags whose programs are kept in a directory.
fn device(cache: &Path, flags: &[&str]) -> DeviceMesh {
    let options = MeshOptions {
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..MeshOptions::single_device()
    };
    let mut mesh = DeviceMesh::open(Slice::default(), options).unwrap();
    mesh.keep_programs_in(ProgramCache::at(cache, Entries::Used));
    mesh
}

/// A program that compiles in no time.
fn program() -> Module {
    let g = Graph::new("twice");
    let x = g.parameter("x", Shape::new(DType::F32, [4]));
    g.finish(&[x + x], &[]).unwrap()
}

/// How many programs a fresh device compiles to run one.
fn compilations(cache: &Path, flags: &[&str]) -> usize {
    let mesh = device(cache, flags);
    mesh.compile(&program()).unwrap();
    mesh.compilations()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The tiny model, trained for a few steps from nothing: what it has compiled, and its state.
fn train_in(run: &Path, config: &Config, cache: &Path) -> (usize, Vec<(String, HostTensor)>) {
    let mut mesh = open_mesh(config, Slice::default(), Hosts::Real).unwrap();
    mesh.keep_programs_in(ProgramCache::at(cache, Entries::Used));
    let run = RunDirectory::open(run, config, RunMode::New).unwrap();
    let processes = Processes::alone(Requests::default());
    train(config, &run, &mesh, None, &processes).unwrap();
    let store = Store::at(run.checkpoints()).unwrap();
    let state = store.load(config.train.steps).unwrap().tensors;
    (mesh.compilations(), state)
}

#[test]
fn a_second_start_compiles_nothing_and_trains_the_same() {
    let bench = Bench::new();
    let set = ["train.steps=4", "evaluation.every=2"].map(str::to_owned);
    let mut config = resolve(Some("tiny"), &set).unwrap();
    config.data.dir = Some(bench.path("data").as_path().into());
    config.validate().unwrap();
    let cache = bench.path("cache");
    let (compiled, first) = train_in(&bench.path("first"), &config, &cache);
    // At least the initial state, the step and the evaluation.
    assert!(compiled >= 3, "{compiled}");
    assert_eq!(files(&cache).len(), compiled);
    let (compiled, second) = train_in(&bench.path("second"), &config, &cache);
    assert_eq!(compiled, 0);
    assert!(first == second);
}

#[test]
fn a_program_is_loaded_where_all_is_as_it_was_compiled_with() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let flags = ["xla_cpu_enable_fast_math=true"];
    assert_eq!(compilations(&cache, &[]), 1);
    assert_eq!(compilations(&cache, &[]), 0);
    assert_eq!(compilations(&cache, &flags), 1);
    assert_eq!(compilations(&cache, &flags), 0);
    assert_eq!(files(&cache).len(), 2);

    let mut mesh = device(&cache, &[]);
    mesh.keep_programs_in(ProgramCache::at(&cache, Entries::Replaced));
    mesh.compile(&program()).unwrap();
    assert_eq!(mesh.compilations(), 1);
}

#[test]
fn a_program_that_is_damaged_or_refused_is_compiled_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path();
    assert_eq!(compilations(cache, &[]), 1);
    let file = &files(cache)[0];
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let (identity, _) = executable_file::read(file).unwrap();
    let other = executable_file::Identity {
        devices: vec![7],
        ..identity.clone()
    };
    let ruins: [&dyn Fn(); 5] = [
        &|| fs::write(file, &damaged).unwrap(),
        &|| fs::write(file, &whole[..whole.len() / 2]).unwrap(),
        &|| fs::write(file, "").unwrap(),
        &|| executable_file::save(file, &other, b"whole, and another's").unwrap(),
        &|| executable_file::save(file, &identity, b"whole, and no program").unwrap(),
    ];
    for (number, ruin) in ruins.into_iter().enumerate() {
        ruin();
        assert_eq!(compilations(cache, &[]), 1, "ruin {number}");
        assert_eq!(compilations(cache, &[]), 0, "ruin {number}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_fails_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "no directory").unwrap();
    for _ in 0..2 {
        assert_eq!(compilations(&file.join("cache"), &[]), 1);
    }
}

#[test]
fn the_log_says_whether_programs_are_loaded_or_compiled() {
    let bench = Bench::new();
    let cache = format!("compiler.cache={}", bench.path("cache").display());
    let run = |run: &str, slice: &str| {
        let few = ["--slice", slice, "--steps", "2", "--set", &cache];
        bench.train(run, &few).output().unwrap()
    };
    let first = expect(run("first", "cpu-1"), 0, &["INFO compiled seconds="]);
    assert!(!first.contains("compiled before"), "{first}");
    let loaded = "INFO loaded what was compiled before seconds=";
    expect(run("second", "cpu-1"), 0, &[loaded]);
    let kept = files(&bench.path("cache")).len();
    let words = ["programs are compiled at every start: the CPU plugin"];
    expect(run("third", "cpu-2"), 0, &words);
    assert_eq!(files(&bench.path("cache")).len(), kept);
}
