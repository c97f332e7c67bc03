//! The runs that are watched: what was named, and what appears in directories that were named.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::report::{Found, ReportError, Run, find, shorten};

/// Paths, and the runs that have been found there so far.
pub(super) struct Places {
    paths: Vec<PathBuf>,
    known: HashSet<PathBuf>,
    /// In the order in which they were found, which is their number. One that is removed stays.
    runs: Vec<Run>,
}

impl Places {
    /// Finds and reads the runs at these paths, which exist.
    pub fn open(paths: Vec<PathBuf>) -> Result<Places, ReportError> {
        for path in &paths {
            find(path)?;
        }
        let mut places = Places {
            paths,
            known: HashSet::new(),
            runs: Vec::new(),
        };
        places.add_new();
        Ok(places)
    }

    /// Reads what is new in all of them, and looks for new ones.
    pub fn refresh(&mut self) {
        self.runs.iter_mut().for_each(Run::refresh);
        self.add_new();
    }

    /// All runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn add_new(&mut self) {
        // A directory that cannot be read for once has no new runs.
        let each = self
            .paths
            .iter()
            .flat_map(|path| find(path).unwrap_or_default());
        let mut found: Vec<Found> = each.collect();
        shorten(&mut found);
        for found in found {
            if self.known.insert(found.path.clone()) {
                self.runs.push(Run::open(&found.path, &found.name));
            }
        }
    }
}
