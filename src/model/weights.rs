//! The parameters: their names, shapes and initializers, and the tree that they form.
//!
//! A parameter is declared once, as a field of its part of the tree. Its name in checkpoints is the
//! path to the field, and its position among the leaves is the position of the field. Counts of
//! parameters and of operations follow from the leaves. The tree is generic in its leaves:
//! declarations ([`Parameter`]), tensors of a program, or one layer's slices of them.

use super::{Initialization, LogicalAxis, Model, TieEmbeddings};

use LogicalAxis::{Buckets, Embed, Heads, Layers, Mlp, Vocab};

/// One parameter, float32; matrices are `[in, out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in checkpoints, `encoder.layers.attention.q` for example.
    pub name: String,
    /// Its dimensions, the layers first where it is stacked.
    pub dims: Vec<i64>,
    /// What the dimensions are.
    pub logical_axes: Vec<LogicalAxis>,
    /// How it starts.
    pub initializer: Initializer,
}

/// The distribution that a parameter is drawn from at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// This number in each element: 1 for the scale of a norm.
    Constant(f64),
    /// N(0, this standard deviation).
    Normal(f64),
    /// U(-this, this).
    Uniform(f64),
}

impl Initializer {
    /// N(0, 1 / `fan`).
    fn scaled(fan: usize) -> Initializer {
        Initializer::Normal((fan as f64).powf(-0.5))
    }
}

impl Parameter {
    /// Whether its leading dimension counts layers, so that rules per tensor hold per slice.
    pub fn is_stacked(&self) -> bool {
        self.logical_axes[0] == Layers
    }

    /// Whether it is a matrix, of each layer where it is stacked.
    pub fn is_matrix(&self) -> bool {
        self.dims.len() == 2 + usize::from(self.is_stacked())
    }

    /// The number of elements.
    pub fn elements(&self) -> i64 {
        self.dims.iter().product()
    }
}

/// A part of the tree, with `T` at its leaves.
pub(super) trait Tree<T> {
    /// The part with other leaves.
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

    /// A part of the same form whose leaves come from `leaves`, which has as many.
    fn filled<U: Clone>(&self, leaves: &[U]) -> Self::With<U> {
        let mut next = leaves.iter();
        self.map(&mut |_| next.next().expect("as many leaves as the tree has").clone())
    }
}

/// A part of the tree with the declarations of a model's parameters at its leaves.
trait Declare {
    fn declare(path: Path<'_>) -> Self;
}

/// A kind of layer of which a model has several.
trait Layer: Declare {
    fn number(model: &Model) -> usize;
}

/// Where in the tree a declaration is.
#[derive(Clone)]
struct Path<'m> {
    model: &'m Model,
    name: String,
    /// How many layers are stacked here.
    layers: Option<usize>,
}

impl Path<'_> {
    fn field(&self, name: &str) -> Self {
        let name = match self.name.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.name),
        };
        Path { name, ..*self }
    }

    fn stacked<L: Layer>(&self) -> L {
        L::declare(Path {
            layers: Some(L::number(self.model)),
            ..self.clone()
        })
    }

    fn leaf(&self, dims: &[(LogicalAxis, usize)], initializer: Initializer) -> Parameter {
        let layers = self.layers.map(|layers| (Layers, layers));
        let dims = || layers.iter().chain(dims);
        Parameter {
            name: self.name.clone(),
            dims: dims().map(|&(_, size)| size as i64).collect(),
            logical_axes: dims().map(|&(axis, _)| axis).collect(),
            initializer,
        }
    }
}

