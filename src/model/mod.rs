//! The Ankh family: T5's encoder and decoder as Hugging Face builds them, written as a tensor program.
//!
//! A layer is a function of its weights and its input; weights of like layers are stacked on a leading dimension and the
//! layers run in a scan. Dimensions are called by name (`batch`, `length`, `embed`, `heads`, `mlp`, `vocab`, `layers`); what
//! lies where on which devices is the layout's matter and nothing here knows it.

pub mod attention;
pub mod layers;
mod loss;
mod network;
pub mod position;
mod weights;

pub use loss::{Targets, TokenLoss, token_loss};
pub use network::{Network, States};
pub use weights::{Parameter, Start, Weights};

/// The names of a layer's values from which the rest of it is quickly computed again: the results of matrix products.
pub const SAVED_NAMES: [&str; 8] = [
    "query",
    "key",
    "value",
    "attention_log_sum",
    "attention_output",
    "residual",
    "mlp_hidden",
    "mlp_gate",
];
