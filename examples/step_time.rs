//! Times the training step of a configuration on the CPU plugin, on one batch of random tokens;
//! prints JSON.
//!
//!     cargo run --example step_time -- small 12 train.remat=none

use std::time::Instant;

use ankh::config::{Config, resolve};
use ankh::devices::open_mesh;
use ankh::mesh::slice::Slice;
use ankh::mesh::{Hosts, Input, ShardedArray};
use ankh::model::Weights;
use ankh::programs::{self, BatchShape, Programs};
use ankh_pjrt::HostTensor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ankh::huge_pages::run_with_huge_pages();
    ankh_pjrt::quiet_logs();
    let mut arguments = std::env::args().skip(1);
    let preset = arguments.next().ok_or("which configuration?")?;
    let steps: usize = arguments.next().ok_or("how many steps?")?.parse()?;
    let set: Vec<String> = arguments.collect();
    let config = resolve(Some(&preset), &set)?;
    config.validate()?;

    let mesh = open_mesh(&config, Slice::default(), Hosts::Real)?;
    let programs = Programs::of(&config, mesh.platform(), mesh.rules());
    let start = Instant::now();
    let step = mesh.compile(&programs.step()?)?;
    let compile_seconds = start.elapsed().as_secs_f64();
    let initial = mesh.compile(&programs.initial()?)?;
    let seed = mesh.upload(&initial.parameters()[0], &HostTensor::new::<u64>([], &[0]))?;
    let mut state = initial.execute(vec![Input::Keep(&seed)])?;

    let batch = batch(&config);
    let specs = programs.batch_specs();
    let fed: Vec<ShardedArray> = specs
        .iter()
        .zip(&batch)
        .map(|(spec, tensor)| mesh.upload(spec, tensor))
        .collect::<Result<_, _>>()?;
    let mut seconds = Vec::new();
    let mut loss = f32::NAN;
    for _ in 0..steps {
        let start = Instant::now();
        let arguments = state
            .into_iter()
            .map(Input::Donate)
            .chain(fed.iter().map(Input::Keep));
        state = step.execute(arguments.collect())?;
        loss = state
            .pop()
            .ok_or("a step gives metrics")?
            .addressable_shards()[0]
            .to_host()?
            .to_vec::<f32>()?[0];
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first steps warm caches and thread pools.
    let mut timed = seconds.split_off(seconds.len().min(2));
    timed.sort_by(f64::total_cmp);
    let parameters: i64 = Weights::of(&config.model)
        .leaves()
        .iter()
        .map(|p| p.elements())
        .sum();
    let line = serde_json::json!({
        "compile_seconds": compile_seconds,
        "step_seconds_median": timed.get(timed.len() / 2),
        "step_seconds_lowest": timed.first(),
        "parameters": parameters,
        "loss": loss,
    });
    println!("{line}");
    Ok(())
}

/// Residue tokens, the same in each run (a linear congruential sequence), without padding: a row is
/// one sequence.
fn batch(config: &Config) -> Vec<HostTensor> {
    let mut state = 1u32;
    let mut token = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 16) as i32 % 20
    };
    let arrays = programs::batch(BatchShape::of(config)).into_iter();
    let fill = |array: programs::Array| {
        let marks = array.name.ends_with("mask") || array.name.ends_with("segments");
        let next = |_| if marks { 1 } else { token() };
        let values: Vec<i32> = (0..array.shape.elements()).map(next).collect();
        HostTensor::new::<i32>(array.shape.dims, &values)
    };
    arrays.map(fill).collect()
}
