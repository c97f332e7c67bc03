//! The parameters: their names, shapes, and the distribution they start from; and the tree they form.
//!
//! The tree is generic in what stands at its leaves: descriptions ([`Parameter`]), tensors of a program, or one layer's
//! slices of them. [`Weights::map`] goes from one to the other in a fixed order.

use crate::config::{Initialization, Model, TieEmbeddings};

/// One parameter, float32; matrices are `[in, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in checkpoints, `encoder.layers.attention.q` for example.
    pub name: String,
    /// Its dimensions, the layers first where it is stacked.
    pub dims: Vec<i64>,
    /// What the dimensions are.
    pub logical_axes: Vec<&'static str>,
    /// How it starts.
    pub initializer: Initializer,
}

/// The distribution a parameter starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// Ones: the scale of a norm.
    Ones,
    /// N(0, this standard deviation).
    Normal(f64),
}

impl Parameter {
    /// Whether its leading dimension counts layers, so that rules per tensor hold per slice.
    pub fn is_stacked(&self) -> bool {
        self.logical_axes[0] == "layers"
    }

    /// The number of elements.
    pub fn elements(&self) -> i64 {
        self.dims.iter().product()
    }
}

/// All parameters of a model.
#[derive(Clone, Debug)]
pub struct Weights<T> {
    /// Token embeddings `[vocab, embed]`, for both stacks.
    pub shared: T,
    /// The output projection `[embed, vocab]`; `None` where it is the embedding table.
    pub lm_head: Option<T>,
    /// The encoder.
    pub encoder: Stack<T, EncoderLayer<T>>,
    /// The decoder.
    pub decoder: Stack<T, DecoderLayer<T>>,
}

/// One of the two stacks of layers.
#[derive(Clone, Debug)]
pub struct Stack<T, L> {
    /// `[buckets, heads]`, shared by the layers.
    pub relative_bias: T,
    /// Its layers, stacked.
    pub layers: L,
    /// `[embed]`
    pub final_norm: T,
}

/// An encoder layer.
#[derive(Clone, Debug)]
pub struct EncoderLayer<T> {
    /// `[embed]`
    pub attention_norm: T,
    /// Self-attention.
    pub attention: Attention<T>,
    /// `[embed]`
    pub mlp_norm: T,
    /// Feed-forward.
    pub mlp: Mlp<T>,
}

/// A decoder layer.
#[derive(Clone, Debug)]
pub struct DecoderLayer<T> {
    /// `[embed]`
    pub attention_norm: T,
    /// Causal self-attention.
    pub attention: Attention<T>,
    /// `[embed]`
    pub cross_norm: T,
    /// Attention to the encoder's states.
    pub cross: Attention<T>,
    /// `[embed]`
    pub mlp_norm: T,
    /// Feed-forward.
    pub mlp: Mlp<T>,
}

/// The projections of an attention.
#[derive(Clone, Debug)]
pub struct Attention<T> {
    /// Queries `[embed, heads * kv]`.
    pub q: T,
    /// Keys `[embed, heads * kv]`.
    pub k: T,
    /// Values `[embed, heads * kv]`.
    pub v: T,
    /// Output `[heads * kv, embed]`.
    pub o: T,
}

/// The projections of a feed-forward layer.
#[derive(Clone, Debug)]
pub struct Mlp<T> {
    /// Into the hidden width.
    pub wi: FeedForwardInput<T>,
    /// Out of it: `[mlp, embed]`.
    pub wo: T,
}

/// The projection into the hidden width, `[embed, mlp]`.
#[derive(Clone, Debug)]
pub enum FeedForwardInput<T> {
    /// Followed by the non-linearity.
    Plain(T),
    /// The first followed by the non-linearity and multiplied with the second.
    Gated(T, T),
}

/// Replaces each leaf, in a fixed order.
pub(super) trait Tree<T> {
    /// The tree with other leaves.
    type With<U>;
    /// Applies `f` to the leaves in order.
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Self::With<U>;

