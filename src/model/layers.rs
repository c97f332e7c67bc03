//! The parts of a layer.

use ankh_hlo::{DType, Tensor};

use super::Activation;
use super::LogicalAxis::{self, Batch, Embed, Length, Mlp};
use super::attention::accumulation_dtype;
use super::weights::{FeedForward, FeedForwardInput};

/// RMSNorm without a mean or a bias (Zhang and Sennrich, 2019): `x / rms(x) * weight`. `x` is
/// `[batch, length, embed]`; the mean square is taken in float32.
pub fn rms_norm<'g>(x: Tensor<'g>, weight: Tensor<'g>, epsilon: f64) -> Tensor<'g> {
    let wide = x.convert(DType::F32);
    let scale = (wide.square().mean(&[2]) + epsilon).rsqrt();
    // One number a position saves reading them all again.
    let scale = scale.checkpoint_name("norm_scale").expand_dims(&[2]);
    ((wide * scale) * weight).convert(x.dtype())
}

/// The logical axes of a weight: its input's and its output's.
pub type WeightAxes = [LogicalAxis; 2];

/// `x [batch, length, in]` times `w [in, out]`, whose dimensions are `axes`, in the element type of
/// `x`.
pub fn project<'g>(x: Tensor<'g>, w: Tensor<'g>, axes: WeightAxes) -> Tensor<'g> {
    product(x, w, axes, x.dtype())
}

/// [`project`] with a result of type `to`. The gradient of `w` is computed, and summed over
/// devices, in the type of `w`: where that is wider than the type of `x`, nothing is rounded on the
/// way.
///
/// A weight that is split over the devices that split the batch is gathered for the product, in the
/// type of `x`, and its gradient is scattered again (as in FSDP). Left alone, the partitioner would
/// loop over the shards instead.
pub fn product<'g>(x: Tensor<'g>, w: Tensor<'g>, axes: WeightAxes, to: DType) -> Tensor<'g> {
    let whole = gathered(w, x.dtype(), axes);
    let g = x.graph();
    let y = g.einsum_with("bld,de->ble", x, whole, Some(to));
    y.custom_vjp(&[x, w], &[], move |operands, _, dy| {
        let (x, w) = (operands[0], operands[1]);
        let (g, dy) = (x.graph(), dy.convert(x.dtype()));
        let dx = g.einsum("ble,de->bld", dy, gathered(w, x.dtype(), axes));
        let sums = Some(w.dtype());
        let dw = g.einsum_with("bld,ble->de", x, dy, sums);
        // First the sum over devices, then the shard: asked for the shard of a product, the
        // partitioner loops again.
        vec![
            dx,
            dw.with_logical_axes_except(&[Batch], &axes)
                .with_logical_axes(&axes),
        ]
    })
}

/// A weight, gathered for its product.
fn gathered<'g>(w: Tensor<'g>, dtype: DType, axes: WeightAxes) -> Tensor<'g> {
    w.convert(dtype).with_logical_axes_except(&[Batch], &axes)
}

const TO_MLP: WeightAxes = [Embed, Mlp];
const FROM_MLP: WeightAxes = [Mlp, Embed];

/// The feed-forward layer; `x` is `[batch, length, embed]`.
pub fn feed_forward<'g>(
    p: &FeedForward<Tensor<'g>>,
    x: Tensor<'g>,
    activation: Activation,
) -> Tensor<'g> {
    let hidden = match p.wi {
        FeedForwardInput::Plain(wi) => nonlinearity(
            project(x, wi, TO_MLP).checkpoint_name("mlp_hidden"),
            activation,
        ),
        FeedForwardInput::Gated(wi_0, wi_1) => {
            let gate = project(x, wi_1, TO_MLP).checkpoint_name("mlp_gate");
            nonlinearity(
                project(x, wi_0, TO_MLP).checkpoint_name("mlp_hidden"),
                activation,
            ) * gate
        }
    };
    project(
        hidden.with_logical_axes(&[Batch, Length, Mlp]),
        p.wo,
        FROM_MLP,
    )
}

fn nonlinearity<'g>(x: Tensor<'g>, activation: Activation) -> Tensor<'g> {
    match activation {
        Activation::GatedGelu | Activation::Gelu => gelu(x),
        Activation::GatedSilu | Activation::Silu => x * x.logistic(),
        Activation::Relu => x.maximum(x.full_like(0.0)),
    }
}

/// GELU's tanh approximation (Hendrycks and Gimpel, 2016), `gelu_new` in Hugging Face's terms: `x *
/// share(x)`.
pub fn gelu(x: Tensor<'_>) -> Tensor<'_> {
    let y = (x.convert(accumulation_dtype(x.dtype())) * share(x)).convert(x.dtype());
    // From `x` alone, with two thirds of the operations of the rules:
    // s + x s (1 - s) (2 c x + 2 c 0.044715 x^3)'.
    y.custom_vjp(&[x], &[], |operands, _, dy| {
        let x = operands[0];
        let (s, wide) = (share(x), x.convert(accumulation_dtype(x.dtype())));
        let inner = wide.square() * (6.0 * GELU * 0.044715) + 2.0 * GELU;
        let slope = s + wide * s * (1.0 - s) * inner;
        vec![(dy.convert(wide.dtype()) * slope).convert(x.dtype())]
    })
}

/// sqrt(2 / pi)
const GELU: f64 = 0.797_884_560_802_865_4;

/// (1 + tanh(c (x + 0.044715 x^3))) / 2, at least in float32.
fn share(x: Tensor<'_>) -> Tensor<'_> {
    let x = x.convert(accumulation_dtype(x.dtype()));
    let inner = x * (x.square() * (GELU * 0.044715) + GELU);
    inner.tanh() * 0.5 + 0.5
}
