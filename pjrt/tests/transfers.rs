//! Arrays reach a device and come back as they were.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use ankh_pjrt::{Buffer, Element, ElementType, Error, HostTensor, SharedTensor};
use common::client;
use half::{bf16, f16};

fn assert_round_trip<T: Element>(values: &[T]) {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    for dims in [
        vec![values.len() as i64],
        vec![1, values.len() as i64, 1],
        vec![2, values.len() as i64 / 2],
    ] {
        let tensor = HostTensor::new(dims.clone(), values);
        let buffer = client.upload(&tensor, device).unwrap();
        assert_eq!(buffer.element_type(), T::TYPE);
        assert_eq!(buffer.dims(), dims);
        assert_eq!(buffer.to_host().unwrap().bytes, tensor.bytes, "{}", T::TYPE);
    }
}

#[test]
fn every_element_type_survives_a_round_trip() {
    assert_round_trip(&[true, false, false, true]);
    assert_round_trip(&[i8::MIN, -1, 0, i8::MAX]);
    assert_round_trip(&[i16::MIN, -1, 0, i16::MAX]);
    assert_round_trip(&[i32::MIN, -1, 0, i32::MAX]);
    assert_round_trip(&[i64::MIN, -1, 0, i64::MAX]);
    assert_round_trip(&[0u8, 1, 143, 255]);
    assert_round_trip(&[0u16, 1, 256, u16::MAX]);
    assert_round_trip(&[0u32, 1, 1 << 31, u32::MAX]);
    assert_round_trip(&[0u64, 1, 1 << 63, u64::MAX]);
    assert_round_trip(&[f16::ZERO, f16::MIN, f16::EPSILON, f16::NAN]);
    assert_round_trip(&[bf16::ZERO, bf16::MIN, bf16::EPSILON, bf16::NAN]);
    assert_round_trip(&[0.0f32, -0.0, f32::MIN_POSITIVE, f32::NEG_INFINITY]);
    assert_round_trip(&[0.0f64, -0.0, f64::MIN_POSITIVE, f64::NEG_INFINITY]);
}

#[test]
fn scalars_and_empty_arrays_survive_a_round_trip() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    for tensor in [
        HostTensor::scalar(1.5f32),
        HostTensor::new::<i32>([0], &[]),
        HostTensor::new::<i32>([3, 0, 2], &[]),
    ] {
        let back = client.upload(&tensor, device).unwrap().to_host().unwrap();
        assert_eq!(back, tensor);
    }
}

#[test]
fn the_tensor_is_free_once_upload_returns() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let mut tensor = HostTensor::new::<f32>([1 << 16], &vec![1.0; 1 << 16]);
    let buffer = client.upload(&tensor, device).unwrap();
    tensor.bytes.fill(0xff);
    let back = buffer.to_host().unwrap().to_vec::<f32>().unwrap();
    assert!(back.iter().all(|&x| x == 1.0));
}

#[test]
fn devices_use_a_shared_tensor_where_it_is_as_long_as_a_buffer_has_it() {
    let client = client(2);
    let devices = client.addressable_devices().unwrap();
    // Allocations of different sizes begin at different places.
    for length in [1 << 8, 1 << 12, (1 << 16) + 3, 1 << 20] {
        let tensor = HostTensor::new::<f32>([length], &vec![3.0; length as usize]);
        let shared = SharedTensor::new(&tensor).unwrap();
        let share = |device| client.share(&shared, device).unwrap();
        let buffers: Vec<Buffer> = devices.iter().map(share).collect();
        for buffer in &buffers {
            assert_eq!(buffer.to_host().unwrap(), tensor);
        }
        // Of a copy it would be free by now, or soon.
        thread::sleep(Duration::from_millis(100));
        assert!(shared.is_in_use(), "{length} numbers were copied");
        drop(buffers);
        let began = Instant::now();
        while shared.is_in_use() {
            assert!(began.elapsed() < Duration::from_secs(30), "still held");
            thread::yield_now();
        }
    }
}

#[test]
fn a_tensor_whose_bytes_do_not_fit_is_refused() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let tensor = HostTensor {
        element_type: ElementType::F32,
        dims: vec![1 << 20],
        bytes: vec![0; 4],
    };
    let error = client.upload(&tensor, device).unwrap_err();
    assert!(
        matches!(error, Error::TensorSize { found: 4, .. }),
        "{error:?}"
    );
}

#[test]
fn a_download_outlives_its_buffer_and_client() {
    let download = {
        let client = client(1);
        let device = &client.addressable_devices().unwrap()[0];
        let tensor = HostTensor::new::<f32>([1 << 20], &vec![2.0; 1 << 20]);
        client
            .upload(&tensor, device)
            .unwrap()
            .to_host_async()
            .unwrap()
    };
    assert!(
        download
            .wait()
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
            .iter()
            .all(|&x| x == 2.0)
    );
}

#[test]
fn a_download_may_be_abandoned() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let tensor = HostTensor::new::<f32>([1 << 20], &vec![2.0; 1 << 20]);
    let buffer = client.upload(&tensor, device).unwrap();
    for _ in 0..16 {
        drop(buffer.to_host_async().unwrap());
    }
    assert_eq!(buffer.to_host().unwrap(), tensor);
}

#[tokio::test]
async fn downloads_and_readiness_can_be_awaited() {
    let client = client(1);
    let device = &client.addressable_devices().unwrap()[0];
    let tensor = HostTensor::new::<f32>([3], &[1.0, 2.0, 3.0]);
    let buffer = client.upload(&tensor, device).unwrap();
    buffer.ready().unwrap().await.unwrap();
    assert_eq!(buffer.to_host_async().unwrap().await.unwrap(), tensor);
}
