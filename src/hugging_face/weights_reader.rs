//! Weights of either kind, of a Hugging Face directory or a checkpoint, opened to be read one
//! parameter at a time.

use ankh_pjrt::HostTensor;
use ankh_storage::Location;
use serde_json::{Map, Value};

use super::directory::Directory;
use super::error::{Error, Result};
use super::note::Note;
use super::tokenizer_files::TokenIds;
use super::{Held, names};
use crate::checkpoint::{self, Reader};
use crate::config::{Model, Objective};

/// Opened weights, which are those of their model.
pub struct WeightsReader<'a> {
    location: &'a Location,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Directory(Box<Directory>),
    Checkpoint(&'a Reader, Held),
}

/// A setting of a model that weights have another value of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its dotted key.
    pub key: String,
    /// Its value for the weights.
    pub weights: String,
    /// Its value in the configuration.
    pub configured: String,
}

/// Opens what is at a location: a Hugging Face directory, one of our checkpoints, or a run
/// directory (its newest checkpoint). `read` is called again with the newest checkpoint of a run
/// that removes the one that was being read, and must begin anew then.
///
/// # Errors
/// Those of `read`; and of a location without weights, damaged, or not those of their model.
pub fn open<T, E: From<Error>>(
    location: &Location,
    mut read: impl FnMut(&WeightsReader<'_>) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(path) = location.local().filter(|path| Directory::is_at(path)) {
        let kind = Kind::Directory(Box::new(Directory::open(path)?));
        return read(&WeightsReader { location, kind });
    }
    let read = checkpoint::read(location, |reader| {
        let held = Held::of(reader).map_err(|error| Unread(error.into()))?;
        let kind = Kind::Checkpoint(reader, held);
        read(&WeightsReader { location, kind }).map_err(Unread)
    });
    read.map_err(|Unread(error)| error)
}

/// Why a checkpoint was not read.
struct Unread<E>(E);

impl<E: From<Error>> From<checkpoint::Error> for Unread<E> {
    fn from(error: checkpoint::Error) -> Self {
        Unread(E::from(match error {
            checkpoint::Error::NotACheckpoint(path) => Error::NoWeights(path),
            error => Error::Checkpoint(error),
        }))
    }
}

impl WeightsReader<'_> {
    /// The model that the weights are of.
    pub fn model(&self) -> &Model {
        match &self.kind {
            Kind::Directory(directory) => &directory.model,
            Kind::Checkpoint(_, held) => &held.model,
        }
    }

    /// The token ids that they were trained on.
    pub fn token_ids(&self) -> TokenIds {
        match &self.kind {
            Kind::Directory(directory) => directory.token_ids,
            Kind::Checkpoint(_, held) => held.token_ids,
        }
    }

    /// What they were trained to do, where that is known.
    pub fn objective(&self) -> Option<&Objective> {
        match &self.kind {
            Kind::Directory(_) => None,
            Kind::Checkpoint(_, held) => held.objective.as_ref(),
        }
    }

    /// What was read otherwise than it is written.
    pub fn notes(&self) -> &[Note] {
        match &self.kind {
            Kind::Directory(directory) => &directory.notes,
            Kind::Checkpoint(..) => &[],
        }
    }

    /// Where the weights are: of a run, its newest checkpoint.
    pub fn location(&self) -> &Location {
        match &self.kind {
            Kind::Directory(_) => self.location,
            Kind::Checkpoint(reader, _) => reader.directory(),
        }
    }

    /// The checkpoint, if they are in one, to read parts of its arrays.
    pub fn checkpoint(&self) -> Option<&Reader> {
        match &self.kind {
            Kind::Directory(_) => None,
            Kind::Checkpoint(reader, _) => Some(reader),
        }
    }

    /// Fails where a model computes otherwise, or with arrays of other shapes, than that of the
    /// weights.
    pub fn check_model(&self, configured: &Model) -> Result<()> {
        let differences = differences(self.model(), configured);
        match differences.is_empty() {
            true => Ok(()),
            false => Err(Error::OtherModel {
                weights: self.location().clone(),
                differences,
            }),
        }
    }

    /// Reads one of our parameters, float32.
    ///
    /// # Errors
    /// Also where the model has no parameter of this name.
    pub fn tensor(&self, name: &str) -> Result<HostTensor> {
        match &self.kind {
            Kind::Checkpoint(reader, _) => Ok(reader.tensor(name)?),
            Kind::Directory(directory) => {
                let parameters = names::parameters(&directory.model);
                let parameter = parameters.iter().find(|parameter| parameter.name == name);
                let parameter = parameter.ok_or_else(|| {
                    let checkpoint = self.location.clone();
                    let name = name.to_owned();
                    Error::Checkpoint(checkpoint::Error::NoTensor { name, checkpoint })
                })?;
                directory.read(parameter)
            }
        }
    }

    /// Reads all of them.
    pub fn tensors(&self) -> Result<Vec<(String, HostTensor)>> {
        let parameters = names::parameters(self.model());
        match &self.kind {
            Kind::Checkpoint(reader, _) => {
                let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name).collect();
                Ok(reader.tensors(&names)?)
            }
            Kind::Directory(directory) => parameters
                .iter()
                .map(|parameter| Ok((parameter.name.to_owned(), directory.read(parameter)?)))
                .collect(),
        }
    }
}

/// The settings of two models that differ, but for how their first weights are drawn.
fn differences(weights: &Model, configured: &Model) -> Vec<Difference> {
    let settings = |model: &Model| -> Map<String, Value> {
        match serde_json::to_value(model) {
            Ok(Value::Object(settings)) => settings,
            // A struct of numbers and names is always an object.
            other => unreachable!("a model is an object: {other:?}"),
        }
    };
    let (weights, configured) = (settings(weights), settings(configured));
    let named = weights.into_iter().zip(configured.into_values());
    named
        .filter(|((name, weights), configured)| name != "initialization" && weights != configured)
        .map(|((name, weights), configured)| Difference {
            key: format!("model.{name}"),
            weights: weights.to_string(),
            configured: configured.to_string(),
        })
        .collect()
}