    /// The leaves in order.
    fn leaves(&self) -> Vec<T>
    where
        T: Clone,
    {
        let mut out = Vec::new();
        self.map(&mut |leaf: &T| out.push(leaf.clone()));
        out
    }

    /// A tree of the same form whose leaves come from `leaves`, which has as many.
    fn filled<U: Clone>(&self, leaves: &[U]) -> Self::With<U> {
        let mut next = leaves.iter();
        self.map(&mut |_| next.next().expect("as many leaves as the tree has").clone())
    }
}

impl<T> Tree<T> for Attention<T> {
    type With<U> = Attention<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Attention<U> {
        Attention {
            q: f(&self.q),
            k: f(&self.k),
            v: f(&self.v),
            o: f(&self.o),
        }
    }
}

impl<T> Tree<T> for Mlp<T> {
    type With<U> = Mlp<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Mlp<U> {
        let wi = match &self.wi {
            FeedForwardInput::Plain(wi) => FeedForwardInput::Plain(f(wi)),
            FeedForwardInput::Gated(a, b) => FeedForwardInput::Gated(f(a), f(b)),
        };
        Mlp {
            wi,
            wo: f(&self.wo),
        }
    }
}

impl<T> Tree<T> for EncoderLayer<T> {
    type With<U> = EncoderLayer<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> EncoderLayer<U> {
        EncoderLayer {
            attention_norm: f(&self.attention_norm),
            attention: self.attention.map(f),
            mlp_norm: f(&self.mlp_norm),
            mlp: self.mlp.map(f),
        }
    }
}

impl<T> Tree<T> for DecoderLayer<T> {
    type With<U> = DecoderLayer<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> DecoderLayer<U> {
        DecoderLayer {
            attention_norm: f(&self.attention_norm),
            attention: self.attention.map(f),
            cross_norm: f(&self.cross_norm),
            cross: self.cross.map(f),
            mlp_norm: f(&self.mlp_norm),
            mlp: self.mlp.map(f),
        }
    }
}

impl<T> Weights<T> {
    /// Applies `f` to the leaves in order.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Weights<U> {
        let f = &mut f;
        Weights {
            shared: f(&self.shared),
            lm_head: self.lm_head.as_ref().map(&mut *f),
            encoder: Stack {
                relative_bias: f(&self.encoder.relative_bias),
                layers: self.encoder.layers.map(f),
                final_norm: f(&self.encoder.final_norm),
            },
            decoder: Stack {
                relative_bias: f(&self.decoder.relative_bias),
                layers: self.decoder.layers.map(f),
                final_norm: f(&self.decoder.final_norm),
            },
        }
    }

    /// The leaves in order.
    pub fn leaves(&self) -> Vec<T>
    where
        T: Clone,
    {
        let mut out = Vec::new();
        self.map(|leaf| out.push(leaf.clone()));
        out
    }

    /// A tree of the same form whose leaves come from `leaves`, which has as many.
    pub fn filled<U: Clone>(&self, leaves: &[U]) -> Weights<U> {
        let mut next = leaves.iter();
        self.map(|_| next.next().expect("as many leaves as the tree has").clone())
    }
}

