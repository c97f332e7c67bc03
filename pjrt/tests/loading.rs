//! A plugin that cannot be loaded says why, and what to do.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use ankh_pjrt::{Error, Platform, Plugin};
use common::plugin;

/// A file of these bytes in a directory of its own, both gone on drop.
struct File(tempfile::TempDir);

impl File {
    fn new(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("plugin.so"), bytes).unwrap();
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("plugin.so")
    }
}

/// The first bytes of the real plugin: its ELF header and program headers.
fn plugin_head() -> Vec<u8> {
    use std::io::Read;
    let mut head = vec![0; 4096];
    fs::File::open(plugin().path())
        .unwrap()
        .read_exact(&mut head)
        .unwrap();
    head
}

#[test]
fn loading_twice_gives_the_same_plugin() {
    let first = plugin();
    let second = Plugin::load(first.path()).unwrap();
    assert_eq!(first.path(), second.path());
    let (major, minor) = first.api_version();
    assert!(major == 0 && minor >= 54, "{major}.{minor}");
    assert!(
        first
            .attributes()
            .unwrap()
            .iter()
            .any(|value| value.name == "xla_version")
    );
}

#[test]
fn a_path_that_leads_nowhere_is_unreadable() {
    let error = Plugin::find(Platform::Cpu, Some(Path::new("/nowhere/plugin.so"))).unwrap_err();
    assert!(matches!(error, Error::UnreadablePlugin { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/plugin.so"), "{error}");
}

#[test]
fn a_directory_is_unreadable() {
    let error = Plugin::load("/").unwrap_err();
    assert!(matches!(error, Error::UnreadablePlugin { .. }), "{error:?}");
}

#[test]
fn a_text_file_is_no_plugin() {
    for text in ["", "hi", "#!/bin/sh\necho this is a script, not a plugin\n"] {
        let file = File::new(text.as_bytes());
        let error = Plugin::load(file.path()).unwrap_err();
        assert!(matches!(error, Error::NotAPlugin { .. }), "{error:?}");
    }
}

#[test]
fn a_plugin_for_another_machine_is_named_so() {
    let mut bytes = plugin_head();
    bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
    let file = File::new(&bytes);
    let error = Plugin::load(file.path()).unwrap_err();
    assert!(
        matches!(&error, Error::WrongArchitecture { found, .. } if found == "RISC-V"),
        "{error:?}"
    );
}

#[test]
fn a_truncated_plugin_is_named_so() {
    let head = plugin_head();
    for length in [40, 64, 100, head.len()] {
        let file = File::new(&head[..length]);
        let error = Plugin::load(file.path()).unwrap_err();
        assert!(
            matches!(error, Error::TruncatedPlugin { found, .. } if found == length as u64),
            "{length}: {error:?}"
        );
    }
}

#[test]
fn another_shared_library_is_no_plugin() {
    // The C library, which this process has loaded itself.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps
        .split_whitespace()
        .find(|word| word.starts_with('/') && word.contains("/libc"))
        .expect("this test is linked with the C library");
    let error = Plugin::load(library).unwrap_err();
    assert!(
        matches!(&error, Error::NotAPlugin { reason, .. } if reason.contains("GetPjrtApi")),
        "{error:?}"
    );
}
