//! The epochs of a training that is under way, in a file: what a killed one goes on from.

use std::fs;
use std::path::Path;

use ankh_pjrt::{ElementType, HostTensor};
use ankh_storage::atomic;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::Error;
use super::training::Epoch;

/// The state after an epoch, and after the best.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// Those that are done.
    pub epochs: Vec<Epoch>,
    /// The state after the last one.
    pub now: Vec<HostTensor>,
    /// The state after the best one, where that is another.
    pub best: Option<Vec<HostTensor>>,
}

impl Saved {
    /// The state after the best epoch.
    pub fn best(&self) -> &[HostTensor] {
        self.best.as_ref().unwrap_or(&self.now)
    }
}

/// Where a training is kept.
pub struct SavedFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// What the training is of: another one's epochs are not taken.
    pub identity: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    identity: String,
    epochs: Vec<Epoch>,
    /// Arrays of a state.
    arrays: usize,
}

impl SavedFile<'_> {
    /// What was kept of this training, if something was.
    pub fn read(&self) -> Result<Option<Saved>, Error> {
        let bytes = match fs::read(self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::file("read", self.path, source)),
        };
        Ok(self.parse(&bytes))
    }

    /// Nothing where it is of another training, or none of ours.
    fn parse(&self, bytes: &[u8]) -> Option<Saved> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
        let header = metadata.metadata().as_ref()?.get("training")?;
        let header: Header = serde_json::from_str(header).ok()?;
        let file = SafeTensors::deserialize(bytes).ok()?;
        let state = |of: &str| -> Option<Vec<HostTensor>> {
            let names = (0..header.arrays).map(|i| format!("{of}.{i}"));
            names
                .map(|name| file.tensor(&name).ok().and_then(tensor))
                .collect()
        };
        (header.identity == self.identity).then_some(())?;
        Some(Saved {
            now: state("now")?,
            best: state("best"),
            epochs: header.epochs,
        })
    }

    /// Keeps the epochs in the place of earlier ones.
    pub fn write(&self, saved: &Saved) -> Result<(), Error> {
        let header = Header {
            identity: self.identity.clone(),
            epochs: saved.epochs.clone(),
            arrays: saved.now.len(),
        };
        let header = serde_json::to_string(&header).expect("numbers and text");
        let named = |of: &'static str, state: &'_ [HostTensor]| -> Vec<(String, HostTensor)> {
            let named = state.iter().enumerate();
            named
                .map(|(i, t)| (format!("{of}.{i}"), t.clone()))
                .collect()
        };
        let mut tensors = named("now", &saved.now);
        tensors.extend(named("best", saved.best.as_deref().unwrap_or_default()));
        let views = tensors.iter().map(|(name, tensor)| {
            let dtype = match tensor.element_type {
                ElementType::S32 => Dtype::I32,
                _ => Dtype::F32,
            };
            let shape = tensor.dims.iter().map(|&size| size as usize).collect();
            let view = TensorView::new(dtype, shape, &tensor.bytes);
            (name, view.expect("a state is of 4-byte numbers"))
        });
        let metadata = [("training".to_owned(), header)].into_iter().collect();
        let bytes =
            safetensors::serialize(views, Some(metadata)).expect("views of their own bytes");
        atomic::replace_own_file(self.path, &bytes)
            .map_err(|source| Error::file("write", self.path, source))
    }
}

fn tensor(view: TensorView<'_>) -> Option<HostTensor> {
    let element_type = match view.dtype() {
        Dtype::I32 => ElementType::S32,
        Dtype::F32 => ElementType::F32,
        _ => return None,
    };
    Some(HostTensor {
        element_type,
        dims: view.shape().iter().map(|&size| size as i64).collect(),
        bytes: view.data().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_read_as_they_were_kept_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("epochs");
        let file = |identity: &str| SavedFile {
            path: &path,
            identity: identity.to_owned(),
        };
        assert_eq!(file("a").read().unwrap(), None);
        let state = |value: f32| vec![HostTensor::scalar(value), HostTensor::scalar(3i32)];
        let epoch = Epoch {
            loss: 0.1 + 0.2,
            validation: None,
        };
        let mut saved = Saved {
            epochs: vec![epoch],
            now: state(1.5),
            best: None,
        };
        for best in [None, Some(state(2.5))] {
            saved.best = best;
            file("a").write(&saved).unwrap();
            assert_eq!(file("a").read().unwrap().as_ref(), Some(&saved));
        }
        assert_eq!(file("b").read().unwrap(), None);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(file("a").read().unwrap(), None);
    }
}
