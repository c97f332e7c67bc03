//! Finds run directories.

use std::fs;
use std::path::{Path, PathBuf};

use super::ReportError;
use super::run::Run;

/// A run directory, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// What its runs are called: its place below the directory that was searched, or the path as
    /// it was given.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
}

/// How deep run directories are searched for.
const DEPTH: usize = 4;

/// The runs at `path`: itself, or all below it, by name. What is below a run is part of it.
pub fn find(path: &Path) -> Result<Vec<Found>, ReportError> {
    if Run::is_in(path) {
        let name = path.display().to_string();
        let trimmed = name.trim_end_matches('/');
        return Ok(vec![Found {
            name: if trimmed.is_empty() {
                name.clone()
            } else {
                trimmed.to_owned()
            },
            path: path.to_owned(),
        }]);
    }
    let entries = fs::read_dir(path).map_err(|source| ReportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut found = Vec::new();
    search(path, entries, DEPTH, &mut found);
    found.sort();
    Ok(found)
}

/// Shortens the names of runs that were given by their paths, where all of them are below one
/// directory: the way there tells them not apart.
pub fn shorten(found: &mut [Found]) {
    let by_path = |found: &Found| found.path == Path::new(&found.name);
    if found.len() < 2 || !found.iter().all(by_path) {
        return;
    }
    let mut common = found[0]
        .path
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default();
    while !found
        .iter()
        .all(|found| found.path != common && found.path.starts_with(&common))
    {
        if !common.pop() {
            return;
        }
    }
    for found in found {
        if let Ok(rest) = found.path.strip_prefix(&common) {
            found.name = rest.display().to_string();
        }
    }
}

fn search(root: &Path, entries: fs::ReadDir, depth: usize, found: &mut Vec<Found>) {
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || !path.is_dir() {
            continue;
        }
        if Run::is_in(&path) {
            // It was reached from there.
            let name = path.strip_prefix(root).unwrap_or(&path);
            found.push(Found {
                name: name.display().to_string(),
                path,
            });
        } else if let (1.., Ok(entries)) = (depth - 1, fs::read_dir(&path)) {
            search(root, entries, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_tells_paths_apart() {
        let names = |paths: &[&str]| -> Vec<String> {
            let found = |path: &&str| Found {
                name: (*path).to_owned(),
                path: path.into(),
            };
            let mut found: Vec<Found> = paths.iter().map(found).collect();
            shorten(&mut found);
            found.into_iter().map(|found| found.name).collect()
        };
        assert_eq!(names(&["/a/runs/x", "/a/runs/y/z"]), ["x", "y/z"]);
        assert_eq!(names(&["/a/x/run", "/a/y/run"]), ["x/run", "y/run"]);
        assert_eq!(names(&["/a/x/run"]), ["/a/x/run"]);
        assert_eq!(names(&["runs/x", "other"]), ["runs/x", "other"]);
        assert_eq!(names(&["/a", "/a/b"]), ["a", "a/b"]);
    }

    #[test]
    fn runs_are_found_below_a_directory_and_not_inside_one_another() {
        let directory = tempfile::tempdir().unwrap();
        for run in [
            "b",
            "a/one",
            "a/one/worker-1",
            ".hidden",
            "x/x/x/deep",
            "x/x/x/x/deeper",
        ] {
            let path = directory.path().join(run);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("metrics.jsonl"), "").unwrap();
        }
        fs::create_dir(directory.path().join("empty")).unwrap();
        let names = |path: &Path| -> Vec<String> {
            find(path)
                .unwrap()
                .into_iter()
                .map(|found| found.name)
                .collect()
        };
        assert_eq!(names(directory.path()), ["a/one", "b", "x/x/x/deep"]);
        let run = directory.path().join("b/");
        assert_eq!(
            names(&run),
            [directory.path().join("b").display().to_string()]
        );
        assert!(names(&directory.path().join("empty")).is_empty());
        find(&directory.path().join("missing")).unwrap_err();
    }
}
