//! What can be wrong with a program, and where in the source it was written.

use std::panic::Location;

/// A mistake in a tensor program: the operation, the shapes, and the location in the source that
/// made it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{location}: {operation}: {problem}")]
pub struct Error {
    /// The operation that was being added.
    pub operation: &'static str,
    /// What was expected and what was found, shapes included.
    pub problem: String,
    /// File, line and column of the call.
    pub location: &'static Location<'static>,
}
