//! Runs programs on the CPU plugin, and draws their inputs.

// No test uses all of it.
#![allow(dead_code)]

pub mod runs;

use std::sync::OnceLock;

use ankh::config::Config;
use ankh::mesh::slice::Slice;
use ankh::mesh::{DeviceMesh, Input, LoadedExecutable, MeshOptions};
use ankh::model::{Initializer, Parameter, Weights};
use ankh_hlo::Module;
use ankh_pjrt::HostTensor;

/// One device for all tests of a process.
pub fn device() -> &'static DeviceMesh {
    static DEVICE: OnceLock<DeviceMesh> = OnceLock::new();
    DEVICE.get_or_init(|| {
        DeviceMesh::open(Slice::default(), MeshOptions::single_device())
            .expect("`make plugin` puts the CPU plugin in place")
    })
}

/// Compiles a program, or shows it.
pub fn compile(module: &Module) -> LoadedExecutable {
    let compiled = device().compile(module);
    compiled.unwrap_or_else(|error| panic!("{error}\n{}", module.text()))
}

/// A program's results.
pub fn run(program: &LoadedExecutable, inputs: &[HostTensor]) -> Vec<HostTensor> {
    let specs = program.parameters().iter();
    let upload = |(spec, tensor)| Input::Donate(device().upload(spec, tensor).unwrap());
    let outputs = program.execute(specs.zip(inputs).map(upload).collect());
    let fetch = |array| device().to_host(array).unwrap();
    outputs.unwrap().iter().map(fetch).collect()
}

/// The values of a float32 array.
pub fn floats(tensor: &HostTensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

/// Checks values against others: relative to the largest of those, or to 1 where that is less.
#[track_caller]
pub fn expect_close(name: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let size = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let difference = f64::from((f - e).abs() / size);
        assert!(
            difference <= tolerance,
            "{name} [{i}]: {f}, expected {e}, {difference:.1e} of {size}"
        );
    }
}

/// Weights of about the size they start with.
pub fn weights(config: &Config) -> Vec<HostTensor> {
    let random = &mut Random(6);
    let leaves = Weights::of(&config.model).leaves();
    let weight = |p: &Parameter| {
        let values = random
            .signed(p.elements())
            .into_iter()
            .map(|u| match p.initializer {
                Initializer::Constant(value) => (value + 0.2 * u) as f32,
                Initializer::Normal(size) | Initializer::Uniform(size) => (u * size) as f32,
            });
        HostTensor::new::<f32>(p.dims.clone(), &values.collect::<Vec<_>>())
    };
    leaves.iter().map(weight).collect()
}

/// Pseudo-random numbers (SplitMix64), so that a failing seed can be run again.
pub struct Random(pub u64);

impl Random {
    /// From 0 to 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `end`.
    pub fn below(&mut self, end: i64) -> i64 {
        (self.uniform() * end as f64) as i64
    }

    /// As many numbers between -1 and 1.
    pub fn signed(&mut self, count: i64) -> Vec<f64> {
        (0..count).map(|_| 2.0 * self.uniform() - 1.0).collect()
    }
}