impl Weights<Parameter> {
    /// The parameters of a model. Standard deviations are those of `transformers`' T5: the Flax class scales the attention
    /// by the inner width where the PyTorch class uses the model's.
    pub fn of(model: &Model) -> Weights<Parameter> {
        let (d, ff, inner, kv) = (
            model.d_model as i64,
            model.d_ff as i64,
            model.inner() as i64,
            model.d_kv as i64,
        );
        let (vocab, heads) = (model.vocabulary as i64, model.heads as i64);
        let width = match model.initialization {
            Initialization::Flax => inner,
            Initialization::Pytorch => d,
        };
        let root = |n: i64| Initializer::Normal((n as f64).powf(-0.5));
        let plain = |name: &str,
                     dims: Vec<i64>,
                     logical_axes: Vec<&'static str>,
                     initializer: Initializer| Parameter {
            name: name.into(),
            dims,
            logical_axes,
            initializer,
        };
        let bias = |stack: &str| {
            let name = format!("{stack}.relative_bias");
            plain(
                &name,
                vec![model.relative_buckets as i64, heads],
                vec!["buckets", "heads"],
                root(width),
            )
        };
        let norm = |stack: &str| {
            plain(
                &format!("{stack}.final_norm"),
                vec![d],
                vec!["embed"],
                Initializer::Ones,
            )
        };
        let layer = |stack: &'static str, layers: usize| {
            move |name: &str,
                  dims: &[i64],
                  logical_axes: &[&'static str],
                  initializer: Initializer| Parameter {
                name: format!("{stack}.layers.{name}"),
                dims: [layers as i64].iter().chain(dims).copied().collect(),
                logical_axes: ["layers"].iter().chain(logical_axes).copied().collect(),
                initializer,
            }
        };
        type Make<'a> = &'a dyn Fn(&str, &[i64], &[&'static str], Initializer) -> Parameter;
        let layer_norm = |make: Make, name: &str| make(name, &[d], &["embed"], Initializer::Ones);
        let attention = |make: Make, name: &str| Attention {
            q: make(
                &format!("{name}.q"),
                &[d, inner],
                &["embed", "heads"],
                root(width * kv),
            ),
            k: make(
                &format!("{name}.k"),
                &[d, inner],
                &["embed", "heads"],
                root(width),
            ),
            v: make(
                &format!("{name}.v"),
                &[d, inner],
                &["embed", "heads"],
                root(width),
            ),
            o: make(
                &format!("{name}.o"),
                &[inner, d],
                &["heads", "embed"],
                root(inner),
            ),
        };
        let mlp = |make: Make| {
            let wi = |name: &str| make(name, &[d, ff], &["embed", "mlp"], root(d));
            Mlp {
                wi: if model.activation.is_gated() {
                    FeedForwardInput::Gated(wi("mlp.wi_0"), wi("mlp.wi_1"))
                } else {
                    FeedForwardInput::Plain(wi("mlp.wi"))
                },
                wo: make("mlp.wo", &[ff, d], &["mlp", "embed"], root(ff)),
            }
        };
        let encoder = layer("encoder", model.encoder_layers);
        let decoder = layer("decoder", model.decoder_layers);
        Weights {
            shared: plain(
                "shared",
                vec![vocab, d],
                vec!["vocab", "embed"],
                Initializer::Normal(1.0),
            ),
            lm_head: (model.tie_embeddings == TieEmbeddings::Untied).then(|| {
                plain(
                    "lm_head",
                    vec![d, vocab],
                    vec!["embed", "vocab"],
                    Initializer::Normal(1.0),
                )
            }),
            encoder: Stack {
                relative_bias: bias("encoder"),
                layers: EncoderLayer {
                    attention_norm: layer_norm(&encoder, "attention_norm"),
                    attention: attention(&encoder, "attention"),
                    mlp_norm: layer_norm(&encoder, "mlp_norm"),
                    mlp: mlp(&encoder),
                },
                final_norm: norm("encoder"),
            },
            decoder: Stack {
                relative_bias: bias("decoder"),
                layers: DecoderLayer {
                    attention_norm: layer_norm(&decoder, "attention_norm"),
                    attention: attention(&decoder, "attention"),
                    cross_norm: layer_norm(&decoder, "cross_norm"),
                    cross: attention(&decoder, "cross"),
                    mlp_norm: layer_norm(&decoder, "mlp_norm"),
                    mlp: mlp(&decoder),
                },
                final_norm: norm("decoder"),
            },
        }
    }
}
