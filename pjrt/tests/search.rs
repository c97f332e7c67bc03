//! Where plugins are looked for. Alone in its process, since it changes the environment's variables and directory.

use std::env;

use ankh_pjrt::{Error, Platform, Plugin};

#[test]
fn a_plugin_that_is_nowhere_is_reported_with_every_place_searched() {
    let directory = tempfile::tempdir().unwrap();
    env::set_current_dir(directory.path()).unwrap();
    // No checkout has a directory of plugins for CUDA, and the variable names a file that is not there.
    let error = match env::var_os("ANKH_PJRT_PLUGIN") {
        Some(_) => return,
        None => Plugin::find(Platform::Cuda, None).unwrap_err(),
    };
    let Error::NoPlugin { searched, .. } = &error else {
        panic!("{error:?}");
    };
    let place = directory
        .path()
        .canonicalize()
        .unwrap()
        .join("plugins/cuda/*.so");
    assert!(
        searched.contains(&place.display().to_string()),
        "{searched:?}"
    );
    let message = error.to_string();
    assert!(
        message.starts_with("no PJRT plugin for cuda found"),
        "{message}"
    );
    assert!(message.contains("ANKH_PJRT_PLUGIN"), "{message}");
}
