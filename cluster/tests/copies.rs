//! Directories that one host sends to another, on loopback.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use ankh_cluster::{CopyServer, MeetingPlace, SendError, send_copy};

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn write(directory: &Path, path: &str, contents: &[u8]) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

#[test]
fn a_directory_comes_whole_and_takes_the_place_of_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (from, root) = (directory.path().join("from"), directory.path().join("root"));
    let place = MeetingPlace::of(directory.path().join("places")).of_host(1);
    let server = CopyServer::start(loopback(), place.clone()).unwrap();
    let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    write(&from, "commit.json", b"{}");
    write(&from, "a/c/0/0", &large);
    write(&from, "a/empty", b"");

    let early = send_copy(&place, &from, "copy/step_1").unwrap_err();
    assert!(early.to_string().contains("keeps nothing yet"), "{early}");
    server.keep_in(&root);
    write(&root, "copy/step_1/older", b"older");
    send_copy(&place, &from, "copy/step_1").unwrap();
    let there = root.join("copy/step_1");
    assert_eq!(fs::read(there.join("commit.json")).unwrap(), b"{}");
    assert_eq!(fs::read(there.join("a/c/0/0")).unwrap(), large);
    assert_eq!(fs::read(there.join("a/empty")).unwrap(), b"");
    assert!(!there.join("older").exists());
    assert_eq!(fs::read_dir(root.join("copy")).unwrap().count(), 1);

    drop(server);
    let error = send_copy(&place, &from, "copy/step_2").unwrap_err();
    assert!(matches!(error, SendError::NotSent { .. }), "{error}");
}

#[test]
fn what_leads_elsewhere_or_comes_from_strangers_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (from, root) = (directory.path().join("from"), directory.path().join("root"));
    let places = MeetingPlace::of(directory.path().join("places"));
    let (place, stranger) = (places.of_host(1), places.of_host(2));
    let server = CopyServer::start(loopback(), place.clone()).unwrap();
    server.keep_in(&root);
    write(&from, "file", b"contents");
    for name in ["../elsewhere", "/tmp/elsewhere", "copy/../../elsewhere", ""] {
        let error = send_copy(&place, &from, name).unwrap_err();
        assert!(error.to_string().contains("leads elsewhere"), "{error}");
    }
    // The address is this host's, and the secret is not.
    let text = fs::read_to_string(place.file()).unwrap();
    let mut invitation: serde_json::Value = serde_json::from_str(&text).unwrap();
    let address = invitation["address"].as_str().unwrap().to_owned();
    invitation["secret"] = "0".repeat(64).into();
    fs::write(stranger.file(), invitation.to_string()).unwrap();
    let error = send_copy(&stranger, &from, "copy/step_1").unwrap_err();
    assert!(
        error.to_string().contains("not the run's secret"),
        "{error}"
    );
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(&[0x5a; 4096]).unwrap();
    assert!(!root.exists(), "something was kept");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);

    // It still keeps what the run's hosts send.
    send_copy(&place, &from, "copy/step_1").unwrap();
    assert!(root.join("copy/step_1/file").is_file());
}
