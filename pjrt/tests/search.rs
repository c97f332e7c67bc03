//! Where plugins are looked for. Alone in its process, since it changes the environment's variables
//! and directory.

use std::env;
use std::process::Command;

use ankh_pjrt::{Error, Platform, Plugin};

#[test]
fn a_plugin_that_is_nowhere_is_reported_with_every_place_searched() {
    if env::var_os("ANKH_PJRT_PLUGIN").is_some() {
        // Once more, in a process without the variable.
        let mut test = Command::new(env::current_exe().unwrap());
        let status = test.env_remove("ANKH_PJRT_PLUGIN").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    env::set_current_dir(directory.path()).unwrap();
    // No checkout has a directory of plugins for CUDA.
    let error = Plugin::find(Platform::Cuda, None).unwrap_err();
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
