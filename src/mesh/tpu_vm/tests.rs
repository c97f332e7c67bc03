use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Reads a machine with these variables.
fn read(variables: &[(&str, &str)]) -> Result<Option<TpuVm>, TpuVmError> {
    TpuVm::read(|name| {
        let found = variables.iter().find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    })
}

/// What GKE sets on worker 2 of a v4-32.
const GKE: [(&str, &str); 8] = [
    ("TPU_ACCELERATOR_TYPE", "v4-32"),
    ("TPU_WORKER_ID", "2"),
    (
        "TPU_WORKER_HOSTNAMES",
        "job-0.svc,job-1.svc,job-2.svc,job-3.svc",
    ),
    ("TPU_TOPOLOGY", "2x2x4"),
    ("TPU_CHIPS_PER_HOST_BOUNDS", "2,2,1"),
    ("TPU_HOST_BOUNDS", "1,1,4"),
    ("TPU_TOPOLOGY_WRAP", "false,false,false"),
    ("TPU_SKIP_MDS_QUERY", "true"),
];

/// GKE's variables with some changed.
fn gke_with(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    changes.iter().copied().chain(GKE).collect()
}

/// A metadata server on loopback that answers for these attributes, and the variables that point to
/// it.
fn server(attributes: &'static [(&'static str, &'static str)]) -> String {
    serve(move |stream| answer(stream, attributes))
}

fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

