//! The Ankh family: T5's encoder and decoder as Hugging Face builds them, written as a tensor
//! program.
//!
//! A layer is a function of its weights and its input. Weights of like layers are stacked on a
//! leading dimension, and the layers run in a scan. Dimensions have names ([`LogicalAxis`]); how
//! they are split over devices is decided elsewhere. Start with `network` for the forward pass, or
//! with `weights` for the parameters.

pub mod attention;
mod axes;
mod config;
mod decoding;
mod flops;
pub mod layers;
pub mod lora;
mod loss;
mod network;
pub mod position;
mod tie;
mod weights;

pub use attention::AttentionImplementation;
pub use axes::LogicalAxis;
pub use config::{Activation, Initialization, Loss, Model};
pub use decoding::{CrossKeyValues, DistanceBias, KeyValueCache};
pub use flops::{encoder_flops, step_flops};
pub use loss::{Targets, TokenLoss, one_hot, token_loss, token_scores};
pub use network::{Network, States, Tokens};
pub use tie::TieEmbeddings;
pub use weights::{Initializer, Parameter, Weights};

/// What a layer's forward pass may keep for its derivative, besides the layer's input: names of
/// values, in the order in which keeping them pays. Each list extends the one before.
pub mod saved {
    /// What the attention's derivative needs of its softmax: the square arrays are computed one
    /// time less.
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
        "norm_scale",
        "residual",
        "mlp_hidden",
        "mlp_gate",
    ];
}
