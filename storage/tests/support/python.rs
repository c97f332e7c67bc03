//! The Python that tests run servers and writers of tables in.

use std::path::PathBuf;

/// Its interpreter.
pub fn python() -> PathBuf {
    let installed = match std::env::var_os("ANKH_TEST_SERVERS") {
        Some(directory) => PathBuf::from(directory),
        None => workspace().join("target/servers"),
    };
    let python = installed.join("bin/python");
    assert!(
        python.exists(),
        "no Python for the tests in {}: run `make target/servers/ready`",
        installed.display()
    );
    python
}

/// The directory of the workspace: this crate's, or the one above it.
pub fn workspace() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut directories = package.ancestors();
    let root = directories.find(|directory| directory.join("Cargo.lock").exists());
    root.expect("a workspace has a lock file").to_path_buf()
}