fn answer(stream: TcpStream, attributes: &[(&str, &str)]) {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    let mut asks_as_google = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if request.is_empty() {
            request = line;
        } else {
            asks_as_google |= line.trim().eq_ignore_ascii_case("metadata-flavor: google");
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let name = path.strip_prefix("/computeMetadata/v1/instance/attributes/");
    let found = attributes.iter().find(|(known, _)| Some(*known) == name);
    let (status, text) = match found {
        _ if !asks_as_google => ("403 Forbidden", ""),
        Some((_, text)) => ("200 OK", *text),
        None => ("404 Not Found", ""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nMetadata-Flavor: Google\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let _ = (&stream).write_all(format!("{head}{text}").as_bytes());
}

const V4_16: [(&str, &str); 4] = [
    ("accelerator-type", "v4-16"),
    ("agent-worker-number", "1\n"),
    (
        "worker-network-endpoints",
        "unknown:unknown:10.1.0.4,unknown:unknown:10.1.0.7",
    ),
    (
        "tpu-env",
        "ACCELERATOR_TYPE: 'v4-16'\nCHIPS_PER_HOST_BOUNDS: '2,2,1'\nTOPOLOGY: '2x2x2'\nWORKER_ID: '1'\n",
    ),
];

#[test]
fn gke_says_all_in_the_environment() {
    let vm = read(&GKE).unwrap().unwrap();
    assert_eq!(vm.slice.to_string(), "v4-32");
    assert_eq!(vm.worker, 2);
    assert_eq!(
        vm.peers,
        ["job-0.svc", "job-1.svc", "job-2.svc", "job-3.svc"]
    );
}

#[test]
fn the_metadata_server_says_what_the_environment_does_not() {
    let host = server(&V4_16);
    let vm = read(&[("GCE_METADATA_HOST", &host)]).unwrap().unwrap();
    assert_eq!(vm.slice.to_string(), "v4-16");
    assert_eq!(vm.worker, 1);
    assert_eq!(vm.peers, ["10.1.0.4", "10.1.0.7"]);
    // The environment goes first.
    let vm = read(&[("GCE_METADATA_HOST", &host), ("TPU_WORKER_ID", "0")]);
    assert_eq!(vm.unwrap().unwrap().worker, 0);
}

#[test]
fn the_tpu_environment_attribute_alone_is_enough_for_one_host() {
    let host = server(&[(
        "tpu-env",
        "ZONE: 'us-central2-b'\nACCELERATOR_TYPE: 'v5litepod-8'\nTOPOLOGY: '2x4'\n",
    )]);
    let vm = read(&[("GCE_METADATA_HOST", &host)]).unwrap().unwrap();
    assert_eq!(vm.slice.to_string(), "v5e-8");
    assert_eq!((vm.worker, vm.peers.len()), (0, 1));
}

#[test]
fn a_machine_that_says_nothing_is_no_tpu_vm() {
    let elsewhere = server(&[("ssh-keys", "")]);
    assert_eq!(read(&[("GCE_METADATA_HOST", &elsewhere)]), Ok(None));
    // Nobody listens on the spec of a listener that was closed.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        read(&[("GCE_METADATA_HOST", &closed.to_string())]),
        Ok(None)
    );
    let asked = server(&V4_16);
    let skipping = [
        ("GCE_METADATA_HOST", asked.as_str()),
        ("TPU_SKIP_MDS_QUERY", "1"),
    ];
    assert_eq!(read(&skipping), Ok(None));
    // As a hotel's network may do.
    let stranger = serve(|stream| {
        let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nv4-16");
    });
    assert_eq!(read(&[("GCE_METADATA_HOST", &stranger)]), Ok(None));
    // What libtpu leaves behind where it found nothing.
    let warning = "WARNING: could not determine TPU accelerator type";
    let left = [
        ("TPU_ACCELERATOR_TYPE", warning),
        ("TPU_SKIP_MDS_QUERY", "1"),
    ];
    assert_eq!(read(&left), Ok(None));
}

#[test]
fn a_server_that_is_silent_is_not_waited_for() {
    let silent = serve(|stream| {
        thread::sleep(Duration::from_secs(20));
        drop(stream);
    });
    let start = Instant::now();
    assert_eq!(read(&[("GCE_METADATA_HOST", &silent)]), Ok(None));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_does_not_fit_the_slice_is_named() {
    for (change, words) in [
        (("TPU_ACCELERATOR_TYPE", "v2-8"), "v2-8 is no slice"),
        (
            ("TPU_ACCELERATOR_TYPE", "v4-64"),
            "number of hosts is 8, but says that it is 4",
        ),
        (
            ("TPU_WORKER_ID", "4"),
            "worker number is 3 at most, but says that it is 4",
        ),
        (("TPU_WORKER_ID", "two"), "worker number is `two`"),
        (
            ("TPU_WORKER_HOSTNAMES", "a,b"),
            "number of hosts is 4, but says that it is 2",
        ),
        (
            ("TPU_TOPOLOGY", "2x2x2"),
            "topology is 2x2x4, but says that it is 2x2x2",
        ),
        (("TPU_TOPOLOGY", "wide"), "topology is `wide`"),
        (
            ("TPU_CHIPS_PER_HOST_BOUNDS", "1,1,1"),
            "2,2,1, but says that it is 1,1,1",
        ),
        (
            ("TPU_WORKER_ID", ""),
            "does not say which of its workers it is",
        ),
        (
            ("TPU_WORKER_HOSTNAMES", ""),
            "does not say who the others are",
        ),
    ] {
        let message = read(&gke_with(&[change])).unwrap_err().to_string();
        assert!(message.contains(words), "{change:?}: {message}");
    }
}

#[test]
fn another_slice_than_was_asked_for_is_named_with_both() {
    let vm = read(&GKE).unwrap().unwrap();
    assert_eq!(vm.expect(vm.slice), Ok(()));
    assert_eq!(
        vm.expect("v4-64".parse().unwrap()).unwrap_err().to_string(),
        "this TPU VM is part of a v4-32, not of a v4-64"
    );
}

#[test]
fn devices_that_are_not_the_slices_are_counted() {
    let slice: Slice = "v4-16".parse().unwrap();
    let devices = |hosts: i32, each: i32| -> Vec<DeviceDescription> {
        let device = |i| DeviceDescription {
            id: i,
            process_index: i / each,
            ..DeviceDescription::default()
        };
        (0..hosts * each).map(device).collect()
    };
    assert_eq!(check_devices(slice, &devices(2, 4), 1), Ok(()));
    for (devices, process, words) in [
        (devices(1, 4), 0, "sees 4 devices, but a v4-16 has 8"),
        (devices(4, 2), 0, "sees 4 hosts, but a v4-16 has 2"),
        (
            devices(2, 4),
            2,
            "sees 0 devices of this host, but a v4-16 has 4",
        ),
    ] {
        let message = check_devices(slice, &devices, process)
            .unwrap_err()
            .to_string();
        assert!(message.contains(words), "{message}");
    }
}
