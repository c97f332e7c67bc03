//! Why weights could not be evaluated.

use crate::{inference, score};

/// Why weights could not be evaluated.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data.
    #[error(transparent)]
    Data(#[from] ankh_data::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] inference::Error),
    /// The likelihoods of sequences.
    #[error(transparent)]
    Score(#[from] score::Error),
    /// The data asks nothing of the model.
    #[error("the batches have nothing to predict")]
    NoTargets,
}
