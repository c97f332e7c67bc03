//! How good a model's states are for tasks with labels: a head is trained on them, with the encoder
//! frozen.

mod head;

pub use head::{HeadBatch, HeadTrainer};
