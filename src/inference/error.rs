//! Why weights could not be put to work.

use ankh_data::Vocabulary;

use crate::devices::OpenMeshError;
use crate::hugging_face;
use crate::mesh::DeviceError;

/// Why a model could not be loaded or run.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The weights could not be read.
    #[error(transparent)]
    Weights(#[from] hugging_face::Error),
    /// The devices could not be opened, or the model cannot be split over them.
    #[error(transparent)]
    Mesh(#[from] OpenMeshError),
    /// The device, or the memory it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A mistake in the construction of a program.
    #[error("the program is ill-formed")]
    Program(#[from] ankh_hlo::Error),
    /// The ids of the model are not known.
    #[error("a vocabulary of {vocabulary} ids is not that of a known tokenizer")]
    UnknownTokenizer { vocabulary: usize },
    /// A tokenizer has ids that the model has not.
    #[error("the model has {vocabulary} ids, and the tokenizer {tokenizer} has {ids}")]
    SmallVocabulary {
        vocabulary: usize,
        tokenizer: Vocabulary,
        ids: usize,
    },
}
