//! Where plugins are looked for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::pinned::Pin;
use crate::platform::Platform;

/// The variable that names a plugin's library, for every platform.
const VARIABLE: &str = "ANKH_PJRT_PLUGIN";

/// Where a plugin of the platform lies: at the path given, else at the one that `ANKH_PJRT_PLUGIN`
/// names, else as `plugins/<platform>/*.so` in the working directory or one above it or above the
/// running program, else among the user's copies of the pinned ones, else (TPU) where libtpu is
/// installed.
pub(crate) fn find(platform: Platform, explicit: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    let variable = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    if let Some(path) = variable {
        return Ok(path.into());
    }
    let mut searched = vec![format!("{VARIABLE} (not set)")];
    for directory in plugin_directories(platform) {
        if let Some(path) = first_library(&directory) {
            return Ok(path);
        }
        searched.push(directory.join("*.so").display().to_string());
    }
    if let Some(path) = Pin::of(platform).and_then(|pin| pin.place()) {
        if path.is_file() {
            return Ok(path);
        }
        searched.push(path.display().to_string());
    }
    if platform == Platform::Tpu {
        for path in libtpu_paths() {
            if path.is_file() {
                return Ok(path);
            }
            searched.push(path.display().to_string());
        }
    }
    Err(Error::NoPlugin { platform, searched })
}

/// `plugins/<platform>` in the working directory, the directories above it, and those above the
/// running program.
fn plugin_directories(platform: Platform) -> Vec<PathBuf> {
    let starts = [
        env::current_dir().ok(),
        env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned)),
    ];
    let mut directories: Vec<PathBuf> = Vec::new();
    for start in starts.into_iter().flatten() {
        for ancestor in start.ancestors() {
            let directory = ancestor.join("plugins").join(platform.to_string());
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    directories
}

/// The first library of a directory, by name.
fn first_library(directory: &Path) -> Option<PathBuf> {
    let mut libraries: Vec<_> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .collect();
    libraries.sort();
    libraries.into_iter().next()
}

/// Where libtpu may be: TPU VM images have it in a library directory or in a Python environment.
fn libtpu_paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = env::var_os("TPU_LIBRARY_PATH")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for directory in ["/lib", "/usr/lib", "/usr/local/lib"] {
        paths.push(Path::new(directory).join("libtpu.so"));
    }
    let mut roots: Vec<PathBuf> = Vec::new();
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        roots.push(Path::new(&environment).join("lib"));
    }
    if let Some(home) = env::var_os("HOME") {
        roots.push(Path::new(&home).join(".local/lib"));
    }
    roots.push("/usr/local/lib".into());
    roots.push("/usr/lib".into());
    for root in roots {
        for python in python_directories(&root) {
            for packages in ["site-packages", "dist-packages"] {
                paths.push(python.join(packages).join("libtpu/libtpu.so"));
            }
        }
    }
    paths
}

/// The `python3*` directories of a library directory, by name.
fn python_directories(root: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("python3"))
        })
        .collect();
    directories.sort();
    directories
}
