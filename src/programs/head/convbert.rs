//! One ConvBERT layer (Jiang et al., 2020), as `ConvBertLayer` of transformers computes it: half of
//! the heads attend, the other half are a span-based dynamic convolution.

use ankh_hlo::{DType, PadDim, Tensor};

use super::dropout::{Dropout, Site};
use crate::model::LogicalAxis::{Batch, Embed, Heads, Length};
use crate::model::{Initializer, Parameter};

/// Heads that attend: `num_attention_heads` 4 by `head_ratio` 2.
const HEADS: i64 = 2;

/// Positions that a convolution sees, `conv_kernel_size`.
const KERNEL: i64 = 7;

/// Added to the variance, `layer_norm_eps`.
const EPSILON: f64 = 1e-12;

/// The standard deviation of the first weights, `initializer_range`.
const DEVIATION: f64 = 0.02;

/// The score of a position that is not attended to. Its exponential is 0 in float32, so that
/// padding adds nothing.
const MASKED: f64 = -1e9;

/// The parameters of a layer of `width` d, float32, in order. Matrices are `[in, out]`; the
/// depthwise convolution is `[kernel, d]`. They begin as in transformers: matrices from N(0, 0.02),
/// scales of norms at 1, all else at 0.
pub fn parameters(width: usize) -> Vec<Parameter> {
    let (d, half) = (width as i64, width as i64 / 2);
    let mut all = Vec::new();
    linear_parameters(&mut all, "attention.query", d, half);
    linear_parameters(&mut all, "attention.key", d, half);
    linear_parameters(&mut all, "attention.value", d, half);
    let normal = Initializer::Normal(DEVIATION);
    all.push(parameter(
        "attention.key_conv.depthwise",
        &[KERNEL, d],
        normal,
    ));
    all.push(parameter(
        "attention.key_conv.pointwise",
        &[d, half],
        normal,
    ));
    let zeros = Initializer::Constant(0.0);
    all.push(parameter("attention.key_conv.bias", &[half], zeros));
    linear_parameters(&mut all, "attention.conv_kernel", half, HEADS * KERNEL);
    linear_parameters(&mut all, "attention.conv_out", d, half);
    linear_parameters(&mut all, "attention.output", d, d);
    norm_parameters(&mut all, "attention.norm", d);
    linear_parameters(&mut all, "intermediate", d, half);
    linear_parameters(&mut all, "output", half, d);
    norm_parameters(&mut all, "norm", d);
    all
}

/// A parameter that every device has as a whole.
pub(super) fn parameter(name: &str, dims: &[i64], initializer: Initializer) -> Parameter {
    Parameter {
        name: name.into(),
        dims: dims.to_vec(),
        logical_axes: vec![],
        initializer,
    }
}

fn linear_parameters(all: &mut Vec<Parameter>, name: &str, from: i64, to: i64) {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    all.push(parameter(
        &weight,
        &[from, to],
        Initializer::Normal(DEVIATION),
    ));
    all.push(parameter(&bias, &[to], Initializer::Constant(0.0)));
}

fn norm_parameters(all: &mut Vec<Parameter>, name: &str, width: i64) {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    all.push(parameter(&weight, &[width], Initializer::Constant(1.0)));
    all.push(parameter(&bias, &[width], Initializer::Constant(0.0)));
}

/// The values of [`parameters`], one after the other.
struct Values<'g, 'v>(std::slice::Iter<'v, Tensor<'g>>);

impl<'g> Values<'g, '_> {
    fn next(&mut self) -> Tensor<'g> {
        *self.0.next().expect("as many values as `parameters` lists")
    }

    /// The next two: a linear layer of `x`.
    fn linear(&mut self, x: Tensor<'g>) -> Tensor<'g> {
        let (weight, bias) = (self.next(), self.next());
        linear(x, weight) + bias
    }

    /// The next two: the layer norm of `x`.
    fn norm(&mut self, x: Tensor<'g>) -> Tensor<'g> {
        let (weight, bias) = (self.next(), self.next());
        let centered = x - x.mean(&[2]).expand_dims(&[2]);
        let variance = centered.square().mean(&[2]).expand_dims(&[2]);
        centered * (variance + EPSILON).rsqrt() * weight + bias
    }
}

/// The layer: `states` float32 `[rows, length, d]` to the same shape. `mask` is s32 `[rows,
/// length]`, 0 at padding. `values` are those of [`parameters`], d a multiple of 4.
///
/// What it gives for a residue does not depend on the padded length: it is what transformers gives
/// for the sequence alone. Transformers' own convolutions read what stands at padding. Here the
/// states of padding count as 0, and so does the convolved value of each, which would be its bias:
/// that is how a convolution sees what lies beyond the end of an array.
pub fn layer<'g>(
    values: &[Tensor<'g>],
    states: Tensor<'g>,
    mask: Tensor<'g>,
    dropout: Option<Dropout<'g>>,
) -> Tensor<'g> {
    let mut p = Values(values.iter());
    let is_residue = mask.not_equal(mask.zeros_like());
    let ones = is_residue.convert(DType::F32).expand_dims(&[2]);
    let states = states * ones;
    let attended = mixed_attention(&mut p, states, is_residue, ones, dropout);
    let attended = dropped(p.linear(attended), dropout, Site::AttentionOutput);
    let attended = p.norm(attended + states);
    let hidden = gelu(p.linear(attended));
    let output = dropped(p.linear(hidden), dropout, Site::Output);
    p.norm(output + attended)
}

