//! How long the calls of a step take besides the computing: a donated state of many small arrays.
//!
//! ```text
//! cargo run -p ankh-pjrt --example dispatch_time -- [ARRAYS] [DEVICES]
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use ankh_pjrt::{Argument, Buffer, CompileOptions, HostTensor, Program};

fn main() -> ankh_pjrt::Result<()> {
    ankh_pjrt::quiet_logs();
    const STEPS: u32 = 200;
    let mut numbers = std::env::args().skip(1).map_while(|text| text.parse().ok());
    let arrays: i64 = numbers.next().unwrap_or(200);
    let devices: i64 = numbers.next().unwrap_or(1);
    let client = common::client(devices);
    let module = common::add_all(arrays, &[16]);
    let options = CompileOptions::new().replicas(client.devices()?.iter().map(|d| d.id().into()));
    let step = client.compile(&Program::hlo_module(&module), &options)?;
    let upload = || -> ankh_pjrt::Result<Vec<Vec<Buffer>>> {
        step.devices()
            .iter()
            .map(|device| {
                (0..arrays)
                    .map(|_| client.upload(&HostTensor::new::<f32>([16], &[1.0; 16]), device))
                    .collect()
            })
            .collect()
    };
    let updates = upload()?;
    let mut state = upload()?;
    let (mut calls, start) = (0.0, Instant::now());
    for _ in 0..STEPS {
        let arguments = state
            .into_iter()
            .zip(&updates)
            .map(|(state, updates)| {
                state
                    .into_iter()
                    .map(Argument::Donate)
                    .chain(updates.iter().map(Argument::Keep))
                    .collect()
            })
            .collect();
        let before = Instant::now();
        state = step.execute(arguments)?;
        calls += before.elapsed().as_secs_f64();
    }
    state[0][0].to_host()?;
    let micros = |seconds: f64| seconds / f64::from(STEPS) * 1e6;
    println!(
        "{arrays} arrays, {devices} devices: execute {:.0} us, whole step {:.0} us",
        micros(calls),
        micros(start.elapsed().as_secs_f64())
    );
    Ok(())
}
