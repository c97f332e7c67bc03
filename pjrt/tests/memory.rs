//! What is dropped is freed. Alone in its process, whose resident memory it watches.
#![cfg(target_os = "linux")]

mod common;

use std::fs;

use ankh_pjrt::{ElementType, HostTensor};
use common::{aliasing_first, binary, client, compile};

/// The resident memory of this process, in MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
}

#[test]
fn buffers_downloads_and_executables_are_freed_on_drop() {
    const ELEMENTS: usize = 1 << 20;
    const ROUNDS: usize = 50;
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let module = binary("add", ElementType::F32, &[ELEMENTS as i64]);
    let module = aliasing_first(module, ankh_proto::xla::Kind::MayAlias);
    let tensor = HostTensor::new::<f32>([ELEMENTS as i64], &vec![1.0; ELEMENTS]);
    let round = || {
        let add = compile(&client, &module);
        let x = client.upload(&tensor, device).unwrap();
        let y = client.upload(&tensor, device).unwrap();
        let outputs = add.execute(vec![vec![x.into(), (&y).into()]]).unwrap();
        drop(outputs[0][0].to_host_async().unwrap());
        outputs[0][0].to_host().unwrap()
    };
    for _ in 0..5 {
        round();
    }
    let before = resident();
    for _ in 0..ROUNDS {
        round();
    }
    // One buffer of each round would be 200 MiB.
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 100,
        "{grown} MiB more after {ROUNDS} rounds of 4 MiB buffers"
    );
}