/// Declares a part of the tree. A field is one of
/// - `T = leaf(dims, initializer)`: a parameter;
/// - `Option<T> = optional(present, dims, initializer)`: one that some models have;
/// - `Part<T> = part`: a part that is declared elsewhere;
/// - `L = stacked`: layers, each leaf with one more dimension in front.
macro_rules! tree {
    ($(#[$doc:meta])* $Tree:ident<T $(, $Layer:ident)?>($model:ident) {
        $($(#[$field_doc:meta])* $field:ident: $Type:ty = $kind:ident $(($($declaration:tt)*))?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $Tree<T $(, $Layer)?> {
            $($(#[$field_doc])* pub $field: $Type,)*
        }

        impl<T $(, $Layer: Tree<T>)?> Tree<T> for $Tree<T $(, $Layer)?> {
            type With<U> = $Tree<U $(, $Layer::With<U>)?>;
            fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> Self::With<U> {
                $Tree { $($field: field!(map $kind self.$field, f),)* }
            }
        }

        impl $(<$Layer: Layer>)? Declare for $Tree<Parameter $(, $Layer)?> {
            fn declare(path: Path<'_>) -> Self {
                let $model = path.model;
                $Tree {
                    $($field: field!(
                        declare $kind ($($($declaration)*)?) path.field(stringify!($field))
                    ),)*
                }
            }
        }
    };
}

/// What [`tree`] does with a field of each kind.
macro_rules! field {
    (map leaf $value:expr, $f:ident) => {
        $f(&$value)
    };
    (map optional $value:expr, $f:ident) => {
        $value.as_ref().map(&mut *$f)
    };
    (map part $value:expr, $f:ident) => {
        $value.map($f)
    };
    (map stacked $value:expr, $f:ident) => {
        $value.map($f)
    };

    (declare leaf ($dims:expr, $initializer:expr) $path:expr) => {
        $path.leaf(&$dims, $initializer)
    };
    (declare optional ($present:expr, $dims:expr, $initializer:expr) $path:expr) => {
        ($present).then(|| $path.leaf(&$dims, $initializer))
    };
    (declare part () $path:expr) => {
        Declare::declare($path)
    };
    (declare stacked () $path:expr) => {
        $path.stacked()
    };
}

tree! {
    /// All parameters of a model.
    Weights<T>(model) {
        /// Token embeddings, for both stacks.
        shared: T = leaf([(Vocab, model.vocabulary), (Embed, model.d_model)], Initializer::Normal(1.0)),
        /// The output projection; `None` where it is the embedding table.
        lm_head: Option<T> = optional(
            model.tie_embeddings == TieEmbeddings::Untied,
            [(Embed, model.d_model), (Vocab, model.vocabulary)],
            Initializer::Normal(1.0)
        ),
        /// The encoder.
        encoder: Stack<T, EncoderLayer<T>> = part,
        /// The decoder.
        decoder: Stack<T, DecoderLayer<T>> = part,
    }
}

tree! {
    /// One of the two stacks of layers.
    Stack<T, L>(model) {
        /// Shared by the layers.
        relative_bias: T = leaf(
            [(Buckets, model.relative_buckets), (Heads, model.heads)],
            Initializer::scaled(attention_width(model))
        ),
        /// Its layers, stacked.
        layers: L = stacked,
        /// Of the last layer's output.
        final_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
    }
}

tree! {
    /// An encoder layer.
    EncoderLayer<T>(model) {
        /// Before the attention.
        attention_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
        /// Self-attention.
        attention: Attention<T> = part,
        /// Before the feed-forward layer.
        mlp_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
        /// Feed-forward.
        mlp: FeedForward<T> = part,
    }
}

impl Layer for EncoderLayer<Parameter> {
    fn number(model: &Model) -> usize {
        model.encoder_layers
    }
}

tree! {
    /// A decoder layer.
    DecoderLayer<T>(model) {
        /// Before the self-attention.
        attention_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
        /// Causal self-attention.
        attention: Attention<T> = part,
        /// Before the cross-attention.
        cross_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
        /// Attention to the encoder's states.
        cross: Attention<T> = part,
        /// Before the feed-forward layer.
        mlp_norm: T = leaf([(Embed, model.d_model)], Initializer::Constant(1.0)),
        /// Feed-forward.
        mlp: FeedForward<T> = part,
    }
}

impl Layer for DecoderLayer<Parameter> {
    fn number(model: &Model) -> usize {
        model.decoder_layers
    }
}

tree! {
    /// The projections of an attention.
    Attention<T>(model) {
        /// Queries.
        q: T = leaf(
            [(Embed, model.d_model), (Heads, model.inner())],
            Initializer::scaled(attention_width(model) * model.d_kv)
        ),
        /// Keys.
        k: T = leaf(
            [(Embed, model.d_model), (Heads, model.inner())],
            Initializer::scaled(attention_width(model))
        ),
        /// Values.
        v: T = leaf(
            [(Embed, model.d_model), (Heads, model.inner())],
            Initializer::scaled(attention_width(model))
        ),
        /// Output.
        o: T = leaf(
            [(Heads, model.inner()), (Embed, model.d_model)],
            Initializer::scaled(model.inner())
        ),
    }
}

tree! {
    /// The projections of a feed-forward layer.
    FeedForward<T>(model) {
        /// Into the hidden width.
        wi: FeedForwardInput<T> = part,
        /// Out of it.
        wo: T = leaf(
            [(Mlp, model.d_ff), (Embed, model.d_model)],
            Initializer::scaled(model.d_ff)
        ),
    }
}

/// The projection into the hidden width.
#[derive(Clone, Debug)]
pub enum FeedForwardInput<T> {
    /// Followed by the non-linearity.
    Plain(T),
    /// The first followed by the non-linearity and multiplied with the second.
    Gated(T, T),
}

impl<T> Tree<T> for FeedForwardInput<T> {
    type With<U> = FeedForwardInput<U>;
    fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> FeedForwardInput<U> {
        match self {
            FeedForwardInput::Plain(wi) => FeedForwardInput::Plain(f(wi)),
            FeedForwardInput::Gated(wi_0, wi_1) => FeedForwardInput::Gated(f(wi_0), f(wi_1)),
        }
    }
}

impl Declare for FeedForwardInput<Parameter> {
    fn declare(path: Path<'_>) -> Self {
        let model = path.model;
        let wi = |number: &str| {
            let name = format!("{}{number}", path.name);
            Path { name, ..path }.leaf(
                &[(Embed, model.d_model), (Mlp, model.d_ff)],
                Initializer::scaled(model.d_model),
            )
        };
        match model.activation.is_gated() {
            true => FeedForwardInput::Gated(wi("_0"), wi("_1")),
            false => FeedForwardInput::Plain(wi("")),
        }
    }
}

/// The width that the standard deviations of attention weights follow: in `transformers` the Flax
/// class takes the inner one where the PyTorch class takes the model's.
fn attention_width(model: &Model) -> usize {
    match model.initialization {
        Initialization::Flax => model.inner(),
        Initialization::Pytorch => model.d_model,
    }
}

impl Weights<Parameter> {
    /// The parameters of a model. Standard deviations are those of `transformers`' T5.
    pub fn of(model: &Model) -> Weights<Parameter> {
        Declare::declare(Path {
            model,
            name: String::new(),
            layers: None,
        })
    }
}

impl Model {
    /// How many numbers training adjusts.
    pub fn parameters(&self) -> u64 {
        let parameters = Weights::of(self).leaves();
        let elements = parameters.iter().map(|p| p.elements().unsigned_abs());
        elements.sum()
    }
}

impl<T> Weights<T> {
    /// Applies `f` to the leaves in order.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Weights<U> {
        Tree::map(self, &mut f)
    }

    /// The leaves in order.
    pub fn leaves(&self) -> Vec<T>
    where
        T: Clone,
    {
        Tree::leaves(self)
    }

    /// A tree of the same form whose leaves come from `leaves`, which has as many.
    pub fn filled<U: Clone>(&self, leaves: &[U]) -> Weights<U> {
        Tree::filled(self, leaves)
    }
}
