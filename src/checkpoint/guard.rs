//! Permission to change what others see, asked for right before the change.
//!
//! This module does not know who gives it: a run directory that belongs to one process at a time,
//! or nobody.

use std::fmt;
use std::sync::Arc;

use super::error::{Error, Result};

/// Why permission is refused.
type Refusal = Box<dyn std::error::Error + Send + Sync>;
type Ask = dyn Fn() -> Result<(), Refusal> + Send + Sync;

/// Permission to change a directory of checkpoints, which can end at any time. By default it is
/// always given.
#[derive(Clone, Default)]
pub struct Guard(Option<Claim>);

#[derive(Clone)]
struct Claim {
    writer: u64,
    ask: Arc<Ask>,
}

impl Guard {
    /// Permission of a writer whose number no other has or will have, as far as `ask` says.
    pub fn new<E: Into<Refusal>>(
        writer: u64,
        ask: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Guard {
        Guard(Some(Claim {
            writer,
            ask: Arc::new(move || ask().map_err(Into::into)),
        }))
    }

    /// The writer's number, if it is one of several.
    pub(super) fn writer(&self) -> Option<u64> {
        self.0.as_ref().map(|claim| claim.writer)
    }

    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(claim) => (claim.ask)().map_err(Error::NotAllowed),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({:?})", self.writer())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use ankh_pjrt::HostTensor;
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{Retention, Store};

    fn tensors(value: f32) -> Vec<(&'static str, HostTensor)> {
        vec![("a", HostTensor::new::<f32>([2], &[value, value]))]
    }

    /// The store of one of two writers, and what takes its permission away.
    fn writer(directory: &std::path::Path, number: u64) -> (Store, Arc<AtomicBool>) {
        let lost = Arc::new(AtomicBool::new(false));
        let asked = lost.clone();
        let guard = Guard::new(number, move || match asked.load(Ordering::Relaxed) {
            true => Err("it was taken over"),
            false => Ok(()),
        });
        (Store::open(directory).guarded(guard), lost)
    }

    #[test]
    fn a_writer_that_lost_its_permission_changes_nothing_that_others_see() {
        let directory = tempfile::tempdir().unwrap();
        let (before, lost) = writer(directory.path(), 1);
        before.save(1, &json!(1), tensors(1.0)).unwrap();
        before.save(2, &json!(1), tensors(2.0)).unwrap();
        // In the middle of its third save another takes over, cleans up and saves that step itself.
        let mut paused = before.begin(3).unwrap();
        paused.add("a", &tensors(3.0)[0].1).unwrap();
        lost.store(true, Ordering::Relaxed);
        let (after, _) = writer(directory.path(), 2);
        after.clean().unwrap();
        after.save(3, &json!(2), tensors(3.0)).unwrap();

        let _ = paused.add("b", &tensors(3.0)[0].1);
        let error = paused.commit(&json!(1)).unwrap_err().to_string();
        assert!(!error.is_empty());
        for refused in [
            before.keep(&Retention::last(1)),
            before.save(4, &json!(1), tensors(4.0)).map(|_| vec![]),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("it was taken over"), "{error}");
        }
        assert_eq!(after.list().unwrap(), [1, 2, 3]);
        assert_eq!(after.load(3).unwrap().metadata, json!(2));
        // Nothing of either is left beside them.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn two_writers_of_one_step_do_not_meet_before_they_are_done() {
        let directory = tempfile::tempdir().unwrap();
        let stores = [1, 2].map(|number| writer(directory.path(), number).0);
        let mut writers = stores.each_ref().map(|store| store.begin(7).unwrap());
        for writer in &mut writers {
            writer.add("a", &tensors(1.5)[0].1).unwrap();
        }
        for writer in writers {
            writer.commit(&json!(null)).unwrap();
            stores[0].reader(7).unwrap().verify().unwrap();
        }
    }
}
