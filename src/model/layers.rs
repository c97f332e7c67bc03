//! The parts of a layer.

use ankh_hlo::{DType, Tensor};

use super::weights::{Expansion, Mlp};
use crate::config::Activation;

/// RMSNorm without a mean or a bias (Zhang and Sennrich, 2019): `x / rms(x) * weight`. `x` is `[batch, length, embed]`; the
/// mean square is taken in float32.
pub fn rms_norm<'g>(x: Tensor<'g>, weight: Tensor<'g>, epsilon: f64) -> Tensor<'g> {
    let wide = x.convert(DType::F32);
    let scale = (wide.square().mean(&[2]).keep(&[2]) + epsilon).rsqrt();
    ((wide * scale) * weight).convert(x.dtype())
}

/// `x [.., in]` times `w [in, out]` in the element type of `x`.
pub fn project<'g>(x: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
    x.graph().einsum("bld,de->ble", x, w.convert(x.dtype()))
}

/// The feed-forward layer; `x` is `[batch, length, embed]`.
pub fn feed_forward<'g>(p: &Mlp<Tensor<'g>>, x: Tensor<'g>, activation: Activation) -> Tensor<'g> {
    let hidden = match p.wi {
        Expansion::Plain(wi) => nonlinearity(project(x, wi).checkpoint("mlp_hidden"), activation),
        Expansion::Gated(wi_0, wi_1) => {
            let gate = project(x, wi_1).checkpoint("mlp_gate");
            nonlinearity(project(x, wi_0).checkpoint("mlp_hidden"), activation) * gate
        }
    };
    project(hidden.named(&["batch", "length", "mlp"]), p.wo)
}

fn nonlinearity<'g>(x: Tensor<'g>, activation: Activation) -> Tensor<'g> {
    match activation {
        Activation::GatedGelu | Activation::Gelu => gelu(x),
        Activation::GatedSilu | Activation::Silu => x * x.logistic(),
        Activation::Relu => x.maximum(x.like(0.0)),
    }
}

/// GELU's tanh approximation (Hendrycks and Gimpel, 2016), `gelu_new` in Hugging Face's terms.
fn gelu<'g>(x: Tensor<'g>) -> Tensor<'g> {
    let inner = (x + x * x * x * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    x * (inner.tanh() + 1.0) * 0.5
}
