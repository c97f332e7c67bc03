//! The arithmetic of a model, counted from its parameters.

use super::Model;
use super::weights::{Parameter, Tree, Weights};

/// Floating-point operations of the matrix products of a training step, for a batch of so many
/// rows.
///
/// This is the "model FLOPs" of the PaLM paper (Chowdhery et al., 2022, appendix B): two operations
/// for each weight and position in the forward pass and twice that in the backward pass, plus the
/// attention's two products, in which no weight takes part. Rematerialisation, norms, softmax and
/// optimizer do not count. Padding does, because the device computes it.
pub fn step_flops(model: &Model, rows: usize, input_length: usize, target_length: usize) -> f64 {
    3.0 * forward_flops(model, input_length, target_length) * rows as f64
}

/// Operations of one example's forward pass.
fn forward_flops(model: &Model, input_length: usize, target_length: usize) -> f64 {
    let decoder = &Weights::of(model).decoder.layers;
    let [d, vocab] = [model.d_model, model.vocabulary].map(|n| n as f64);
    let [s, t] = [input_length, target_length].map(|n| n as f64);
    // The cross-attention's keys and values are of the input's positions.
    let of_inputs = [decoder.cross.k.clone(), decoder.cross.v.clone()];
    let products =
        2.0 * t * matrix_elements(&decoder.leaves()) + 2.0 * (s - t) * matrix_elements(&of_inputs);
    let attentions = attention_flops(model, t, t) + attention_flops(model, t, s);
    let logits = 2.0 * t * d * vocab;
    let layers = model.decoder_layers as f64;
    encoder_flops(model, input_length) + products + layers * attentions + logits
}

/// Operations of the matrix products of the encoder's forward pass, for one sequence of `length`
/// tokens.
pub fn encoder_flops(model: &Model, length: usize) -> f64 {
    let layers = Weights::of(model).encoder.layers;
    let n = length as f64;
    let products = 2.0 * n * matrix_elements(&layers.leaves());
    products + model.encoder_layers as f64 * attention_flops(model, n, n)
}

/// Scores and weighted sums of a layer: each a product of `inner` terms for every pair of
/// positions.
fn attention_flops(model: &Model, queries: f64, keys: f64) -> f64 {
    4.0 * queries * keys * model.inner() as f64
}

/// The elements of those parameters of layers that are matrices: each of them multiplies every
/// position once.
fn matrix_elements(parameters: &[Parameter]) -> f64 {
    let matrices = parameters.iter().filter(|p| p.is_matrix());
    matrices.map(|p| p.elements() as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_models_cost_six_operations_per_weight_and_position() {
        // One position each way and no decoder to speak of: only the weights are left.
        let model = Model {
            encoder_layers: 100,
            decoder_layers: 1,
            ..Model::default()
        };
        let per_layer = 4 * model.d_model * model.inner() + 3 * model.d_model * model.d_ff;
        let expected = 2.0 * 100.0 * per_layer as f64 * 64.0;
        let ratio = forward_flops(&model, 64, 1) / expected;
        assert!((1.0..1.05).contains(&ratio), "{ratio}");
    }
}
