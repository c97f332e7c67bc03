//! Reads a checkpoint while a run saves and removes checkpoints beside it.
//!
//! A run keeps its newest few checkpoints. So the one that was newest when reading began can be
//! removed or replaced before reading ends. That is not damage: the reader looks for the newest one
//! again.

use ankh_storage::{Location, StorageOptions};

use super::directory::{self, Directory};
use super::error::{Error, Result};
use super::{Reader, located};

/// How often a checkpoint may vanish while it is read: each time a run saved a newer one, which
/// takes it as long as reading does.
const ATTEMPTS: usize = 10;

/// Gives `read` the checkpoint that a location means: itself, or the newest step of a run directory
/// or of a directory of steps. If that one is removed or replaced meanwhile, `read` is
/// given the one that is newest then; so it must begin anew when it is called again.
pub fn read<T, E: From<Error>>(
    location: &Location,
    mut read: impl FnMut(&Reader) -> Result<T, E>,
) -> Result<T, E> {
    let place = directory::open(location, &StorageOptions::default())?;
    let mut attempt = 1;
    loop {
        let found = Found::at(&place)?;
        let error = match Reader::at(&found.directory).map_err(E::from) {
            Ok(reader) => match read(&reader) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match Found::at(&place) {
            Ok(now) if now.is(&found) || attempt == ATTEMPTS => return Err(error),
            Ok(_) => attempt += 1,
            // It was named itself, and is no more.
            Err(_) if matches!(found.directory.exists(), Ok(false)) => {
                return Err(Error::Removed(found.directory.location().clone()).into());
            }
            Err(_) => return Err(error),
        }
    }
}

/// A checkpoint as it was found.
struct Found {
    directory: Directory,
    /// What tells its marker from another's.
    marker: Option<String>,
}

impl Found {
    fn at(place: &Directory) -> Result<Found> {
        let directory = located(place)?;
        let marker = directory.marker()?;
        Ok(Found { directory, marker })
    }

    /// Whether it is the same checkpoint.
    fn is(&self, other: &Found) -> bool {
        self.marker == other.marker && self.directory.location() == other.directory.location()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use ankh_pjrt::HostTensor;
    use serde_json::Value;

    use super::*;
    use crate::checkpoint::{Retention, Store};

    fn save(store: &Store, step: u64, value: f32) {
        let tensor = HostTensor::new::<f32>([64], &[value; 64]);
        let tensors = (0..4).map(|i| (format!("tensor{i}"), tensor.clone()));
        store.save(step, &Value::Null, tensors).unwrap();
    }

    #[test]
    fn a_reader_finds_a_whole_checkpoint_however_fast_they_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path());
        save(&store, 1, 1.0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for step in 2..=60 {
                    save(&store, step, step as f32);
                    // Every third step is saved again, with the same numbers.
                    if step % 3 == 0 {
                        save(&store, step, step as f32);
                    }
                    store.keep(&Retention::last(1)).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let found = read(&directory.path().into(), |reader| reader.load()).unwrap();
                // While a step is replaced, the one before it is the newest.
                assert!(found.step + 1 >= last, "{} after {last}", found.step);
                last = found.step;
                for (name, tensor) in found.tensors {
                    let values = tensor.to_vec::<f32>().unwrap();
                    assert_eq!(values, [last as f32; 64], "{name} of step {last}");
                }
            }
        });
    }

    #[test]
    fn a_checkpoint_that_was_named_and_vanishes_is_called_removed_and_not_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path());
        save(&store, 1, 1.0);
        let step = store.directory_of(1);
        let removed = read(&step, |reader| {
            std::fs::remove_dir_all(step.local().unwrap()).unwrap();
            reader.load()
        });
        let error = removed.unwrap_err().to_string();
        assert!(error.contains("was removed while it was read"), "{error}");
    }

    #[test]
    fn damage_is_reported_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path());
        save(&store, 1, 1.0);
        let chunk = store.directory_of(1).join("tensor0/c/0");
        std::fs::write(chunk.local().unwrap(), b"short").unwrap();
        let error = read(&directory.path().into(), |reader| reader.load()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
    }
}
