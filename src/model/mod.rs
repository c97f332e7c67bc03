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
pub use network::{Network, States, Tokens};
pub use weights::{Initializer, Parameter, Weights};

/// What a layer's forward pass may keep for its derivative, besides what enters the layer: names of values, in the order in which keeping
/// them pays. Each list goes on where the one before ends.
pub mod saved {
    /// What the attention's derivative needs of its softmax: the square arrays are computed once less.
    pub const ATTENTION: &[&str] = &["attention_log_sum", "attention_output"];
    /// And what goes into it.
    pub const PROJECTIONS: &[&str] = &[
        "attention_log_sum",
        "attention_output",
        "query",
        "key",
        "value",
    ];
    /// All results of matrix products, from which the rest is quickly computed again.
    pub const PRODUCTS: &[&str] = &[
        "attention_log_sum",
        "attention_output",
        "query",
        "key",
        "value",
        "residual",
        "mlp_hidden",
        "mlp_gate",
    ];
}
