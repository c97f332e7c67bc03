//! Several devices: what they say of themselves, and programs across them.

mod common;

use ankh_pjrt::{Argument, Client, CompileOptions, Error, HostTensor, Partitioner, Program};
use ankh_proto::xla::{OpSharding, op_sharding};
use common::{client, split_over, sum};

const DEVICES: i64 = 8;

fn device_ids(client: &Client) -> Vec<i64> {
    client
        .devices()
        .unwrap()
        .iter()
        .map(|device| device.id().into())
        .collect()
}

#[test]
fn a_client_has_the_devices_asked_for() {
    let client = client(DEVICES);
    assert_eq!(client.platform_name().unwrap(), "cpu");
    assert_eq!(client.process_index().unwrap(), 0);
    let devices = client.addressable_devices().unwrap();
    assert_eq!(devices.len(), DEVICES as usize);
    assert_eq!(client.devices().unwrap().len(), DEVICES as usize);
    for device in &devices {
        assert!(device.is_addressable());
        assert_eq!(device.kind(), "cpu");
        assert_eq!(device.description().process_index, 0);
        assert_eq!(device.description().coords(), None);
    }
    let mut ids = device_ids(&client);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), DEVICES as usize);
}

/// Sums a vector split over the devices, and checks that every device has the whole sum.
fn assert_sums_across_devices(sharding: OpSharding, partitioner: Partitioner) {
    let client = client(DEVICES);
    let per_device = 4;
    let module = sum(DEVICES * per_device, Some(sharding));
    let options = CompileOptions::new().partitions(partitioner, device_ids(&client));
    let executable = client
        .compile(&Program::hlo_module(&module), &options)
        .unwrap();
    let optimized = executable
        .program()
        .optimized_program()
        .unwrap()
        .module()
        .unwrap();
    let opcodes: Vec<_> = optimized
        .computations
        .iter()
        .flat_map(|computation| &computation.instructions)
        .map(|instruction| instruction.opcode.as_str())
        .collect();
    assert!(
        opcodes.iter().any(|opcode| opcode.starts_with("all-")),
        "no collective among {opcodes:?}"
    );

    let arguments = executable
        .devices()
        .iter()
        .enumerate()
        .map(|(i, device)| {
            let values: Vec<f32> = (0..per_device)
                .map(|j| (i as i64 * per_device + j) as f32)
                .collect();
            let shard = client
                .upload(&HostTensor::new::<f32>([per_device], &values), device)
                .unwrap();
            vec![Argument::Donate(shard)]
        })
        .collect();
    let outputs = executable.execute(arguments).unwrap();
    assert_eq!(outputs.len(), DEVICES as usize);
    let expected = (0..DEVICES * per_device).sum::<i64>() as f32;
    for output in outputs.iter().flatten() {
        assert_eq!(output.dims(), [] as [i64; 0]);
        assert_eq!(
            output.to_host().unwrap().to_vec::<f32>().unwrap(),
            [expected]
        );
    }
}

#[test]
fn a_named_sharding_sums_across_devices() {
    assert_sums_across_devices(split_over("data", DEVICES), Partitioner::Shardy);
}

#[test]
fn a_tile_sharding_sums_across_devices() {
    let tiles = OpSharding {
        r#type: op_sharding::Type::Other.into(),
        tile_assignment_dimensions: vec![DEVICES],
        tile_assignment_devices: (0..DEVICES).collect(),
        ..Default::default()
    };
    assert_sums_across_devices(tiles, Partitioner::Gspmd);
}

#[test]
fn replicas_run_independently() {
    let client = client(DEVICES);
    let options = CompileOptions::new().replicas(device_ids(&client));
    let executable = client
        .compile(&Program::hlo_module(&sum(2, None)), &options)
        .unwrap();
    let arguments = executable
        .devices()
        .iter()
        .map(|device| {
            let x = HostTensor::new::<f32>([2], &[device.id() as f32, 0.5]);
            vec![client.upload(&x, device).unwrap().into()]
        })
        .collect();
    let outputs = executable.execute(arguments).unwrap();
    for (device, output) in executable.devices().iter().zip(&outputs) {
        assert_eq!(
            output[0].to_host().unwrap().to_vec::<f32>().unwrap(),
            [device.id() as f32 + 0.5]
        );
    }
}

#[test]
fn a_program_runs_on_the_device_chosen() {
    let client = client(DEVICES);
    let devices = client.addressable_devices().unwrap();
    let options = CompileOptions::new().device(devices[3].id().into());
    let executable = client
        .compile(&Program::hlo_module(&sum(2, None)), &options)
        .unwrap();
    assert_eq!(executable.devices().len(), 1);
    assert_eq!(executable.devices()[0].id(), devices[3].id());
}

#[test]
fn an_argument_list_of_another_length_is_refused() {
    let client = client(2);
    let options = CompileOptions::new().replicas(device_ids(&client));
    let executable = client
        .compile(&Program::hlo_module(&sum(2, None)), &options)
        .unwrap();
    let x = client
        .upload(
            &HostTensor::new::<f32>([2], &[1.0, 2.0]),
            &executable.devices()[0],
        )
        .unwrap();
    let error = executable
        .execute(vec![vec![(&x).into()], vec![]])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "device 1 is given 0 arguments, device 0 1"
    );
}

#[test]
fn arguments_of_another_shape_are_refused_on_every_device() {
    let client = client(2);
    let options = CompileOptions::new().replicas(device_ids(&client));
    let executable = client
        .compile(&Program::hlo_module(&sum(4, None)), &options)
        .unwrap();
    let arguments = executable
        .devices()
        .iter()
        .map(|device| {
            let x = HostTensor::new::<f32>([2], &[1.0, 2.0]);
            vec![client.upload(&x, device).unwrap().into()]
        })
        .collect();
    let error = executable.execute(arguments).unwrap_err();
    assert!(matches!(error, Error::Pjrt { .. }), "{error:?}");
}