/// `[rows, length, d]`: the attending heads, then the convolved ones. `is_residue` is `[rows,
/// length]`, `ones` the same as float32 `[rows, length, 1]`.
fn mixed_attention<'g>(
    p: &mut Values<'g, '_>,
    states: Tensor<'g>,
    is_residue: Tensor<'g>,
    ones: Tensor<'g>,
    dropout: Option<Dropout<'g>>,
) -> Tensor<'g> {
    let (g, dims) = (states.graph(), states.dims());
    let (rows, length, width) = (dims[0], dims[1], dims[2]);
    let head = width / 2 / HEADS;
    let per_head = |x: Tensor<'g>| x.reshape(&[rows, length, HEADS, head]);

    let query = p.linear(states);
    let (key, value) = (p.linear(states), p.linear(states));
    let scores = g.einsum("rqhk,rshk->rhqs", per_head(query), per_head(key));
    let scores = scores * (head as f64).powf(-0.5);
    let scores = scores.with_logical_axes(&[Batch, Heads, Length, Length]);
    let seen = is_residue.expand_dims(&[1, 2]);
    let weights = seen.select(scores, scores.full_like(MASKED)).softmax();
    let weights = match dropout {
        Some(dropout) => dropout.of_attention(weights),
        None => weights,
    };
    let attended = g.einsum("rhqs,rshk->rqhk", weights, per_head(value));

    let depthwise = p.next();
    let spans = shifted(states).enumerate().map(|(i, x)| {
        let i = i as i64;
        x * depthwise.slice_dim(0, i, i + 1).reshape(&[width])
    });
    let spans = spans.reduce(|a, b| a + b).expect("a kernel has positions");
    let spans = linear(spans, p.next()) + p.next();
    let kernels = p.linear(spans * query);
    let kernels = kernels.reshape(&[rows, length, HEADS, KERNEL]).softmax();
    let convolved = p.linear(states) * ones;
    let convolved = shifted(convolved).enumerate().map(|(i, x)| {
        let i = i as i64;
        per_head(x) * kernels.slice_dim(3, i, i + 1)
    });
    let convolved = convolved
        .reduce(|a, b| a + b)
        .expect("a kernel has positions");
    g.concatenate(&[attended, convolved], 2).reshape(&dims)
}

/// `x [rows, length, in]` times `weight [in, out]`.
pub(super) fn linear<'g>(x: Tensor<'g>, weight: Tensor<'g>) -> Tensor<'g> {
    let g = x.graph();
    let y = g.einsum("rld,de->rle", x, weight);
    y.with_logical_axes(&[Batch, Length, Embed])
}

/// What the kernel sees of `x [rows, length, ..]`: for each of its positions, `x` moved there,
/// with zeros beyond the ends.
fn shifted<'g>(x: Tensor<'g>) -> impl Iterator<Item = Tensor<'g>> {
    let length = x.dim(1);
    let around = PadDim {
        low: KERNEL / 2,
        high: KERNEL / 2,
        interior: 0,
    };
    let dims = [PadDim::default(), around, PadDim::default()];
    let padded = x.pad(&dims, x.graph().scalar(x.dtype(), 0.0));
    (0..KERNEL).map(move |i| padded.slice_dim(1, i, i + length))
}

fn dropped<'g>(x: Tensor<'g>, dropout: Option<Dropout<'g>>, site: Site) -> Tensor<'g> {
    match dropout {
        Some(dropout) => dropout.of_states(x, site),
        None => x,
    }
}

/// x Phi(x), `gelu` in transformers: with the error function, not the tanh of `gelu_new`.
fn gelu(x: Tensor<'_>) -> Tensor<'_> {
    x * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}
